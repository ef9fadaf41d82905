package pluginsdk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Client is the connection to the host. Its methods can be called at the same
// time.
type Client struct {
	conn  *net.UnixConn
	lines *lineReader
	hello Hello

	out   chan outgoing // lines to write, one at a time
	pongs chan uint64   // pings to answer
	slots chan struct{} // one for each question that may be open

	reporting  chan struct{} // held while a report is sent: parts of two must not mix
	subscribed chan struct{} // held by Subscribe

	done chan struct{} // closed when the connection has ended
	ends sync.Once

	mu      sync.Mutex
	err     error // why it ended
	lastID  uint64
	pending map[uint64]*call
	sub     *subscription
}

const (
	maxCalls     = 32               // questions open at once; more wait
	maxPongs     = 64               // pings not answered yet; then nothing is read until the host has read some
	helloTimeout = 30 * time.Second // a host says hello before it does anything else
)

// message is any line of the protocol.
type message struct {
	ID     *uint64         `json:"id,omitempty"`
	Method string          `json:"method,omitempty"`
	Params json.RawMessage `json:"params,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *Error          `json:"error,omitempty"`
}

// Connect returns the connection to the host that started this program. It
// takes the descriptor that EnvFD names, and removes EnvFD from the
// environment: the connection is this process's alone, and a second Connect is
// ErrNoHost, as it is where no host started the program.
func Connect() (*Client, error) {
	value, ok := os.LookupEnv(EnvFD)
	if !ok || value == "" {
		return nil, ErrNoHost
	}
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 0 {
		return nil, fmt.Errorf("%s is %q, not the number of a descriptor: %w", EnvFD, value, ErrNoHost)
	}
	if err := os.Unsetenv(EnvFD); err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fd)
	file := os.NewFile(uintptr(fd), "mobileops")
	if file == nil {
		return nil, fmt.Errorf("descriptor %d of %s: %w", fd, EnvFD, ErrNoHost)
	}
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		return nil, fmt.Errorf("descriptor %d of %s is no socket (%v): %w", fd, EnvFD, err, ErrNoHost)
	}
	sock, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("descriptor %d of %s is no unix socket: %w", fd, EnvFD, ErrNoHost)
	}
	return NewClient(sock)
}

// NewClient returns a client that speaks over conn, which is its own from now
// on, also when it fails. It waits for the host's greeting, at most 30 seconds.
func NewClient(conn *net.UnixConn) (*Client, error) {
	c := &Client{
		conn: conn, lines: newLineReader(conn),
		out: make(chan outgoing), pongs: make(chan uint64, maxPongs), slots: make(chan struct{}, maxCalls),
		reporting: make(chan struct{}, 1), subscribed: make(chan struct{}, 1),
		done: make(chan struct{}), pending: make(map[uint64]*call),
	}
	if err := c.greeted(); err != nil {
		c.lines.close()
		conn.Close()
		return nil, err
	}
	go c.writeLoop()
	go c.readLoop()
	return c, nil
}

// greeted reads the greeting.
func (c *Client) greeted() error {
	if err := c.conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	line, _, err := c.lines.next()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: no greeting within %s", ErrProtocol, helloTimeout)
	case errors.Is(err, ErrProtocol):
		return err
	case err != nil:
		return fmt.Errorf("%w: it said no hello", gone(err))
	}
	var m message
	if err := json.Unmarshal(line, &m); err != nil || m.Method != "hello" || m.ID != nil {
		return fmt.Errorf("%w: its first line is no greeting", ErrProtocol)
	}
	if err := json.Unmarshal(m.Params, &c.hello); err != nil {
		return fmt.Errorf("%w: hello: %v", ErrProtocol, err)
	}
	if c.hello.Protocol != Protocol {
		return fmt.Errorf("%w: it speaks %q", ErrProtocol, c.hello.Protocol)
	}
	return c.conn.SetReadDeadline(time.Time{})
}

// Hello returns the host's greeting.
func (c *Client) Hello() Hello { return c.hello }

// Done returns a channel that is closed when the connection has ended. A
// service that has no Subscribe running waits for it, and ends, too.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the connection has ended, nil while it has not: ErrHostGone,
// ErrClosed or ErrProtocol.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection. What waits returns ErrClosed.
func (c *Client) Close() error {
	c.end(ErrClosed)
	return nil
}

// end ends everything, for the reason of the first call.
func (c *Client) end(err error) {
	c.ends.Do(func() {
		c.mu.Lock()
		c.err = err
		c.sub = nil
		c.mu.Unlock()
		close(c.done)
		c.conn.Close()
	})
}

// readLoop is the one reader. It waits for nothing but the socket and, when
// the host reads no answers to its pings, for the host.
func (c *Client) readLoop() {
	for {
		line, arrived, err := c.lines.next()
		if err == nil {
			err = c.receive(line, arrived)
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, ErrProtocol) {
			err = gone(err)
		}
		c.end(err)
		c.lines.close()
		return
	}
}

// gone is ErrHostGone, with what the kernel said unless it says just that.
func gone(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed) {
		return ErrHostGone
	}
	return fmt.Errorf("%w: %v", ErrHostGone, err)
}

// receive handles one line. Notifications and fields that are not known are
// ignored: that is how the protocol grows.
func (c *Client) receive(line []byte, arrived *arrival) error {
	// Most of what comes is events, which Subscribe decodes. The reader need
	// not read them, too, when it can see what they are.
	if bytes.HasPrefix(line, []byte(`{"method":"events",`)) {
		return c.deliver(line)
	}
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return fmt.Errorf("%w: %v", ErrProtocol, err)
	}
	switch {
	case m.Method == "" && m.ID != nil:
		c.answered(*m.ID, m, arrived)
	case m.Method == "events" && m.ID == nil:
		return c.deliver(line)
	case m.Method == "ping" && m.ID != nil:
		select {
		case c.pongs <- *m.ID:
		case <-c.done:
		}
	case m.Method != "" && m.ID != nil:
		return c.refuse(*m.ID, m.Method)
	}
	return nil
}

// refuse answers a request that this package does not know.
func (c *Client) refuse(id uint64, method string) error {
	line, err := json.Marshal(message{ID: &id, Error: &Error{Code: CodeUnknown, Message: fmt.Sprintf("no method %.64q", method)}})
	if err != nil {
		return err
	}
	select {
	case c.out <- outgoing{line: append(line, '\n')}:
	case <-c.done:
	}
	return nil
}

// Ready tells the host that a service has started: it does what it is for.
// A host ends a service that is not ready within its ready_timeout.
func (c *Client) Ready(ctx context.Context) error { return c.notify(ctx, "ready", struct{}{}) }

// healthTimeout is how long Health waits for a host that does not read.
const healthTimeout = 10 * time.Second

// Health tells the host how the plugin is.
func (c *Client) Health(h Health) error {
	switch h.Status {
	case StatusOK, StatusDegraded, StatusFailing:
	default:
		return &Error{Code: CodeInvalid, Message: fmt.Sprintf("health %q is none of ok, degraded, failing", h.Status)}
	}
	ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
	defer cancel()
	return c.notify(ctx, "health", h)
}
