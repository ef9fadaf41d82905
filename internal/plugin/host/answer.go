package host

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"golang.org/x/sys/unix"
)

// outLine is a line to write.
type outLine struct {
	line    []byte        // with its newline
	fd      int           // passed with the first byte and closed then; -1: none
	written chan struct{} // closed when the line was written or given up; nil: nobody waits
}

func (l outLine) done() {
	if l.fd >= 0 {
		unix.Close(l.fd)
	}
	if l.written != nil {
		close(l.written)
	}
}

// send puts a line into the queue, and waits while that is full.
func (s *session) send(l outLine) {
	select {
	case s.out <- l:
	case <-s.ctx.Done():
		l.done()
	}
}

// drain waits until everything in the queue was written.
func (s *session) drain() {
	end := outLine{fd: -1, written: make(chan struct{})}
	s.send(end)
	select {
	case <-end.written:
	case <-s.ctx.Done():
	}
}

// discard empties the queue of a session without a writer.
func (s *session) discard() {
	for {
		select {
		case l := <-s.out:
			l.done()
		default:
			return
		}
	}
}

// write is the one writer. When the plugin takes nothing any more, it goes on
// taking lines from the queue, because what the plugin has sent before is
// still to be read.
func (s *session) write() {
	gone := false
	for {
		select {
		case l := <-s.out:
			if !gone {
				gone = s.writeLine(l) != nil
			}
			l.done()
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *session) writeLine(l outLine) error {
	if l.fd >= 0 {
		// The descriptor goes with the first byte, and the kernel takes as many
		// bytes as it likes.
		n, _, err := s.conn.WriteMsgUnix(l.line, unix.UnixRights(l.fd), nil)
		if err != nil {
			return err
		}
		l.line = l.line[n:]
	}
	if len(l.line) == 0 {
		return nil
	}
	_, err := s.conn.Write(l.line)
	return err
}

// nothing is the result of requests that have none.
type nothing struct{}

// passed is a result that brings a descriptor.
type passed struct{ fd int }

// answered stands for the result of a request that was answered already.
type answered struct{}

// answer answers a request with a result, or with why there is none.
func (s *session) answer(id uint64, result any, err error) {
	out := outLine{fd: -1}
	var raw []byte
	switch r := result.(type) {
	case answered:
		if err == nil {
			return
		}
	case passed:
		out.fd, raw = r.fd, []byte("{}")
	case nil, nothing:
		raw = []byte("{}")
	case json.RawMessage:
		raw = r
	default:
		var failed error
		if raw, failed = json.Marshal(result); err == nil {
			err = failed
		}
	}
	if err == nil && len(raw) > MaxLine-64 {
		err = refuse(TooLarge, "the answer has %d bytes", len(raw))
	}
	line := strconv.AppendUint([]byte(`{"id":`), id, 10)
	if err == nil {
		line = append(append(line, `,"result":`...), raw...)
	} else {
		// A refusal has text alone, which cannot fail to be JSON.
		raw, _ := json.Marshal(refusal(err))
		line = append(append(line, `,"error":`...), raw...)
	}
	out.line = append(line, "}\n"...)
	s.send(out)
}

// refusal says to a plugin what went wrong, without what is none of its
// business: the words of errors name files and processes of the host.
func refusal(err error) *Refusal {
	var r *Refusal
	switch {
	case errors.As(err, &r):
		return r
	case errors.Is(err, finding.ErrInvalid):
		return refuse(Invalid, "%s", clean(err.Error(), 512))
	case errors.Is(err, context.Canceled):
		return refuse(Failed, "the session ends")
	case errors.Is(err, context.DeadlineExceeded):
		return refuse(Failed, "it took too long")
	case failure.KindOf(err) == failure.Busy:
		return refuse(Busy, "the state is in use; try again")
	case failure.KindOf(err) == failure.Untrustworthy:
		return refuse(Failed, "the state is damaged; the operator has to look")
	}
	return refuse(Failed, "the host could not do it; its log says why")
}

// hello is the first line of a session.
func (s *session) hello() outLine {
	type program struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	type host struct {
		Version string `json:"version"`
		ID      string `json:"id"`
	}
	type params struct {
		Protocol string  `json:"protocol"`
		Host     host    `json:"host"`
		Plugin   program `json:"plugin"`
		Role     string  `json:"role"`
	}
	line, _ := json.Marshal(struct {
		Method string `json:"method"`
		Params params `json:"params"`
	}{"hello", params{Protocol, host{s.opts.HostVersion, s.opts.HostID}, program{s.opts.Name, s.opts.Version}, s.opts.Role}})
	return outLine{line: append(line, '\n'), fd: -1}
}

// watch pings the plugin and ends the session when an answer is missing. A
// plugin that reads nothing gets no ping either: that counts, too.
func (s *session) watch() {
	every := max(s.opts.Watchdog/2, time.Millisecond)
	timer := time.NewTimer(every)
	defer timer.Stop()
	for id := uint64(1); ; id++ {
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			return
		}
		timer.Reset(s.opts.Watchdog)
		ping := outLine{line: append(strconv.AppendUint([]byte(`{"id":`), id, 10), `,"method":"ping","params":{}}`+"\n"...), fd: -1}
		for queue, got := s.out, uint64(0); got != id; {
			select {
			case queue <- ping:
				queue = nil
			case got = <-s.pong:
			case <-timer.C:
				s.cancel(ErrUnresponsive)
				return
			case <-s.ctx.Done():
				return
			}
		}
		timer.Reset(every)
	}
}
