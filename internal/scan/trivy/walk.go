//go:build goexperiment.jsonv2

package trivy

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/bmatcuk/doublestar/v4"
	"golang.org/x/sys/unix"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// tree is walked by directory handles: each directory is opened beneath the one
// above it and no link is followed, so that whoever can write into the tree cannot
// lead the walk out of it.
type tree struct {
	*job
	ctx   context.Context
	root  string
	skip  patterns
	visit func(name string, info fs.FileInfo, open func() (*os.File, error)) error
}

// patterns are those of paths that are left out.
type patterns struct{ dirs, files []string }

// always are directories that Trivy's walk never enters: always, and in the tree
// of a system, where the kernel has its own there while it runs. In a directory of
// files a "dev" is one like others, and what is mounted there is told by its kind;
// see pseudo.
var (
	always   = []string{"**/.git"}
	ofSystem = []string{"proc", "sys", "dev"}
)

func checkPatterns(r *protocol.Scan) error {
	for _, p := range slices.Concat(r.SkipDirs, r.SkipFiles) {
		if !doublestar.ValidatePattern(p) {
			return failure.Errorf(failure.Usage, "%q is no pattern of paths", p)
		}
	}
	return nil
}

func newPatterns(r *protocol.Scan) patterns {
	clean := func(list []string) []string {
		var out []string
		for _, p := range list {
			out = append(out, strings.TrimLeft(path.Clean(filepath.ToSlash(p)), "/"))
		}
		return out
	}
	return patterns{dirs: clean(r.SkipDirs), files: clean(r.SkipFiles)}
}

func match(list []string, name string) bool {
	for _, p := range list {
		if ok, _ := doublestar.Match(p, name); ok {
			return true
		}
	}
	return false
}

// pseudo are kinds of file systems, by the magic numbers of statfs(2), whose files
// are no files: reading them takes for ever, or does something.
var pseudo = map[int64]bool{
	unix.PROC_SUPER_MAGIC: true, unix.SYSFS_MAGIC: true, unix.CGROUP_SUPER_MAGIC: true, unix.CGROUP2_SUPER_MAGIC: true,
	unix.DEVPTS_SUPER_MAGIC: true, unix.DEBUGFS_MAGIC: true, unix.TRACEFS_MAGIC: true, unix.SECURITYFS_MAGIC: true,
	unix.BPF_FS_MAGIC: true, unix.PSTOREFS_MAGIC: true, unix.EFIVARFS_MAGIC: true, unix.SELINUX_MAGIC: true,
	unix.NSFS_MAGIC: true, unix.BINFMTFS_MAGIC: true, unix.HUGETLBFS_MAGIC: true, unix.RDTGROUP_SUPER_MAGIC: true,
	0x62656570 /* configfs */ : true, 0x65735543 /* fusectl */ : true, 0x19800202 /* mqueue */ : true, 0x67596969 /* rpc_pipefs */ : true,
}

// walk visits all regular files of the tree.
func (t *tree) walk() error {
	fd, err := unix.Open(t.root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return failure.Wrap(failure.Failed, &fs.PathError{Op: "open", Path: t.root, Err: err})
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return failure.Wrap(failure.Failed, &fs.PathError{Op: "stat", Path: t.root, Err: err})
	}
	return t.directory(fd, "", uint64(st.Dev))
}

// directory visits a directory that is open, and closes it.
func (t *tree) directory(fd int, name string, device uint64) error {
	dir := os.NewFile(uintptr(fd), filepath.Join(t.root, name))
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		t.found.failed(orDot(name), err)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		if err := context.Cause(t.ctx); err != nil {
			return err
		}
		at := path.Join(name, e.Name())
		switch {
		case e.IsDir():
			if err := t.enter(fd, e.Name(), at, device); err != nil {
				return err
			}
		case !e.Type().IsRegular():
			t.meter.special.Add(1)
		case match(t.skip.files, at):
			t.meter.pattern.Add(1)
		default:
			if err := t.file(fd, e, at); err != nil {
				return err
			}
		}
	}
	return nil
}

func orDot(name string) string {
	if name == "" {
		return "."
	}
	return name
}

func (t *tree) enter(parent int, base, name string, device uint64) error {
	if match(always, name) || t.req.Kind == protocol.Rootfs && match(ofSystem, name) {
		return nil
	}
	if match(t.skip.dirs, name) {
		t.meter.pattern.Add(1)
		return nil
	}
	fd, err := unix.Openat(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		if !gone(err) {
			t.found.failed(name, &fs.PathError{Op: "open", Path: name, Err: err})
		}
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err == nil && uint64(st.Dev) != device {
		device = uint64(st.Dev)
		var sfs unix.Statfs_t
		if err := unix.Fstatfs(fd, &sfs); err == nil && pseudo[int64(sfs.Type)] {
			unix.Close(fd)
			t.meter.special.Add(1)
			return nil
		}
	}
	return t.directory(fd, name, device)
}

// gone tells whether something vanished, or became something else, since its directory was read.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

func (t *tree) file(parent int, e fs.DirEntry, name string) error {
	info, err := e.Info()
	if err != nil {
		if !gone(err) {
			t.found.failed(name, err)
		}
		return nil
	}
	if !info.Mode().IsRegular() {
		t.meter.special.Add(1)
		return nil
	}
	t.meter.files.Add(1)
	return t.visit(name, info, func() (*os.File, error) {
		// Were it a pipe by now, opening it would wait for somebody to write.
		fd, err := unix.Openat(parent, e.Name(), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), filepath.Join(t.root, name)), nil
	})
}

// isVanished tells whether a file that was to be opened is no more.
func isVanished(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && gone(errno)
}
