package supervise

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// greetTime is how long a supervisor may take to say hello. One that is ending
// what another left behind takes that long.
const greetTime = 15 * time.Second

// Client asks a supervisor. Each call is a connection of its own, so calls can
// be made at the same time, and one that is over leaves nothing behind.
type Client struct {
	path string

	PID     int    // of the supervisor, when Dial found it
	Version string // of its program
}

// Dial finds the supervisor behind a control socket. Its error is of kind
// failure.NotReady when none is running.
func Dial(ctx context.Context, path string) (*Client, error) {
	c := &Client{path: path}
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	conn.close()
	c.PID, c.Version = conn.hello.PID, conn.hello.Version
	return c, nil
}

// connection is one, after its hello.
type connection struct {
	conn  *net.UnixConn
	in    *bufio.Reader
	hello hello
	stop  func() bool
}

func (c *connection) close() {
	c.stop()
	c.conn.Close()
}

// connect opens a connection that breaks when ctx is done.
func (c *Client) connect(ctx context.Context) (*connection, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	conn, err := dialSocket(c.path, greetTime)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return nil, failure.Errorf(failure.NotReady, "no supervisor is running behind %s", c.path)
	case errors.Is(err, fs.ErrPermission):
		return nil, failure.Errorf(failure.NotAllowed, "the supervisor belongs to another user: %w", err)
	case err != nil:
		return nil, err
	}
	l := &connection{conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}
	l.stop = context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	timer := time.AfterFunc(greetTime, func() { conn.SetDeadline(time.Unix(1, 0)) })
	var first struct {
		hello
		Error *wireError `json:"error"`
	}
	err = l.read(&first)
	timer.Stop()
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case err != nil:
		err = fmt.Errorf("the supervisor behind %s does not answer: %w", c.path, err)
	case first.Error != nil:
		err = first.Error.err()
	case first.Protocol != Protocol:
		err = failure.Errorf(failure.NotReady, "what is behind %s speaks %q, not %s (it is another version: restart it)", c.path, first.Protocol, Protocol)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	l.hello = first.hello
	return l, nil
}

// read reads a line.
func (c *connection) read(into any) error {
	var line []byte
	for {
		part, err := c.in.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxAnswer {
			return fmt.Errorf("an answer of more than %d bytes", maxAnswer)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		break
	}
	return json.Unmarshal(bytes.TrimSpace(line), into)
}

// clientResponse is a response of which the parts are not decoded yet.
type clientResponse struct {
	ID     int64           `json:"id"`
	Item   json.RawMessage `json:"item"`
	Result json.RawMessage `json:"result"`
	Error  *wireError      `json:"error"`
}

// Call calls a method, such as one that the owner of the supervisor has added,
// and decodes its result; into may be nil.
func (c *Client) Call(ctx context.Context, method string, args, into any) error {
	return c.stream(ctx, method, args, into, nil)
}

// stream calls a method, and gives the items that come before its result.
func (c *Client) stream(ctx context.Context, method string, args, into any, item func(json.RawMessage) bool) error {
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.close()
	if err := conn.ask(method, args); err != nil {
		return interrupted(ctx, err)
	}
	for {
		var r clientResponse
		if err := conn.read(&r); err != nil {
			return interrupted(ctx, fmt.Errorf("the supervisor went away: %w", err))
		}
		switch {
		case r.Error != nil:
			return r.Error.err()
		case r.Item != nil && item != nil:
			if !item(r.Item) {
				return nil
			}
		case r.Result != nil:
			if into == nil {
				return nil
			}
			return json.Unmarshal(r.Result, into)
		}
	}
}

// ask sends the one request of a connection.
func (c *connection) ask(method string, args any) error {
	b, err := json.Marshal(args)
	if err != nil {
		return err
	}
	b, err = json.Marshal(request{ID: 1, Method: method, Params: b})
	if err != nil {
		return err
	}
	if len(b) >= maxRequest {
		return failure.Errorf(failure.Usage, "a request of more than %d bytes", maxRequest)
	}
	_, err = c.conn.Write(append(b, '\n'))
	return err
}

// interrupted prefers the reason for which a connection was broken.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// List returns how all services are, without the last lines of their logs.
func (c *Client) List(ctx context.Context) ([]Status, error) {
	var list []Status
	return list, c.Call(ctx, "list", params{}, &list)
}

// Status returns how a service is.
func (c *Client) Status(ctx context.Context, name string) (Status, error) {
	var st Status
	err := c.Call(ctx, "status", params{Name: name}, &st)
	return st, err
}

// Start starts a service. With wait it returns when it is ready, and an error
// when it does not become so at once.
func (c *Client) Start(ctx context.Context, name string, wait bool) (Status, error) {
	var st Status
	err := c.Call(ctx, "start", params{Name: name, Wait: wait}, &st)
	return st, err
}

// Restart stops a service if it runs, and is then as Start.
func (c *Client) Restart(ctx context.Context, name string, wait bool) (Status, error) {
	var st Status
	err := c.Call(ctx, "restart", params{Name: name, Wait: wait}, &st)
	return st, err
}

// Stop stops a service, and returns when nothing of it is left.
func (c *Client) Stop(ctx context.Context, name string) (Status, error) {
	var st Status
	err := c.Call(ctx, "stop", params{Name: name}, &st)
	return st, err
}

// Reload has the owner of the supervisor look at its configuration.
func (c *Client) Reload(ctx context.Context) error { return c.Call(ctx, "reload", params{}, nil) }

// Shutdown has the supervisor stop all services and end. It returns when
// another one can be started.
func (c *Client) Shutdown(ctx context.Context) error {
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.close()
	if err := conn.ask("shutdown", params{}); err != nil {
		return interrupted(ctx, err)
	}
	var r clientResponse
	if err := conn.read(&r); err != nil {
		return interrupted(ctx, fmt.Errorf("the supervisor went away: %w", err))
	}
	if r.Error != nil {
		return r.Error.err()
	}
	if _, err := io.Copy(io.Discard, conn.in); err != nil {
		return interrupted(ctx, err)
	}
	return nil
}

// Logs gives the last lines of a log, and, with follow, those that come, until
// ctx is done or the supervisor ends.
func (c *Client) Logs(ctx context.Context, name string, lines int, follow bool) iter.Seq2[Line, error] {
	return items[Line](ctx, c, "logs", params{Name: name, Lines: lines, Follow: follow})
}

// Watch gives how services are, and then every change, until ctx is done or the
// supervisor ends. With a name it is about that service alone.
func (c *Client) Watch(ctx context.Context, name string) iter.Seq2[Status, error] {
	return items[Status](ctx, c, "watch", params{Name: name})
}

// items gives what a method streams. That ctx is done is no error.
func items[T any](ctx context.Context, c *Client, method string, p params) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		more := true
		var bad error
		err := c.stream(ctx, method, p, nil, func(raw json.RawMessage) bool {
			var v T
			if bad = json.Unmarshal(raw, &v); bad != nil {
				return false
			}
			more = yield(v, nil)
			return more
		})
		err = errors.Join(err, bad)
		if err != nil && more && ctx.Err() == nil {
			var none T
			yield(none, err)
		}
	}
}
