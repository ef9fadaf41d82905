package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Stream is an established connection over TCP, by which both ends send
// numbered words all the time.
type Stream struct {
	Name   string
	Client *End
	Server *End
}

// End is one end of a Stream.
type End struct {
	Conn net.Conn

	received atomic.Int64
	mu       sync.Mutex
	err      error         // all that were seen, by who writes and by who reads
	failed   chan struct{} // closed with the first
}

// Stream connects the host to a port of another one, where nothing may listen
// yet, and lets data flow until the end of the test.
func (h *Host) Stream(to *Host, address netip.Addr, port uint16) *Stream {
	h.lab.t.Helper()
	target := netip.AddrPortFrom(address, port).String()
	listener := to.Listen("tcp", target)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client, err := h.Dial(ctx, "tcp", target)
	h.lab.must(err)
	server, err := listener.Accept()
	h.lab.must(err)
	listener.Close()
	s := &Stream{fmt.Sprintf("stream %s → %s %s", h.Name, to.Name, target), newEnd(client), newEnd(server)}
	h.lab.t.Cleanup(func() {
		s.Client.Conn.Close()
		s.Server.Conn.Close()
	})
	return s
}

func newEnd(conn net.Conn) *End {
	e := &End{Conn: conn, failed: make(chan struct{})}
	go e.send()
	go e.receive()
	return e
}

// words are sent at once, every so often.
const words = 64

// fresh is more bytes than can have been on their way at any time.
const fresh = 1 << 16

func (e *End) send() {
	for next := uint64(0); ; time.Sleep(2 * time.Millisecond) {
		var b []byte
		for range words {
			b = binary.BigEndian.AppendUint64(b, next)
			next++
		}
		if _, err := e.Conn.Write(b); err != nil {
			e.fail(fmt.Errorf("writing: %w", err))
			return
		}
	}
}

func (e *End) receive() {
	b, have := make([]byte, 8*words), 0
	for next := uint64(0); ; {
		n, err := e.Conn.Read(b[have:])
		e.received.Add(int64(n))
		have += n
		for have >= 8 {
			if got := binary.BigEndian.Uint64(b); got != next {
				e.fail(fmt.Errorf("word %d where %d should be", got, next))
				return
			}
			next++
			have -= 8
			copy(b, b[8:8+have])
		}
		if err != nil {
			e.fail(fmt.Errorf("reading: %w", err))
			return
		}
	}
}

func (e *End) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		close(e.failed)
	}
	e.err = errors.Join(e.err, err)
}

// Received is how many bytes have arrived here.
func (e *End) Received() int64 { return e.received.Load() }

// Err is the errors that a program at this end sees, by writing and by reading,
// of which the kernel tells one alone why; nil as long as there is none. What is
// lost or doubled is one, too.
func (e *End) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// Flowing reports an error for each stream by which new bytes do not arrive at
// both ends, or of which something was lost.
func Flowing(t testing.TB, streams ...*Stream) {
	t.Helper()
	before := received(streams)
	flows := func(i int) bool {
		s := streams[i]
		return s.Client.Received() > before[i][0]+fresh && s.Server.Received() > before[i][1]+fresh && s.Client.Err() == nil && s.Server.Err() == nil
	}
	end := time.Now().Add(patience)
	for i, s := range streams {
		for !flows(i) && s.Client.Err() == nil && s.Server.Err() == nil && time.Now().Before(end) {
			time.Sleep(2 * time.Millisecond)
		}
		if !flows(i) {
			t.Errorf("%s does not flow: client %v, server %v; %d and %d bytes since", s.Name, s.Client.Err(), s.Server.Err(), s.Client.Received()-before[i][0], s.Server.Received()-before[i][1])
		}
	}
}

// Flows is Flowing for one stream.
func (s *Stream) Flows(t testing.TB) {
	t.Helper()
	Flowing(t, s)
}

func received(streams []*Stream) (list [][2]int64) {
	for _, s := range streams {
		list = append(list, [2]int64{s.Client.Received(), s.Server.Received()})
	}
	return list
}

// Stalled reports an error for each stream of which anything still arrives at
// either end. That they have flowed before is what Flowing says: call it first.
func Stalled(t testing.TB, streams ...*Stream) {
	t.Helper()
	for _, s := range streams {
		if s.Client.Received() == 0 || s.Server.Received() == 0 {
			t.Fatalf("%s has never flowed: that it stalls would prove nothing", s.Name)
		}
	}
	// What has come to this machine before may be read late, when it is busy:
	// so little, and then nothing for a retransmission or two.
	first := received(streams)
	stalled := true
	for end, before := time.Now().Add(patience), first; stalled; {
		time.Sleep(attempts * attempt)
		now := received(streams)
		if slices.Equal(now, before) {
			return
		}
		for i, n := range now {
			if client, server := n[0]-first[i][0], n[1]-first[i][1]; max(client, server) > fresh || n != before[i] && time.Now().After(end) {
				t.Errorf("%s: %d and %d bytes still arrive", streams[i].Name, client, server)
				stalled = false
			}
		}
		before = now
	}
}

// Dies reports an error unless a program at this end is told soon that the
// connection is gone.
func (e *End) Dies(t testing.TB) error {
	t.Helper()
	select {
	case <-e.failed:
		return e.Err()
	case <-time.After(patience):
		t.Errorf("the program at %s still waits for its connection with %s", e.Conn.LocalAddr(), e.Conn.RemoteAddr())
		return errors.New("alive")
	}
}
