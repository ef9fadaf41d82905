package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/osthread"
	"golang.org/x/sys/unix"
)

const (
	maxLinks      = 16
	maxComponents = 256 // of a path, those of links included
)

// dialUnix connects to the socket at an absolute path, which the permissions
// list. Connecting by path would follow whatever somebody puts into its place
// meanwhile, so the path is walked by descriptors, and what was found at its
// end is connected to. A symbolic link is followed only where nobody else can
// have put it: it must belong to root or to us, and lie in a directory that
// others cannot write to, or not replace it in.
//
// Whoever listens there is told who connects (SO_PEERCRED in unix(7)), and that
// is as: the plugin, which is not to be taken for us. Only the effective ids are
// changed, so that other processes of the plugin have no power over the thread.
func dialUnix(ctx context.Context, path string, as *Account) (net.Conn, error) {
	fd, err := walk(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, fmt.Errorf("it is not a socket")
	}
	address := fmt.Sprintf("/proc/self/fd/%d", fd)
	if as == nil {
		var d net.Dialer
		return d.DialContext(ctx, "unix", address)
	}
	var conn net.Conn
	err = osthread.Run(func() (err error) {
		if err := as.become(); err != nil {
			return err
		}
		conn, err = connectHere(ctx, address)
		return err
	})
	return conn, err
}

// become makes an account the effective one of this thread. What the permissions
// list can be reached whatever its mode is, and so capabilities stay, where that
// can be had.
func (a *Account) become() error {
	const noFixup = 1 << 2 // SECBIT_NO_SETUID_FIXUP: capabilities(7)
	_ = unix.Prctl(unix.PR_SET_SECUREBITS, noFixup, 0, 0, 0)
	const same = ^uintptr(0)
	// Of this thread alone, which those of package unix are not.
	for _, change := range []struct {
		name string
		call uintptr
		args [3]uintptr
	}{
		{"setgroups", unix.SYS_SETGROUPS, [3]uintptr{}},
		{"setresgid", unix.SYS_SETRESGID, [3]uintptr{same, uintptr(a.GID), same}},
		{"setresuid", unix.SYS_SETRESUID, [3]uintptr{same, uintptr(a.UID), same}},
	} {
		if _, _, errno := unix.RawSyscall(change.call, change.args[0], change.args[1], change.args[2]); errno != 0 {
			return os.NewSyscallError(change.name, errno)
		}
	}
	return nil
}

// connectHere connects on this thread: that of a net.Dialer may be any.
func connectHere(ctx context.Context, address string) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "unix")
	defer f.Close()
	// A queue that is full is EAGAIN, and there is nothing that tells when it
	// is not any more: unix(7).
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: address}); !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	return net.FileConn(f)
}

// walk opens the place that an absolute path leads to (O_PATH).
func walk(path string) (fd int, err error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return -1, fmt.Errorf("the path is not absolute and clean")
	}
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	root := func() (int, error) { return unix.Open("/", flags|unix.O_DIRECTORY, 0) }
	dir, err := root()
	if err != nil {
		return -1, os.NewSyscallError("open", err)
	}
	defer func() { unix.Close(dir) }()
	rest := strings.Split(path, "/")
	for steps, links := 0, 0; len(rest) > 0; steps++ {
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." {
			continue
		}
		if steps > maxComponents {
			return -1, unix.ELOOP
		}
		next, err := unix.Openat(dir, name, flags, 0)
		if err != nil {
			return -1, &os.PathError{Op: "open", Path: name, Err: err}
		}
		var st unix.Stat_t
		if err := unix.Fstat(next, &st); err != nil {
			unix.Close(next)
			return -1, os.NewSyscallError("fstat", err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			if len(rest) == 0 {
				return next, nil
			}
			unix.Close(dir)
			dir = next
			continue
		}
		target, err := safeLink(dir, next, &st)
		unix.Close(next)
		if err != nil {
			return -1, fmt.Errorf("%s: %w", name, err)
		}
		if links++; links > maxLinks {
			return -1, unix.ELOOP
		}
		if filepath.IsAbs(target) {
			top, err := root()
			if err != nil {
				return -1, os.NewSyscallError("open", err)
			}
			unix.Close(dir)
			dir = top
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return -1, fmt.Errorf("it is a directory")
}

// safeLink returns where the symbolic link that was opened as fd in dir leads,
// if nobody else can have made it.
func safeLink(dir, fd int, link *unix.Stat_t) (target string, err error) {
	var in unix.Stat_t
	if err := unix.Fstat(dir, &in); err != nil {
		return "", os.NewSyscallError("fstat", err)
	}
	ours := func(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }
	if !ours(link.Uid) || !ours(in.Uid) || in.Mode&0o022 != 0 && in.Mode&unix.S_ISVTX == 0 {
		return "", fmt.Errorf("it is a symbolic link in a place that others can write to")
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", os.NewSyscallError("readlinkat", err)
	}
	if n == 0 || n == len(buf) {
		return "", unix.ENAMETOOLONG
	}
	return string(buf[:n]), nil
}
