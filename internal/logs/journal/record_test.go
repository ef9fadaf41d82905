package journal

import (
	"bytes"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/logs/event"
)

func TestRecordKeepsWhatJournalctlPrints(t *testing.T) {
	needSystemd(t)
	path := filepath.Join(t.TempDir(), "a.journal")
	remote(t, path, generate(spec{seed: 3, n: 2000, binary: true}), nil)
	s := open(t, Options{}, path)
	var again []byte
	for {
		e, err := s.Next()
		if err != nil {
			break
		}
		r, err := e.Record()
		if err != nil {
			t.Fatal(err)
		}
		if r.Clock != event.ClockExact || r.Time != int64(e.Realtime)*1000 {
			t.Fatalf("time %d by %v of an entry at %d µs", r.Time, r.Clock, e.Realtime)
		}
		text := Text(r.Raw)
		if usualAddress(r.Raw) != len(text) {
			t.Fatalf("the address lines of %q are not found at once", r.Raw)
		}
		if bytes.HasPrefix(text, []byte("__")) || !bytes.HasPrefix(text, []byte("_BOOT_ID=")) {
			t.Fatalf("text %.100q", text)
		}
		if rest := r.Raw[len(text):]; !bytes.HasPrefix(rest, []byte("\n__CURSOR=s="+e.SeqnumID.String())) || bytes.HasSuffix(rest, []byte("\n")) {
			t.Fatalf("address lines %q", rest)
		}
		p, err := Parse(r.Raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range []Export{ExportClassic, ExportSeqnum} {
			slow, fast := p.AppendExport(nil, v), []byte(nil)
			direct, _ := e.AppendExport(nil, v)
			if fast, ok := AppendRecordExport(fast, r.Raw, v); !ok || !bytes.Equal(slow, fast) || !bytes.Equal(slow, direct) {
				t.Fatalf("exported directly:\n%q\nfrom the record:\n%q\nparsed:\n%q", direct, fast, slow)
			}
		}
		again = p.AppendExport(again, variant(t))
	}
	sameExport(t, again, journalctl(t, "-o", "export", "--file", path))
}

func TestFillTakesFieldsOfTheJournal(t *testing.T) {
	raw := []byte("_BOOT_ID=00\n_HOSTNAME=web1\n_SYSTEMD_USER_UNIT=app.service\nUNIT=other.service\nPRIORITY=3\n" +
		"_COMM=python3\nSYSLOG_PID=99\n_UID=1000\nMESSAGE\n" + string(le.AppendUint64(nil, 45)) +
		"from 10.1.2.3 port 22,\n[2001:db8::1]:80 10.1.2.3\nTAG=a\nTAG=b\n" +
		"__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=5\n__MONOTONIC_TIMESTAMP=6")
	raw = bytes.Replace(raw, le.AppendUint64(nil, 45), le.AppendUint64(nil, uint64(len("from 10.1.2.3 port 22,\n[2001:db8::1]:80 10.1.2.3"))), 1)
	e := event.Event{Record: event.Record{Raw: raw}, Origin: &event.Origin{Host: "collector"}, Fill: Fill}
	e.Text = Text(raw)
	e.Parsed()
	if e.Host != "web1" || e.Unit != "app.service" || e.Program != "python3" || e.PID != 99 || e.Severity != event.Error || e.User != "1000" {
		t.Errorf("host %q unit %q program %q pid %d severity %v user %q", e.Host, e.Unit, e.Program, e.PID, e.Severity, e.User)
	}
	if want := "from 10.1.2.3 port 22,\n[2001:db8::1]:80 10.1.2.3"; string(e.Message) != want {
		t.Errorf("message %q", e.Message)
	}
	if want := []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("2001:db8::1")}; !slices.Equal(e.Addrs, want) {
		t.Errorf("addresses %v", e.Addrs)
	}
	var tags []string
	for _, f := range e.Fields {
		if f.Name == "TAG" {
			tags = append(tags, string(f.Value))
		}
	}
	if len(e.Fields) != 11 || !slices.Equal(tags, []string{"a", "b"}) {
		t.Errorf("fields %q", e.Fields)
	}
	e = event.Event{Record: event.Record{Raw: []byte("PRIORITY=x\n__CURSOR=")}, Origin: &event.Origin{Host: "collector"}, Fill: Fill}
	if e.Parsed(); e.Host != "collector" || e.Severity != event.NoSeverity || e.PID != 0 {
		t.Errorf("an entry without fields: host %q, severity %v, pid %d", e.Host, e.Severity, e.PID)
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	for raw, offset := range map[string]int{
		"":                                      -1,
		"A=1":                                   -1,
		"A=1\n__CURSOR=x":                       -1,
		"A=1\nb=2":                              4,
		"A=1\n\nB=2":                            4,
		"A\n\x01\x00\x00":                       2,
		"A\n\xff\xff\xff\xff\xff\xff\xff\xff":   10,
		"A\n\x01\x00\x00\x00\x00\x00\x00\x00xy": 11,
		"A=1\n__CURSOR=x\n__REALTIME_TIMESTAMP=y": 15,
		"A=1\n__CURSOR=x\n__OTHER=y":              15,
	} {
		_, err := Parse([]byte(raw))
		got := -1
		if e, ok := err.(*SyntaxError); ok {
			got = e.Offset
		}
		if got != offset || (err == nil) != (offset < 0) {
			t.Errorf("Parse(%q) = %v, want trouble at %d", raw, err, offset)
		}
	}
}

func TestRecordsWithoutAddressAreNotExported(t *testing.T) {
	for _, raw := range []string{"", "A=1", "__CURSOR=x", "A=1\n__CURSOR=x"} {
		if out, ok := AppendRecordExport(nil, []byte(raw), ExportSeqnum); ok || len(out) > 0 {
			t.Errorf("%q became %q", raw, out)
		}
	}
	long := "A=1\n__CURSOR=" + strings.Repeat("x", 1000)
	if text := Text([]byte(long)); string(text) != "A=1" {
		t.Errorf("text %.20q", text)
	}
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]bool{
		"": true, "plain text that is longer than eight": true, "tab\tinside of it": true, "line\nbreak, no": false,
		"\x7f": false, "zero\x00": false, "\u00a0": true, "\u009f": false, "\u0080": false, "ﷰ": true, "\ufdd0": false, "\ufffe": false,
		"\U0001ffff": false, "\U0001fffd": true, "\xff": false, "1234567\xc3\xa9": true, "1234567\xc3": false, "12345678\xa9": false,
		"1\t345678\x80 continuation": false, "123456\xe4\xb8\x96\xe7\x95\x8c": true, "\xed\xa0\x80": false, "\xc0\x80": false, "\ufffd": true,
	} {
		if got := printable([]byte(text)); got != want {
			t.Errorf("printable(%q) = %v", text, got)
		}
	}
	// Each byte at each place of a word, against the slow way.
	for c := range 256 {
		for at := range 17 {
			text := []byte("0123456789abcdef0")
			text[at] = byte(c)
			if got, want := printable(text), printableRunes(text, len(text)) >= 0; got != want {
				t.Fatalf("byte %#x at %d: %v", c, at, got)
			}
		}
	}
}

func TestHashes(t *testing.T) {
	// The vector of the SipHash paper: key 00..0f, message 00..0e.
	var p []byte
	for i := range 15 {
		p = append(p, byte(i))
	}
	if got := siphash(0x0706050403020100, 0x0f0e0d0c0b0a0908, p); got != 0xa129ca6149be45e5 {
		t.Errorf("siphash = %#x", got)
	}
	// From lookup3.c: hashlittle2 gives c in the first half and b in the second.
	if got := jenkins([]byte("Four score and seven years ago")); got != 0x17770551ce7226e6 {
		t.Errorf("jenkins = %#x", got)
	}
	if got := jenkins(nil); got != 0xdeadbeefdeadbeef {
		t.Errorf("jenkins of nothing = %#x", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("_BOOT_ID=00\nMESSAGE=text\n__CURSOR=s=1\n__REALTIME_TIMESTAMP=1\n__MONOTONIC_TIMESTAMP=2"))
	f.Add([]byte("MESSAGE\n\x03\x00\x00\x00\x00\x00\x00\x00a\nb\n__CURSOR=x"))
	f.Add([]byte("A\n\xff\xff\xff\xff\xff\xff\xff\xffa"))
	f.Add([]byte("__CURSOR="))
	cursor := "s=" + strings.Repeat("a", 32) + ";i=1;b=" + strings.Repeat("b", 32) + ";m=2;t=3;x=4"
	f.Add([]byte("A=1\n__CURSOR=" + cursor + "\n__REALTIME_TIMESTAMP=3\n__MONOTONIC_TIMESTAMP=2"))
	f.Add([]byte("A=1\n__CURSOR=" + cursor + "\n__CURSOR=" + cursor + "\n__REALTIME_TIMESTAMP=3\n__MONOTONIC_TIMESTAMP=2"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if i := bytes.LastIndex(raw, []byte("\n__CURSOR=")); i >= 0 && len(Text(raw)) != i {
			t.Fatalf("the text of %q ends at %d", raw, len(Text(raw)))
		}
		p, err := Parse(raw)
		e := event.Event{Record: event.Record{Raw: raw}}
		Fill(&e)
		if err != nil {
			if s, ok := err.(*SyntaxError); !ok || s.Offset < 0 || s.Offset > len(raw) {
				t.Fatalf("%#v", err)
			}
			return
		}
		// What was read can be written, and reads the same.
		text := p.AppendExport(nil, ExportClassic)
		at := bytes.Index(text, []byte("\n__MONOTONIC_TIMESTAMP=")) + 1
		at += bytes.IndexByte(text[at:], '\n') + 1
		again, err := Parse(append(append(bytes.Clone(text[at:len(text)-1]), text[:at]...), "\n"...)[:len(text)-2])
		if err != nil || len(again.Fields) != len(p.Fields) || !bytes.Equal(again.Cursor, p.Cursor) {
			t.Fatalf("%q became %q: %v", raw, text, err)
		}
		for i := range p.Fields {
			if fmt.Sprintf("%q", p.Fields[i]) != fmt.Sprintf("%q", again.Fields[i]) {
				t.Fatalf("field %d: %q became %q", i, p.Fields[i], again.Fields[i])
			}
		}
	})
}
