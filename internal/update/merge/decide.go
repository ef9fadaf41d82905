package merge

import (
	"bytes"
	"io/fs"
	"strings"
)

// File is one version of a file. A nil *File is a version in which the path
// does not exist.
type File struct {
	Content []byte      // for a symbolic link, what it points to
	Mode    fs.FileMode // type and permissions, with setuid, setgid and sticky bits
}

// Decision is what becomes of a path.
type Decision struct {
	Result        // Content is that of File; nothing when File is nil
	File    *File // what is to lie at the path from now on; nil: nothing
	Aside   *File // with Conflicted: what the new package has, for NAME.mobileops-new; nil: it has no such file
	Removed bool  // the path goes away here
}

// Decide says what becomes of the path name, of which base is what the package
// delivered last, mine what lies here, and theirs what the new package has.
// They are regular files or symbolic links; only regular files are merged.
//
//	base  mine      theirs      result
//	-     -         -           nothing (unchanged)
//	-     -         added       theirs (took-theirs)
//	-     added     -           mine (kept-mine)
//	-     added     same        mine (unchanged)
//	-     added     other       conflict
//	yes   same      same        mine (unchanged)
//	yes   same      changed     theirs (took-theirs)
//	yes   same      deleted     nothing (took-theirs, Removed)
//	yes   changed   same        mine (kept-mine)
//	yes   changed   changed     equal: unchanged; else merged or conflict
//	yes   changed   deleted     conflict: mine stays
//	yes   deleted   same        nothing (kept-mine)
//	yes   deleted   changed     conflict: nothing, theirs is laid aside
//	yes   deleted   deleted     nothing (unchanged)
//
// "Same" is content, type and mode. Content and mode are merged each on its
// own: a file that was edited here keeps the edit and gets the new mode. Modes
// that both sides changed in different ways are a conflict, and so are
// different types of which both are new. The name tells which syntax a merged
// file has to be in: .json, .yaml and .yml are checked.
func Decide(name string, base, mine, theirs *File) Decision {
	switch {
	case same(mine, theirs):
		return decided(Unchanged, mine, false)
	case same(base, mine):
		return decided(TookTheirs, theirs, theirs == nil)
	case same(base, theirs):
		return decided(KeptMine, mine, false)
	case mine == nil:
		return refuse(mine, theirs, "deleted here, and changed by the package")
	case theirs == nil:
		return refuse(mine, theirs, "changed here, and deleted by the package")
	case base == nil:
		return refuse(mine, theirs, "added here, and another one by the package")
	case base.Mode.Type() != 0 || mine.Mode.Type() != 0 || theirs.Mode.Type() != 0:
		return refuse(mine, theirs, "changed on both sides, and not a regular file on all of them")
	}
	mode, ok := mergeModes(base.Mode, mine.Mode, theirs.Mode)
	if !ok {
		return refuse(mine, theirs, "its mode was changed on both sides, here to "+octal(mine.Mode)+", by the package to "+octal(theirs.Mode))
	}
	r := Merge(base.Content, mine.Content, theirs.Content)
	if r.Clean && r.Outcome == Merged {
		if why := breaks(name, mine.Content, theirs.Content, r.Content); why != "" {
			r = conflict(mine.Content, why)
		}
	}
	if !r.Clean {
		return Decision{Result: r, File: mine, Aside: theirs}
	}
	file := &File{Content: r.Content, Mode: mode}
	switch {
	case same(file, mine):
		r.Outcome = KeptMine
	case same(file, theirs):
		r.Outcome = TookTheirs
	default:
		r.Outcome = Merged
	}
	return Decision{Result: r, File: file}
}

func decided(o Outcome, file *File, removed bool) Decision {
	d := Decision{Result: Result{Clean: true, Outcome: o}, File: file, Removed: removed}
	if file != nil {
		d.Content = file.Content
	}
	return d
}

func refuse(mine, theirs *File, reason string) Decision {
	d := decided(Conflicted, mine, false)
	d.Clean, d.Reason, d.Aside = false, reason, theirs
	return d
}

func same(a, b *File) bool {
	if a == nil || b == nil {
		return a == b
	}
	// The permissions of a symbolic link are those of no file at all.
	if a.Mode&fs.ModeSymlink != 0 && b.Mode&fs.ModeSymlink != 0 {
		return bytes.Equal(a.Content, b.Content)
	}
	return a.Mode == b.Mode && bytes.Equal(a.Content, b.Content)
}

// mergeModes takes the mode that was changed, and false when both were, in
// different ways.
func mergeModes(base, mine, theirs fs.FileMode) (fs.FileMode, bool) {
	switch {
	case mine == theirs, theirs == base:
		return mine, true
	case mine == base:
		return theirs, true
	}
	return 0, false
}

// octal writes a mode as chmod(1) takes it.
func octal(m fs.FileMode) string {
	n := uint32(m.Perm())
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if m&flag != 0 {
			n |= bit
		}
	}
	var b strings.Builder
	for shift := 9; shift >= 0; shift -= 3 {
		b.WriteByte(byte('0' + n>>shift&7))
	}
	return b.String()
}
