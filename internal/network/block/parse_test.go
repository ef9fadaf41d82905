package block

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/addresses"
	"github.com/mobileops/mobileops/internal/state"
	"golang.org/x/sys/unix"
)

// words are the entries of a list.
func (l *list) words() (out []string) {
	for _, s := range l.v4 {
		out = append(out, s.rng().String())
	}
	for _, r := range l.v6 {
		out = append(out, r.String())
	}
	return out
}

func packed(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(s))
	z.Close()
	return b.String()
}

func TestFeedsAreRead(t *testing.T) {
	for name, c := range map[string]struct {
		text, want string
		bad        int
	}{
		"plain":         {"# a list\n203.0.113.7\n\n 198.51.100.0/24 ; SBL1\r\n2001:db8::1 comment\n203.0.113.9-203.0.113.12 # x\n203.0.113.20 - 203.0.113.21\n", "198.51.100.0/24 203.0.113.7 203.0.113.9-203.0.113.12 203.0.113.20/31 2001:db8::1", 0},
		"no last line":  {"203.0.113.7", "203.0.113.7", 0},
		"overlaps":      {"203.0.113.7\n203.0.113.0/24\n203.0.113.7\n203.0.114.0/24\n1.1.1.1\n1.1.1.2\n2001:db8::/33\n2001:db8::1\n", "1.1.1.1 1.1.1.2 203.0.113.0-203.0.114.255 2001:db8::/33", 0},
		"mapped":        {"::ffff:203.0.113.7\n::ffff:203.0.114.0/120\n", "203.0.113.7 203.0.114.0/24", 0},
		"masks":         {"203.0.113.0/255.255.255.128\n", "203.0.113.0/25", 0},
		"bad lines":     {"203.0.113.7\nbogus\n203.0.113.300\n203.0.113.9-203.0.113.1\n" + strings.Repeat("203.0.113.8\n", 50), "203.0.113.7 203.0.113.8", 3},
		"leading zeros": {"203.0.113.07\n203.0.113.9\n", "203.0.113.9", 1},
		"packed":        {packed("203.0.113.7\n"), "203.0.113.7", 0},
		"windows":       {"\xef\xbb\xbf203.0.113.7\r\n203.0.113.8\r\n", "203.0.113.7 203.0.113.8", 0},
		"feodo": {"# Feodo\n\"first_seen_utc\",\"dst_ip\",\"dst_port\",\"c2_status\"\n\"2026-01-01 00:00:00\",\"203.0.113.7\",\"443\",\"online\"\n\"2026-01-01\",\"203.0.113.8\",\"80\",\"offline\"\n",
			"203.0.113.7 203.0.113.8", 0},
		"ports":     {"id,ioc\n1,203.0.113.7:8080\n2,\"[2001:db8::1]:80\"\n3,nothing\n", "203.0.113.7 2001:db8::1", 1},
		"spamhaus":  {"{\"cidr\":\"198.51.100.0/24\",\"sblid\":\"SBL1\",\"rir\":\"ripe\"}\n{\"cidr\":\"2001:db8::/40\"}\n{\"type\":\"metadata\",\"timestamp\":1}\n", "198.51.100.0/24 2001:db8::/40", 0},
		"lines bad": {"{\"ip\":\"203.0.113.7\"}\n{\"ip\":\n{\"ip\":\"x\"}\n{\"ip\":\"203.0.113.9\"}\n", "203.0.113.7 203.0.113.9", 2},
		"document":  {"{\"prefixes\":[{\"ip_prefix\":\"198.51.100.0/25\",\"region\":\"x\"},{\"ipv6_prefix\":\"2001:db8::/48\"}],\"note\":\"1.2.3.4\"}", "198.51.100.0/25 2001:db8::/48", 0},
		"array":     {"[\"203.0.113.7\",\n \"203.0.113.8\"]", "203.0.113.7 203.0.113.8", 0},
		"stix":      {"{\"type\":\"bundle\",\"objects\":[{\"type\":\"indicator\",\"pattern\":\"[ipv4-addr:value = '203.0.113.7' OR ipv6-addr:value='2001:db8::9']\"}]}", "203.0.113.7 2001:db8::9", 0},
		"wide":      {"0.0.0.0/0\n::/0\n128.0.0.0/2\n203.0.113.7\n", "203.0.113.7", 0},
	} {
		p, err := parseFeed(strings.NewReader(c.text), Auto)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := strings.Join(p.list.words(), " "); got != c.want || p.bad != c.bad {
			t.Errorf("%s: %s (%d bad: %v), not %s (%d)", name, got, p.bad, p.first, c.want, c.bad)
		}
	}
}

func TestWhatIsNoFeed(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "comments": "# nothing\n", "html": "<html>\n<body>\n" + strings.Repeat("<p>503</p>\n", 9), "mostly bad": strings.Repeat("x\n", 20) + "203.0.113.7\n",
		"json": "{\"ip\":\"203.0.113.7\"", "deep": strings.Repeat("[", 100) + "\"203.0.113.7\"" + strings.Repeat("]", 100), "packed": packed("203.0.113.7\n")[:20],
		"line": strings.Repeat("1", 3*MaxLine), "binary": "\x1f\x8b\x08\x00",
	} {
		p, err := parseFeed(strings.NewReader(text), Auto)
		if err == nil || failure.KindOf(err) != failure.Failed {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
	// A bomb of zeros, and a list that is too long.
	for name, text := range map[string]string{"bomb": packed(strings.Repeat("\n", MaxFeedBytes+10))} {
		if _, err := parseFeed(strings.NewReader(text), Auto); !errors.Is(err, ErrNoFeed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEverythingInPieces has networks that are narrow enough for a feed, and are
// all addresses together.
func TestEverythingInPieces(t *testing.T) {
	var four, six strings.Builder
	for i := range 64 {
		fmt.Fprintf(&four, "%d.0.0.0/6\n", i*4)
	}
	for i := range 512 {
		fmt.Fprintf(&six, "%x::/12\n", 0x2000+i*16)
	}
	for name, feed := range map[string]string{"IPv4": four.String(), "IPv6": six.String()} {
		file := filepath.Join(t.TempDir(), "pieces")
		if err := os.WriteFile(file, []byte(feed), 0o600); err != nil {
			t.Fatal(err)
		}
		e := New(Options{Store: state.New(t.TempDir(), state.Options{})})
		if _, err := e.Import(t.Context(), Import{Source: file, DryRun: true}); !errors.Is(err, ErrNoFeed) {
			t.Errorf("all of %s: %v", name, err)
		}
		half := strings.Join(strings.SplitAfter(feed, "\n")[:strings.Count(feed, "\n")/2], "")
		if err := os.WriteFile(file, []byte(half), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Import(t.Context(), Import{Source: file, DryRun: true}); errors.Is(err, ErrNoFeed) {
			t.Errorf("half of %s: %v", name, err)
		}
	}
}

func TestListsSortSparseAndFind(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var l list
	var ranges []addresses.Range
	for range 10_000 { // enough for the sort of long lists
		first := r.Uint32() >> 12
		x := addresses.Range{First: addr4(first), Last: addr4(first + uint32(r.IntN(3)/2*r.IntN(40)))}
		l.add(x)
		ranges = append(ranges, x)
	}
	for range 50 {
		a := netip.AddrFrom16([16]byte{0x20, 0x01, 15: byte(r.IntN(100))})
		x := addresses.Range{First: a, Last: a}
		l.add(x)
		ranges = append(ranges, x)
	}
	l.settle()
	except := addresses.Merge([]addresses.Range{
		{First: addr4(0), Last: addr4(100)}, {First: addr4(5000), Last: addr4(5000)}, {First: addr4(70_000), Last: addr4(90_000)}, {First: addr4(90_100), Last: addr4(90_110)},
		{First: netip.MustParseAddr("2001::10"), Last: netip.MustParseAddr("2001::20")},
	})
	for step := range 2 {
		merged := addresses.Merge(slices.Clone(ranges))
		if step == 1 {
			l.without(except)
			merged = addresses.Without(merged, except)
		}
		for n := range uint32(1 << 20) {
			if a := addr4(n); l.has(a) != addresses.Find(merged, a) {
				t.Fatalf("step %d: %v: %v", step, a, l.has(a))
			}
		}
		for i := range 120 {
			if a := netip.AddrFrom16([16]byte{0x20, 0x01, 15: byte(i)}); l.has(a) != addresses.Find(merged, a) {
				t.Fatalf("step %d: %v: %v", step, a, l.has(a))
			}
		}
		if !slices.IsSorted(l.v4) {
			t.Error("not sorted")
		}
		data, sum := l.encode()
		again, sum2, err := decodeList(data)
		if err != nil || sum != sum2 || !slices.Equal(again.v4, l.v4) || !slices.Equal(again.v6, l.v6) {
			t.Errorf("written and read again: %v", err)
		}
		for _, i := range []int{0, 9, 20, len(data) / 2, len(data) - 1} {
			data[i] ^= 1
			if _, _, err := decodeList(data); failure.KindOf(err) != failure.Untrustworthy {
				t.Errorf("byte %d changed: %v", i, err)
			}
			data[i] ^= 1
		}
	}
}

func TestOverlapsLastAsLongAsTheLongest(t *testing.T) {
	rng := func(first, last string, left time.Duration) timed {
		return timed{addresses.Range{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last)}, left}
	}
	for want, list := range map[string][]timed{
		"10.0.0.0/16 1h0m0s, 10.1.0.0-10.1.2.2 1h0m0s, 10.1.2.3 0s, 10.1.2.4-10.255.255.255 1h0m0s": {rng("10.1.2.3", "10.1.2.3", 0), rng("10.0.0.0", "10.255.255.255", time.Hour)},
		"0.0.0.0-9.255.255.255 1s, 10.0.0.0-255.255.255.255 2s":                                     {rng("0.0.0.0", "255.255.255.255", time.Second), rng("10.0.0.0", "255.255.255.255", 2*time.Second)},
		"1.1.1.1 1s, 255.255.255.255 0s, :: 1s, ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 1s":         {rng("255.255.255.255", "255.255.255.255", 0), rng("::", "::", time.Second), rng("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", time.Second), rng("1.1.1.1", "1.1.1.1", time.Second)},
	} {
		var words []string
		for _, t := range flatten(list) {
			words = append(words, fmt.Sprintf("%v %v", t.Range, t.left))
		}
		got := strings.Join(words, ", ")
		want = strings.Replace(want, "10.0.0.0/16 1h0m0s, 10.1.0.0-10.1.2.2", "10.0.0.0-10.1.2.2", 1)
		if got != want {
			t.Errorf("%s\nnot %s", got, want)
		}
	}
}

func TestTimeLeftSurvivesRebootsAndClocks(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	set := Clock{now, "first", time.Hour}
	l := lapseAfter(4*time.Hour, set)
	for name, c := range map[string]struct {
		clock Clock
		left  time.Duration
	}{
		"at once":                      {set, 4 * time.Hour},
		"an hour later":                {Clock{now.Add(time.Hour), "first", 2 * time.Hour}, 3 * time.Hour},
		"the clock was set back":       {Clock{now.Add(-24 * time.Hour), "first", 2 * time.Hour}, 3 * time.Hour},
		"the clock was set forward":    {Clock{now.Add(24 * time.Hour), "first", 2 * time.Hour}, 3 * time.Hour},
		"after a reboot":               {Clock{now.Add(time.Hour), "second", time.Minute}, 3 * time.Hour},
		"after a reboot, too late":     {Clock{now.Add(5 * time.Hour), "second", time.Minute}, -time.Hour},
		"after a reboot, back in time": {Clock{now.Add(-24 * time.Hour), "second", time.Minute}, 4 * time.Hour},
	} {
		if left, ends := l.Left(c.clock); left != c.left || !ends {
			t.Errorf("%s: %v", name, left)
		}
	}
	second := Clock{now.Add(time.Hour), "second", time.Minute}
	if !l.renew(second) || l.renew(second) {
		t.Error("it is renewed once for each boot")
	}
	if left, _ := l.Left(Clock{now.Add(24 * time.Hour), "second", time.Minute + time.Hour}); left != 2*time.Hour {
		t.Errorf("the clock was set after a reboot: %v", left)
	}
	if _, ends := new(Lapse).Left(set); ends {
		t.Error("for ever ends")
	}
}

func TestFeedsFromServers(t *testing.T) {
	text := "203.0.113.7\n"
	var asked []string
	mux := http.NewServeMux()
	mux.HandleFunc("/list.txt", func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("If-None-Match"))
		if w.Header().Set("ETag", `"1"`); r.Header.Get("If-None-Match") == `"1"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprint(w, text)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "file:///etc/passwd")
		w.WriteHeader(http.StatusFound)
	})
	mux.HandleFunc("/long", func(w http.ResponseWriter, r *http.Request) {
		line := []byte(strings.Repeat("#", 1<<20) + "\n")
		for range maxPacked>>20 + 2 {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	secure := httptest.NewTLSServer(http.RedirectHandler(s.URL+"/list.txt", http.StatusFound))
	defer secure.Close()
	ctx := context.Background()
	body, etag, _, err := openSource(ctx, s.URL+"/list.txt", nil)
	if err != nil || etag != `"1"` {
		t.Fatalf("%q %v", etag, err)
	}
	p, err := parseFeed(body, Auto)
	body.Close()
	if err != nil || p.entries != 1 {
		t.Errorf("%+v %v", p, err)
	}
	if _, _, _, err := openSource(ctx, s.URL+"/list.txt", &Feed{ETag: etag}); !errors.Is(err, errUnmodified) {
		t.Errorf("again: %v", err)
	}
	for _, bad := range []string{s.URL + "/none", s.URL + "/loop", s.URL + "/file", secure.URL, "ftp://example.org/x", "unix:///run/x", "http://", t.TempDir()} {
		if body, _, _, err := openSource(ctx, bad, nil); err == nil {
			body.Close()
			t.Errorf("%s was opened", bad)
		}
	}
	body, _, _, err = openSource(ctx, s.URL+"/long", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := parseFeed(body, Plain); !errors.Is(err, ErrNoFeed) {
		t.Errorf("too long: %v", err)
	}
	_, _, _, err = openSource(ctx, "http://user:secret@127.0.0.1:1/list", nil)
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a password in %v", err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := openSource(ctx, fifo, nil); failure.KindOf(err) != failure.Usage {
		t.Errorf("a FIFO: %v", err)
	}
}

func TestNamesOfFeeds(t *testing.T) {
	for source, want := range map[string]string{
		"https://www.spamhaus.org/drop/drop_v4.json?x=1": "drop_v4", "/srv/FireHOL Level1.netset.gz": "firehol_level1", "https://example.org/": "example", "x.txt": "x", "/a/..": "", "/a/-x": "x",
	} {
		if got := NameOf(source); got != want {
			t.Errorf("%s: %q, not %q", source, got, want)
		}
	}
	for _, bad := range []string{"", "-x", ".x", "A", "a b", "a/b", strings.Repeat("x", maxName+1)} {
		if ValidName(bad) == nil {
			t.Errorf("%q is a name", bad)
		}
	}
}

func TestDamagedCatalogues(t *testing.T) {
	for name, c := range map[string]struct{ bucket, key, value string }{
		"newer": {blocksBucket, "ip:203.0.113.7", `{"v":9}`}, "no version": {blocksBucket, "ip:203.0.113.7", `{}`}, "another": {blocksBucket, "ip:203.0.113.7", `{"v":1,"target":{"type":"ip","value":"203.0.113.8"}}`},
		"no JSON": {feedsBucket, "x", `{`}, "path": {feedsBucket, "../x", `{"v":1,"name":"../x"}`},
	} {
		s := state.New(t.TempDir(), state.Options{})
		if err := s.Update(context.Background(), func(tx *state.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte(c.bucket))
			if err != nil {
				return err
			}
			return b.Put([]byte(c.key), []byte(c.value))
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Options{Store: s}).load(context.Background()); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzFeed(f *testing.F) {
	for _, s := range []string{"203.0.113.7\n198.51.100.0/24\n1.1.1.1-1.1.1.9", "\"x\",\"203.0.113.7\"\n", "{\"ip\":\"203.0.113.7\"}\n{}", "[\"::1\",[\"1.2.3.4\"]]", "{\"pattern\":\"[ipv4-addr:value='1.2.3.4']\"}", packed("1.2.3.4"), "::/0\n255.255.255.255\nffff::-ffff::ff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseFeed(bytes.NewReader(b), Auto)
		if err != nil {
			return
		}
		p.spare([]protected{{addresses.Range{First: addr4(0x01020304), Last: addr4(0x01020304)}, "x"}})
		if p.list.has(addr4(0x01020304)) || p.list.has(netip.MustParseAddr("10.0.0.1")) || p.list.has(netip.MustParseAddr("::1")) {
			t.Error("it has what must not be blocked")
		}
		data, _ := p.list.encode()
		if _, _, err := decodeList(data); err != nil {
			t.Error(err)
		}
	})
}

func FuzzFeedFile(f *testing.F) {
	l := &list{v4: []span4{makeSpan4(1, 1), makeSpan4(5, 9)}, v6: []addresses.Range{{First: netip.MustParseAddr("2001:db8::"), Last: netip.MustParseAddr("2001:db8::1")}}}
	data, _ := l.encode()
	f.Add(data)
	f.Add(data[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		l, _, err := decodeList(b)
		if err != nil {
			return
		}
		if again, _ := l.encode(); !bytes.Equal(again, b) {
			t.Error("two files have the same list")
		}
	})
}
