package supervise

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// maxSocketPath is what the name of a socket can have, with its zero
// (unix(7)). Longer ones are reached through a descriptor of their directory.
const maxSocketPath = 107

// socket is where clients come in.
type socket struct {
	*net.UnixListener
	path string
	self unix.Stat_t
	lock *os.File
}

// listen makes the socket: mode 0600, in a directory (made with mode 0700) that
// nobody else can change. A lock beside it (NAME.lock) is held as long, so that
// there is one supervisor; what is left of one that was killed is replaced, and
// what somebody answers behind is not.
func listen(path string) (*socket, error) {
	if !filepath.IsAbs(path) {
		return nil, failure.Errorf(failure.Usage, "the control socket %s: its path is not absolute", path)
	}
	dir := filepath.Dir(path)
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Mode&0o022 != 0 || st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "the control socket %s: others can write to its directory", path), "chmod go-w "+dir)
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	s, err := bind(path)
	if err != nil {
		lock.Close()
		return nil, err
	}
	s.lock = lock
	return s, nil
}

// bind makes the socket under another name, and gives it its own when its mode
// is right, so that nobody finds one that is not ready.
func bind(path string) (*socket, error) {
	switch st, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case st.Mode().Type() != fs.ModeSocket:
		return nil, failure.Errorf(failure.Failed, "the control socket %s: something else is there, which is not a socket (move it away)", path)
	default:
		conn, err := dialSocket(path, 2*time.Second)
		if err == nil {
			conn.Close()
			return nil, failure.Errorf(failure.Busy, "the control socket %s: %w", path, ErrHeld)
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			return nil, fmt.Errorf("the control socket %s: somebody may be behind it: %w", path, err)
		}
	}
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	address, done, err := shortName(tmp)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: address, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("the control socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	s := &socket{UnixListener: l, path: path}
	if err = os.Chmod(tmp, 0o600); err == nil {
		if err = unix.Lstat(tmp, &s.self); err == nil {
			err = os.Rename(tmp, path)
		}
	}
	if err != nil {
		l.Close()
		_ = os.Remove(tmp)
		return nil, err
	}
	return s, nil
}

// close gives the socket back. Its lock file stays: removing it could take it
// away from one who has just opened it.
func (s *socket) close() {
	if s.lock == nil {
		return
	}
	var st unix.Stat_t
	if unix.Lstat(s.path, &st) == nil && st.Dev == s.self.Dev && st.Ino == s.self.Ino {
		_ = os.Remove(s.path)
	}
	s.UnixListener.Close()
	s.lock.Close()
	s.lock = nil
}

// shortName returns a name of a path that fits into the address of a socket,
// which is good until done is called.
func shortName(path string) (name string, done func(), err error) {
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &fs.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	return "/proc/self/fd/" + strconv.Itoa(fd) + "/" + filepath.Base(path), func() { unix.Close(fd) }, nil
}

// dialSocket connects to a socket.
func dialSocket(path string, timeout time.Duration) (*net.UnixConn, error) {
	name, done, err := shortName(path)
	if err != nil {
		return nil, err
	}
	defer done()
	conn, err := net.DialTimeout("unix", name, timeout)
	if err != nil {
		var sys syscall.Errno
		if errors.As(err, &sys) {
			return nil, &fs.PathError{Op: "connect", Path: path, Err: sys}
		}
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// peer returns who is at the other end (SO_PEERCRED).
func peer(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var sockErr error
	err = raw.Control(func(fd uintptr) {
		cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(err, sockErr)
}
