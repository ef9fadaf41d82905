package deliver

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/plugins/siem-integration-plugin/internal/packed"
)

func TestBulkAnswers(t *testing.T) {
	k := &bulk{}
	for _, c := range []struct {
		answer  string
		n       int
		again   []int
		refused []int
		doubles int
		bad     bool
	}{
		{answer: `{"took":1,"errors":false}`, n: 2},
		{answer: `{"errors":false,"took":1,"items":[]}`, n: 2},
		{answer: `{"took":1,"errors":true,"items":[{"create":{"status":201}},{"create":{"status":429,"error":{"type":"es_rejected_execution_exception"}}},{"create":{"status":409}},{"create":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"x"}}}]}`,
			n: 4, again: []int{1}, refused: []int{3}, doubles: 1},
		{answer: `{"errors":true,"items":[{"create":{"status":403,"error":{"type":"cluster_block_exception","reason":"disk usage exceeded flood-stage watermark"}}}]}`, n: 1, again: []int{0}},
		{answer: `{"errors":true,"items":[{"create":{"status":503}}]}`, n: 1, again: []int{0}},
		{answer: `{"errors":true,"items":[{}]}`, n: 1, again: []int{0}},
		{answer: `{"errors":true,"items":[{"create":{"status":201}}]}`, n: 2, bad: true},
		{answer: `{"errors":true}`, n: 1, bad: true},
		{answer: `<html>`, n: 1, bad: true},
		{answer: ``, n: 1, bad: true},
	} {
		v, err := k.answered(strings.NewReader(c.answer), c.n)
		var refused []int
		for i := range v.refused {
			refused = append(refused, i)
		}
		if (err != nil) != c.bad || !slices.Equal(v.again, c.again) || !slices.Equal(refused, c.refused) || v.doubles != c.doubles {
			t.Errorf("%s: %+v, %v", c.answer, v, err)
		}
	}
}

func FuzzBulkAnswer(f *testing.F) {
	f.Add([]byte(`{"took":1,"errors":true,"items":[{"create":{"status":201}},{"create":{"status":429}}]}`))
	f.Add([]byte(`{"errors":false}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := (&bulk{}).answered(bytes.NewReader(b), 2)
		if err != nil {
			return
		}
		for _, i := range v.again {
			if i < 0 || i > 1 || v.refused[i] != "" {
				t.Fatalf("%s: %+v", b, v)
			}
		}
	})
}

func FuzzOTLPAnswer(f *testing.F) {
	f.Add([]byte(`{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"x"}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := (&otlp{}).answered(bytes.NewReader(b), 2); err == nil && (v.rejected < 0 || v.rejected > 2 || len(v.again) > 0) {
			t.Fatalf("%s: %+v", b, v)
		}
	})
}

func TestBackoff(t *testing.T) {
	b := backoff{least: time.Second, most: time.Minute}
	for n := range 100 {
		most := time.Minute
		if n < 6 {
			most = time.Second << n
		}
		if wait := b.next(); wait < most/2 || wait > most {
			t.Errorf("attempt %d waits %s, not %s to %s", n, wait, most/2, most)
		}
	}
	b.reset()
	if wait := b.next(); wait > time.Second {
		t.Errorf("after a success it waits %s", wait)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "999999": maxRetryAfter, "-1": 0, "soon": 0,
		"Fri, 02 Jan 2026 03:04:35 GMT": 30 * time.Second, "Fri, 02 Jan 2026 03:04:00 GMT": 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {value}}, now); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}

func letters(n int) []letter {
	e := testEvent()
	list := make([]letter, n)
	for i := range list {
		list[i] = letter{Time: time.Now(), Reason: "because", packed: packed.Append(nil, e)}
	}
	return list
}

func TestDeadLetters(t *testing.T) {
	dir := t.TempDir()
	d, err := openDeadLetters(DeadLettersPath(dir, "x"), 4096)
	if err != nil {
		t.Fatal(err)
	}
	took, err := d.append(letters(100))
	if err != nil || took == 0 || took == 100 {
		t.Fatalf("%d letters in 4 KiB: %v", took, err)
	}
	if more, err := d.append(letters(1)); err != nil || more != 0 {
		t.Errorf("a full file takes %d more (%v)", more, err)
	}
	// A crash in the middle of a line.
	f, _ := os.OpenFile(d.path, os.O_APPEND|os.O_WRONLY, 0)
	f.WriteString(`{"time":`)
	f.Close()
	list, err := Letters(dir, "x")
	if err != nil || len(list) != took || list[0].Reason != "because" || list[0].Event.Finding.Rule != "test" {
		t.Errorf("%d of %d letters: %v", len(list), took, err)
	}
	if n, err := Again(dir, "x"); n != took || err != nil {
		t.Errorf("%d again: %v", n, err)
	}
	if _, err := d.append(letters(2)); err != nil {
		t.Fatal(err)
	}
	if _, err := Again(dir, "x"); !errors.Is(err, ErrAgain) {
		t.Errorf("the ones before are not delivered: %v", err)
	}
	if n, err := Drop(dir, "x"); n != 2 || err != nil {
		t.Errorf("%d dropped: %v", n, err)
	}
	if list, err := Letters(dir, "x"); len(list) != took || err != nil {
		t.Errorf("%d are still to be sent again: %v", len(list), err)
	}
	if n, err := Again(dir, "nobody"); n != 0 || err != nil {
		t.Errorf("%d: %v", n, err)
	}
}

func TestCertificatesAreChecked(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	os.WriteFile(empty, nil, 0o600)
	for name, c := range map[string]struct {
		cfg     Config
		secrets Secrets
	}{
		"an empty file of authorities": {Config{Address: "a:1", CAFile: empty}, Secrets{}},
		"a certificate without a key":  {Config{Address: "a:1"}, Secrets{ClientCert: "x"}},
	} {
		if _, err := tlsConfig(c.cfg, c.secrets); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	config, err := tlsConfig(Config{URL: "https://logs.example.org:8088/x"}, Secrets{})
	if err != nil || config.ServerName != "logs.example.org" || config.InsecureSkipVerify || config.MinVersion < 0x0303 {
		t.Errorf("%+v, %v", config, err)
	}
}

// TestAcknowledged: what SIOCOUTQ says stays true after the peer is gone.
func TestAcknowledged(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	w := newWire(conn)
	defer w.abandon()
	if _, err := w.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	wait(t, func() bool { n, err := w.acknowledged(); return err == nil && n == 1000 })
	// More than both buffers hold.
	for w.written.Load() == 1000 { // a deadline that is over before it begins writes nothing
		_ = w.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		_, _ = w.Write(make([]byte, 64<<20))
	}
	peer.Close() // with most of it unread: a reset
	_ = w.SetReadDeadline(time.Now().Add(time.Minute))
	if err := discard(w); err == nil || isTimeout(err) {
		t.Fatalf("no reset: %v", err)
	}
	n, err := w.acknowledged()
	if err != nil || n < 1000 || n >= w.written.Load() {
		t.Errorf("%d of %d acknowledged: %v", n, w.written.Load(), err)
	}
}

func wait(t *testing.T, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !ok() {
		if ctx.Err() != nil {
			t.Fatal("it did not happen")
		}
		time.Sleep(time.Millisecond)
	}
}
