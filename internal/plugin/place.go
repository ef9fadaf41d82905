package plugin

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
)

// makeDirs makes the directories that everything of a plugin is in, and looks
// that nobody else can change what is in them.
func (e *Engine) makeDirs(name string) error {
	for _, d := range []struct {
		dir  string
		mode fs.FileMode
	}{
		{e.opts.Dir, 0o711},
		{filepath.Join(e.opts.Dir, "installed"), 0o755},
		{filepath.Join(e.opts.Dir, "data"), 0o711},
		{e.installedDir(name), 0o755},
	} {
		if err := durable.MkdirAll(d.dir, d.mode); err != nil {
			return err
		}
		info, err := os.Stat(d.dir)
		if err != nil {
			return err
		}
		// A process that died had made it, and not come to its mode: accounts of
		// plugins could not go through.
		if os.Geteuid() == 0 && info.Mode().Perm()&0o011 != 0o011 {
			if err := os.Chmod(d.dir, info.Mode().Perm()|0o011); err != nil {
				return err
			}
		}
	}
	return e.checkPlaces(name)
}

// checkPlaces refuses to use directories in which others could put something
// else in the place of a package, after it was proved and before it is started,
// or of the data of a plugin.
func (e *Engine) checkPlaces(name string) error {
	for _, dir := range []string{e.installedDir(name), filepath.Join(e.opts.Dir, "data")} {
		if err := checkPlace(dir); err != nil {
			return err
		}
	}
	return nil
}

// checkPlace looks at a directory and all above it, as they are written and as
// links on the way lead.
func checkPlace(dir string) error {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return err
	}
	for _, start := range slices.Compact([]string{abs, real}) {
		for p := start; ; p = filepath.Dir(p) {
			info, err := os.Lstat(p)
			if err != nil {
				return err
			}
			if err := checkHands(p, info, p != real); err != nil {
				return err
			}
			if p == filepath.Dir(p) {
				break
			}
		}
	}
	return nil
}

// checkHands refuses what others than root or who runs this can change. In a
// directory above with the sticky bit, such as /tmp, others cannot rename what
// is not theirs.
func checkHands(path string, info fs.FileInfo, above bool) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: its owner is not known", path)
	}
	if st.Uid != 0 && int64(st.Uid) != int64(os.Geteuid()) {
		return failure.Hint(failure.Errorf(failure.Untrustworthy, "%s belongs to user %d, who could put other programs in the place of plugins", path, st.Uid),
			fmt.Sprintf("look at what is in there, then: chown %d %s; or name another directory with plugin.dir", os.Geteuid(), path))
	}
	mode := info.Mode()
	switch {
	case mode&fs.ModeSymlink != 0: // its mode says nothing, its directory is looked at
	case above && mode&fs.ModeSticky != 0:
	case mode.Perm()&0o002 != 0, mode.Perm()&0o020 != 0 && st.Gid != 0:
		return failure.Hint(failure.Errorf(failure.Untrustworthy, "others may write to %s (mode %04o), and put other programs in the place of plugins", path, mode.Perm()),
			"look at what is in there, then: chmod go-w "+path)
	}
	return nil
}
