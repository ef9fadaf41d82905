package anchor

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// Syslog sends anchors to a syslog, from where they travel to where logs are
// kept. It cannot be read back.
type Syslog struct {
	network string // unix, tcp or udp
	address string
	timeout time.Duration
}

// defaultSyslog is the socket of the local syslog, syslog(3).
const defaultSyslog = "/dev/log"

// priority is facility 10 (authpriv) and severity 5 (notice), RFC 5424 section
// 6.2.1.
const priority = 10*8 + 5

// ParseSyslog reads an address: tcp://HOST[:PORT], udp://HOST[:PORT],
// unix:PATH or a path; "" is the local syslog. The port is 601 for TCP (RFC
// 6587) and 514 for UDP (RFC 5426) when it is not given.
func ParseSyslog(address string, timeout time.Duration) (*Syslog, error) {
	s := &Syslog{timeout: timeout}
	wrong := failure.Errorf(failure.Usage, "%q is no address of a syslog: write tcp://HOST:PORT, udp://HOST:PORT or the path of a socket", address)
	if address == "" {
		address = defaultSyslog
	}
	path := strings.TrimPrefix(address, "unix:")
	if filepath.IsAbs(path) {
		s.network, s.address = "unix", filepath.Clean(path)
		return s, nil
	}
	network, rest, ok := strings.Cut(address, "://")
	port, known := map[string]string{"tcp": "601", "udp": "514"}[network]
	if !ok || !known || rest == "" {
		return nil, wrong
	}
	host, given, err := net.SplitHostPort(rest)
	if err != nil {
		host = strings.Trim(rest, "[]")
	} else {
		port = given
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" || strings.ContainsAny(host, "/ ") {
		return nil, wrong
	}
	s.network, s.address = network, net.JoinHostPort(host, port)
	return s, nil
}

func (s *Syslog) String() string {
	if s.network == "unix" {
		return "syslog:" + s.address
	}
	return "syslog:" + s.network + "://" + s.address
}

// Readable tells that a syslog cannot be asked.
func (s *Syslog) Readable() bool { return false }

// Read returns nothing.
func (s *Syslog) Read(context.Context, string) (*Anchor, error) { return nil, nil }

// Write sends an anchor as one message of RFC 5424. Over UDP nobody can know
// whether it arrived.
func (s *Syslog) Write(ctx context.Context, a Anchor) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	conn, err := s.dial(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	message := Message(a)
	switch conn.LocalAddr().Network() {
	case "tcp":
		// RFC 6587 section 3.4.1: octets are counted.
		message = strconv.Itoa(len(message)) + " " + message
	case "unix":
		message += "\n" // a stream without counting
	}
	if _, err := conn.Write([]byte(message)); err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return nil
}

// dial connects; the local socket is usually for datagrams, else a stream.
func (s *Syslog) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	if s.network != "unix" {
		return d.DialContext(ctx, s.network, s.address)
	}
	conn, err := d.DialContext(ctx, "unixgram", s.address)
	if err != nil {
		if stream, second := d.DialContext(ctx, "unix", s.address); second == nil {
			return stream, nil
		}
	}
	return conn, err
}

// Message is an anchor as a message of RFC 5424.
func Message(a Anchor) string {
	host, err := os.Hostname()
	if err != nil || !validHost(host) {
		host = "-" // NILVALUE
	}
	return fmt.Sprintf("<%d>1 %s %s mobileops %d anchor - %s", priority, time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), host, os.Getpid(), a.String())
}
