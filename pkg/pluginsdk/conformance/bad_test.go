package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// rawPlugin is a plugin without pluginsdk, which does one thing wrong: what
// its kind is called after.
type rawPlugin struct {
	kind   string
	conn   *net.UnixConn
	buf    []byte
	fds    []int
	lastID uint64
	later  []rawMessage // events that came while an answer was waited for
	open   []int        // connections that were never closed

	mu    sync.Mutex // of queue
	queue [][]byte   // answers to pings of a plugin that takes all there are
	wake  chan struct{}
	held  string // cursor
}

type rawMessage struct {
	ID     *uint64
	Method string
	Params struct {
		Cursor string
		Events []json.RawMessage
	}
	Result json.RawMessage
	Error  *struct{ Code string }
}

func (r *rawPlugin) is(kind string) bool { return r.kind == kind }

func (r *rawPlugin) write(format string, args ...any) {
	if _, err := fmt.Fprintf(r.conn, format+"\n", args...); err != nil && !r.is("host-gone") {
		os.Exit(0)
	}
}

// read returns the next message.
func (r *rawPlugin) read() rawMessage {
	for {
		if i := bytes.IndexByte(r.buf, '\n'); i >= 0 {
			var m rawMessage
			if err := json.Unmarshal(r.buf[:i], &m); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			r.buf = r.buf[i+1:]
			return m
		}
		// A batch in the check of pings has more than 64 KiB, when much is delivered.
		if r.is("long-line") && len(r.buf) > 512<<10 {
			fmt.Fprintln(os.Stderr, bufio.ErrTooLong)
			os.Exit(1)
		}
		p, oob := make([]byte, 32<<10), make([]byte, 64)
		n, oobn, _, _, err := r.conn.ReadMsgUnix(p, oob)
		if messages, _ := syscall.ParseSocketControlMessage(oob[:oobn]); len(messages) == 1 {
			fds, _ := syscall.ParseUnixRights(&messages[0])
			r.fds = append(r.fds, fds...)
		}
		if n == 0 || err != nil {
			if r.is("host-gone") {
				time.Sleep(time.Hour)
			}
			os.Exit(0)
		}
		r.buf = append(r.buf, p[:n]...)
	}
}

// ask asks and waits for the answer.
func (r *rawPlugin) ask(method, params string) rawMessage {
	r.lastID++
	r.write(`{"id":%d,"method":%q,"params":%s}`, r.lastID, method, params)
	for {
		m := r.read()
		switch {
		case r.is("answers") && method == "config.get", m.Method == "" && m.ID != nil && *m.ID == r.lastID:
			return m
		case m.Method == "events":
			r.later = append(r.later, m)
		default:
			r.handle(m)
		}
	}
}

func (r *rawPlugin) handle(m rawMessage) {
	switch {
	case m.Method == "ping" && r.is("back-pressure"):
		r.mu.Lock()
		r.queue = append(r.queue, append(make([]byte, 0, 1024), fmt.Sprintf(`{"id":%d,"result":{}}`+"\n", *m.ID)...))
		r.mu.Unlock()
		select {
		case r.wake <- struct{}{}:
		default:
		}
	case m.Method == "ping":
		if !r.is("ping") {
			r.write(`{"id":%d,"result":{}}`, *m.ID)
		}
	case m.Method == "events":
		r.events(m)
	case m.Method != "" && m.ID != nil:
		r.write(`{"id":%d,"error":{"code":"unknown","message":"no such method"}}`, *m.ID)
	case m.Method != "" && r.is("unknown"):
		fmt.Fprintln(os.Stderr, "unknown:", m.Method)
		os.Exit(1)
	}
}

func (r *rawPlugin) events(m rawMessage) {
	if r.is("lines") {
		r.write("handled %d events", len(m.Params.Events))
	}
	if r.is("stdout") {
		fmt.Println("handled", len(m.Params.Events), "events")
	}
	answer := r.ask("dial", `{"network":"tcp","address":"logs.example.org:514"}`)
	if answer.Error != nil && r.is("denied-dial") {
		var none []int
		r.open = append(r.open, none[0])
	}
	if answer.Error == nil && len(r.fds) > 0 {
		if r.is("descriptors") {
			r.open = append(r.open, r.fds[0])
		} else {
			syscall.Close(r.fds[0])
		}
		r.fds = r.fds[1:]
	} else {
		time.Sleep(50 * time.Millisecond)
	}
	switch {
	case r.is("events"):
	case r.is("events-order"):
		if r.held == "" {
			r.held = m.Params.Cursor
			return
		}
		r.ask("events.ack", fmt.Sprintf(`{"cursor":%q}`, m.Params.Cursor))
		r.ask("events.ack", fmt.Sprintf(`{"cursor":%q}`, r.held))
		r.held = ""
	default:
		r.ask("events.ack", fmt.Sprintf(`{"cursor":%q}`, m.Params.Cursor))
	}
}

// badHook is a hook that does one thing wrong.
func badHook(kind string) int {
	input, _ := io.ReadAll(os.Stdin)
	switch {
	case kind == "hook" && len(input) > 10_000,
		kind == "hook-empty" && len(input) == 0,
		kind == "hook-unknown" && strings.Contains(string(input), `"later"`):
		return 1
	}
	return 0
}

func badPlugin(kind string) int {
	if strings.HasPrefix(kind, "hook") {
		return badHook(kind)
	}
	file := os.NewFile(3, "host")
	conn, err := net.FileConn(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	file.Close()
	r := &rawPlugin{kind: kind, conn: conn.(*net.UnixConn), wake: make(chan struct{}, 1)}
	lock := filepath.Join(os.Getenv("MOBILEOPS_PLUGIN_DATA"), "lock")
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() {
		for range term {
			if !r.is("stop") {
				os.Remove(lock)
				os.Exit(0)
			}
		}
	}()
	if r.is("back-pressure") {
		go r.flush()
	}
	if r.is("hello") {
		r.write(`{"method":"health","params":{"status":"ok"}}`)
	}
	r.read()
	if r.is("killed") {
		if _, err := os.Lstat(lock); err == nil {
			fmt.Fprintln(os.Stderr, "another one is running: "+lock)
			return 1
		}
		if err := os.WriteFile(lock, nil, 0o600); err != nil {
			return 1
		}
	}
	for tries := 0; ; tries++ {
		m := r.ask("config.get", "{}")
		if m.Error == nil {
			break
		}
		if r.is("refusals-loop") {
			continue
		}
		if r.is("refusals") {
			panic("no configuration: " + m.Error.Code)
		}
		fmt.Fprintln(os.Stderr, "no configuration:", m.Error.Code)
		return 1
	}
	if !r.is("ready") {
		r.write(`{"method":"ready","params":{}}`)
	}
	from := "saved"
	if r.is("redelivery") {
		from = "now"
	}
	if m := r.ask("events.subscribe", fmt.Sprintf(`{"from":%q}`, from)); m.Error != nil {
		return 1
	}
	for {
		if len(r.later) > 0 {
			m := r.later[0]
			r.later = r.later[1:]
			r.events(m)
			continue
		}
		r.handle(r.read())
	}
}

// flush answers pings without holding up who reads them.
func (r *rawPlugin) flush() {
	for range r.wake {
		r.mu.Lock()
		queue := r.queue
		r.queue = nil
		r.mu.Unlock()
		for _, line := range queue {
			r.conn.Write(line)
		}
	}
}
