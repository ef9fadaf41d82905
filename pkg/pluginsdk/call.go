package pluginsdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// outgoing is a line for the writer, which closes written when the kernel has
// it. Nobody need wait for that.
type outgoing struct {
	line    []byte
	written chan struct{}
}

// writeLoop is the one writer. That a caller gives up does not cut a line in
// two, since it is not the caller who writes.
func (c *Client) writeLoop() {
	for {
		var next outgoing
		select {
		case next = <-c.out:
		case id := <-c.pongs:
			next.line = append(strconv.AppendUint([]byte(`{"id":`), id, 10), `,"result":{}}`+"\n"...)
		case <-c.done:
			return
		}
		if _, err := c.conn.Write(next.line); err != nil {
			c.end(gone(err))
			return
		}
		if next.written != nil {
			close(next.written)
		}
	}
}

// write hands a line to the kernel.
func (c *Client) write(ctx context.Context, line []byte) error {
	if len(line) > MaxLine {
		return &Error{Code: CodeTooLarge, Message: fmt.Sprintf("a line of %d bytes (at most %d)", len(line), MaxLine)}
	}
	written := make(chan struct{})
	select {
	case c.out <- outgoing{line, written}:
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
		return c.Err()
	}
	select {
	case <-written:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
		return c.Err()
	}
}

// encode returns the line of a message.
func encode(id *uint64, method string, params any) ([]byte, error) {
	raw, err := json.Marshal(params)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	line, err := json.Marshal(message{ID: id, Method: method, Params: raw})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	return append(line, '\n'), nil
}

func (c *Client) notify(ctx context.Context, method string, params any) error {
	line, err := encode(nil, method, params)
	if err != nil {
		return err
	}
	if err := c.write(ctx, line); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}

// call is a question that waits for its answer.
type call struct {
	answer chan answer           // has room for the one that there is
	wantFD bool                  // the answer brings a descriptor
	first  func(json.RawMessage) // runs in the reader, before it reads the next line
}

// answer is what came. fd is -1, or a descriptor that is the caller's.
type answer struct {
	result json.RawMessage
	err    *Error
	fd     int
}

const (
	busyFirst = 100 * time.Millisecond // between attempts while the host is busy
	busyMost  = 2 * time.Second
	busyLimit = 30 * time.Second // after which CodeBusy is the caller's
)

// ask sends a request and decodes its result into result, unless that is nil.
// What the host refuses as busy, of which it did nothing, is asked again.
func (c *Client) ask(ctx context.Context, method string, params, result any) error {
	wait, began := busyFirst, time.Now()
	var refused error // the last time
	for {
		a, err := c.do(ctx, method, params, &call{})
		switch {
		case errors.Is(err, &Error{Code: CodeBusy}) && time.Since(began) < busyLimit:
			refused = err
		case err != nil && refused != nil && ctx.Err() != nil:
			return fmt.Errorf("%w; meanwhile: %w", refused, err)
		case err != nil:
			return err
		case result == nil || len(a.result) == 0:
			return nil
		default:
			if err := json.Unmarshal(a.result, result); err != nil {
				return fmt.Errorf("%s: %w: %v", method, ErrProtocol, err)
			}
			return nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%w; meanwhile: %w", err, ctx.Err())
		case <-c.done:
			return fmt.Errorf("%s: %w", method, c.Err())
		}
		wait = min(2*wait, busyMost)
	}
}

// do sends a request and waits for its answer. One that is an error is
// returned as an error that wraps *Error.
func (c *Client) do(ctx context.Context, method string, params any, p *call) (answer, error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return answer{fd: -1}, fmt.Errorf("%s: %w", method, ctx.Err())
	case <-c.done:
		return answer{fd: -1}, fmt.Errorf("%s: %w", method, c.Err())
	}
	p.answer = make(chan answer, 1)
	c.mu.Lock()
	c.lastID++
	id := c.lastID
	c.pending[id] = p
	c.mu.Unlock()

	line, err := encode(&id, method, params)
	if err == nil {
		if err = c.write(ctx, line); err != nil {
			err = fmt.Errorf("%s: %w", method, err)
		}
	}
	if err == nil {
		select {
		case a := <-p.answer:
			return a.checked(method)
		case <-ctx.Done():
			err = fmt.Errorf("%s: %w", method, ctx.Err())
		case <-c.done:
			err = fmt.Errorf("%s: %w", method, c.Err())
		}
	}
	// The answer may have come meanwhile, and brought a descriptor. After the
	// entry is gone, whatever comes is the reader's to close.
	c.mu.Lock()
	delete(c.pending, id)
	c.mu.Unlock()
	select {
	case a := <-p.answer:
		return a.checked(method)
	default:
		return answer{fd: -1}, err
	}
}

// checked turns an answer that is a refusal into an error.
func (a answer) checked(method string) (answer, error) {
	if a.err != nil {
		return answer{fd: -1}, fmt.Errorf("%s: %w", method, a.err)
	}
	return a, nil
}

// answered hands an answer to the call that waits for it. One that nobody
// waits for is dropped, and its descriptor closed by the line reader.
func (c *Client) answered(id uint64, m message, arrived *arrival) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pending[id]
	if p == nil {
		return
	}
	delete(c.pending, id)
	a := answer{result: m.Result, err: m.Error, fd: -1}
	if p.wantFD && m.Error == nil {
		if fd, ok := arrived.take(); ok {
			a.fd = fd
		}
	}
	if p.first != nil && m.Error == nil {
		p.first(m.Result)
	}
	p.answer <- a
}
