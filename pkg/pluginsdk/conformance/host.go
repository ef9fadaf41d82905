package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// behaviour is how the host departs from being nice.
type behaviour struct {
	holdHello bool           // hello is not sent by start
	refuse    pluginsdk.Code // every request is refused
	denyDial  bool           // every dial is
	disorder  bool           // answers come in another order, and among others
}

// message is any line of the protocol.
type message struct {
	ID     *uint64          `json:"id,omitempty"`
	Method string           `json:"method,omitempty"`
	Params json.RawMessage  `json:"params,omitempty"`
	Result json.RawMessage  `json:"result,omitempty"`
	Error  *pluginsdk.Error `json:"error,omitempty"`
}

// parse reads a line of a plugin, and says what is wrong with it.
func parse(line []byte) (m message, err error) {
	switch {
	case len(line) > pluginsdk.MaxLine:
		return m, fmt.Errorf("it has %d bytes, of at most %d", len(line), pluginsdk.MaxLine)
	case !utf8.Valid(line):
		return m, errors.New("it is not UTF-8")
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return m, fmt.Errorf("it is no message: %w", err)
	}
	object := func(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] == '{' }
	switch {
	case m.ID != nil && *m.ID == 0:
		return m, errors.New("the id is 0")
	case m.Method == "" && m.ID == nil:
		return m, errors.New("it has neither a method nor an id")
	case m.Method != "" && (m.Result != nil || m.Error != nil):
		return m, errors.New("it is both a question and an answer")
	case m.Method != "" && m.Params != nil && !object(m.Params):
		return m, errors.New("its params are no object")
	case m.Method == "" && m.Error != nil && m.Result != nil:
		return m, errors.New("it is both a result and a refusal")
	case m.Method == "" && m.Error == nil && !object(m.Result):
		return m, errors.New("its result is no object")
	}
	return m, nil
}

// wrong notes what is wrong with a line.
func (p *process) wrong(line []byte, why error) {
	if len(p.r.lines) < 10 {
		p.r.lines = append(p.r.lines, fmt.Sprintf("%.200q: %v", line, why))
	}
}

// listen reads what the plugin says, until it says no more.
func (p *process) listen() {
	defer close(p.heard)
	in := bufio.NewReaderSize(countingReader{p}, 64<<10)
	for {
		line, err := readLine(in)
		if len(line) > 0 {
			p.mu.Lock()
			p.receive(line)
			p.mu.Unlock()
		}
		if err != nil {
			return
		}
		p.pause()
	}
}

// pause waits while somebody wants that nothing is read.
func (p *process) pause() {
	p.paused.Lock()
	defer p.paused.Unlock()
}

// readLine reads a line of at most a little more than is allowed, without its
// newline.
func readLine(in *bufio.Reader) (line []byte, err error) {
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		if err == bufio.ErrBufferFull && len(line) <= pluginsdk.MaxLine {
			continue
		}
		return bytes.TrimSuffix(line, []byte("\n")), err
	}
}

// countingReader notes what came first, and how much came.
type countingReader struct{ p *process }

func (r countingReader) Read(b []byte) (int, error) {
	n, err := r.p.conn.Read(b)
	if n > 0 {
		r.p.mu.Lock()
		if r.p.wrote == 0 {
			r.p.wroteText = string(b[:min(n, 100)])
		}
		r.p.wrote += int64(n)
		r.p.changed()
		r.p.mu.Unlock()
	}
	return n, err
}

// receive takes a line. p.mu is held.
func (p *process) receive(line []byte) {
	defer p.changed()
	m, err := parse(line)
	if err != nil {
		p.wrong(line, err)
		return
	}
	switch {
	case m.Method == "":
		code := pluginsdk.Code("")
		if m.Error != nil {
			code = m.Error.Code
		}
		if *m.ID > p.nextID {
			p.wrong(line, errors.New("it answers what was not asked"))
		} else if _, twice := p.pongs[*m.ID]; twice {
			p.wrong(line, errors.New("it answers what was answered"))
		}
		p.pongs[*m.ID] = code
	case m.ID == nil:
		if m.Method == "ready" {
			p.isReady = true
		}
	default:
		p.asked[m.Method]++
		if m.Method == "events.ack" {
			var q struct{ Cursor string }
			json.Unmarshal(m.Params, &q)
			p.acked = append(p.acked, q.Cursor)
		}
		p.reply(m)
	}
}

// reply answers a request, at once or, in disorder, after the next one.
func (p *process) reply(m message) {
	answer := func() { p.answer(*m.ID, m.Method, m.Params) }
	if !p.how.disorder {
		go answer() // who does not read what we write holds up nothing else
		return
	}
	p.held = append(p.held, answer)
	if len(p.held) == 1 {
		time.AfterFunc(100*time.Millisecond, func() {
			p.mu.Lock()
			held := p.held
			p.held = nil
			p.mu.Unlock()
			for _, answer := range slices.Backward(held) {
				// An answer to nothing, that would be noticed if it were taken,
				// and a question.
				p.write([]byte(`{"id":4000000000,"error":{"code":"failed","message":"this is the answer to no question"}}` + "\n"))
				p.pinged()
				answer()
			}
		})
	}
}

// answer answers a request.
func (p *process) answer(id uint64, method string, params json.RawMessage) {
	result, refusal := any(struct{}{}), (*pluginsdk.Error)(nil)
	var conn net.Conn
	switch {
	case p.how.refuse != "":
		refusal = &pluginsdk.Error{Code: p.how.refuse, Message: "refused by the conformance test"}
	case method == "dial" && p.how.denyDial:
		refusal = &pluginsdk.Error{Code: pluginsdk.CodeDenied, Message: "this address is not among the permissions"}
	case method == "dial":
		conn, refusal = p.dial(params)
	default:
		result, refusal = p.result(method, params)
	}
	line := p.encode(message{ID: &id, Result: marshal(result)})
	if refusal != nil {
		line = p.encode(message{ID: &id, Error: refusal})
	}
	if conn == nil {
		p.write(line)
	} else {
		p.pass(line, conn)
	}
	if method == "events.subscribe" && refusal == nil {
		// Only now batches may follow.
		var sub subscription
		json.Unmarshal(params, &sub)
		p.mu.Lock()
		p.sub = &sub
		p.changed()
		p.mu.Unlock()
	}
}

// result is what a request of a plugin yields that may do everything.
func (p *process) result(method string, params json.RawMessage) (any, *pluginsdk.Error) {
	opts := &p.r.opts
	switch method {
	case "config.get":
		names, values := []string{}, opts.Config
		for name := range opts.Secrets {
			names = append(names, name)
		}
		slices.Sort(names)
		if values == nil {
			values = map[string]any{}
		}
		return map[string]any{"values": values, "secrets": names}, nil
	case "secret.get":
		var q struct{ Name string }
		json.Unmarshal(params, &q)
		if v, ok := opts.Secrets[q.Name]; ok {
			return map[string]any{"value": v}, nil
		}
		return nil, &pluginsdk.Error{Code: pluginsdk.CodeNotFound, Message: fmt.Sprintf("no secret %.64q", q.Name)}
	case "findings.list":
		var q struct{ After string }
		json.Unmarshal(params, &q)
		if q.After == "" { // two pages
			return map[string]any{"findings": []pluginsdk.Finding{*sample(1).Finding}, "next": "2"}, nil
		}
		return map[string]any{"findings": []pluginsdk.Finding{*sample(3).Finding}, "next": ""}, nil
	case "findings.report":
		var q struct{ Findings []json.RawMessage }
		if err := json.Unmarshal(params, &q); err != nil || len(q.Findings) > 1000 {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.wrong(params, errors.New("a report has an array of at most 1000 findings"))
			return nil, &pluginsdk.Error{Code: pluginsdk.CodeInvalid, Message: "findings"}
		}
		return pluginsdk.Summary{New: len(q.Findings)}, nil
	case "events.subscribe":
		return map[string]any{"cursor": "c0"}, nil
	case "events.ack": // receive has noted it
		return struct{}{}, nil
	}
	return nil, &pluginsdk.Error{Code: pluginsdk.CodeUnknown, Message: fmt.Sprintf("no method %.64q", method)}
}

func marshal(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage(`{}`)
	}
	return raw
}

func (p *process) encode(m message) []byte { return append(marshal(m), '\n') }

// write writes whole lines. That a plugin does not read, or is gone, is
// noticed by what it does not answer.
func (p *process) write(line []byte) {
	p.conn.SetWriteDeadline(time.Now().Add(p.r.opts.Timeout))
	p.conn.Write(line)
}

// pass writes a line with a connection on its first byte.
func (p *process) pass(line []byte, conn net.Conn) {
	defer conn.Close()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return
	}
	p.conn.SetWriteDeadline(time.Now().Add(p.r.opts.Timeout)) // that of an earlier line may be over
	raw.Control(func(fd uintptr) {
		n, _, err := p.conn.WriteMsgUnix(line, syscall.UnixRights(int(fd)), nil)
		if err == nil && n < len(line) {
			p.write(line[n:])
		}
	})
}

// hello greets the plugin.
func (p *process) hello() {
	var h pluginsdk.Hello
	h.Protocol, h.Role = pluginsdk.Protocol, p.r.opts.Role
	h.Host.Version, h.Host.ID = "0.0.0-conformance", "conformance"
	h.Plugin.Name, h.Plugin.Version = p.r.opts.Name, p.r.opts.Version
	p.write(p.encode(message{Method: "hello", Params: marshal(h)}))
}

// nextQuestion returns an id for a question of the host.
func (p *process) nextQuestion() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nextID++
	return p.nextID
}

// pinged sends a ping and returns its id.
func (p *process) pinged() uint64 {
	id := p.nextQuestion()
	p.write(fmt.Appendf(nil, `{"id":%d,"method":"ping","params":{}}`+"\n", id))
	return id
}

// ping sends a ping and waits for its answer.
func (p *process) ping(limit time.Duration) error {
	id := p.pinged()
	return p.answered(id, limit)
}

func (p *process) answered(id uint64, limit time.Duration) error {
	var code pluginsdk.Code
	if !p.until(limit, func() (ok bool) { code, ok = p.pongs[id]; return ok }) {
		return p.missing("no answer to a ping", limit)
	}
	if code != "" {
		return fmt.Errorf("a ping was refused as %s", code)
	}
	return nil
}

// missing says that something did not happen, and why that may be.
func (p *process) missing(what string, limit time.Duration) error {
	select {
	case <-p.heard:
		// Most often because it has ended, which is told a moment later.
		if p.wait(time.Second) {
			return fmt.Errorf("%s: %s", what, p.ended())
		}
		return fmt.Errorf("%s: it closed the connection", what)
	default:
	}
	return fmt.Errorf("%s within %s", what, limit)
}
