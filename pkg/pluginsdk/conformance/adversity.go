package conformance

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

const (
	floodPings  = 400_000
	floodGrowth = 48 << 20 // bytes that a plugin may need more under a flood
	manyAsked   = 2000     // requests within Options.observed that are no patient retrying
	manyDials   = 200
	spareFDs    = 16 // that a plugin may have open more than at first
)

// backPressure floods the plugin with pings and reads nothing, until the
// plugin reads no more either; then it reads again.
func (r *runner) backPressure() error {
	p, err := r.up("", behaviour{})
	if err != nil {
		return err
	}
	defer p.end()
	if !r.pings {
		return notApplicable("it answers no pings")
	}
	before, err := p.memory()
	if err != nil {
		return notApplicable(err.Error())
	}
	p.paused.Lock()
	reading := false
	resume := func() {
		if !reading {
			reading = true
			p.paused.Unlock()
		}
	}
	defer resume()
	most := before
	sample := func() (enough bool) {
		if now, err := p.memory(); err == nil {
			most = max(most, now)
		}
		return most-before > floodGrowth
	}
	last, err := p.flood(sample)
	if err != nil {
		return err
	}
	if sample() {
		return fmt.Errorf("with %d pings whose answers nobody read, its memory grew by %d MiB: it should have stopped to read", last, (most-before)>>20)
	}
	if !p.running() {
		return fmt.Errorf("while nothing was read: %s", p.ended())
	}
	resume()
	if err := p.answered(last, 3*r.opts.Timeout); err != nil {
		return fmt.Errorf("the last of %d pings, after the host has read again: %w", last, err)
	}
	return p.ping(r.opts.Timeout)
}

// flood writes pings until the plugin reads no more, or it is enough, and
// returns the id of the last one.
func (p *process) flood(enough func() bool) (uint64, error) {
	defer p.conn.SetWriteDeadline(time.Time{})
	var rest []byte
	var id uint64
	for range floodPings / 500 {
		for range 500 {
			id = p.nextQuestion()
			rest = fmt.Appendf(rest, `{"id":%d,"method":"ping","params":{}}`+"\n", id)
		}
		p.conn.SetWriteDeadline(time.Now().Add(p.r.opts.observed))
		n, err := p.conn.Write(rest)
		rest = rest[n:]
		if err != nil || enough() {
			break // it waits for us, or takes what it should not
		}
	}
	// The line that was cut, and what is behind it, follow when it reads again.
	go func() {
		p.conn.SetWriteDeadline(time.Now().Add(4 * p.r.opts.Timeout))
		io.Copy(p.conn, strings.NewReader(string(rest)))
	}()
	return id, nil
}

// refusals answers everything with a refusal, of each kind.
func (r *runner) refusals() error {
	none := true
	for _, code := range []pluginsdk.Code{pluginsdk.CodeBusy, pluginsdk.CodeDenied, pluginsdk.CodeFailed, pluginsdk.CodeUnknown} {
		p, err := r.start("", strings.NewReader(r.hookInput(2)), behaviour{refuse: code})
		if err != nil {
			return err
		}
		asked := 0
		p.until(r.opts.Timeout/2, func() bool { asked = p.requests(); return asked > 0 })
		if asked > 0 {
			none = false
			asked = p.watch(p.requests)
		}
		crash := p.crashed()
		p.end()
		switch {
		case crash != "":
			return fmt.Errorf("every request was refused as %s: %s", code, crash)
		case asked > manyAsked:
			return fmt.Errorf("every request was refused as %s: it asked %d times within %s", code, asked, r.opts.observed)
		}
		if none {
			return notApplicable("it asks nothing")
		}
	}
	return nil
}

// watch waits until the process has ended, count is more than it should be, or
// the time is over, and returns the count.
func (p *process) watch(count func() int) (n int) {
	p.until(p.r.opts.observed, func() bool { n = count(); return n > manyAsked })
	select {
	case <-p.heard:
		p.wait(p.r.opts.observed) // who has said its last may be about to crash
	default:
	}
	return n
}

// requests counts what was asked. p.mu must be held.
func (p *process) requests() int {
	n := 0
	for _, k := range p.asked {
		n += k
	}
	return n
}

// provoke delivers events until done or the time is over: what a plugin
// connects for is up to it.
func (p *process) provoke(limit time.Duration, done func() bool) {
	sent := 0
	for end := time.Now().Add(limit); time.Now().Before(end) && p.running(); {
		acked := 0
		if p.r.subscribes {
			p.mu.Lock()
			acked = p.position(sent)
			p.mu.Unlock()
			for ; sent-acked < 2; sent++ {
				p.deliver(sent+1, 5)
			}
		}
		if p.until(250*time.Millisecond, func() bool { return done() || p.position(sent) > acked }) {
			p.mu.Lock()
			over := done()
			p.mu.Unlock()
			if over {
				return
			}
		}
	}
}

func (r *runner) deniedDial() error {
	p, err := r.up("", behaviour{denyDial: true})
	if err != nil {
		return err
	}
	defer p.end()
	p.provoke(r.opts.Timeout/2, func() bool { return p.asked["dial"] > 0 })
	p.mu.Lock()
	dials := p.asked["dial"]
	p.mu.Unlock()
	if dials == 0 {
		if crash := p.crashed(); crash != "" {
			return errors.New(crash)
		}
		r.noDials = true
		return notApplicable("it connects to nobody")
	}
	dials = p.watch(func() int { return p.asked["dial"] })
	if crash := p.crashed(); crash != "" {
		return errors.New(crash)
	}
	if dials > manyAsked {
		return fmt.Errorf("it asked for %d connections within %s", dials, r.opts.observed)
	}
	return nil
}

func (r *runner) descriptors() error {
	if r.noDials {
		return notApplicable("it connects to nobody")
	}
	p, err := r.up("", behaviour{})
	if err != nil {
		return err
	}
	defer p.end()
	before := p.openFDs()
	if before < 0 {
		return notApplicable("/proc does not tell its descriptors")
	}
	// Some connect over and over, others once for all time.
	made, since := 0, time.Now()
	p.provoke(r.opts.Timeout, func() bool {
		if n := p.asked["dial"]; n > made {
			made, since = n, time.Now()
		}
		return made >= manyDials || time.Since(since) > r.opts.Timeout/4
	})
	p.mu.Lock()
	dials := p.asked["dial"]
	p.mu.Unlock()
	if !p.running() {
		return fmt.Errorf("after %d connections %s", dials, p.ended())
	}
	if dials < 2*spareFDs {
		return notApplicable(fmt.Sprintf("it made %d connections: too few to tell", dials))
	}
	after := 0
	for end := time.Now().Add(r.opts.Timeout); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if after = p.openFDs(); after <= before+spareFDs {
			return nil
		}
	}
	return fmt.Errorf("it had %d descriptors open before it made %d connections, and has %d since (the other side has hung up)", before, dials, after)
}
