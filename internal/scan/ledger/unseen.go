package ledger

import (
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// view tells what a scan could see.
type view struct {
	nothing     bool // nobody can tell what it could
	everything  bool
	dirs, files []string // patterns that were left out
	failed      []string // paths, sorted
	database    bool     // the packages of the system could be seen
}

// databases are where systems keep what packages they have, and what system they
// are. What is found without a path follows from these.
func databases() []string {
	return []string{
		"var/lib/dpkg/status", "var/lib/dpkg/status.d", "var/lib/dpkg/info", "lib/apk/db/installed", "usr/lib/apk/db/installed",
		"var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm", "etc/os-release", "usr/lib/os-release",
	}
}

func newView(o *Observation) *view {
	u := &o.Unseen
	v := &view{dirs: patterns(u.SkipDirs), files: patterns(u.SkipFiles)}
	for _, p := range u.Paths {
		if p = cleanPath(p); p == "" {
			v.nothing = true
		}
		v.failed = append(v.failed, p)
	}
	sort.Strings(v.failed)
	// A scan that failed somewhere, and doesn't say where, may have failed anywhere.
	v.nothing = v.nothing || u.All || !o.Complete && len(v.failed) == 0 || len(v.failed)+len(v.dirs)+len(v.files) > MaxUnseen
	for _, p := range slices.Concat(v.dirs, v.files) {
		v.nothing = v.nothing || !doublestar.ValidatePattern(p)
	}
	v.everything = !v.nothing && len(v.dirs)+len(v.files)+len(v.failed) == 0
	v.database = !slices.ContainsFunc(databases(), v.blind)
	return v
}

// patterns brings patterns into the form in which a scan matches them with paths:
// one that means more to the scan than here would have items resolved that it was
// told not to look at.
func patterns(list []string) (out []string) {
	for _, p := range list {
		if p = strings.TrimLeft(path.Clean(p), "/"); p != "" {
			out = append(out, p)
		}
	}
	return out
}

// blind reports whether the scan could not see a path.
func (v *view) blind(path string) bool {
	switch {
	case v.nothing:
		return true
	case v.everything:
		return false
	}
	// What lies in a program or an archive has the path of it before its own.
	if i := sort.SearchStrings(v.failed, path+"/"); i < len(v.failed) && strings.HasPrefix(v.failed[i], path+"/") {
		return true
	}
	for at := path; ; {
		if i := sort.SearchStrings(v.failed, at); i < len(v.failed) && v.failed[i] == at {
			return true
		}
		leftOut := func(p string) bool { return doublestar.MatchUnvalidated(p, at) }
		if slices.ContainsFunc(v.dirs, leftOut) || slices.ContainsFunc(v.files, leftOut) {
			return true
		}
		i := strings.LastIndexByte(at, '/')
		if i < 0 {
			return false
		}
		at = at[:i]
	}
}

// missed returns those paths of a sighting that the scan could not see. all says
// that it could see none of the places where it was, so that it being gone from
// this scan means nothing.
func (v *view) missed(s *Sighting) (paths []string, all bool) {
	switch {
	case v.everything:
		return nil, false
	case v.nothing:
		return s.Paths, true
	case len(s.Paths) == 0:
		return nil, !v.database
	}
	for _, p := range s.Paths {
		if v.blind(p) {
			paths = append(paths, p)
		}
	}
	return paths, len(paths) == len(s.Paths) || s.MorePaths > 0
}
