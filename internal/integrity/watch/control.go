package watch

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// control is the socket through which an admin confirms and ends enforcement:
// a word and a newline, answered by "ok TEXT" or "no TEXT". Only root, and the
// user that the watch runs as, are heard (SO_PEERCRED).
type control struct {
	l    net.Listener
	path string
}

const controlTime = 5 * time.Second

func newControl(path string, do func(word string) (string, bool)) (*control, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	// The lock of the watch is held, so a socket that is there is of a dead one.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("the socket that ends enforcement: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	c := &control{l, path}
	go c.serve(do)
	return c, nil
}

func (c *control) serve(do func(string) (string, bool)) {
	for {
		conn, err := c.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptor is left just now: the way out must stay
			time.Sleep(100 * time.Millisecond)
			continue
		}
		conn.SetDeadline(time.Now().Add(controlTime))
		reply := "no not allowed"
		if heard(conn) {
			line, err := bufio.NewReader(io.LimitReader(conn, 64)).ReadString('\n')
			if err == nil {
				text, ok := do(strings.TrimSpace(line))
				reply = map[bool]string{true: "ok ", false: "no "}[ok] + text
			}
		}
		fmt.Fprintln(conn, reply)
		conn.Close()
	}
}

// heard tells whether the other side may command.
func heard(conn net.Conn) bool {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	err2 := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return err == nil && err2 == nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
}

func (c *control) close() {
	if c != nil {
		c.l.Close()
		os.Remove(c.path)
	}
}

// ControlPath is the socket of the watch of a baseline.
func ControlPath(runDir, name string) string {
	return filepath.Join(runDir, "integrity-watch-"+name+".sock")
}

// Command asks the watch behind a control socket to do something: "keep" the
// enforcement that is on trial, or "release" it. It returns what the watch said.
func Command(path, word string) (string, error) {
	conn, err := net.DialTimeout("unix", path, controlTime)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return "", failure.New(failure.NotReady, "no watch of that baseline enforces anything")
	}
	if errors.Is(err, fs.ErrPermission) {
		return "", failure.Errorf(failure.NotAllowed, "the watch belongs to another user: %w", err)
	}
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(controlTime))
	if _, err := fmt.Fprintln(conn, word); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("the watch did not answer: %w", err)
	}
	text, ok := strings.CutPrefix(strings.TrimSpace(line), "ok ")
	if !ok {
		return "", failure.New(failure.NotReady, strings.TrimPrefix(text, "no "))
	}
	return text, nil
}
