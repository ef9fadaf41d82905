package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
	"golang.org/x/sys/unix"
)

// process is a running plugin, and our end of its connection.
type process struct {
	r    *runner
	conn *net.UnixConn
	cmd  *exec.Cmd
	how  behaviour

	stdout, stderr *tail
	exited         chan struct{} // closed when the process has ended
	heard          chan struct{} // closed when it will say nothing more

	paused sync.Mutex // held while nothing is read
	mu     sync.Mutex
	turn   chan struct{} // closed and made anew whenever something below changes

	wrote     int64  // bytes that it wrote to the connection
	wroteText string // the first of them
	isReady   bool
	sub       *subscription // the latest
	acked     []string      // cursors, in their order
	pongs     map[uint64]pluginsdk.Code
	nextID    uint64
	asked     map[string]int // requests by method
	held      []func()       // answers that wait to be sent in another order
	conns     []net.Conn     // of dials, to close
}

// subscription is what the plugin asked for.
type subscription struct {
	Types []string `json:"types"`
	From  string   `json:"from"`
	Batch int      `json:"batch"`
}

// tail is the last part of what was written to it, and how much that was.
type tail struct {
	mu    sync.Mutex
	total int64
	last  []byte
}

const tailSize = 16 << 10

// busyText is how long a program is waited for that is still open for writing.
const busyText = 20 * time.Second

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total += int64(len(p))
	t.last = append(t.last, p...)
	if over := len(t.last) - tailSize; over > 0 {
		t.last = append(t.last[:0], t.last[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.last)
}

// newDir makes a data directory.
func (r *runner) newDir() (string, error) {
	r.dirs++
	dir := filepath.Join(r.root, strconv.Itoa(r.dirs))
	return dir, os.MkdirAll(filepath.Join(dir, "tmp"), 0o700)
}

// socketpair returns two connected sockets: ours, and theirs as a file.
func socketpair() (*net.UnixConn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "plugin")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil
}

// start starts the plugin in a data directory, "" for a new one, with input on
// its standard input. end must be called.
func (r *runner) start(dir string, input io.Reader, how behaviour) (*process, error) {
	if dir == "" {
		var err error
		if dir, err = r.newDir(); err != nil {
			return nil, err
		}
	}
	conn, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	p := &process{
		r: r, conn: conn, how: how, stdout: &tail{}, stderr: &tail{},
		exited: make(chan struct{}), heard: make(chan struct{}), turn: make(chan struct{}),
		pongs: map[uint64]pluginsdk.Code{}, asked: map[string]int{},
	}
	env := append([]string{
		pluginsdk.EnvFD + "=3", pluginsdk.EnvName + "=" + r.opts.Name, pluginsdk.EnvVersion + "=" + r.opts.Version,
		pluginsdk.EnvData + "=" + dir, pluginsdk.EnvRole + "=" + r.opts.Role,
		"HOME=" + dir, "TMPDIR=" + filepath.Join(dir, "tmp"), "PATH=/usr/bin:/bin", "LANG=C.UTF-8",
	}, r.opts.Env...)
	for end := time.Now().Add(busyText); ; time.Sleep(10 * time.Millisecond) {
		p.cmd = exec.Command(r.opts.Program, r.opts.Args...)
		p.cmd.Dir, p.cmd.Env = dir, env
		p.cmd.ExtraFiles = []*os.File{theirs} // the first one is descriptor 3
		p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = input, p.stdout, p.stderr
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		p.cmd.WaitDelay = time.Second // for children that hold on to its streams
		// A test that has just written the program, and starts other processes at
		// the same time, cannot run it for a moment: go.dev/issue/22315.
		if err = p.cmd.Start(); !errors.Is(err, syscall.ETXTBSY) || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	go p.reap()
	if !how.holdHello {
		p.hello()
	}
	go p.listen()
	return p, nil
}

// reap waits for the process, and kills what it leaves in its process group.
// As long as the leader was not waited for, nobody else can have its number.
func (p *process) reap() {
	for {
		err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break
		}
	}
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	p.cmd.Wait()
	close(p.exited)
}

// kill kills the process, and returns when it is gone.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.exited
}

// end kills what is left, and collects what concerns all checks.
func (p *process) end() {
	p.kill()
	p.conn.Close()
	<-p.heard
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	if p.r.stdout == "" {
		p.r.stdout = p.stdout.String()
	}
}

// terminate sends SIGTERM to the plugin alone, as the host does.
func (p *process) terminate() { p.cmd.Process.Signal(syscall.SIGTERM) }

// running reports whether the process is alive.
func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// wait waits until the process ends.
func (p *process) wait(limit time.Duration) bool {
	select {
	case <-p.exited:
		return true
	case <-time.After(limit):
	case <-p.r.ctx.Done():
	}
	return false
}

// ended says how the process ended, with the end of its standard error.
func (p *process) ended() string {
	<-p.exited
	text := "it ended: " + p.cmd.ProcessState.String()
	if said := strings.TrimSpace(p.stderr.String()); said != "" {
		if len(said) > 2000 {
			said = "…" + said[len(said)-2000:]
		}
		text += "; standard error:\n" + said
	}
	return text
}

// status is the exit status, -1 after a signal.
func (p *process) status() int {
	<-p.exited
	return p.cmd.ProcessState.ExitCode()
}

// crashed returns how a process that has ended has crashed, "" if it has not:
// a status that it chose itself is no crash.
func (p *process) crashed() string {
	if p.running() {
		return ""
	}
	status, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	said := []byte(p.stderr.String())
	switch {
	case status.Signaled() && status.Signal() != syscall.SIGTERM && status.Signal() != syscall.SIGPIPE,
		bytes.Contains(said, []byte("\ngoroutine ")) && (bytes.Contains(said, []byte("panic: ")) || bytes.Contains(said, []byte("fatal error: "))),
		bytes.Contains(said, []byte("Traceback (most recent call last)")),
		bytes.Contains(said, []byte("panicked at ")):
		return p.ended()
	}
	return ""
}

// until waits until ok, which is called with p.mu held, the process says no
// more, or the time is over. It reports whether it was ok.
func (p *process) until(limit time.Duration, ok func() bool) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	over := false
	for {
		p.mu.Lock()
		fine, turn := ok(), p.turn
		p.mu.Unlock()
		if fine || over {
			return fine
		}
		select {
		case <-turn:
		case <-p.heard:
			over = true // once more, for what it said last
		case <-deadline.C:
			over = true
		case <-p.r.ctx.Done():
			return false
		}
	}
}

// changed wakes until. p.mu must be held.
func (p *process) changed() {
	close(p.turn)
	p.turn = make(chan struct{})
}

// openFDs counts the descriptors of the process, -1 where that is not possible.
func (p *process) openFDs() int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		return -1
	}
	return len(entries)
}

var errNoMemory = errors.New("/proc does not tell its memory")

// memory returns the bytes of memory that the process uses itself: what maps
// files does not count.
func (p *process) memory() (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	var sum int64
	found := false
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		if name != "RssAnon" && name != "VmSwap" {
			continue
		}
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, errNoMemory
		}
		sum += kb << 10
		found = true
	}
	if !found {
		return 0, errNoMemory
	}
	return sum, nil
}
