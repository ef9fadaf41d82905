// Package packages tells which package of the system a file belongs to and
// what its package manager recorded of it: dpkg, rpm and apk databases, and
// the .deb, .rpm and .apk files themselves.
//
// A Set reads the databases below a root directory, without the tools of the
// package managers and without ever writing. It answers for a few paths
// (Lookup), goes through all of them (Each), or makes a snapshot that is kept
// beside a baseline (Owners). Archives answers the same for package files that
// the admin has, which root on the host may not have been able to write.
//
// Paths are absolute and are bytes. What the packages call /bin/sh is
// /usr/bin/sh on a system whose /bin is a link, and the other way round; both
// names are understood (see aliases). dpkg's diversions are followed: what is
// asked for and what is returned is where a file really is.
//
// Everything is opened beneath a handle of the root with RESOLVE_IN_ROOT, so
// that links in an image lead nowhere else. Databases are data that others
// wrote: sizes are bounded, what is malformed is an error that names file and
// line or offset (CorruptError). What is malformed in one package alone does
// not keep the others from being known; Problems has it.
//
// Digests of a database prove nothing to somebody who fears root: root can
// write them as well as the files. "Consistent with the package database" is
// all they can tell.
//
// Sources: dpkg(1), dpkg-query(1), deb(5), deb-md5sums(5), deb-conffiles(5),
// dpkg-divert(1), dpkg-statoverride(1), update-alternatives(1); the formats of
// rpm's header and its databases (rpm.org, manual/format.md and lib/backend);
// apk-installed(5), apk-package(5); sqlite.org/fileformat2.html.
package packages

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"

	"github.com/mobileops/mobileops/internal/failure"
)

// Manager is a package manager.
type Manager string

// The managers whose databases are read.
const (
	Dpkg Manager = "dpkg"
	RPM  Manager = "rpm"
	APK  Manager = "apk"
)

// Package is a package in one version.
type Package struct {
	Manager Manager `json:"manager"`
	Name    string  `json:"name"`
	Version string  `json:"version"` // as the manager compares it: epoch:version-revision
	Arch    string  `json:"arch"`
}

// String returns "openssl 3.0.1-1 (dpkg)", and nothing for no package.
func (p Package) String() string {
	if p == (Package{}) {
		return ""
	}
	return fmt.Sprintf("%s %s (%s)", p.Name, p.Version, p.Manager)
}

// Digest is what a database or an archive records of a file's content. The
// zero Digest is that nothing is recorded.
type Digest struct {
	Algorithm string // "md5", "sha1", "sha224", "sha256", "sha384" or "sha512"
	Sum       []byte
}

// IsZero reports whether no digest is recorded.
func (d Digest) IsZero() bool { return len(d.Sum) == 0 }

// New returns the hash that computes such a digest, and nil for none.
func (d Digest) New() hash.Hash {
	switch d.Algorithm {
	case "md5":
		return md5.New()
	case "sha1":
		return sha1.New()
	case "sha224":
		return sha256.New224()
	case "sha256":
		return sha256.New()
	case "sha384":
		return sha512.New384()
	case "sha512":
		return sha512.New()
	}
	return nil
}

// Equal reports whether sum is the recorded digest; nothing equals none.
func (d Digest) Equal(sum []byte) bool { return !d.IsZero() && bytes.Equal(d.Sum, sum) }

// String returns "sha256:" and hexadecimal digits, and "none" for none.
func (d Digest) String() string {
	if d.IsZero() {
		return "none"
	}
	return d.Algorithm + ":" + hex.EncodeToString(d.Sum)
}

// File is what a database or an archive knows of one path.
type File struct {
	Package Package
	// Digest is that of the content. Of a symbolic link apk records that of
	// its target; the others record none of what is no regular file.
	Digest   Digest
	Conffile bool // a configuration file that the admin may change: dpkg conffile, rpm %config, apk protected path
	Ghost    bool // rpm %ghost: may be missing or have any content
	// Mode is st_mode where one is recorded, else nil. rpm and archives have
	// type and permissions; apk and dpkg-statoverride permissions alone.
	Mode         *uint32
	Owner, Group string // names where recorded, "#" and a number where that is recorded, else ""
	LinkTarget   string // of a symbolic link, where recorded
	// Alternative is a link that update-alternatives manages: LinkTarget is
	// where it leads according to its records, and Package the one that has
	// the chosen file, if any has.
	Alternative bool
	// Recorded is the path under which the package, and so its archive, knows
	// the file, when that is another one: of a diverted file.
	Recorded string
}

// ErrDamaged is wrapped by the errors about databases and archives that are
// not what their format says.
var ErrDamaged = failure.New(failure.Untrustworthy, "package database is damaged")

// ErrUnsupported is wrapped by the errors about formats that are not read.
var ErrUnsupported = failure.New(failure.NotReady, "package format is not supported")

// CorruptError says where a database or an archive is malformed.
type CorruptError struct {
	File   string // its path, below the root where there is one
	Line   int    // counted from 1; 0: Offset counts
	Offset int64  // in bytes, -1: unknown
	Reason string
}

func (e *CorruptError) Error() string {
	switch {
	case e.Line > 0:
		return fmt.Sprintf("%s: line %d: %s", e.File, e.Line, e.Reason)
	case e.Offset >= 0:
		return fmt.Sprintf("%s: offset %d: %s", e.File, e.Offset, e.Reason)
	}
	return fmt.Sprintf("%s: %s", e.File, e.Reason)
}

func (e *CorruptError) Unwrap() error { return ErrDamaged }
