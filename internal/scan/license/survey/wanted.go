package survey

import (
	"path"
	"strings"

	"github.com/mobileops/mobileops/internal/scan/license"
)

// Wanted reports whether a file is looked at, by its path relative to the target,
// with slashes.
func Wanted(name string) bool {
	return license.KindOf(name) != "" || trivyWants(name)
}

// trivyWants reports whether Trivy's license-file analyzer looks at a file: source
// files and texts by their extension, and three names, outside of directories whose
// packages it knows by other means.
func trivyWants(name string) bool {
	if ofPackage(name) {
		return false
	}
	switch strings.ToLower(path.Ext(name)) {
	case ".asp", ".aspx", ".b", ".bas", ".bat", ".c", ".cgi", ".cs", ".css", ".cue", ".fish", ".h", ".html", ".ini", ".java", ".js", ".jsx", ".markdown", ".md",
		".php", ".pl", ".py", ".r", ".rb", ".sh", ".sql", ".ts", ".tsx", ".txt", ".vue", ".zsh":
		return true
	}
	switch strings.ToLower(path.Base(name)) {
	case "license", "licence", "copyright":
		return true
	}
	return false
}

// ofPackage reports whether a path has a part by which Trivy leaves it to the
// analyzers of packages. Their licences are found there, but not their texts.
func ofPackage(name string) bool {
	for _, part := range []string{
		"node_modules/", "usr/share/doc/", "usr/lib", "usr/local/include", "usr/include", "usr/local/go", "opt/yarn", "usr/src/wordpress",
	} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// isText reports whether the first bytes of a file are those of a text: the test of
// file(1), which Trivy uses too.
func isText(content []byte) bool {
	for _, b := range content[:min(len(content), 300)] {
		if b < 7 || b == 11 || 13 < b && b < 27 || 27 < b && b < 0x20 || b == 0x7f {
			return false
		}
	}
	return true
}
