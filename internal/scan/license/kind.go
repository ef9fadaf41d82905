package license

import (
	"path"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// KindOf tells by the name of a file what kind of notice it is, "" when it is none.
// The path is relative to the target, with slashes.
//
// Licences have many names: LICENSE, LICENCE.md, LICENSE-MIT, COPYING.LESSER,
// MIT-LICENSE.txt, LICENSES/GPL-2.0-only.txt (REUSE), UNLICENSE, debian/copyright.
func KindOf(name string) protocol.NoticeKind {
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	if base == "copyright" && (path.Base(dir) == "debian" || strings.HasPrefix(name, "usr/share/doc/") && strings.Count(name, "/") == 4) {
		return protocol.NoticeCopyright
	}
	if dir == "usr/share/common-licenses" {
		return protocol.NoticeCommon
	}
	stem, ok := textStem(base)
	if !ok {
		return ""
	}
	switch {
	case hasWord(stem, "LICENSE", "LICENCE", "LICENSES", "LICENCES", "COPYING", "COPYRIGHT", "COPYRIGHTS", "UNLICENSE", "UNLICENCE", "EULA", "COPYLEFT"):
		return protocol.NoticeLicense
	case hasWord(stem, "NOTICE", "NOTICES", "THIRDPARTYNOTICES", "THIRDPARTYNOTICE", "ATTRIBUTION", "ATTRIBUTIONS", "PATENTS"):
		return protocol.NoticeNotice
	case stem == "AUTHORS":
		return protocol.NoticeNotice
	}
	// REUSE: one text for each licence, named after it. Python's wheels have a
	// directory of texts too, and so do distributions.
	switch path.Base(dir) {
	case "LICENSES":
		return protocol.NoticeLicense
	case "licenses":
		if strings.HasSuffix(path.Dir(dir), ".dist-info") {
			return protocol.NoticeLicense
		}
	}
	if strings.HasPrefix(name, "usr/share/licenses/") {
		return protocol.NoticeLicense
	}
	return ""
}

// textStem returns the name in capitals without an extension of text, and false
// when the extension says that it is something else, such as a program.
func textStem(base string) (string, bool) {
	ext := path.Ext(base)
	stem := strings.ToUpper(strings.TrimSuffix(base, ext))
	switch strings.ToLower(ext) {
	case "", ".txt", ".text", ".md", ".markdown", ".rst", ".adoc", ".html", ".htm":
		return stem, stem != ""
	}
	// COPYING.LESSER, LICENSE.MIT, LICENSE.apache-2.0, LICENSE.BSD3
	rest := strings.ToUpper(ext[1:])
	if first, _, ok := strings.Cut(base, "."); ok {
		// Go, JSON, Ruby and Python are names of licences too.
		name := base[len(first)+1:]
		if e := known(name); e != nil && (name == strings.ToUpper(name) || strings.ContainsAny(name, "-0123456789") || slices.Contains([]string{"mit", "bsd", "gpl", "lgpl", "agpl", "apache", "isc", "zlib", "mpl", "boost", "gfdl", "epl"}, name)) {
			return strings.ToUpper(first), true
		}
	}
	if slices.Contains([]string{"LESSER", "LIB", "RUNTIME", "DOC", "DOCS", "BSD3", "BSD2", "AL20", "GPLV2", "GPLV3", "CODE", "OLD", "ORIG", "EXAMPLES", "THIRDPARTY", "THIRD_PARTY", "3RDPARTY"}, rest) {
		return stem, true
	}
	return "", false
}

// hasWord reports whether a name begins or ends with one of the words, set off from
// the rest by something that is no letter: LICENSE-MIT, COPYING3, MIT_LICENSE, but
// not LICENSED.
func hasWord(stem string, words ...string) bool {
	joined := strings.NewReplacer("-", "", "_", "", " ", "").Replace(stem)
	for _, w := range words {
		if stem == w || joined == w {
			return true
		}
		if rest, ok := strings.CutPrefix(stem, w); ok && !isLetter(rest[0]) {
			return true
		}
		if rest, ok := strings.CutSuffix(stem, w); ok && !isLetter(rest[len(rest)-1]) {
			return true
		}
	}
	return false
}

func isLetter(c byte) bool { return 'A' <= c && c <= 'Z' }
