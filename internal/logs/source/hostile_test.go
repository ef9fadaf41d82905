package source

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// Whoever gets control characters into a log must not keep it from being read.
func TestTextWithNULsIsRead(t *testing.T) {
	h := newHost(t, "*.log")
	hostile := "GET /\x00\x00\x01\x02\x03 \xff\xfe from 203.0.113.77\n"
	h.write("a.log", hostile+numbered(0, 10))
	h.write("b.log", strings.Repeat(hostile, 50))
	r := h.once()
	if len(r.Problems) > 0 {
		t.Errorf("problems %+v", r.Problems)
	}
	if n := len(h.sink.lines()); n != 61 {
		t.Errorf("%d records, want 61", n)
	}
}

func TestIsBinary(t *testing.T) {
	random := make([]byte, printBytes)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = byte(rng.Uint32())
	}
	for name, tc := range map[string]struct {
		head string
		want bool
	}{
		"text":               {"Nov 22 07:00:00 host app: started\n", false},
		"UTF-8":              {"größer als vorher: 10 €\n", false},
		"Latin-1":            {"gr\xf6\xdfer als vorher\n", false},
		"KOI8-R":             {"\xed\xce\xcf\xc7\xcf \xd4\xc5\xcb\xd3\xd4\xc1\n", false},
		"colours":            {"\x1b[31mred\x1b[0m\n", false},
		"a NUL in a line":    {"user \x00 logged in\n", false},
		"NULs at first":      {strings.Repeat("\x00", 500) + "text\n", false},
		"cut in a character": {"größer €"[:len("größer €")-1], false},
		"random":             {string(random), true},
		"numbers":            {strings.Repeat("\x01\x00\x00\x00name\x00\x00\x00\x00", 20), true},
		"UTF-16":             {"l\x00i\x00n\x00e\x00\n\x00", true},
	} {
		if got := isBinary([]byte(tc.head)); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Records without text count in the outbox, so that it does not become
// gigabytes.
func TestEmptyLinesFillTheOutbox(t *testing.T) {
	o := newOutbox(nil, 0, false)
	text := bytes.Repeat([]byte("\n"), turnBytes)
	var m meter
	n := 0
	for ; o.bytes < queueBytes; n++ {
		o.add(&m, len(text), Batch{Records: make([]event.Record, len(text))})
	}
	if n > 1 {
		t.Errorf("%d turns of empty lines wait", n)
	}
}
