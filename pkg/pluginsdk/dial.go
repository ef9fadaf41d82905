package pluginsdk

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"
)

const (
	dialTimeout = 10 * time.Second // of a Dial whose context has no deadline
	dialGrace   = 5 * time.Second  // how much longer than the host we wait
)

// Dial connects to an address that the plugin's permissions list. It is the
// only way to the network: a plugin cannot make sockets. network is "tcp"
// ("host:port") or "unix" (a path). The connection is a *net.TCPConn or
// *net.UnixConn, so TLS, HTTP and all else work over it: Dial fits the
// DialContext of http.Transport.
//
// An address that is not listed is an *Error with CodeDenied, one that does
// not answer has CodeFailed. Without a deadline the host tries for 10 seconds.
func (c *Client) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	timeout := dialTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = time.Until(deadline)
	} else {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, dialTimeout+dialGrace)
		defer cancel()
	}
	params := struct {
		Network string `json:"network"`
		Address string `json:"address"`
		Timeout int64  `json:"timeout_ms"`
	}{network, address, max(1, timeout.Milliseconds())}
	a, err := c.do(ctx, "dial", params, &call{wantFD: true})
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", network, address, err)
	}
	if a.fd < 0 {
		// The kernel leaves out what does not fit into the table of this process.
		return nil, fmt.Errorf("dial: %s %s: %w", network, address,
			&Error{CodeFailed, "the answer brought no descriptor (has this plugin reached its limit of open files?)"})
	}
	file := os.NewFile(uintptr(a.fd), address)
	conn, err := net.FileConn(file) // a copy, close-on-exec
	file.Close()
	if err != nil {
		return nil, fmt.Errorf("dial: %s %s: %w", network, address, err)
	}
	return conn, nil
}
