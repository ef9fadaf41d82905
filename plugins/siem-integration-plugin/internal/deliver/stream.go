package deliver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// stream sends syslog messages over a connection. The protocol has no
// acknowledgement, so it keeps every message until it is confirmed, and after a
// broken connection sends those again that are not.
//
// With confirm: kernel, a message is confirmed when the kernel of the receiver
// has acknowledged its last byte. Almost nothing is then sent twice (what was read
// in the moment before an acknowledgement that a reset cut off); what the
// receiver had not read when it was killed is lost with its buffer.
//
// With confirm: close, we close our half of the connection after some messages
// and wait until the receiver closes its half, which it does when it has read
// everything. A receiver that ends with something unread makes its kernel reset
// the connection instead; then everything since the last such point is sent
// again, and the receiver tells doubles by the id in each message.
//
// Either way no more than window events are unconfirmed at any time, and so no
// more come twice after a kill of either side. Fewer than that cannot be: a
// receiver says nothing that a new process could ask it again.
type stream struct {
	d     *Destination
	tls   *tls.Config // nil: none
	close bool        // confirm: close

	conn   net.Conn // nil: not connected
	wire   *wire
	ended  chan error // how the receiver ended the connection
	since  time.Time
	unhook func() bool

	broke   bool     // the last connection ended before all was confirmed
	flights []*batch // not confirmed, in order; all or some of their messages are sent
	marks   []mark
	pending int // bytes of flights
	events  int // messages of flights
}

// mark says that messages up to n of b are over when wire bytes are.
type mark struct {
	b       *batch
	from, n int
	wire    int64
}

const (
	windowBytes  = 1 << 20 // about so many may be unconfirmed, as well as window events
	plainChunk   = 64 << 10
	tlsChunk     = 16 << 10               // a record of TLS
	closeAge     = 250 * time.Millisecond // confirm: close after so long, when the window is full,
	closeIdle    = 50 * time.Millisecond  // or when there is nothing to send for so long
	closeAnswer  = 10 * time.Second       // how long the receiver may take to close, too
	firstConfirm = time.Millisecond
	lastConfirm  = 20 * time.Millisecond
)

func newStream(d *Destination) (*stream, error) {
	s := &stream{d: d, close: d.cfg.Confirm == "close"}
	var err error
	if d.cfg.Type == TypeSyslogTLS {
		s.tls, err = tlsConfig(d.cfg, d.opts.Secrets)
	}
	return s, err
}

func (s *stream) run(soft, hard context.Context) error {
	defer s.drop()
	confirm := firstConfirm
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	s.d.state("idle")
	for {
		if s.conn == nil && len(s.flights) > 0 {
			if err := s.connect(soft, hard); err != nil {
				return err
			}
			if err := s.resend(); err != nil {
				return err
			}
			continue
		}
		batches := s.d.batches
		if s.full() {
			batches = nil
		}
		if len(s.flights) > 0 {
			timer.Reset(confirm)
		}
		select {
		case b, ok := <-batches:
			if !ok {
				return s.finish(hard)
			}
			if len(b.ends) == 0 && len(s.flights) == 0 { // nothing that the filter wants
				if err := s.d.commit(b, 0); err != nil {
					return err
				}
				s.d.give(b)
				continue
			}
			s.flights = append(s.flights, b)
			s.pending += len(b.body)
			s.events += len(b.ends)
			if s.conn != nil {
				if err := s.write(b); err != nil {
					return err
				}
			}
			confirm = firstConfirm
		case err := <-s.ended:
			if err := s.broken(err); err != nil {
				return err
			}
			continue
		case <-timer.C:
			confirm = min(2*confirm, lastConfirm)
		case <-soft.Done():
			return s.finish(hard)
		}
		if err := s.confirm(confirm); err != nil {
			return err
		}
	}
}

// full says whether one more batch could be more than may come twice after a
// kill.
func (s *stream) full() bool {
	return len(s.flights) > 0 && (s.events+s.d.cfg.BatchEvents > s.d.cfg.Window || s.pending+int(s.d.cfg.BatchBytes) > windowBytes)
}

// connect tries until there is a connection.
func (s *stream) connect(soft, hard context.Context) error {
	if s.broke {
		s.broke = false
		if err := s.d.pause(soft, 0); err != nil {
			return err
		}
	}
	for {
		conn, wire, err := s.dial(soft)
		if err == nil {
			s.conn, s.wire, s.since = conn, wire, time.Now()
			s.ended = make(chan error, 1)
			go func(ended chan error) { ended <- discard(conn) }(s.ended)
			s.unhook = context.AfterFunc(hard, func() { _ = wire.SetDeadline(time.Unix(1, 0)) })
			s.d.state("connected")
			return nil
		}
		if soft.Err() != nil {
			return soft.Err()
		}
		s.d.failed(err)
		if err := s.d.pause(soft, 0); err != nil {
			return err
		}
	}
}

func (s *stream) dial(ctx context.Context) (net.Conn, *wire, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := s.d.opts.Dial(ctx, "tcp", s.d.cfg.Address)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to %s: %w", s.d.cfg.Address, err)
	}
	w := newWire(conn)
	if s.tls == nil {
		return w, w, nil
	}
	t, err := handshake(ctx, w, s.tls)
	if err != nil {
		w.abandon()
		return nil, nil, fmt.Errorf("%s: %w", s.d.cfg.Address, err)
	}
	return t, w, nil
}

// discard reads what the receiver has no reason to send, until it ends the
// connection, and returns how it did.
func discard(conn net.Conn) error {
	var b [512]byte
	for {
		if _, err := conn.Read(b[:]); err != nil {
			return err
		}
	}
}

// resend writes what is not confirmed to a new connection.
func (s *stream) resend() error {
	for _, b := range s.flights {
		if s.conn == nil {
			return nil
		}
		if err := s.write(b); err != nil {
			return err
		}
	}
	return nil
}

// write writes the messages of b that are not confirmed. When the connection
// breaks it is gone afterwards; an error is one of the queue.
func (s *stream) write(b *batch) error {
	chunk := plainChunk
	if s.tls != nil {
		chunk = tlsChunk
	}
	if len(b.ends) == 0 {
		s.marks = append(s.marks, mark{b: b, wire: s.wire.written.Load()})
		return nil
	}
	for i := b.confirmed; i < len(b.ends); {
		from, to := b.span(i)
		n := i + 1
		for n < len(b.ends) && b.ends[n]-from <= chunk {
			to = b.ends[n]
			n++
		}
		m := mark{b: b, from: i, n: n, wire: s.wire.written.Load() + int64(to-from)}
		if s.tls == nil { // a write that is cut short may bring over some of it
			s.marks = append(s.marks, m)
		}
		if _, err := s.conn.Write(b.body[from:to]); err != nil {
			return s.broken(err)
		}
		if s.tls != nil {
			m.wire = s.wire.written.Load()
			s.marks = append(s.marks, m)
		}
		i = n
	}
	return nil
}

// confirm moves the cursor on, if there is news. idle is how long there was
// nothing to send.
func (s *stream) confirm(idle time.Duration) error {
	if s.conn == nil || len(s.flights) == 0 {
		return nil
	}
	if s.close {
		if s.full() || idle >= lastConfirm && time.Since(s.since) >= closeIdle || time.Since(s.since) >= closeAge {
			return s.barrier(closeAnswer)
		}
		return nil
	}
	acked, err := s.wire.acknowledged()
	if err != nil {
		return s.broken(err)
	}
	return s.acknowledge(acked)
}

// acknowledge confirms every message that is over when so many bytes are.
func (s *stream) acknowledge(acked int64) error {
	done := 0
	for ; done < len(s.marks) && s.marks[done].wire <= acked; done++ {
		m := s.marks[done]
		if m.n < len(m.b.ends) && done+1 < len(s.marks) && s.marks[done+1].b == m.b && s.marks[done+1].wire <= acked {
			continue // a later mark of the same batch says more
		}
		if err := s.d.commit(m.b, m.n); err != nil {
			return err
		}
		if m.n == len(m.b.ends) {
			s.flights = s.flights[1:]
			s.pending -= len(m.b.body)
			s.events -= len(m.b.ends)
			s.d.give(m.b)
		}
	}
	if done > 0 {
		s.marks = append(s.marks[:0], s.marks[done:]...)
		s.d.wait.reset()
		s.d.worked()
	}
	return nil
}

// barrier ends the connection in good order and confirms what the receiver has
// read: everything, if it ends the connection after us.
func (s *stream) barrier(patience time.Duration) error {
	if err := closeWrite(s.conn, s.wire); err != nil {
		return s.broken(err)
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case err := <-s.ended:
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return s.broken(err)
		}
	case <-t.C:
		s.d.failed(fmt.Errorf("%s did not close the connection within %s after we did: what its kernel has acknowledged counts as delivered", s.d.cfg.Address, patience))
	}
	acked, err := s.wire.acknowledged()
	if err == nil {
		err = s.acknowledge(acked + 1) // our FIN counts as a byte that is not
	}
	s.gone()
	return err
}

// broken takes note that the connection is over.
func (s *stream) broken(why error) error {
	if s.conn == nil {
		return nil
	}
	// The receiver's last acknowledgements may still be on their way.
	if errors.Is(why, io.EOF) || errors.Is(why, io.ErrUnexpectedEOF) {
		why = errors.New("the receiver closed the connection")
		for range 20 {
			if acked, err := s.wire.acknowledged(); err != nil || acked >= s.wire.written.Load() {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	if !s.close {
		acked, err := s.wire.acknowledged()
		if err != nil {
			acked = 0
		}
		if err := s.acknowledge(acked); err != nil {
			return err
		}
		if err := s.partly(acked); err != nil {
			return err
		}
	}
	resent := 0
	for _, m := range s.marks {
		resent += m.n - max(m.from, m.b.confirmed)
	}
	if !s.close && errors.Is(why, syscall.ECONNRESET) {
		why = fmt.Errorf("%w: what the receiver had not read yet is lost (confirm: close avoids that)", why)
		s.d.failed(fmt.Errorf("%s: %w", s.d.cfg.Address, why))
	}
	if s.broke = resent > 0; s.broke {
		s.d.count.resent.Add(uint64(resent))
		s.d.failed(fmt.Errorf("%s: %w; %d messages are sent again", s.d.cfg.Address, why, resent))
	}
	s.d.state("not connected")
	s.gone()
	return nil
}

// partly confirms the whole messages of a write of which the receiver has a
// part. Of a record of TLS it has all or nothing.
func (s *stream) partly(acked int64) error {
	if s.tls != nil || len(s.marks) == 0 || s.marks[0].n == 0 {
		return nil
	}
	m := s.marks[0]
	from, _ := m.b.span(m.from)
	start := m.wire - int64(m.b.ends[m.n-1]-from)
	n := m.from
	for n < m.n && start+int64(m.b.ends[n]-from) <= acked {
		n++
	}
	if n == m.from {
		return nil
	}
	return s.d.commit(m.b, n)
}

// gone leaves the connection.
func (s *stream) gone() {
	if s.conn == nil {
		return
	}
	s.unhook()
	s.wire.abandon()
	s.conn, s.wire, s.ended, s.marks = nil, nil, nil, s.marks[:0]
}

// finish waits until what was sent is confirmed, and ends.
func (s *stream) finish(hard context.Context) error {
	if s.conn == nil {
		return nil
	}
	for !s.close && s.conn != nil && len(s.marks) > 0 && hard.Err() == nil {
		if err := s.confirm(0); err != nil {
			return err
		}
		select {
		case err := <-s.ended:
			return s.broken(err)
		case <-time.After(firstConfirm):
		case <-hard.Done():
		}
	}
	if s.conn == nil || hard.Err() != nil {
		return nil
	}
	patience := 2 * time.Second
	if deadline, ok := hard.Deadline(); ok {
		patience = min(patience, time.Until(deadline))
	}
	return s.barrier(patience)
}

// drop is for the way out: what the kernel has is not taken back, since after
// an orderly end of ours it has been confirmed.
func (s *stream) drop() {
	if s.conn != nil {
		if !s.close {
			if acked, err := s.wire.acknowledged(); err == nil {
				_ = s.acknowledge(acked)
			}
		}
		s.gone()
	}
}

func (s *stream) probe(ctx context.Context, b *batch) (string, error) {
	conn, w, err := s.dial(ctx)
	if err != nil {
		return "", err
	}
	defer w.abandon()
	if _, err := conn.Write(b.body); err != nil {
		return "", fmt.Errorf("send to %s: %w", s.d.cfg.Address, err)
	}
	said := fmt.Sprintf("connected to %s", s.d.cfg.Address)
	if t, ok := conn.(*tls.Conn); ok {
		state := t.ConnectionState()
		said += fmt.Sprintf(", %s, certificate of %q until %s", tls.VersionName(state.Version), state.PeerCertificates[0].Subject, state.PeerCertificates[0].NotAfter.Format(time.DateOnly))
	}
	if err := closeWrite(conn, w); err != nil {
		return "", err
	}
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	switch err := discard(conn); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return said + "; it read the message and closed the connection (syslog has no answer that says more)", nil
	case errors.Is(err, net.ErrClosed) || isTimeout(err):
		acked, err := w.acknowledged()
		if err == nil && acked+1 >= w.written.Load() {
			return said + "; its kernel has the message, but it did not close the connection after us", nil
		}
		return "", fmt.Errorf("%s; nothing was acknowledged within 5 seconds", said)
	default:
		return "", fmt.Errorf("%s; it broke the connection off: %w", said, err)
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
