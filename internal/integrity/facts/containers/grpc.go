package containers

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// client asks over gRPC, which is HTTP/2 with messages of protocol buffers:
// github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md. What is needed of it is calls
// with one request and any number of answers, without compression, over a
// local socket. A library for all of it would be larger than this program.
type client struct {
	tr        *http.Transport
	namespace string
}

func (e *Endpoint) client() *client {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return &client{tr: &http.Transport{DialContext: e.dial, Protocols: p, DisableCompression: true}}
}

// call sends a request and hands each answer to take.
func (c *client) call(ctx context.Context, method string, request []byte, take func(message []byte) error) error {
	body := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(request))), request...)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://containerd"+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	if c.namespace != "" {
		req.Header.Set("Containerd-Namespace", c.namespace)
	}
	res, err := c.tr.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || !strings.HasPrefix(res.Header.Get("Content-Type"), "application/grpc") {
		return fmt.Errorf("%s: %s", method, res.Status)
	}
	if err := frames(res.Body, take); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	status, text := res.Trailer.Get("Grpc-Status"), res.Trailer.Get("Grpc-Message")
	if status == "" { // an answer of trailers alone has them in its head
		status, text = res.Header.Get("Grpc-Status"), res.Header.Get("Grpc-Message")
	}
	if status != "0" {
		return &statusError{method, status, text}
	}
	return nil
}

// statusError is what a server answered in place of a message.
type statusError struct{ method, status, text string }

func (e *statusError) Error() string {
	return fmt.Sprintf("%s: status %q: %s", e.method, e.status, e.text)
}

// unimplemented tells whether the server does not know the method.
func (e *statusError) unimplemented() bool { return e.status == "12" }

// frames reads messages, each with a head of five bytes.
func frames(r io.Reader, take func([]byte) error) error {
	var total int64
	for {
		var head [5]byte
		if _, err := io.ReadFull(r, head[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		size := int64(binary.BigEndian.Uint32(head[1:]))
		if total += size; head[0] != 0 || total > maxList {
			return fmt.Errorf("a compressed answer, or more than %d bytes", maxList)
		}
		b, err := io.ReadAll(io.LimitReader(r, size))
		if err != nil {
			return err
		}
		if int64(len(b)) < size {
			return io.ErrUnexpectedEOF
		}
		if err := take(b); err != nil {
			return err
		}
	}
}
