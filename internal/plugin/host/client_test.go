package host

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
	"golang.org/x/sys/unix"
)

const patience = 3 * time.Minute // for what takes milliseconds on an idle machine

func newStore(t testing.TB) *state.Store {
	return state.New(filepath.Join(t.TempDir(), "state"), state.Options{LockTimeout: patience})
}

func update(t testing.TB, s Store, fn func(*state.Tx) error) {
	t.Helper()
	if err := s.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

// some makes findings whose subjects are numbered from first on.
func some(first, n int) []finding.Finding {
	list := make([]finding.Finding, n)
	for i := range list {
		list[i] = finding.Finding{
			Rule: "file-changed", Severity: finding.Severity((first + i) % 5), Title: "changed: what the package manager does not know",
			Subject:     fmt.Sprintf("/usr/lib/x86_64-linux-gnu/package/file-%07d.so", first+i),
			Evidence:    map[string]string{"size.old": "1234", "size.new": "5678"},
			Remediation: "reinstall the package that owns the file",
		}
	}
	return list
}

// grow reports n new findings of the source integrity, in steps.
func grow(t testing.TB, s Store, first, n int) {
	t.Helper()
	for n > 0 {
		step := min(n, 10_000)
		update(t, s, func(tx *state.Tx) error {
			_, err := finding.ReportPartial(tx, "integrity", "", some(first, step), time.Now())
			return err
		})
		first, n = first+step, n-step
	}
}

// pair returns the two ends of a socket pair.
func pair(t testing.TB) (ours, theirs *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
	}
	t.Cleanup(func() { ends[0].Close(); ends[1].Close() })
	return ends[0], ends[1]
}

// served is a session with a client at its other end.
type served struct {
	*client
	cancel context.CancelFunc
	result chan error
}

func serve(t testing.TB, opts Options) *served {
	t.Helper()
	ours, theirs := pair(t)
	return (&served{client: newClient(t, theirs)}).run(ours, opts)
}

func (s *served) run(conn *net.UnixConn, opts Options) *served {
	if opts.Name == "" {
		opts.Name = "probe"
	}
	if opts.Role == "" {
		opts.Role = RoleService
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.result = cancel, make(chan error, 1)
	go func() { s.result <- Serve(ctx, conn, opts) }()
	s.t.Cleanup(func() { cancel(); s.end() }) // before the directory goes
	return s
}

// end returns what Serve returned.
func (s *served) end() error {
	s.t.Helper()
	select {
	case err := <-s.result:
		s.result <- err
		return err
	case <-time.After(patience):
		s.t.Fatal("Serve does not end")
		return nil
	}
}

// close closes the client's end, as a process that ends does.
func (s *served) close() {
	s.t.Helper()
	s.conn.Close()
	if err := s.end(); err != nil {
		s.t.Errorf("Serve: %v", err)
	}
}

// client is a plugin that knows nothing but lines.
type client struct {
	t    testing.TB
	conn *net.UnixConn
	r    *bufio.Reader
	id   uint64
	held []line // lines that came before an answer

	mu  sync.Mutex
	fds []int
}

type line struct {
	ID     uint64          `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *Refusal        `json:"error"`
	size   int
}

func newClient(t testing.TB, conn *net.UnixConn) *client {
	c := &client{t: t, conn: conn}
	c.r = bufio.NewReaderSize(c, 64<<10)
	t.Cleanup(func() {
		for _, fd := range c.fds {
			unix.Close(fd)
		}
	})
	return c
}

// Read keeps the descriptors that come.
func (c *client) Read(p []byte) (int, error) {
	oob := make([]byte, syscall.CmsgSpace(64))
	n, oobn, _, _, err := c.conn.ReadMsgUnix(p, oob)
	if oobn > 0 {
		messages, _ := syscall.ParseSocketControlMessage(oob[:oobn])
		for i := range messages {
			fds, _ := syscall.ParseUnixRights(&messages[i])
			c.mu.Lock()
			c.fds = append(c.fds, fds...)
			c.mu.Unlock()
		}
	}
	return n, err
}

func (c *client) write(text string) {
	c.t.Helper()
	c.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := c.conn.Write([]byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// next returns the next line.
func (c *client) next() line {
	c.t.Helper()
	l, err := c.try()
	if err != nil {
		c.t.Fatal(err)
	}
	return l
}

func (c *client) try() (l line, err error) {
	c.conn.SetReadDeadline(time.Now().Add(patience))
	raw, err := c.r.ReadBytes('\n')
	if err != nil {
		return l, err
	}
	if len(raw) > MaxLine {
		return l, fmt.Errorf("a line of %d bytes", len(raw))
	}
	l.size = len(raw)
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	return l, d.Decode(&l)
}

// ask sends a request and waits for its answer. Lines that come before it are
// kept for events.
func (c *client) ask(method, params string) (json.RawMessage, *Refusal) {
	c.t.Helper()
	c.id++
	c.write(fmt.Sprintf(`{"id":%d,"method":%q,"params":%s}`+"\n", c.id, method, params))
	for {
		l := c.next()
		if l.Method == "" && l.ID == c.id {
			return l.Result, l.Error
		}
		c.held = append(c.held, l)
	}
}

// granted is ask for what must be granted.
func (c *client) granted(method, params string, into any) {
	c.t.Helper()
	result, refused := c.ask(method, params)
	if refused != nil {
		c.t.Fatalf("%s %.300s: %v", method, params, refused)
	}
	if into != nil {
		if err := json.Unmarshal(result, into); err != nil {
			c.t.Fatalf("%s: %v in %s", method, err, result)
		}
	}
}

// refused is ask for what must not be granted.
func (c *client) refused(want Code, method, params string) {
	c.t.Helper()
	if _, refused := c.ask(method, params); refused == nil || refused.Code != want {
		c.t.Errorf("%s %.300s: %v, want %s", method, params, refused, want)
	}
}

// event is an event as a plugin reads it.
type event struct {
	ID, Type, Change string
	Time             time.Time
	Finding          *finding.Record
	Audit            *auditRecord
	Lost             uint64
}

type batch struct {
	Events []event
	Cursor string
}

// line returns the next line with the method.
func (c *client) line(method string) (l line, err error) {
	for l.Method != method && err == nil {
		if len(c.held) > 0 {
			l, c.held = c.held[0], c.held[1:]
		} else {
			l, err = c.try()
		}
	}
	return l, err
}

// batch returns the next batch.
func (c *client) batch() (b batch) {
	c.t.Helper()
	b, err := c.tryBatch()
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

func (c *client) tryBatch() (b batch, err error) {
	l, err := c.line("events")
	if err != nil {
		return b, err
	}
	return b, json.Unmarshal(l.Params, &b)
}

func (c *client) ack(cursor string) {
	c.t.Helper()
	c.granted("events.ack", fmt.Sprintf(`{"cursor":%q}`, cursor), nil)
}

func (c *client) hello() {
	c.t.Helper()
	if l := c.next(); l.Method != "hello" || l.ID != 0 {
		c.t.Fatalf("first line %+v", l)
	}
}

func saved(t testing.TB, s Store, name string) (at position) {
	t.Helper()
	if err := s.View(context.Background(), func(tx *state.Tx) (err error) {
		at, _, err = loadCursor(tx, name)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return at
}

func readAll() Permissions {
	return Permissions{ReadFindings: true, ReportFindings: true, ReadAudit: true}
}

// secrets is a configuration.
type secrets map[string]string

func (s secrets) JSON() ([]byte, error) { return []byte(`{"queue":7}`), nil }
func (s secrets) SecretNames() (names []string) {
	for name := range s {
		names = append(names, name)
	}
	return names
}
func (s secrets) Secret(name string) (string, bool) { v, ok := s[name]; return v, ok }

func isProtocol(err error) bool { var p *ProtocolError; return errors.As(err, &p) }
