// Package pack reads and builds packages of updates: tar archives, packed with
// zstd or gzip, that hold a tree or the part of one that changes. It says what
// is in a package and proves that all of it arrived; it never touches a file,
// and knows nothing of signatures, which lie beside a package and are checked
// by whoever reads it.
//
// A package comes from outside, and is read before anybody has vouched for it
// (its signature can be checked only when its last byte was seen). So what
// package archive refuses is refused here, by the same *archive.Error, and
// beside it what a package of an update must not have: setuid bits that its
// manifest does not list, links that leave a data directory, hooks that are
// not there. Reader.Next says io.EOF only when all of it has been seen.
//
// The format, the limits and the codes are in docs/formats/package.md.
package pack

import "github.com/mobileops/mobileops/internal/archive"

// MetaDir is the directory of a package that is never part of the installed
// tree: the manifest and the hooks.
const MetaDir = ".mobileops"

// ManifestName is the name of the manifest, the first entry of a package that
// has one.
const ManifestName = MetaDir + "/package.yaml"

// HooksDir is where the hooks of a package lie.
const HooksDir = MetaDir + "/hooks"

// CodeDataPath says that a data directory is a file or link, or that a link
// leaves one. It is the one code that packages of updates have beside those of
// package archive.
const CodeDataPath archive.Code = "data-path"

// Codes lists every code by which a package is refused.
func Codes() []archive.Code { return append(archive.Codes(), CodeDataPath) }

// advice is what the operator does next where an update has more to say than
// any archive.
func advice(c archive.Code) string {
	switch c {
	case archive.CodeSetID:
		return "the manifest's setuid list names such files and their exact modes; ask the publisher to build it again"
	case archive.CodeManifest:
		return "correct " + ManifestName + ", or ask the publisher to"
	}
	return ""
}

// RefuseManifest makes the error of a package that says something wrong of
// itself.
func RefuseManifest(err error) *archive.Error { return refuseManifest(ManifestName, err) }

// refuseManifest is RefuseManifest about what the manifest says of an entry.
func refuseManifest(entry string, err error) *archive.Error {
	return &archive.Error{Code: archive.CodeManifest, Entry: entry, Advice: advice(archive.CodeManifest), Err: err}
}

// Entry is one thing in a package. The manifest and .mobileops itself are none.
type Entry struct {
	archive.Entry
	// Meta is set for what lies beneath .mobileops/: it is not part of the
	// tree.
	Meta bool
}
