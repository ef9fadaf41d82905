package worker

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// mostLinks is how many symbolic links a path may lead over, as in the kernel:
// path_resolution(7).
const mostLinks = 40

// openTrusted opens a file to read if nobody but root and the owners could have put
// it there: every directory that its path leads through, those of symbolic links
// included, and the file itself belong to them and can be written by no one else. A
// directory in which everybody may write but remove only his own (as /tmp) is passed,
// since what lies in it belongs to them too. Else the error is of kind Untrustworthy.
func openTrusted(path string, owners []uint32) (*os.File, error) {
	dir, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/", Err: err}
	}
	parents := []int{dir} // open directories from the root to where we are
	defer func() {
		for _, fd := range parents {
			unix.Close(fd)
		}
	}()
	names := []string{"/"} // of parents
	rest := strings.Split(path, "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		here := parents[len(parents)-1]
		switch name {
		case "", ".":
			continue
		case "..":
			if len(parents) > 1 {
				unix.Close(here)
				parents, names = parents[:len(parents)-1], names[:len(names)-1]
			}
			continue
		}
		full := strings.TrimSuffix(names[len(names)-1], "/") + "/" + name
		fd, err := unix.Openat(here, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: full, Err: err}
		}
		parents, names = append(parents, fd), append(names, full)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return nil, &fs.PathError{Op: "stat", Path: full, Err: err}
		}
		if err := trusted(full, &st, owners); err != nil {
			return nil, err
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
		case unix.S_IFLNK:
			if links++; links > mostLinks {
				return nil, &fs.PathError{Op: "open", Path: path, Err: unix.ELOOP}
			}
			target, err := readLink(fd)
			if err != nil {
				return nil, &fs.PathError{Op: "readlink", Path: full, Err: err}
			}
			unix.Close(fd)
			parents, names = parents[:len(parents)-1], names[:len(names)-1]
			if strings.HasPrefix(target, "/") {
				for _, fd := range parents[1:] {
					unix.Close(fd)
				}
				parents, names = parents[:1], names[:1]
			}
			rest = slices.Concat(strings.Split(target, "/"), rest)
		default:
			if len(rest) > 0 {
				return nil, &fs.PathError{Op: "open", Path: full, Err: unix.ENOTDIR}
			}
			return reopen(here, name, &st, full)
		}
	}
	return nil, &fs.PathError{Op: "open", Path: path, Err: unix.EISDIR}
}

// reopen opens a file to read, of which so far there is only a handle. It must be
// the same file.
func reopen(dir int, name string, st *unix.Stat_t, full string) (*os.File, error) {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &fs.PathError{Op: "open", Path: full, Err: errors.New("not a regular file")}
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: full, Err: err}
	}
	f := os.NewFile(uintptr(fd), full)
	var now unix.Stat_t
	if err := unix.Fstat(fd, &now); err != nil || now.Dev != st.Dev || now.Ino != st.Ino {
		f.Close()
		return nil, failure.Errorf(failure.Failed, "%s was replaced while it was opened", full)
	}
	return f, nil
}

// trusted says what is wrong about a file, directory or link.
func trusted(path string, st *unix.Stat_t, owners []uint32) error {
	if st.Uid != 0 && !slices.Contains(owners, st.Uid) {
		return failure.Hint(failure.Errorf(failure.Untrustworthy, "%s belongs to the user %d, who could change what root would run", path, st.Uid), "chown root "+path)
	}
	kind := st.Mode & unix.S_IFMT
	sticky := kind == unix.S_IFDIR && st.Mode&unix.S_ISVTX != 0
	byGroup := st.Mode&0o020 != 0 && st.Gid != 0
	if kind != unix.S_IFLNK && !sticky && (byGroup || st.Mode&0o002 != 0) {
		return failure.Hint(failure.Errorf(failure.Untrustworthy, "%s can be written by others (mode %#o, group %d), who could change what root would run", path, st.Mode&0o7777, st.Gid), "chmod go-w "+path)
	}
	return nil
}

// readLink reads a symbolic link of which there is a handle: readlinkat(2).
func readLink(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// statResult is what is asked of a file.
type statResult struct{ uid uint32 }

func (s *statResult) of(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	s.uid = st.Uid
	return nil
}
