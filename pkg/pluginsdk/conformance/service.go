package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// hello holds the greeting back.
func (r *runner) hello() error {
	p, err := r.start("", nil, behaviour{holdHello: true})
	if err != nil {
		return err
	}
	defer p.end()
	if p.until(r.opts.Timeout/5, func() bool { return p.wrote > 0 }) {
		return fmt.Errorf("it wrote %q", p.wroteText)
	}
	if !p.running() {
		return fmt.Errorf("it does not wait for it: %s", p.ended())
	}
	return nil
}

func (r *runner) ready() error {
	p, err := r.start("", nil, behaviour{})
	if err != nil {
		return err
	}
	defer p.end()
	if !p.until(r.opts.ReadyTimeout, func() bool { return p.isReady }) {
		return p.missing("it sent no ready", r.opts.ReadyTimeout)
	}
	r.serves = true
	// What comes later is not waited for again by every check.
	r.subscribes = p.until(r.opts.Timeout/2, func() bool { return p.sub != nil })
	if !p.running() {
		return errors.New(p.ended())
	}
	return nil
}

func (r *runner) ping() error {
	p, err := r.up("", behaviour{})
	if err != nil {
		return err
	}
	defer p.end()
	if err := p.ping(r.opts.Timeout); err != nil {
		return err
	}
	r.pings = true
	if !r.subscribes {
		for range 100 {
			if err := p.ping(r.opts.Timeout); err != nil {
				return err
			}
		}
		return nil
	}
	// Batches are ahead all the time; that they are acknowledged is for
	// another check.
	sent := 0
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		p.mu.Lock()
		acked := p.position(sent)
		p.mu.Unlock()
		for ; sent-acked < 2; sent++ {
			p.deliver(sent+1, 200)
		}
		if err := p.ping(r.opts.Timeout); err != nil {
			return fmt.Errorf("with %d batches of events delivered: %w", sent, err)
		}
	}
	return nil
}

func (r *runner) unknown() error {
	p, err := r.up("", behaviour{})
	if err != nil {
		return err
	}
	defer p.end()
	p.write([]byte(`{"method":"conformance.weather","params":{"rain":true},"later":[1]}` + "\n"))
	if err := p.alive(); err != nil {
		return fmt.Errorf("after an unknown notification: %w", err)
	}
	if r.pings {
		id := p.nextQuestion()
		p.write(fmt.Appendf(nil, `{"id":%d,"method":"ping","params":{"later":{"a":[1,2]}},"later":"x"}`+"\n", id))
		if err := p.answered(id, r.opts.Timeout); err != nil {
			return fmt.Errorf("a ping with unknown fields: %w", err)
		}
		id = p.nextQuestion()
		p.write(fmt.Appendf(nil, `{"id":%d,"method":"conformance.dance","params":{}}`+"\n", id))
		switch err := p.answered(id, r.opts.Timeout); {
		case err == nil:
			return errors.New("it answers a request that it cannot know with a result, not with the error unknown")
		case !strings.HasSuffix(err.Error(), "as "+string(pluginsdk.CodeUnknown)):
			return fmt.Errorf("a request that it cannot know: %w, not as unknown", err)
		}
	}
	if r.subscribes && r.acks {
		event := marshal(p.events(1, 2)[0])
		later := append(event[:len(event)-1:len(event)-1], `,"later":{"a":1}}`...)
		p.deliverRaw(1, []json.RawMessage{later, json.RawMessage(`{"id":"w-1","type":"conformance.weather","time":"2026-01-02T03:04:05Z","rain":true}`)}, `,"later":{"a":[]}`)
		if !p.until(r.opts.Timeout, func() bool { return p.position(1) == 1 }) {
			return p.missing("events with unknown fields and of an unknown type were not acknowledged", r.opts.Timeout)
		}
	}
	return p.alive()
}

// answers has every answer come after an answer to nothing and a question, and
// answers to questions asked at once in another order.
func (r *runner) answers() error {
	if r.opts.Role == pluginsdk.RoleService && !r.serves {
		return notApplicable("it was never ready")
	}
	p, err := r.start("", nil, behaviour{disorder: true})
	if err != nil {
		return err
	}
	defer p.end()
	if r.opts.Role == pluginsdk.RoleService {
		err = p.settled()
	} else {
		err = p.succeeds()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.asked) == 0 {
		return notApplicable("it asks nothing")
	}
	return err
}

func (r *runner) events() error {
	r.acks = true // until shown otherwise: subscriber asks for it
	p, err := r.subscriber("", behaviour{})
	if err != nil {
		return err
	}
	defer p.end()
	if err := p.stream(1, 20, 10); err != nil {
		r.acks = false // the checks that follow need not say it again
		return err
	}
	return nil
}

// redelivery stops the plugin and delivers what it had acknowledged again: the
// host had died before it wrote that down.
func (r *runner) redelivery() error {
	dir, err := r.newDir()
	if err != nil {
		return err
	}
	p, err := r.subscriber(dir, behaviour{})
	if err != nil {
		return err
	}
	defer p.end()
	p.deliver(1, 10)
	p.deliver(2, 10)
	if !p.until(r.opts.Timeout, func() bool { return p.position(2) == 2 }) {
		return p.missing("events were not acknowledged", r.opts.Timeout)
	}
	p.terminate()
	p.wait(r.opts.StopTimeout)
	p.end()

	again, err := r.up(dir, behaviour{})
	if err != nil {
		return fmt.Errorf("after a restart: %w", err)
	}
	defer again.end()
	if again.sub.From == pluginsdk.FromNow {
		return errors.New(`it subscribes from "now": what happens while it does not run is lost ("saved" goes on behind the last acknowledgement)`)
	}
	again.deliver(1, 10)
	again.deliver(2, 10)
	if !again.until(r.opts.Timeout, func() bool { return again.position(2) == 2 }) {
		return again.missing("events that were delivered again, with the same ids, were not acknowledged", r.opts.Timeout)
	}
	return nil
}

// killed kills the plugin at different moments of a delivery.
func (r *runner) killed() error {
	dir, err := r.newDir()
	if err != nil {
		return err
	}
	const rounds = 6
	for i := range rounds + 1 {
		p, err := r.subscriber(dir, behaviour{})
		if err != nil {
			if i > 0 {
				err = fmt.Errorf("after kill -9: %w", err)
			}
			return err
		}
		p.deliver(1, 100)
		if i == rounds {
			defer p.end()
			if !p.until(r.opts.Timeout, func() bool { return p.position(1) == 1 }) {
				return p.missing("events that were under way when it was killed, and were delivered again, were not acknowledged", r.opts.Timeout)
			}
			return nil
		}
		time.Sleep(time.Duration(i*i) * time.Millisecond)
		p.end()
	}
	return nil
}

// longLine sends a line of exactly 1 MiB.
func (r *runner) longLine() error {
	p, err := r.up("", behaviour{})
	if err != nil {
		return err
	}
	defer p.end()
	if r.subscribes && r.acks {
		batch := pluginsdk.Batch{Events: p.events(1, 1), Cursor: cursor(1)}
		grow := &batch.Events[0]
		pad := func(n int) []byte {
			text := strings.Repeat("x", n)
			if grow.Finding != nil {
				grow.Finding.Title = text
			} else {
				grow.Audit.Result = text
			}
			return p.encode(message{Method: "events", Params: marshal(batch)})
		}
		p.write(pad(1 + pluginsdk.MaxLine + 1 - len(pad(1))))
		if !p.until(r.opts.Timeout, func() bool { return p.position(1) == 1 }) {
			return p.missing("a batch in a line of 1 MiB was not acknowledged", r.opts.Timeout)
		}
		return nil
	}
	if !r.pings {
		return notApplicable("it answers no pings")
	}
	id := p.nextQuestion()
	line := fmt.Sprintf(`{"id":%d,"method":"ping","params":{"later":""}}`, id)
	p.write([]byte(strings.Replace(line, `""`, `"`+strings.Repeat("x", pluginsdk.MaxLine-len(line))+`"`, 1) + "\n"))
	if err := p.answered(id, r.opts.Timeout); err != nil {
		return fmt.Errorf("a ping in a line of 1 MiB: %w", err)
	}
	return nil
}

func (r *runner) stop() error {
	p, err := r.up("", behaviour{})
	if err != nil {
		return err
	}
	defer p.end()
	p.terminate()
	if !p.wait(r.opts.StopTimeout) {
		return fmt.Errorf("it runs %s after SIGTERM", r.opts.StopTimeout)
	}
	if s, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && s.Signaled() && s.Signal() == syscall.SIGTERM {
		return nil
	}
	if p.status() != 0 {
		return fmt.Errorf("after SIGTERM %s", p.ended())
	}
	return nil
}

func (r *runner) hostGone() error {
	p, err := r.up("", behaviour{})
	if err != nil {
		return err
	}
	defer p.end()
	p.conn.Close()
	if !p.wait(r.opts.StopTimeout) {
		return fmt.Errorf("it runs %s after the connection was closed", r.opts.StopTimeout)
	}
	if crash := p.crashed(); crash != "" {
		return errors.New(crash)
	}
	return nil
}

func (r *runner) quietStdout() error {
	if r.stdout != "" {
		return fmt.Errorf("it wrote %.200q: the output of a service goes nowhere (standard error is its log)", r.stdout)
	}
	return nil
}

func (r *runner) goodLines() error {
	if len(r.lines) > 0 {
		return errors.New(strings.Join(r.lines, "\n"))
	}
	return nil
}
