package conformance

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// hangUp is how long a partner of no particular kind waits for more.
const hangUp = 2 * time.Second

// dial answers dial, with a connection that pass hands over.
func (p *process) dial(params json.RawMessage) (net.Conn, *pluginsdk.Error) {
	var q struct {
		Network string `json:"network"`
		Address string `json:"address"`
		Timeout int64  `json:"timeout_ms"`
	}
	if err := json.Unmarshal(params, &q); err != nil || q.Network != "tcp" && q.Network != "unix" {
		return nil, &pluginsdk.Error{Code: pluginsdk.CodeInvalid, Message: "the network is tcp or unix"}
	}
	if p.r.opts.Dial == nil {
		conn, err := p.sink(q.Network)
		if err != nil {
			return nil, &pluginsdk.Error{Code: pluginsdk.CodeFailed, Message: err.Error()}
		}
		return conn, nil
	}
	limit := 10 * time.Second
	if q.Timeout > 0 {
		limit = min(time.Duration(q.Timeout)*time.Millisecond, time.Minute)
	}
	ctx, cancel := context.WithTimeout(p.r.ctx, limit)
	defer cancel()
	conn, err := p.r.opts.Dial(ctx, q.Network, q.Address)
	if err != nil {
		return nil, &pluginsdk.Error{Code: pluginsdk.CodeFailed, Message: err.Error()}
	}
	if _, ok := conn.(syscall.Conn); !ok {
		conn.Close()
		return nil, &pluginsdk.Error{Code: pluginsdk.CodeFailed, Message: "Options.Dial returned no connection of the kernel"}
	}
	return conn, nil
}

// sink returns a connection to a partner that reads everything, says nothing,
// and hangs up soon.
func (p *process) sink(network string) (net.Conn, error) {
	var theirs, ours net.Conn
	var err error
	if network == "unix" {
		var file *os.File
		if ours, file, err = socketpair(); err != nil {
			return nil, err
		}
		theirs, err = net.FileConn(file)
		file.Close()
	} else {
		theirs, ours, err = loopback()
	}
	if err != nil {
		if ours != nil {
			ours.Close()
		}
		return nil, err
	}
	p.mu.Lock()
	p.conns = append(p.conns, ours)
	p.mu.Unlock()
	go func() {
		defer ours.Close()
		for buf := make([]byte, 32<<10); ; {
			ours.SetReadDeadline(time.Now().Add(hangUp))
			if _, err := ours.Read(buf); err != nil {
				return
			}
		}
	}()
	return theirs, nil
}

// loopback returns two ends of a TCP connection.
func loopback() (a, b net.Conn, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer listener.Close()
	if a, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		return nil, nil, err
	}
	if b, err = listener.Accept(); err != nil {
		a.Close()
		return nil, nil, err
	}
	return a, b, nil
}
