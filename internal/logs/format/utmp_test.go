package format

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// utmpRecord makes a record of utmp(5).
func utmpRecord(kind uint16, pid uint32, line, id, user, host string, addr string, at time.Time) []byte {
	rec := make([]byte, UtmpSize)
	binary.LittleEndian.PutUint16(rec, kind)
	binary.LittleEndian.PutUint32(rec[4:], pid)
	copy(rec[8:40], line)
	copy(rec[40:44], id)
	copy(rec[44:76], user)
	copy(rec[76:332], host)
	binary.LittleEndian.PutUint32(rec[340:], uint32(at.Unix()))
	binary.LittleEndian.PutUint32(rec[344:], uint32(at.Nanosecond()/1000))
	if addr != "" {
		copy(rec[348:364], netip.MustParseAddr(addr).AsSlice())
	}
	return rec
}

var loginTime = time.Date(2026, 11, 22, 5, 55, 12, 123456000, time.UTC)

func wtmp() []byte {
	return bytes.Join([][]byte{
		utmpRecord(2, 0, "~", "~~", "reboot", "6.1.0-13-amd64", "", loginTime.Add(-time.Hour)),
		utmpRecord(7, 812, "pts/0", "ts/0", "bob", "192.0.2.7", "192.0.2.7", loginTime),
		utmpRecord(7, 813, "pts/1", "ts/1", "eve", "2001:db8::1", "2001:db8::1", loginTime.Add(time.Second)),
		utmpRecord(8, 812, "pts/0", "", "", "", "", loginTime.Add(time.Minute)),
	}, nil)
}

func TestUtmpRecords(t *testing.T) {
	s := builtinSet(t)
	f := s.Detect("/tmp/whatever", wtmp())
	if f.Name() != "utmp" {
		t.Fatalf("wtmp is taken for %s", f.Name())
	}
	recs, n := f.NewReader(testOptions()).Next(nil, append(wtmp(), 7, 0), false)
	if len(recs) != 4 || n != 4*UtmpSize {
		t.Fatalf("%d records in %d bytes", len(recs), n)
	}
	if got, want := string(recs[1].Raw), "type=USER_PROCESS pid=812 line=pts/0 id=ts/0 user=bob host=192.0.2.7 addr=192.0.2.7 time=2026-11-22T05:55:12.123456Z"; got != want {
		t.Errorf("%s\nnot %s", got, want)
	}
	e := event.Event{Record: recs[2]}
	f.Fill(&e)
	if e.Time != loginTime.Add(time.Second).UnixNano() || e.Clock != event.ClockExact || e.User != "eve" || len(e.Addrs) != 1 || e.Addrs[0].String() != "2001:db8::1" {
		t.Errorf("%+v", e)
	}
	line, ok := DecodeLastlog(1000, lastlogRecord())
	if want := "type=LASTLOG uid=1000 line=pts/0 host=192.0.2.7 time=2026-11-22T05:55:12.000000Z"; !ok || string(line) != want {
		t.Errorf("%s, not %s", line, want)
	}
	if _, ok := DecodeLastlog(1, make([]byte, LastlogSize)); ok {
		t.Error("who has never logged in has a record")
	}
}

func lastlogRecord() []byte {
	rec := make([]byte, LastlogSize)
	binary.LittleEndian.PutUint32(rec, uint32(loginTime.Unix()))
	copy(rec[4:], "pts/0")
	copy(rec[36:], "192.0.2.7")
	return rec
}

func TestUtmpHostile(t *testing.T) {
	f, _ := builtinSet(t).Lookup("utmp")
	user := "a b\"\\=\n\x1b[0m time=1\xff"
	line := DecodeUtmp(utmpRecord(6, 9, "ssh:notty", "", user, "h", "", loginTime))
	if bytes.ContainsAny(line, "\n\x1b") {
		t.Errorf("%q has control characters", line)
	}
	e := event.Event{Record: event.Record{Raw: line}}
	f.Fill(&e)
	if e.User != user {
		t.Errorf("user is %q, not %q", e.User, user)
	}
	recs, _ := f.NewReader(testOptions()).Next(nil, line, true)
	if recs[0].Time != loginTime.UnixNano() {
		t.Errorf("a user's name has changed the time: %s", recs[0].When())
	}
	if got := string(DecodeUtmp([]byte{0xff, 0x00})); got != "type=UNKNOWN raw=ff00" {
		t.Error(got)
	}
}

// TestUtmpdump holds every record against utmpdump(1), and reads what it makes
// from text.
func TestUtmpdump(t *testing.T) {
	if _, err := exec.LookPath("utmpdump"); err != nil {
		t.Skip("utmpdump is not installed: nothing to compare with (apt-get install util-linux)")
	}
	path := filepath.Join(t.TempDir(), "wtmp")
	if err := os.WriteFile(path, wtmp(), 0o600); err != nil {
		t.Fatal(err)
	}
	dump, err := exec.Command("utmpdump", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	undump := exec.Command("utmpdump", "-r")
	undump.Stdin = bytes.NewReader(dump)
	again, err := undump.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(dump)), "\n")
	if len(lines) != 4 || len(again) != 4*UtmpSize {
		t.Fatalf("utmpdump: %d lines, %d bytes", len(lines), len(again))
	}
	f, _ := builtinSet(t).Lookup("utmp")
	for _, data := range [][]byte{wtmp(), again} {
		recs, _ := f.NewReader(testOptions()).Next(nil, data, true)
		for i, r := range recs {
			// [7] [00812] [ts/0] [bob     ] [pts/0       ] [192.0.2.7   ] [192.0.2.7      ] [2026-11-22T05:55:12,123456+00:00]
			var col []string
			for _, c := range strings.Split(strings.Trim(lines[i], "[]"), "] [") {
				col = append(col, strings.TrimSpace(c))
			}
			e := event.Event{Record: r}
			f.Fill(&e)
			value := func(name string) string { v, _ := e.Field(name); return string(v) }
			addr := value("addr")
			if addr == "" {
				addr = "0.0.0.0"
			}
			got := []string{strings.TrimSpace(value("id")), e.User, value("line"), value("host"), addr, r.When().Format("2006-01-02T15:04:05,000000-07:00")}
			if want := col[2:]; strings.Join(got, "|") != strings.Join(want, "|") {
				t.Errorf("record %d: %q, utmpdump has %q", i+1, got, want)
			}
		}
	}
}

// TestLast holds logins against last(1).
func TestLast(t *testing.T) {
	if _, err := exec.LookPath("last"); err != nil {
		t.Skip("last is not installed: nothing to compare with (apt-get install util-linux)")
	}
	path := filepath.Join(t.TempDir(), "wtmp")
	if err := os.WriteFile(path, wtmp(), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("last", "-w", "-i", "--time-format", "iso", "-f", path)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	f, _ := builtinSet(t).Lookup("utmp")
	recs, _ := f.NewReader(testOptions()).Next(nil, wtmp(), true)
	for _, r := range recs {
		e := event.Event{Record: r}
		f.Fill(&e)
		if kind, _ := e.Field("type"); string(kind) != "USER_PROCESS" {
			continue
		}
		line, _ := e.Field("line")
		addr, _ := e.Field("addr")
		want := []string{e.User, string(line), string(addr), r.When().Format("2006-01-02T15:04:05-07:00")}
		found := false
		for _, l := range strings.Split(string(out), "\n") {
			if w := strings.Fields(l); len(w) >= 4 && strings.Join(w[:4], " ") == strings.Join(want, " ") {
				found = true
			}
		}
		if !found {
			t.Errorf("last does not have %q:\n%s", want, out)
		}
	}
}

func FuzzDecodeUtmp(f *testing.F) {
	f.Add(wtmp()[:UtmpSize])
	f.Add(wtmp()[UtmpSize : 2*UtmpSize])
	f.Add(lastlogRecord())
	f.Fuzz(func(t *testing.T, rec []byte) {
		line := DecodeUtmp(rec)
		if bytes.IndexByte(line, '\n') >= 0 || !bytes.HasPrefix(line, []byte("type=")) {
			t.Fatalf("%q", line)
		}
		if l, ok := DecodeLastlog(7, rec); ok && bytes.IndexByte(l, '\n') >= 0 {
			t.Fatalf("%q", l)
		}
	})
}
