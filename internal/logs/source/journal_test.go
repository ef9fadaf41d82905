package source

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const remoteJournal = "/usr/lib/systemd/systemd-journal-remote"

// importEntries makes a journal of entries from..to with systemd's own writer,
// or adds them to it.
func importEntries(t *testing.T, file string, from, to int) {
	t.Helper()
	if _, err := os.Stat(remoteJournal); err != nil {
		t.Skip("systemd-journal-remote is not installed: no journal can be made")
	}
	var b bytes.Buffer
	for i := from; i < to; i++ {
		at := time.Date(2026, 11, 22, 6, 0, i, 0, time.UTC).UnixMicro()
		fmt.Fprintf(&b, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=0123456789abcdef0123456789abcdef\nPRIORITY=6\nMESSAGE=entry %d.\n\n", at, 1000+i, i)
	}
	cmd := exec.Command(remoteJournal, "--output="+file, "-")
	cmd.Stdin = &b
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("systemd-journal-remote: %v\n%s", err, out)
	}
}

func TestJournal(t *testing.T) {
	h := newHost(t)
	dir := h.path("journal/0123456789abcdef0123456789abcdef")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h.spec = []Spec{{Name: "journal", Kind: Journal, Include: []string{h.path("journal"), h.path("none")}}}
	file := filepath.Join(dir, "system.journal")
	importEntries(t, file, 0, 20)
	check := func(n int) string {
		got := map[string]int{}
		for _, l := range h.sink.lines() {
			_, rest, _ := strings.Cut(l, "MESSAGE=entry ")
			number, _, _ := strings.Cut(rest, ".")
			got[number]++
		}
		for i := range n {
			if got[fmt.Sprint(i)] != 1 {
				return fmt.Sprintf("entry %d of %d is there %d times", i, n, got[fmt.Sprint(i)])
			}
		}
		if len(got) != n {
			return fmt.Sprintf("%d entries, not %d", len(got), n)
		}
		return ""
	}
	r := h.once()
	if msg := check(20); msg != "" {
		t.Fatal(msg)
	}
	if r.Incomplete() || r.Records != 20 {
		t.Errorf("report %+v", r)
	}
	importEntries(t, file, 20, 30)
	h.once()
	h.once()
	if msg := check(30); msg != "" {
		t.Fatal(msg)
	}
	_, stop := h.follow()
	importEntries(t, file, 30, 40)
	importEntries(t, filepath.Join(dir, "user-1000.journal"), 40, 50)
	h.await(func() string { return check(50) })
	stop()
	// Everything goes away, and what comes then follows on entries that nobody saw.
	importEntries(t, file, 50, 60)
	later := filepath.Join(dir, "system@later.journal")
	importEntries(t, file, 60, 61)
	if err := os.Rename(file, later); err != nil {
		t.Fatal(err)
	}
	h.once()
	if msg := check(61); msg != "" {
		t.Fatal(msg)
	}
}

func TestJournalSince(t *testing.T) {
	h := newHost(t)
	h.spec = []Spec{{Name: "journal", Kind: Journal, Include: []string{h.path("journal")}}}
	if err := os.MkdirAll(h.path("journal"), 0o755); err != nil {
		t.Fatal(err)
	}
	importEntries(t, h.path("journal/system.journal"), 0, 20)
	h.opts.Since = time.Date(2026, 11, 22, 6, 0, 15, 0, time.UTC)
	h.once()
	h.once()
	if n := len(h.sink.lines()); n != 5 {
		t.Errorf("%d entries, not 5", n)
	}
}

func TestJournalGap(t *testing.T) {
	h := newHost(t)
	h.spec = []Spec{{Name: "journal", Kind: Journal, Include: []string{h.path("journal")}}}
	if err := os.MkdirAll(h.path("journal"), 0o755); err != nil {
		t.Fatal(err)
	}
	importEntries(t, h.path("journal/system.journal"), 0, 20)
	h.once()
	// As if five entries had come after this position and gone away.
	key := "journal:" + h.path("journal")
	var cur journalCursor
	if err := decodeCursor(h.sink.cursors[key], &cur); err != nil {
		t.Fatal(err)
	}
	cur.Number -= 5
	h.sink.cursors[key] = encodeCursor(&cur)
	importEntries(t, h.path("journal/system.journal"), 20, 21)
	if r := h.once(); len(r.Gaps) != 1 || r.Gaps[0].Records != 5 {
		t.Errorf("gaps %+v", r.Gaps)
	}
	if r := h.once(); len(r.Gaps) != 0 || len(h.sink.lines()) != 21 {
		t.Errorf("the second time: gaps %+v, %d entries", r.Gaps, len(h.sink.lines()))
	}
}
