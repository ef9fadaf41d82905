package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxAttributes bounds the names of the extended attributes of one file, and one
// value, in bytes: those of the kernel.
const maxAttributes = 64 << 10

// takeAfter gives a new file or directory the extended attributes of the one in
// whose place it comes: access control lists, capabilities, labels. Modes alone
// would give more than the list did, for beside a list the bits of the group are
// a mask. So the list has to be taken over, and the others are where that is
// possible. Whoever calls it sets the owner before, which takes capabilities
// away, and the mode afterwards.
func takeAfter(to, from *os.File) error {
	fail := func(op string, f *os.File, err error) error { return &fs.PathError{Op: op, Path: f.Name(), Err: err} }
	n, err := unix.Flistxattr(int(from.Fd()), nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil
	} else if err != nil {
		return fail("listxattr", from, err)
	}
	names := make([]byte, maxAttributes)
	if n, err = unix.Flistxattr(int(from.Fd()), names); err != nil {
		return fail("listxattr", from, err)
	}
	var value []byte
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		list := strings.HasPrefix(name, "system.posix_acl_")
		if value == nil {
			value = make([]byte, maxAttributes)
		}
		size, err := unix.Fgetxattr(int(from.Fd()), name, value)
		if err == nil {
			err = unix.Fsetxattr(int(to.Fd()), name, value[:size], 0)
		}
		if err != nil && (list || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EIO)) {
			return fail("setxattr "+name, to, err)
		}
	}
	return nil
}

// dressTop gives the tree owner, mode and attributes of the one that it was made
// from: there is no entry for it. One that was made from nothing is for all.
func (s *stage) dressTop() error {
	top, err := os.Open(s.tree.path)
	if err != nil {
		return err
	}
	defer top.Close()
	if s.base.dir == nil {
		return top.Chmod(0o755)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(s.base.dir.Fd()), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: s.base.tree, Err: err}
	}
	if err := unix.Fchown(int(top.Fd()), int(st.Uid), int(st.Gid)); err != nil {
		return &fs.PathError{Op: "chown", Path: s.tree.path, Err: err}
	}
	if err := takeAfter(top, s.base.dir); err != nil {
		return err
	}
	if err := unix.Fchmod(int(top.Fd()), st.Mode&0o7777); err != nil {
		return &fs.PathError{Op: "chmod", Path: s.tree.path, Err: err}
	}
	return nil
}

// dressDir gives a directory its owner and mode, and the attributes of the one
// of that name in the base.
func (s *stage) dressDir(e *Entry) error {
	t := s.tree
	if t.reachable {
		return s.dressReachable(e)
	}
	if e.UID != uint32(os.Geteuid()) || e.GID != uint32(os.Getegid()) {
		if err := unix.Fchownat(t.fd, e.Path, int(e.UID), int(e.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return t.fail("chown", e.Path, err)
		}
	}
	if s.base.present.kind(e.Path) == Dir {
		if err := s.dirTakesAfter(e.Path); err != nil {
			return err
		}
	}
	if err := unix.Fchmodat(t.fd, e.Path, e.Mode, 0); err != nil {
		return t.fail("chmod", e.Path, err)
	}
	return nil
}

// dressReachable is dressDir where the name may lead elsewhere a moment later: so
// all is done to the directory that is opened.
func (s *stage) dressReachable(e *Entry) error {
	t := s.tree
	fd, err := openBeneath(t.fd, e.Path)
	if err != nil {
		return t.fail("open", e.Path, err)
	}
	dir := os.NewFile(uintptr(fd), filepath.Join(t.path, e.Path))
	defer dir.Close()
	if st, err := dir.Stat(); err != nil {
		return err
	} else if !st.IsDir() {
		return t.fail("open", e.Path, unix.ENOTDIR)
	}
	if err := unix.Fchown(fd, int(e.UID), int(e.GID)); err != nil {
		return t.fail("chown", e.Path, err)
	}
	if s.base.present.kind(e.Path) == Dir {
		if err := s.dirTakesAfter(e.Path); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(fd, e.Mode); err != nil {
		return t.fail("chmod", e.Path, err)
	}
	return nil
}

func (s *stage) dirTakesAfter(name string) error {
	from, err := openBeneath(int(s.base.dir.Fd()), name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) { // another one since it was read
		return nil
	} else if err != nil {
		return &fs.PathError{Op: "open", Path: filepath.Join(s.base.tree, name), Err: err}
	}
	model := os.NewFile(uintptr(from), filepath.Join(s.base.tree, name))
	defer model.Close()
	to, err := openBeneath(s.tree.fd, name)
	if err != nil {
		return s.tree.fail("open", name, err)
	}
	dir := os.NewFile(uintptr(to), filepath.Join(s.tree.path, name))
	defer dir.Close()
	return takeAfter(dir, model)
}
