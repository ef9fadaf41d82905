package segment

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/match"
)

// lines makes records as hosts write them, and some as nobody does.
func lines(rng *rand.Rand, n int) []event.Record {
	at := time.Date(2026, 2, 27, 23, 0, 0, 0, time.UTC)
	var out []event.Record
	addr := func() string {
		return fmt.Sprintf("%d.%d.%d.%d", rng.IntN(256), rng.IntN(3), rng.IntN(30), rng.IntN(256))
	}
	words := []string{"root", "admin", "alice7", "x1Failed", "Failed", "a", "", "été", "10"}
	for i := range n {
		at = at.Add(time.Duration(rng.ExpFloat64() * 3e9))
		t, w := at, words[rng.IntN(len(words))]
		var s string
		switch rng.IntN(15) {
		case 0:
			s = t.Format("Jan _2 15:04:05") + " web1 sshd[" + fmt.Sprint(rng.IntN(40000)) + "]: Failed password for " + w + " from " + addr() + " port " + fmt.Sprint(rng.IntN(65536)) + " ssh2"
		case 1:
			s = t.Format("2006-01-02 15:04:05,000") + " INFO [main] org.apache.hadoop.Class$Inner: id attempt_" + fmt.Sprint(rng.Int64()) + "_m_000001"
		case 2:
			id := make([]byte, 16)
			for k := range id {
				id[k] = byte(rng.IntN(256))
			}
			h := hex.EncodeToString(id)
			s = t.Format("2006-01-02T15:04:05.000000") + "+01:00 req-" + h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:] + " GET /v2/" + h
		case 3:
			s = t.Format("[Mon Jan 02 15:04:05 2006] ") + "[error] worker" + fmt.Sprint(rng.IntN(9)) + " in state " + fmt.Sprint(rng.IntN(9))
		case 4:
			s = t.Format("060102 150405") + " 143 INFO dfs.DataNode$PacketResponder: block blk_-" + fmt.Sprint(rng.Int64()) + " /" + addr() + ":50010"
		case 5:
			s = addr() + ` - - [` + t.Format("02/Jan/2006:15:04:05 -0700") + `] "GET /a/` + w + `?q=` + fmt.Sprint(rng.IntN(100)) + ` HTTP/1.1" 200 17`
		case 6:
			s = "type=SYSCALL msg=audit(" + fmt.Sprintf("%d.%03d", t.Unix(), rng.IntN(1000)) + ":" + fmt.Sprint(i) + "): arch=c000003e comm=\"" + w + "\""
		case 7:
			s = "java.lang.Exception: " + w + "\n\tat a.b.C(D.java:" + fmt.Sprint(rng.IntN(500)) + ")\n\tat x.y(Z.java:1)"
		case 8:
			b := make([]byte, rng.IntN(40))
			for k := range b {
				b[k] = byte(rng.IntN(256))
			}
			s = string(b)
		case 9:
			b := make([]byte, rng.IntN(6))
			for k := range b {
				b[k] = "\x00\x01a1 \n"[rng.IntN(6)]
			}
			s = string(b)
		case 10:
			s = w
		case 11:
			s = `{"log":"` + w + `","n":` + fmt.Sprint(rng.IntN(1000)) + `,"time":"` + t.Format(time.RFC3339Nano) + `"}`
		case 12:
			s = "Feb 30 12:00:00 is no date; Feb 29 12:00:00 neither in this year " + t.Format("Jan _2 15:04:05")
		case 13:
			s = fmt.Sprint("repeated ", rng.IntN(3))
		case 14:
			s = t.Format("2006/01/02 15:04:05") + " " + w + "=" + addr() + w
		}
		r := event.Record{Time: t.UnixNano(), Clock: event.Clock(rng.IntN(3)), Raw: []byte(s)}
		if rng.IntN(3) == 0 {
			r.Time = r.Time / 1e9 * 1e9
		}
		if rng.IntN(50) == 0 {
			r.Time -= int64(rng.IntN(400)) * day
		}
		out = append(out, r)
	}
	return out
}

func written(t testing.TB, records []event.Record) *Reader {
	t.Helper()
	var buf bytes.Buffer
	w, err := NewWriter(&buf, Meta{event.Origin{Source: "/var/log/x", Format: "plain", Host: "h"}})
	if err != nil {
		t.Fatal(err)
	}
	var raw int64
	for _, r := range records {
		if err := w.Append(r); err != nil {
			t.Fatal(err)
		}
		raw += int64(len(r.Raw))
	}
	sum, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if sum.Records != int64(len(records)) || sum.RawBytes != raw || sum.Bytes != int64(buf.Len()) {
		t.Fatalf("the summary is %+v for %d records of %d bytes in a file of %d", sum, len(records), raw, buf.Len())
	}
	r, err := Open(bytes.NewReader(buf.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for _, n := range []int{0, 1, 2, 5000, 120000} {
		records := lines(rand.New(rand.NewPCG(1, uint64(n))), n)
		r := written(t, records)
		meta, err := r.Meta()
		if err != nil || meta.Source != "/var/log/x" || n > 100000 && r.Blocks() < 2 {
			t.Fatalf("source %q, %d blocks: %v", meta.Source, r.Blocks(), err)
		}
		i := 0
		err = r.Scan(context.Background(), math.MinInt64, math.MaxInt64, func(rec *event.Record) error {
			want := records[i]
			if rec.Time != want.Time || rec.Clock != want.Clock || !bytes.Equal(rec.Raw, want.Raw) {
				t.Fatalf("record %d is\n%d %v %q, not\n%d %v %q", i, rec.Time, rec.Clock, rec.Raw, want.Time, want.Clock, want.Raw)
			}
			i++
			return nil
		})
		if err != nil || i != n {
			t.Fatalf("%d of %d records: %v", i, n, err)
		}
		if err := r.Verify(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

// found returns what a need selects, and whether it is said to be exact.
func found(t testing.TB, r *Reader, need match.Need) (rows []int, exact bool) {
	t.Helper()
	exact = true
	var b Block
	base, q := 0, NewSearch(need)
	for i := range r.Blocks() {
		if !r.Possible(i, q) {
			base += int(r.Block(i).Records)
			continue
		}
		if err := b.Load(r, i); err != nil {
			t.Fatal(err)
		}
		sel, err := b.Select(q)
		if err != nil {
			t.Fatal(err)
		}
		exact = exact && sel.Exact
		n := 0
		if err := b.Each(sel, math.MinInt64, math.MaxInt64, func(k int, _ *event.Record) error {
			rows = append(rows, base+k)
			n++
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if n != sel.Count() {
			t.Fatalf("%d records are selected, %d counted", n, sel.Count())
		}
		base += int(r.Block(i).Records)
	}
	return rows, exact
}

// TestSelectionsAreThoseOfAScan looks for pieces of the records themselves, at
// every border between templates, values and times, and for what is not there.
func TestSelectionsAreThoseOfAScan(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	records := lines(rng, 3000)
	r := written(t, records)
	exactly := 0
	piece := func() match.Literal {
		raw := records[rng.IntN(len(records))].Raw
		from := rng.IntN(len(raw) + 1)
		to := min(len(raw), from+1+rng.IntN(25))
		text := bytes.Clone(raw[from:to])
		switch rng.IntN(6) {
		case 0:
			if len(text) > 0 {
				text[rng.IntN(len(text))] = byte("0a .]-\x00\x01"[rng.IntN(8)])
			}
		case 1:
			for i := range text {
				text[i] = lower(text[i])
			}
			return match.Literal{Text: text, Fold: true}
		}
		return match.Literal{Text: text}
	}
	for range 6000 {
		need := match.Need{Exact: true}
		for range 1 + rng.IntN(2) {
			clause := match.Clause{piece()}
			if rng.IntN(3) == 0 {
				clause = append(clause, piece())
			}
			need.Clauses = append(need.Clauses, clause)
		}
		var want []int
		for i, rec := range records {
			all := true
			for _, c := range need.Clauses {
				all = all && slices.ContainsFunc(c, func(l match.Literal) bool { return hasASCII(rec.Raw, l) })
			}
			if all {
				want = append(want, i)
			}
		}
		got, exact := found(t, r, need)
		if exact {
			exactly++
			if !slices.Equal(got, want) {
				t.Fatalf("%+v selects %d records, a scan %d", need.Clauses, len(got), len(want))
			}
			continue
		}
		for _, i := range want {
			if !slices.Contains(got, i) {
				t.Fatalf("%+v does not select %q", need.Clauses, records[i].Raw)
			}
		}
	}
	if exactly < 3000 {
		t.Errorf("only %d of 6000 selections were exact", exactly)
	}
}

func hasASCII(raw []byte, l match.Literal) bool {
	if !l.Fold {
		return bytes.Contains(raw, l.Text)
	}
	low := bytes.Clone(raw)
	for i, c := range low {
		low[i] = lower(c)
	}
	return bytes.Contains(low, l.Text)
}
