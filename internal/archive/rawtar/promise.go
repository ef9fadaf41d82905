package rawtar

import (
	"fmt"
	"path"
	"strings"
	"time"
	"unicode/utf8"
)

// Broken returns what is wrong with an entry that a reader of archives let pass, by
// what package archive promises of every one: its name, where it points, whether it is
// one that may point somewhere, and its time. Nil: nothing.
func Broken(name, link string, symlink bool, modTime time.Time) error {
	outside := func(p string) bool { return path.IsAbs(p) || p == ".." || strings.HasPrefix(p, "../") }
	switch {
	case name == "" || path.Clean(name) != name || outside(name) || !utf8.ValidString(name) || strings.ContainsAny(name, "\x00\n\\"):
		return fmt.Errorf("the name %q", name)
	case symlink && (path.IsAbs(link) || outside(path.Join(path.Dir(name), link)) || parentAfterName(link)):
		return fmt.Errorf("%q points to %q", name, link)
	case !symlink && link != "":
		return fmt.Errorf("%q has a target", name)
	case modTime.Unix() < 0 || modTime.Year() > 9999:
		return fmt.Errorf("%q: %v", name, modTime)
	}
	return nil
}

// parentAfterName reports whether a link goes up again after it went down: through
// another link that leads elsewhere than it seems.
func parentAfterName(link string) bool {
	name := false
	for part := range strings.SplitSeq(link, "/") {
		if part == ".." && name {
			return true
		}
		name = name || part != "" && part != "." && part != ".."
	}
	return false
}
