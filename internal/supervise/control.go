package supervise

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

const (
	maxClients = 64
	writeTime  = 5 * time.Second // that a client may take to read a line
	idleTime   = time.Minute     // between two requests
	tailLines  = 100             // when a client does not say how many
)

// answer answers clients until ctx is done.
func (s *Supervisor) answer(ctx context.Context) {
	var clients sync.WaitGroup
	defer clients.Wait()
	defer context.AfterFunc(ctx, func() { s.socket.SetDeadline(time.Unix(1, 0)) })()
	places := make(chan struct{}, maxClients)
	for ctx.Err() == nil {
		conn, err := s.socket.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed), ctx.Err() != nil && err != nil:
			return
		case err != nil: // no descriptor is left just now
			time.Sleep(100 * time.Millisecond)
			continue
		}
		c := &client{s: s, conn: conn}
		select {
		case places <- struct{}{}:
			clients.Go(func() {
				defer func() { <-places }()
				c.serve(ctx)
			})
		default:
			clients.Go(func() {
				c.refuse(failure.Errorf(failure.Busy, "the supervisor has %d clients already", maxClients))
			})
		}
	}
}

// client is a connection of one.
type client struct {
	s    *Supervisor
	conn *net.UnixConn
	kept bool // somebody else closes it
}

// refuse tells why nothing is answered.
func (c *client) refuse(err error) {
	_ = c.write(response{Error: toWire(err)})
	c.conn.Close()
}

// write sends a line. A client that does not read is not waited for: of a line that
// did not fit part may be on its way, so nothing can be said any more.
func (c *client) write(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) >= maxAnswer {
		return fmt.Errorf("an answer of %d bytes", len(b))
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	if _, err = c.conn.Write(append(b, '\n')); err != nil {
		c.conn.Close()
	}
	return err
}

// serve answers requests one after the other.
func (c *client) serve(ctx context.Context) {
	cred, err := peer(c.conn)
	if err != nil || cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		c.refuse(failure.New(failure.NotAllowed, "only root and the user of the supervisor may ask it"))
		return
	}
	defer func() {
		if !c.kept {
			c.conn.Close()
		}
	}()
	defer context.AfterFunc(ctx, func() { c.conn.SetReadDeadline(time.Unix(1, 0)) })()
	if c.write(hello{Protocol, os.Getpid(), c.s.options.Version}) != nil {
		return
	}
	in := bufio.NewReaderSize(c.conn, maxRequest)
	for !c.kept {
		if c.conn.SetReadDeadline(time.Now().Add(idleTime)) != nil || ctx.Err() != nil {
			return
		}
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			_ = c.write(response{Error: toWire(failure.Errorf(failure.Usage, "a request of more than %d bytes", maxRequest))})
			return
		}
		if err != nil {
			return
		}
		var req request
		if err := json.Unmarshal(line, &req); err != nil || req.ID <= 0 || req.Method == "" {
			_ = c.write(response{Error: toWire(failure.New(failure.Usage, "a request is an object with an id above 0 and a method"))})
			return
		}
		result, err := guarded(func() (any, error) { return c.do(ctx, req, in) })
		resp := response{ID: req.ID, Result: result}
		if result == nil {
			resp.Result = struct{}{}
		}
		if err != nil {
			resp.Result, resp.Error = nil, toWire(err)
		}
		if c.write(resp) != nil {
			return
		}
	}
}

// do does what one request asks for.
func (c *client) do(ctx context.Context, req request, in io.Reader) (any, error) {
	var p params
	if m, ok := c.s.options.Methods[req.Method]; ok {
		return m(ctx, req.Params)
	}
	if len(bytes.TrimSpace(req.Params)) > 0 {
		if err := json.Unmarshal(req.Params, &p); err != nil {
			return nil, failure.Errorf(failure.Usage, "%s: parameters: %w", req.Method, err)
		}
	}
	s := c.s
	switch req.Method {
	case "list":
		list := s.List()
		for i := range list {
			list[i].Last = nil
		}
		return list, nil
	case "status":
		return s.Status(p.Name)
	case "start":
		if err := s.Start(ctx, p.Name); err != nil {
			return nil, err
		}
		return c.after(ctx, p)
	case "restart":
		if err := s.Restart(ctx, p.Name); err != nil {
			return nil, err
		}
		return c.after(ctx, p)
	case "stop":
		if err := s.Stop(ctx, p.Name); err != nil {
			return nil, err
		}
		return s.Status(p.Name)
	case "logs":
		return nil, c.logs(ctx, req.ID, p, in)
	case "watch":
		return nil, c.watch(ctx, req.ID, p, in)
	case "reload":
		if s.options.Reload == nil {
			return nil, failure.New(failure.Usage, "there is nothing to reload")
		}
		return nil, s.options.Reload(ctx)
	case "shutdown":
		s.Shutdown()
		<-s.ended
		c.kept = true
		conn := c.conn
		go func() { // the end of the connection says that the locks are free
			<-s.gone
			conn.Close()
		}()
		return nil, nil
	}
	return nil, failure.Errorf(failure.Usage, "%q is no method of %s", req.Method, Protocol)
}

// after returns how a service is that was started.
func (c *client) after(ctx context.Context, p params) (any, error) {
	if p.Wait {
		return c.s.Await(ctx, p.Name)
	}
	return c.s.Status(p.Name)
}

// streaming returns a context that ends when the client goes away, which can
// say nothing else as long as a stream lasts.
func (c *client) streaming(ctx context.Context, in io.Reader) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	_ = c.conn.SetReadDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { c.conn.SetReadDeadline(time.Unix(1, 0)) })
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	return ctx, func() {
		cancel()
		<-heard
		stop()
	}
}

func (c *client) logs(ctx context.Context, id int64, p params, in io.Reader) error {
	if p.Lines < 0 || p.Lines > maxTail {
		return failure.Errorf(failure.Usage, "logs: lines is 0 to %d", maxTail)
	}
	if p.Lines == 0 && !p.Follow {
		p.Lines = tailLines
	}
	ctx, done := c.streaming(ctx, in)
	defer done()
	for line, err := range c.s.Tail(ctx, p.Name, p.Lines, p.Follow) {
		if err != nil {
			return err
		}
		if err := c.write(response{ID: id, Item: line}); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) watch(ctx context.Context, id int64, p params, in io.Reader) error {
	ctx, done := c.streaming(ctx, in)
	defer done()
	changes, err := c.s.Watch(ctx, p.Name)
	if err != nil {
		return err
	}
	for st := range changes {
		if err := c.write(response{ID: id, Item: st}); err != nil {
			return err
		}
	}
	if ctx.Err() == nil {
		select {
		case <-c.s.ended:
		default:
			return failure.New(failure.Incomplete, "changes came faster than they were read")
		}
	}
	return nil
}
