package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// What one session may have under way.
const (
	maxRequests = 64 // requests without an answer, dials not counted
	maxDials    = 64 // dials without an answer
	queueLines  = 64 // lines that wait to be written; who adds one waits

	requestBurst, requestRate = 4000, 2000 // lines at once, and a second
	errorBurst, errorRate     = 20, 0.2    // complaints about what the plugin says of itself
	healthBurst, healthEvery  = 20, 200 * time.Millisecond
	maxParams                 = 64 << 10           // bytes of parameters that are no report
	dialBurst, dialRate       = 200, 50            // dials
	reportBurst, reportRate   = 256 << 20, 1 << 20 // bytes of findings

	slowDown   = 10 * time.Millisecond // for which nothing is read after each line too many
	drainGrace = 5 * time.Second       // for what is under way when a session ends
)

// session is one plugin process being served.
//
// Goroutines: the one of run reads, and never waits for the store or the
// network; one writes; each request has one of its own; a subscription and a
// watchdog have one each. All of them end before run returns.
type session struct {
	opts   *Options
	conn   *net.UnixConn
	lines  lineReader
	caller context.Context // of Serve: done when the session is to end
	ctx    context.Context // of the session: done when it is over
	cancel context.CancelCauseFunc
	out    chan outLine

	requests, dials                    chan struct{} // a place for each that is under way
	requestRate, dialRate, reportBytes *allowance
	errorRate                          *allowance
	handlers                           sync.WaitGroup

	ready   bool        // only the reader
	pong    chan uint64 // ids of answers to pings
	healths chan Health // one that is to be told; only the reader sends
	reports reports
	cursor  *cursorSaver

	calling     sync.Mutex    // held while a function of opts runs
	subscribing chan struct{} // held while a subscription is replaced
	mu          sync.Mutex
	sub         *subscription
}

func newSession(ctx context.Context, conn *net.UnixConn, opts *Options) *session {
	if opts.drain == 0 {
		opts.drain = drainGrace
	}
	s := &session{
		opts: opts, conn: conn, lines: lineReader{r: conn},
		out:         make(chan outLine, queueLines),
		requests:    make(chan struct{}, maxRequests),
		dials:       make(chan struct{}, maxDials),
		requestRate: newAllowance(requestBurst, requestRate, opts.now),
		dialRate:    newAllowance(dialBurst, dialRate, opts.now),
		reportBytes: newAllowance(reportBurst, reportRate, opts.now),
		errorRate:   newAllowance(errorBurst, errorRate, opts.now),
		pong:        make(chan uint64, 1),
		healths:     make(chan Health, 1),
		subscribing: make(chan struct{}, 1),
	}
	s.reports.init()
	s.caller = ctx
	s.ctx, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	s.cursor = newCursorSaver(opts.Store, opts.cursorName(), s.failed)
	s.cursor.flush = max(flushTimeout, opts.drain)
	return s
}

// errGone ends a session whose plugin closed its end.
var errGone = errors.New("the plugin is gone")

func (s *session) run() error {
	past := time.Unix(1, 0)
	stop := context.AfterFunc(s.ctx, func() { s.conn.SetDeadline(past) }) // wakes reader and writer
	defer stop()
	// Who ends the session has mostly seen the process end. What that had
	// written before is still taken: a report, an acknowledgement. Nothing is
	// written to it any more.
	stop = context.AfterFunc(s.caller, func() {
		s.conn.CloseRead()
		s.conn.SetWriteDeadline(past)
		time.AfterFunc(s.opts.drain, func() { s.cancel(context.Cause(s.caller)) })
	})
	defer stop()
	var always sync.WaitGroup
	always.Go(s.write)
	always.Go(s.cursor.run)
	always.Go(s.tellHealth)
	if s.opts.Watchdog > 0 {
		always.Go(s.watch)
	}
	s.send(s.hello())
	err := s.read()
	if err == nil {
		// What was asked before the plugin closed its end is answered: it can
		// have closed the half that it writes to.
		late := time.AfterFunc(s.opts.drain, func() { s.cancel(errGone) }) // a plugin need not read
		s.subscribe(nil)
		s.handlers.Wait()
		s.drain()
		late.Stop()
		err = errGone
	}
	s.cancel(err)
	s.subscribe(nil)
	s.handlers.Wait()
	s.cursor.close() // writes what was acknowledged
	always.Wait()
	s.discard()
	err = context.Cause(s.ctx)
	if errors.Is(err, errGone) {
		return context.Cause(s.caller)
	}
	return err
}

// failed tells of an error that does not end the session.
func (s *session) failed(err error) {
	if s.opts.OnError != nil && err != nil && !errors.Is(err, context.Canceled) {
		s.calling.Lock()
		defer s.calling.Unlock()
		s.opts.OnError(err)
	}
}

// read handles lines until the plugin closes its end, which is nil.
func (s *session) read() error {
	for {
		line, err := s.lines.next()
		var broken *ProtocolError
		switch {
		case err == nil:
		case errors.As(err, &broken):
			return err
		case s.ctx.Err() != nil:
			return context.Cause(s.ctx)
		case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, os.ErrClosed):
			return nil
		default:
			return fmt.Errorf("plugin %s: %w", s.opts.Name, err)
		}
		m, err := parse(line)
		if err != nil {
			return &ProtocolError{s.lines.line, err.Error()}
		}
		if err := s.handle(&m, len(line)); err != nil {
			return err
		}
	}
}

// handle takes a message from the plugin. Its error ends the session.
func (s *session) handle(m *message, size int) error {
	switch {
	case m.Method == "":
		select { // an answer: only pings are asked
		case s.pong <- *m.ID:
		default:
		}
		if !s.requestRate.take(1) {
			return s.pause()
		}
	case !s.requestRate.take(1):
		if m.ID != nil {
			s.answer(*m.ID, nil, refuse(Busy, "more than %d requests a second", requestRate))
		}
		return s.pause()
	case m.ID == nil:
		s.notified(m)
	default:
		return s.request(*m.ID, m.Method, m.Params, size)
	}
	return nil
}

// pause slows a plugin down that sends too much, by not reading.
func (s *session) pause() error {
	select {
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	case <-s.caller.Done(): // what is left has an end
		return nil
	case <-time.After(slowDown):
		return nil
	}
}

// notified takes what needs no answer. Notifications that are not known are
// those of a later version.
func (s *session) notified(m *message) {
	switch m.Method {
	case "ready":
		if !s.ready && s.opts.OnReady != nil {
			s.calling.Lock()
			s.opts.OnReady()
			s.calling.Unlock()
		}
		s.ready = true
	case "health":
		if h, err := parseHealth(m.Params); err != nil && !s.errorRate.take(1) {
			return // they are written down somewhere, and the disk is not the plugin's
		} else if err != nil {
			s.failed(fmt.Errorf("plugin %s: health: %w", s.opts.Name, err))
		} else if s.opts.OnHealth != nil {
			select { // only the last one counts
			case <-s.healths:
			default:
			}
			s.healths <- h
		}
	}
}

// request answers a request, in a goroutine of its own unless that takes no
// time.
func (s *session) request(id uint64, method string, params json.RawMessage, size int) error {
	places, work := s.requests, (func() (any, error))(nil)
	switch method {
	case "events.ack":
		result, err := s.ack(params)
		s.answer(id, result, err)
		return nil
	case "config.get":
		work = s.config
	case "secret.get":
		work = func() (any, error) { return s.secret(params) }
	case "findings.list":
		work = func() (any, error) { return s.list(params) }
	case "findings.report":
		if !s.reportBytes.take(float64(size)) {
			s.answer(id, nil, refuse(Busy, "more findings than %d MiB at once and %d MiB a second", reportBurst>>20, reportRate>>20))
			return s.pause()
		}
		work = func() (any, error) { return s.report(params) }
	case "events.subscribe":
		// It answers by itself: no batch may overtake the answer.
		work = func() (any, error) { return nil, s.subscribed(id, params) }
	case "dial":
		if !s.dialRate.take(1) {
			s.answer(id, nil, refuse(Busy, "more than %d connections a second", dialRate))
			return s.pause()
		}
		places, work = s.dials, func() (any, error) { return s.dial(params) }
	default:
		s.answer(id, nil, refuse(Unknown, "there is no method %s", quoted(method)))
		return nil
	}
	if len(params) > maxParams && method != "findings.report" { // to read JSON takes many times its size
		s.answer(id, nil, refuse(TooLarge, "parameters have %d bytes; only those of findings.report may have more than %d", len(params), maxParams))
		return nil
	}
	select {
	case places <- struct{}{}:
	default:
		s.answer(id, nil, refuse(Busy, "%d requests are under way", cap(places)))
		return s.pause()
	}
	params = append(json.RawMessage(nil), params...) // the line's memory is the reader's
	s.handlers.Go(func() {
		result, err := work()
		// The place is given back when the answer is in the queue, which is
		// bounded: a plugin that does not read is not read either.
		s.answer(id, result, err)
		<-places
	})
	return nil
}

// quoted is how a text of the plugin stands in a message.
func quoted(text string) string { return fmt.Sprintf("%q", clean(text, 64)) }
