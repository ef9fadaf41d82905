package supervise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/osthread"
	"golang.org/x/sys/unix"
)

const (
	daemonTime  = 30 * time.Second      // to answer in
	daemonGrace = 10 * time.Second      // to end in, when it did not
	daemonPoll  = 20 * time.Millisecond // between two looks for its socket
	daemonSays  = 4 << 10               // bytes of what it printed that are in an error
	daemonSpace = 64 << 10              // bytes it can print without a log
)

// Daemon is a program that runs a supervisor, where no systemd starts it.
type Daemon struct {
	Path    string        // of the program, absolute
	Args    []string      // without its name
	Env     []string      // all of its environment
	Log     string        // file that what it prints is added to; "": the first 64 KiB are kept until it answers, and the rest is lost
	Socket  string        // its control socket
	Timeout time.Duration // until that answers; 0: 30 s
}

// Detach starts a daemon and returns when its control socket answers. The
// daemon has a session of its own, "/" as its directory, none of our
// descriptors, and outlives us. When it ends instead, or does not answer in
// time, the error has what it printed; nothing of it is left. A supervisor that
// answers already is an error that is ErrHeld.
func Detach(ctx context.Context, d Daemon) (*Client, error) {
	if d.Timeout <= 0 {
		d.Timeout = daemonTime
	}
	if c, err := Dial(ctx, d.Socket); err == nil {
		return nil, failure.Errorf(failure.Busy, "%w, process %d", ErrHeld, c.PID)
	} else if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	out, err := d.output()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	begin, err := out.Seek(0, io.SeekEnd)
	if d.Log == "" {
		begin, err = out.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(d.Path, d.Args...)
	cmd.Dir = "/"
	mark := newMark()
	cmd.Env = append(slices.Clone(d.Env), mark)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := osthread.SealDescriptors(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, explain(err)
	}
	f := &family{mark: mark}
	f.begin(cmd.Process.Pid, "")
	f.reaped() // as soon as it ends
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	kill := func() { _, _ = f.end(newCensus(), daemonGrace, nil, nil) }

	late := time.NewTimer(d.Timeout)
	defer late.Stop()
	looks := time.NewTicker(daemonPoll)
	defer looks.Stop()
	said := func(format string, args ...any) error {
		text := fmt.Sprintf(format, args...)
		if s := printed(out, begin); s != "" {
			text += ": " + s
		}
		return failure.New(failure.Failed, d.Path+" "+text)
	}
	for {
		select {
		case err := <-ended:
			kill() // what it may have started
			what := "ended at once, with exit status 0"
			if err != nil {
				what = "ended: " + err.Error()
			}
			return nil, said("%s", what)
		case <-late.C:
			kill()
			return nil, said("did not answer at %s within %v", d.Socket, d.Timeout)
		case <-ctx.Done():
			kill()
			return nil, ctx.Err()
		case <-looks.C:
		}
		if _, err := os.Lstat(d.Socket); err != nil {
			continue
		}
		within, cancel := context.WithTimeout(ctx, d.Timeout)
		stop := afterEnd(cmd.Process.Pid, cancel)
		c, err := Dial(within, d.Socket)
		stop()
		cancel()
		if err == nil && c.PID == cmd.Process.Pid {
			return c, nil
		}
	}
}

// afterEnd calls f when a child has ended, which is left to be reaped, unless
// stop was called before.
func afterEnd(pid int, f func()) (stop func()) {
	over := make(chan struct{})
	go func() {
		t := time.NewTicker(5 * daemonPoll)
		defer t.Stop()
		for {
			select {
			case <-over:
				return
			case <-t.C:
				if p, err := readProc(pid); err != nil || p.dead() {
					f()
					return
				}
			}
		}
	}()
	return func() { close(over) }
}

// output returns the file that the daemon prints to. Without a log that is
// memory which cannot grow, so that a daemon which prints for years fills
// nothing (memfd_create(2), F_SEAL_GROW).
func (d Daemon) output() (*os.File, error) {
	if d.Log != "" {
		if err := os.MkdirAll(filepath.Dir(d.Log), 0o700); err != nil {
			return nil, err
		}
		return os.OpenFile(d.Log, os.O_RDWR|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	}
	fd, err := unix.MemfdCreate("daemon", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memory for what it prints: %w", err)
	}
	f := os.NewFile(uintptr(fd), "what the daemon printed")
	err = f.Truncate(daemonSpace)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("memory for what it prints: %w", err)
	}
	return f, nil
}

// printed is the end of what the daemon printed, in one line.
func printed(f *os.File, begin int64) string {
	b, err := io.ReadAll(io.NewSectionReader(f, begin, 16<<20))
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	b = bytes.TrimRight(b, "\x00")
	b = b[max(0, len(b)-daemonSays):]
	return strings.Join(strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' }), "; ")
}
