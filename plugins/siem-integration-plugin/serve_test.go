package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
	"github.com/mobileops/mobileops/plugins/siem-integration-plugin/internal/deliver"
)

// quick is what tests add to a destination, so that it tries again soon.
func quick(d map[string]any) map[string]any {
	d["retry_min"], d["retry_max"] = "20ms", "100ms"
	return d
}

func settingsOf(destinations ...map[string]any) map[string]any {
	return map[string]any{"queue_size": "64MiB", "host": "gateway.example.org", "destinations": destinations}
}

// TestBulk: what is busy is tried again, what is refused goes to the dead
// letters and comes out of them, and every document is there once.
func TestBulk(t *testing.T) {
	e := &elastic{t: t}
	seen := map[string]int{}
	var mended bool
	e.status = func(id string) int {
		seen[id]++
		switch {
		case strings.HasSuffix(id, "7") && seen[id] == 1:
			return 429
		case strings.HasSuffix(id, "99") && !mended:
			return 400
		}
		return 0
	}
	r := &httpReceiver{t: t, handler: e.life}
	r.start()
	h := newHost(t, settingsOf(quick(map[string]any{"name": "search", "type": "bulk", "url": "http://" + r.address})),
		map[string]string{"destinations[0].token": "bulk-key"})
	p := h.serve()
	h.emit(findings(0, 1000)...)
	count := func() string {
		n, d := e.docs.count()
		return fmt.Sprintf("%d documents, %d doubles, %+v", n, d, h.status().Destinations)
	}
	eventually(t, count, func() bool { n, _ := e.docs.count(); return n == 990 })
	eventually(t, count, func() bool {
		s := h.status()
		return len(s.Destinations) == 1 && s.Destinations[0].DeadLetters == 10 && s.Queue.Records == 0
	})

	out, status := h.command("dead-letters", "list")
	if status != 0 || strings.Count(out, "\n") != 10 || !strings.Contains(out, `"f-000199"`) || !strings.Contains(out, "mapper_parsing_exception") {
		t.Errorf("status %d:\n%s", status, out)
	}
	e.mu.Lock()
	mended = true
	e.mu.Unlock()
	if out, status := h.command("dead-letters", "retry", "search"); status != 0 || !strings.Contains(out, "10 dead letters") {
		t.Errorf("status %d: %s", status, out)
	}
	eventually(t, count, func() bool { n, _ := e.docs.count(); return n == 1000 })
	eventually(t, count, func() bool { return h.status().Destinations[0].DeadLetters == 0 })
	p.stop(t)
	if _, doubles := e.docs.count(); doubles != 0 {
		t.Errorf("%d doubles", doubles)
	}
	if out, status := h.command("status", "search"); status != 0 || !strings.Contains(out, "1000") {
		t.Errorf("status %d: %s", status, out)
	}
}

// TestWebhook: signed, with the id of the event, again when the receiver asks
// for it and not before the time that it names.
func TestWebhook(t *testing.T) {
	var mu sync.Mutex
	got := map[string]int{}
	var first, second time.Time
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		id := r.Header.Get(deliver.HeaderDelivery)
		if want := deliver.Sign("hook-key", r.Header.Get(deliver.HeaderTimestamp), body); r.Header.Get(deliver.HeaderSignature) != want {
			t.Errorf("signature %q, want %q", r.Header.Get(deliver.HeaderSignature), want)
		}
		if !json.Valid(body) || !strings.Contains(string(body), id) {
			t.Errorf("body of %s: %s", id, body)
		}
		switch {
		case id == "f-000001" && first.IsZero():
			first = time.Now()
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
		case id == "f-000002":
			w.WriteHeader(422)
		default:
			if id == "f-000001" {
				second = time.Now()
			}
			got[id]++
		}
	}))
	defer srv.Close()
	ca := writeCA(t, srv.Certificate().Raw)
	h := newHost(t, settingsOf(quick(map[string]any{"name": "soar", "type": "webhook", "url": srv.URL + "/hook", "ca_file": ca, "min_severity": "low", "sources": []string{"integrity"}})),
		map[string]string{"destinations[0].hmac_key": "hook-key"})
	p := h.serve()
	other := finding(6)
	other.Finding.Source = "scan"
	h.emit(append(findings(0, 5), audit(5), other, pluginsdk.Event{Type: pluginsdk.TypeGap, Lost: 9})...)
	eventually(t, func() string { mu.Lock(); defer mu.Unlock(); return fmt.Sprint(got) }, func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == 5 })
	p.stop(t)
	mu.Lock()
	defer mu.Unlock()
	// 0 is info, 2 is refused, 6 of another source; 1, 3, 4, the act and the gap are there.
	if got["f-000001"] != 1 || got["f-000003"] != 1 || got["f-000004"] != 1 || got["a-000005"] != 1 {
		t.Errorf("%v", got)
	}
	if wait := second.Sub(first); wait < time.Second {
		t.Errorf("asked to wait for a second, it came after %s", wait)
	}
}

// TestOTLP: records of a batch in one request; what is refused is counted.
func TestOTLP(t *testing.T) {
	var mu sync.Mutex
	total := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var doc struct {
			ResourceLogs []struct {
				ScopeLogs []struct {
					LogRecords []struct{ TimeUnixNano string } `json:"logRecords"`
				} `json:"scopeLogs"`
			} `json:"resourceLogs"`
		}
		if err := json.Unmarshal(body, &doc); err != nil || r.URL.Path != "/v1/logs" || len(doc.ResourceLogs) != 1 {
			t.Errorf("%s: %v: %.300s", r.URL, err, body)
			w.WriteHeader(400)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		total += len(doc.ResourceLogs[0].ScopeLogs[0].LogRecords)
		fmt.Fprint(w, `{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"too old"}}`)
	}))
	defer srv.Close()
	h := newHost(t, settingsOf(quick(map[string]any{"name": "otel", "type": "otlp", "url": srv.URL})), nil)
	p := h.serve()
	h.emit(findings(0, 300)...)
	eventually(t, func() string { return fmt.Sprint(h.status().Destinations) }, func() bool {
		mu.Lock()
		defer mu.Unlock()
		s := h.status()
		return total == 300 && s.Queue.Records == 0 && len(s.Destinations) == 1 && s.Destinations[0].Rejected > 0
	})
	p.stop(t)
}

// TestHEC: taken only when indexed; an event that is refused goes to the dead
// letters and the rest of its batch is delivered.
func TestHEC(t *testing.T) {
	s := &splunk{t: t, busy: 2, refuse: func(id string) bool { return id == "f-000042" }}
	r := &httpReceiver{t: t, handler: s.life}
	r.start()
	h := newHost(t, settingsOf(quick(map[string]any{"name": "splunk", "type": "hec", "url": "http://" + r.address})),
		map[string]string{"destinations[0].token": "hec-token"})
	p := h.serve()
	h.emit(findings(0, 500)...)
	count := func() string {
		n, d := s.index.count()
		return fmt.Sprintf("%d events, %d doubles, %+v", n, d, h.status().Destinations)
	}
	eventually(t, count, func() bool { n, _ := s.index.count(); return n == 499 })
	eventually(t, count, func() bool {
		st := h.status()
		return len(st.Destinations) == 1 && st.Destinations[0].DeadLetters == 1 && st.Queue.Records == 0
	})
	if out, status := h.command("test", "splunk"); status != 0 || !strings.Contains(out, "indexed") {
		t.Errorf("status %d: %s", status, out)
	}
	p.stop(t)
	s.came.inOrderOf(t, "f-")
	if out, status := h.command("dead-letters", "drop", "splunk"); status != 0 || !strings.Contains(out, "1 dead letter") {
		t.Errorf("status %d: %s", status, out)
	}
}

// TestADeadDestinationBlocksNobody, and says why it is dead.
func TestADeadDestinationBlocksNobody(t *testing.T) {
	e := &elastic{t: t}
	r := &httpReceiver{t: t, handler: e.life}
	r.start()
	h := newHost(t, settingsOf(
		quick(map[string]any{"name": "dead", "type": "syslog-tcp", "address": "127.0.0.1:1"}),
		quick(map[string]any{"name": "alive", "type": "bulk", "url": "http://" + r.address}),
	), map[string]string{"destinations[1].token": "bulk-key"})
	p := h.serve()
	h.emit(findings(0, 100)...)
	eventually(t, func() string { return fmt.Sprint(h.status()) }, func() bool { n, _ := e.docs.count(); return n == 100 })
	eventually(t, func() string { return fmt.Sprint(h.status()) }, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.health.Status == pluginsdk.StatusDegraded && strings.Contains(h.health.Message, "dead: ") && h.health.Metrics["queued"] == 100
	})
	if out, status := h.command("test", "dead"); status != 1 || !strings.Contains(out, "127.0.0.1:1") {
		t.Errorf("status %d: %s", status, out)
	}
	p.stop(t)
}

// TestFullQueueHoldsTheHost: nothing is acknowledged that is not safe.
func TestFullQueueHoldsTheHost(t *testing.T) {
	h := newHost(t, map[string]any{"queue_size": "16MiB", "destinations": []any{quick(map[string]any{"name": "dead", "type": "syslog-tcp", "address": "127.0.0.1:1"})}}, nil)
	p := h.serve()
	big := findings(0, 6000)
	for i := range big {
		big[i].Finding.Remediation = strings.Repeat("x", 4000)
	}
	h.emit(big...)
	eventually(t, func() string { return fmt.Sprint(h.status()) }, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.health.Status == pluginsdk.StatusDegraded && strings.Contains(h.health.Message, "full")
	})
	acked := 0
	// The status file may be from before the queue was full.
	eventually(t, func() string { return fmt.Sprintf("%d acknowledged, %+v", acked, h.status()) }, func() bool {
		h.mu.Lock()
		acked = h.acked
		h.mu.Unlock()
		s := h.status()
		return s.Full && uint64(acked) == s.Queue.Next-1
	})
	if s := h.status(); acked >= 6000 || s.Queue.Bytes > 16<<20 {
		t.Errorf("%d acknowledged, %+v", acked, s.Queue)
	}
	p.stop(t)
}

// TestWrongConfigurationIsSaid with the path of the option.
func TestWrongConfigurationIsSaid(t *testing.T) {
	for want, d := range map[string]map[string]any{
		"destinations[0].address": {"name": "a", "type": "syslog-tls", "address": "nonsense"},
		"destinations[0].url":     {"name": "a", "type": "bulk", "url": "ftp://x"},
		"destinations[0].type":    {"name": "a", "type": "pigeon"},
		"destinations[0].name":    {"name": "../a", "type": "otlp", "url": "https://x"},
		"destinations[0].token":   {"name": "a", "type": "hec", "url": "https://x"},
		"ca_file":                 {"name": "a", "type": "otlp", "url": "https://x", "ca_file": "/nonexistent"},
	} {
		h := newHost(t, settingsOf(d), nil)
		p := h.start("service", "serve")
		<-p.exited
		if p.cmd.ProcessState.ExitCode() != statusNotReady || !strings.Contains(p.errs.String(), want) {
			t.Errorf("%s: %s: %s", want, p.cmd.ProcessState, &p.errs)
		}
	}
}
