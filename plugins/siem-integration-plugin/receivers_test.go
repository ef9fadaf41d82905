package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// ledger is what a receiver has: how often each event came, and in which
// order they came first.
type ledger struct {
	mu    sync.Mutex
	times map[string]int
	order []string
}

func (l *ledger) add(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.times == nil {
		l.times = map[string]int{}
	}
	if l.times[id]++; l.times[id] == 1 {
		l.order = append(l.order, id)
	}
}

func (l *ledger) has(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.times[id] > 0
}

func (l *ledger) count() (ids, doubles int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.times {
		doubles += n - 1
	}
	return len(l.times), doubles
}

// inOrder says which event came before its time. Ids end in their number.
func (l *ledger) inOrder(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := 1; i < len(l.order); i++ {
		if l.order[i] < l.order[i-1] {
			t.Errorf("%s came after %s", l.order[i], l.order[i-1])
			return
		}
	}
}

// httpReceiver is an HTTP server that can be killed: it then closes all
// connections at once, whatever is under way, and forgets what is in memory.
type httpReceiver struct {
	t       *testing.T
	address string
	handler func() http.Handler // of one life
	srv     *http.Server
}

func (r *httpReceiver) start() {
	r.t.Helper()
	if r.address == "" {
		r.address = net.JoinHostPort(freeAddress(r.t))
	}
	var l net.Listener
	eventually(r.t, func() string { return "listen on " + r.address }, func() bool {
		var err error
		l, err = net.Listen("tcp", r.address)
		return err == nil
	})
	r.address = l.Addr().String()
	r.srv = &http.Server{Handler: r.handler()}
	go r.srv.Serve(l)
	r.t.Cleanup(func() { r.srv.Close() })
}

func (r *httpReceiver) kill() { r.srv.Close() }

// splunk follows what Splunk documents of its collector: a token, a channel
// when the token wants acknowledgement, ids that count from 0 in each channel,
// codes of errors. What is received is indexed a little later; a restart
// forgets what is not indexed, and all channels.
type splunk struct {
	index  ledger // what is indexed survives
	came   ledger // in the order in which it came
	t      *testing.T
	refuse func(id string) bool

	mu       sync.Mutex
	channels map[string]*hecChannel
	busy     int    // so many requests are answered 503
	slow     bool   // nothing is indexed
	tires    int    // slow from this request on, when not 0
	mute     bool   // requests with events are taken, and not answered
	requests int    // with events that were taken
	asked    int    // questions for acknowledgements
	channel  string // of the last of either
}

type hecChannel struct {
	next int
	acks map[int]bool
	wait map[int][]string // received, not indexed
}

type hecEvent struct {
	Event  json.RawMessage `json:"event"`
	Fields struct {
		ID string `json:"id"`
	} `json:"fields"`
}

func (s *splunk) life() http.Handler {
	s.mu.Lock()
	s.channels = map[string]*hecChannel{}
	mine := s.channels
	s.mu.Unlock()
	say := func(w http.ResponseWriter, status, code int, text string, more string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"text":%q,"code":%d%s}`, text, code, more)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if r.Method != http.MethodPost {
			say(w, 405, 4, "The method is not allowed", "")
			return
		}
		switch auth := r.Header.Get("Authorization"); {
		case auth == "":
			say(w, 401, 2, "Token is required", "")
			return
		case !strings.HasPrefix(auth, "Splunk "):
			say(w, 401, 3, "Invalid authorization", "")
			return
		case auth != "Splunk hec-token":
			say(w, 403, 4, "Invalid token", "")
			return
		}
		channel := r.Header.Get("X-Splunk-Request-Channel")
		if q := r.URL.Query().Get("channel"); channel == "" {
			channel = q
		}
		if channel == "" {
			say(w, 400, 10, "Data channel is missing", "")
			return
		}
		if len(channel) != 36 || strings.Count(channel, "-") != 4 {
			say(w, 400, 11, "Invalid data channel", "")
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.channel = channel
		c := mine[channel]
		if c == nil {
			c = &hecChannel{acks: map[int]bool{}, wait: map[int][]string{}}
			mine[channel] = c
		}
		switch r.URL.Path {
		case "/services/collector/event":
			if s.busy > 0 {
				s.busy--
				say(w, 503, 9, "Server is busy", "")
				return
			}
			var ids []string
			for dec, n := json.NewDecoder(bytes.NewReader(body)), 0; ; n++ {
				var e hecEvent
				err := dec.Decode(&e)
				if err == io.EOF {
					break
				}
				switch {
				case err != nil || e.Fields.ID == "":
					say(w, 400, 6, "Invalid data format", fmt.Sprintf(`,"invalid-event-number":%d`, n))
					return
				case e.Event == nil:
					say(w, 400, 12, "Event field is required", fmt.Sprintf(`,"invalid-event-number":%d`, n))
					return
				case s.refuse != nil && s.refuse(e.Fields.ID):
					say(w, 400, 15, "Error in handling indexed fields", fmt.Sprintf(`,"invalid-event-number":%d`, n))
					return
				}
				ids = append(ids, e.Fields.ID)
			}
			if len(ids) == 0 {
				say(w, 400, 5, "No data", "")
				return
			}
			for _, id := range ids {
				s.came.add(id)
			}
			s.requests++
			s.slow = s.slow || s.requests == s.tires
			c.wait[c.next] = ids
			if !s.slow && rand.IntN(2) == 0 { // indexed before anybody asks
				s.indexed(ids)
				c.wait[c.next] = nil
			}
			c.next++
			if s.mute {
				s.mu.Unlock()
				<-r.Context().Done()
				s.mu.Lock()
				return
			}
			say(w, 200, 0, "Success", fmt.Sprintf(`,"ackId":%d`, c.next-1))
		case "/services/collector/ack":
			var ask struct {
				Acks []int `json:"acks"`
			}
			if err := json.Unmarshal(body, &ask); err != nil || ask.Acks == nil {
				say(w, 400, 6, "Invalid data format", "")
				return
			}
			s.asked++
			// By now what came before is indexed.
			result := map[int]bool{}
			for _, id := range ask.Acks {
				if ids, ok := c.wait[id]; ok && !s.slow {
					s.indexed(ids)
					delete(c.wait, id)
					c.acks[id] = true
				}
				result[id] = c.acks[id]
				delete(c.acks, id) // an answer true is given once
			}
			json.NewEncoder(w).Encode(map[string]any{"acks": result})
		default:
			http.Error(w, "The requested URL was not found on this server.", 404)
		}
	})
}

func (s *splunk) indexed(ids []string) {
	for _, id := range ids {
		s.index.add(id)
	}
}

// elastic follows the documents of the bulk interface: pairs of lines that end
// in a newline, a result for each, create that refuses an _id which is there,
// 429 for what it has no room for now.
type elastic struct {
	docs   ledger // what it has; an _id is there once
	t      *testing.T
	status func(id string) int // 0: as it is

	mu       sync.Mutex
	requests int
	conflict int
}

func (e *elastic) life() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if r.URL.Path != "/_bulk" || r.Method != http.MethodPost {
			http.Error(w, "no handler", 404)
			return
		}
		if r.Header.Get("Authorization") != "ApiKey bulk-key" {
			http.Error(w, `{"error":{"type":"security_exception"},"status":401}`, http.StatusUnauthorized)
			return
		}
		if ct := r.Header.Get("Content-Type"); ct != "application/x-ndjson" && ct != "application/json" {
			http.Error(w, `{"error":"Content-Type header is not supported"}`, http.StatusNotAcceptable)
			return
		}
		if len(body) == 0 || body[len(body)-1] != '\n' {
			http.Error(w, `{"error":{"type":"illegal_argument_exception","reason":"The bulk request must be terminated by a newline [\\n]"},"status":400}`, 400)
			return
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.requests++
		type result struct {
			Status int            `json:"status"`
			Error  map[string]any `json:"error,omitempty"`
		}
		var items []map[string]result
		errs := false
		in := bufio.NewScanner(bytes.NewReader(body))
		in.Buffer(nil, 4<<20)
		for in.Scan() {
			var action struct {
				Create *struct {
					Index string `json:"_index"`
					ID    string `json:"_id"`
				} `json:"create"`
			}
			if err := json.Unmarshal(in.Bytes(), &action); err != nil || action.Create == nil || action.Create.Index == "" || action.Create.ID == "" || !in.Scan() {
				e.t.Errorf("not a create: %.200q", in.Text())
				http.Error(w, "{}", 400)
				return
			}
			var doc map[string]any
			if err := json.Unmarshal(in.Bytes(), &doc); err != nil {
				e.t.Errorf("not a document: %v", err)
			}
			id, item := action.Create.ID, result{Status: 201}
			switch status := e.wants(id); {
			case status == 429:
				item = result{429, map[string]any{"type": "es_rejected_execution_exception", "reason": "queue is full"}}
			case status != 0:
				item = result{status, map[string]any{"type": "mapper_parsing_exception", "reason": "failed to parse field [x]"}}
			case e.docs.has(id):
				e.conflict++
				item = result{409, map[string]any{"type": "version_conflict_engine_exception", "reason": "document already exists"}}
			default:
				e.docs.add(id)
			}
			errs = errs || item.Error != nil
			items = append(items, map[string]result{"create": item})
		}
		json.NewEncoder(w).Encode(map[string]any{"took": 3, "errors": errs, "items": items})
	})
}

func (e *elastic) wants(id string) int {
	if e.status == nil {
		return 0
	}
	return e.status(id)
}

// inOrderOf is inOrder for ids that begin with prefix.
func (l *ledger) inOrderOf(t *testing.T, prefix string) {
	t.Helper()
	only := &ledger{}
	l.mu.Lock()
	for _, id := range l.order {
		if strings.HasPrefix(id, prefix) {
			only.add(id)
		}
	}
	l.mu.Unlock()
	only.inOrder(t)
}
