package dns

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// upstream asks other servers.
type upstream struct {
	servers []netip.AddrPort
	timeout time.Duration
	good    atomic.Int32 // the server that answered last

	mu      sync.Mutex
	flights map[string]*flight
}

// flight is a question that is being asked, for all who wait for its answer.
// One at a time for each question: many at once would be as many chances for a
// forged answer.
type flight struct {
	done chan struct{}
	got  *stored
}

// once returns what ask returns, or what it returned for somebody else who asked
// the same meanwhile.
func (u *upstream) once(key string, ask func() *stored) *stored {
	u.mu.Lock()
	if f := u.flights[key]; f != nil {
		u.mu.Unlock()
		<-f.done
		return f.got
	}
	f := &flight{done: make(chan struct{})}
	u.flights[key] = f
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		delete(u.flights, key)
		u.mu.Unlock()
		close(f.done)
	}()
	f.got = ask()
	return f.got
}

var errNoServer = errors.New("no upstream server answered")

// ask returns the first answer that a server has: one that says that it cannot
// answer counts when no other does better.
func (u *upstream) ask(ctx context.Context, name string, typ uint16, do, unchecked bool) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptsBudget)
	defer cancel()
	var failed *dns.Msg
	err := errNoServer
	first := int(u.good.Load())
	for n := range 2 * len(u.servers) {
		if ctx.Err() != nil {
			break
		}
		i := (first + n) % len(u.servers)
		m, aerr := u.askOne(ctx, u.servers[i], name, typ, do, unchecked)
		if aerr != nil {
			err = aerr
			continue
		}
		if m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError {
			u.good.Store(int32(i))
			return m, nil
		}
		if failed = m; n >= len(u.servers)-1 {
			break
		}
	}
	if failed != nil {
		return failed, nil
	}
	return nil, err
}

// askOne asks one server, by UDP, and by TCP when the answer does not fit or the
// server does not keep the letters of the name.
func (u *upstream) askOne(ctx context.Context, server netip.AddrPort, name string, typ uint16, do, unchecked bool) (*dns.Msg, error) {
	query, end, err := makeQuery(name, typ, do, unchecked)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(u.timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	m, tcp, err := u.byUDP(ctx, server, query, end, deadline)
	if !tcp {
		return m, err
	}
	return u.byTCP(ctx, server, query, end, deadline)
}

// makeQuery makes a question with a random number and the letters of the name in
// random case, and returns where its question section ends.
func makeQuery(name string, typ uint16, do, unchecked bool) ([]byte, int, error) {
	var seed [34]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return nil, 0, err
	}
	b := []byte(name)
	for i, ch := range b {
		if seed[2+i/8%32]>>(i%8)&1 == 1 && ch >= 'a' && ch <= 'z' {
			b[i] = ch - 'a' + 'A'
		}
	}
	m := new(dns.Msg)
	m.Id = binary.BigEndian.Uint16(seed[:])
	m.RecursionDesired, m.CheckingDisabled = true, unchecked
	m.Question = []dns.Question{{Name: string(b), Qtype: typ, Qclass: dns.ClassINET}}
	m.SetEdns0(ednsSize, do)
	data, err := m.Pack()
	if err != nil {
		return nil, 0, err
	}
	end, err := skipName(data, headerSize)
	return data, end + 4, err
}

// answers reports whether a message is an answer to the query: the same number,
// the same question in the same letters. almost: all but the letters.
func answers(b, query []byte, end int) (exact, almost bool) {
	if len(b) < end || b[0] != query[0] || b[1] != query[1] || b[2]&0xf8 != 0x80 || binary.BigEndian.Uint16(b[4:]) != 1 {
		return false, false
	}
	exact = bytes.Equal(b[headerSize:end], query[headerSize:end])
	return exact, exact || bytes.EqualFold(b[headerSize:end-4], query[headerSize:end-4])
}

// byUDP asks from a port of its own. Whatever does not fit is passed over until
// the time is up; tcp is true when TCP is to be tried.
func (u *upstream) byUDP(ctx context.Context, server netip.AddrPort, query []byte, end int, deadline time.Time) (m *dns.Msg, tcp bool, err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", server.String())
	if err != nil {
		return nil, false, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn.SetDeadline(deadline)
	if _, err := conn.Write(query); err != nil {
		return nil, false, err
	}
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, false, fmt.Errorf("ask %s: %w", server, err)
		}
		exact, almost := answers(buf[:n], query, end)
		if !exact {
			if almost {
				return nil, true, nil // it may be forged: TCP cannot be
			}
			continue
		}
		if buf[2]&2 != 0 {
			return nil, true, nil
		}
		m := new(dns.Msg)
		if err := m.Unpack(buf[:n]); err != nil {
			return nil, false, fmt.Errorf("ask %s: %w", server, err)
		}
		return m, false, nil
	}
}

func (u *upstream) byTCP(ctx context.Context, server netip.AddrPort, query []byte, end int, deadline time.Time) (*dns.Msg, error) {
	d := net.Dialer{Deadline: deadline}
	conn, err := d.DialContext(ctx, "tcp", server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn.SetDeadline(deadline)
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, fmt.Errorf("ask %s by TCP: %w", server, err)
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return nil, fmt.Errorf("ask %s by TCP: %w", server, err)
	}
	if _, almost := answers(buf, query, end); !almost {
		return nil, fmt.Errorf("ask %s by TCP: the answer is to another question", server)
	}
	m := new(dns.Msg)
	if err := m.Unpack(buf); err != nil {
		return nil, fmt.Errorf("ask %s by TCP: %w", server, err)
	}
	return m, nil
}
