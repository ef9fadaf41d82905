package facts

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/mobileops/mobileops/internal/finding"
)

var when = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

func listen(key string, attrs ...string) Fact {
	return fact("listen", key, "sockets", finding.High, attrs...)
}

func fact(kind, key, source string, s finding.Severity, attrs ...string) Fact {
	f := Fact{Aspect: Network, Kind: kind, Key: key, Source: source, Severity: s, Attributes: map[string]string{}}
	for _, a := range attrs {
		name, v, _ := strings.Cut(a, "=")
		f.Attributes[name] = v
	}
	return f
}

func network(state State, list ...Fact) *Snapshot {
	return New(when, []string{Network}, []Source{{Aspect: Network, Name: "sockets", State: state}}, list)
}

// short writes changes in a line each.
func short(changes []Change) []string {
	out := []string{}
	for _, c := range changes {
		s := string(c.Kind) + " " + c.Severity.String() + " " + c.ID()
		for _, a := range c.Attributes {
			s += " " + a.Name + " " + a.Old + ">" + a.New
		}
		out = append(out, s)
	}
	return out
}

func TestDiff(t *testing.T) {
	ssh := listen("tcp/0.0.0.0:22", "program=/usr/sbin/sshd", "user=root", "command=sshd: 0 of 10")
	for name, c := range map[string]struct {
		old, now *Snapshot
		want     []string
		gaps     int
	}{
		"nothing": {network(OK, ssh), network(OK, ssh), nil, 0},
		"added and removed": {network(OK, ssh), network(OK, listen("tcp/0.0.0.0:23")),
			[]string{"added high network:listen/tcp/0.0.0.0:23", "removed low network:listen/tcp/0.0.0.0:22"}, 0},
		"the program": {network(OK, ssh), network(OK, listen("tcp/0.0.0.0:22", "program=/tmp/sshd", "user=root", "command=other")),
			[]string{"changed high network:listen/tcp/0.0.0.0:22 program /usr/sbin/sshd>/tmp/sshd"}, 0},
		"what a user may not see is no change": {network(OK, ssh), network(OK, listen("tcp/0.0.0.0:22", "user=root")), nil, 0},
		"and what the baseline does not know":  {network(OK, listen("tcp/0.0.0.0:22", "user=root")), network(OK, ssh), nil, 0},
		"now denied: nothing is removed":       {network(OK, ssh), network(Denied), nil, 1},
		"denied then: nothing is added":        {network(Denied), network(OK, ssh), nil, 1},
		"never readable":                       {network(Denied), network(Denied), nil, 1},
		"gone with its source":                 {network(OK, ssh), network(Absent), nil, 1},
		"a source that came":                   {network(Absent), network(OK, ssh), []string{"added high network:listen/tcp/0.0.0.0:22"}, 0},
		"no longer there, with nothing in it":  {network(OK), network(Absent), nil, 0},
		"another dynamic port": {
			network(OK, listen("tcp/0.0.0.0:40001", "port=40001", "dynamic=yes", "program=/usr/sbin/rpc.statd", "user=statd")),
			network(OK, listen("tcp/0.0.0.0:50001", "port=50001", "dynamic=yes", "program=/usr/sbin/rpc.statd", "user=statd")),
			[]string{"changed info network:listen/tcp/0.0.0.0:50001 port 40001>50001"}, 0},
		"another dynamic port of another program": {
			network(OK, listen("tcp/0.0.0.0:40001", "port=40001", "dynamic=yes", "program=/usr/sbin/rpc.statd")),
			network(OK, listen("tcp/0.0.0.0:50001", "port=50001", "dynamic=yes", "program=/tmp/nc")),
			[]string{"added high network:listen/tcp/0.0.0.0:50001", "removed low network:listen/tcp/0.0.0.0:40001"}, 0},
		"two new ports for one": {
			network(OK, listen("tcp/0.0.0.0:40001", "port=40001", "dynamic=yes", "program=/bin/x")),
			network(OK, listen("tcp/0.0.0.0:50001", "port=50001", "dynamic=yes", "program=/bin/x"), listen("tcp/0.0.0.0:50002", "port=50002", "dynamic=yes", "program=/bin/x")),
			[]string{"added high network:listen/tcp/0.0.0.0:50002", "changed info network:listen/tcp/0.0.0.0:50001 port 40001>50001"}, 0},
		"a ping that has ended":          {network(OK, fact("raw", "raw/icmp/bin/ping", "sockets", finding.Medium, "program=/bin/ping")), network(OK), nil, 0},
		"a question that has its answer": {network(OK, fact("dynamic", "udp/usr/sbin/dnsmasq", "sockets", finding.Low, "program=/usr/sbin/dnsmasq")), network(OK), nil, 0},
		"a sniffer":                      {network(OK), network(OK, fact("raw", "packet/bin/tcpdump", "sockets", finding.Medium, "program=/bin/tcpdump")), []string{"added medium network:raw/packet/bin/tcpdump"}, 0},
		"an aspect that only one has":    {network(OK, ssh), New(when, []string{Containers}, nil, nil), nil, 0},
		"a risk that is new":             {network(OK, listen("x", "risks=none")), network(OK, listen("x", "risks=privileged")), []string{"changed high network:listen/x risks none>privileged"}, 0},
		"a risk that is gone":            {network(OK, listen("x", "risks=privileged, mounts /")), network(OK, listen("x", "risks=privileged")), []string{"changed low network:listen/x risks privileged, mounts />privileged"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			changes, gaps := Diff(c.old, c.now)
			if got := short(changes); !slices.Equal(got, append([]string{}, c.want...)) || len(gaps) != c.gaps {
				t.Errorf("changes %q, want %q; gaps %+v, want %d", got, c.want, gaps, c.gaps)
			}
			// What is accepted is no longer reported, and nothing else changed.
			again, _ := Diff(Apply(c.old, changes), c.now)
			if len(again) > 0 {
				t.Errorf("after all was accepted: %q", short(again))
			}
		})
	}
}

func TestGapsSayWho(t *testing.T) {
	for _, c := range []struct {
		was, is      State
		before, both bool
	}{{OK, Denied, false, false}, {Denied, OK, true, false}, {Denied, Denied, false, true}, {Partial, Partial, false, true}, {"", OK, true, false}} {
		old, now := network(c.was), network(c.is)
		if c.was == "" {
			old.Sources = nil
		}
		_, gaps := Diff(old, now)
		if len(gaps) != 1 || gaps[0].Before != c.before || gaps[0].Both != c.both {
			t.Errorf("%s then, %s now: %+v", c.was, c.is, gaps)
		}
	}
}

// TestSame: what is not compared makes no other fact.
func TestSame(t *testing.T) {
	ssh := listen("a", "program=/usr/sbin/sshd", "command=sshd: 0 of 10-100 startups")
	for _, c := range []struct {
		other Fact
		want  bool
	}{
		{listen("a", "program=/usr/sbin/sshd", "command=sshd: 3 of 10-100 startups"), true},
		{listen("a", "program=/usr/sbin/sshd"), true},
		{listen("a", "program=/tmp/sshd", "command=sshd: 0 of 10-100 startups"), false},
		{listen("a", "program=/usr/sbin/sshd", "user=root"), false},
		{listen("a"), false},
	} {
		if ssh.Same(&c.other) != c.want || c.other.Same(&ssh) != c.want {
			t.Errorf("%v: same %v", c.other.Attributes, !c.want)
		}
	}
}

// TestApplyTakesOnlyWhatIsNamed: the other facts stay as they were, and what
// the acceptor could not see is not forgotten.
func TestApplyTakesOnlyWhatIsNamed(t *testing.T) {
	old := network(OK, listen("a", "program=/bin/a", "user=root"), listen("b", "user=b"), listen("c"))
	now := network(OK, listen("a", "user=mallory"), listen("b", "user=c"), listen("d"))
	changes, _ := Diff(old, now)
	var some []Change
	for _, c := range changes {
		if c.ID() != "network:listen/b" {
			some = append(some, c)
		}
	}
	next := Apply(old, some)
	if f := next.Find("network:listen/a"); f == nil || f.Attributes["program"] != "/bin/a" || f.Attributes["user"] != "mallory" {
		t.Errorf("a is %+v", f)
	}
	if next.Find("network:listen/c") != nil || next.Find("network:listen/d") == nil || old.Find("network:listen/c") == nil {
		t.Errorf("%+v", next.Facts)
	}
	rest, _ := Diff(next, now)
	if got := short(rest); !slices.Equal(got, []string{"changed medium network:listen/b user b>c"}) {
		t.Errorf("left: %q", got)
	}
}

func TestRoundTrip(t *testing.T) {
	s := New(when, []string{Network, Containers}, []Source{{Network, "sockets", OK, ""}, {Containers, "docker", Absent, "no socket"}},
		[]Fact{listen("b", "program="+Text("/a\xff\\b")), listen("a"), listen("b", "program=/other")})
	b, sum, err := Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b, sum)
	if err != nil {
		t.Fatal(err)
	}
	if changes, gaps := Diff(s, got); len(changes)+len(gaps) > 0 || got.Taken != when || len(got.Facts) != 2 {
		t.Errorf("%+v %+v %+v", changes, gaps, got)
	}
	if p := got.Find("network:listen/b").Attributes["program"]; p != `/a\xff\\b, /other` {
		t.Errorf("program %q", p)
	}
	again, sum2, err := Encode(got)
	if err != nil || !bytes.Equal(b, again) || sum != sum2 {
		t.Errorf("encoded again it is another: %v", err)
	}
	b[len(b)/2] ^= 1
	if _, err := Decode(b, sum); !errors.Is(err, ErrDamaged) {
		t.Errorf("a flipped bit gave %v", err)
	}
}

func TestEncodeRefusesWhatItCouldNotRead(t *testing.T) {
	for _, s := range []*Snapshot{
		{Aspects: []string{"network"}, Facts: []Fact{listen("b"), listen("a")}},
		{Aspects: []string{"network"}, Facts: []Fact{listen("a", "x="+strings.Repeat("x", maxText+1))}},
		{Facts: []Fact{listen("a")}},
	} {
		if _, _, err := Encode(s); err == nil {
			t.Errorf("encoded: %.100v", s)
		}
	}
}

func FuzzDecode(f *testing.F) {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []*Snapshot{network(OK, listen("a", "x=y")), New(when, nil, nil, nil)} {
		b, _, err := Encode(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, false)
	}
	f.Add([]byte(`{"schema":"mobileops.integrity.facts/v1","taken":"2026-11-22T03:00:00Z","aspects":["network"],"sources":null,"facts":[{"aspect":"network","kind":"x","key":"","severity":"high"}]}`), true)
	f.Add([]byte(`{"schema":"mobileops.integrity.facts/v1"}{}`), true)
	f.Fuzz(func(t *testing.T, b []byte, plain bool) {
		if plain {
			b = w.EncodeAll(b, nil)
		}
		s, err := decode(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("%v is no ErrDamaged", err)
			}
			return
		}
		again, sum, err := Encode(s)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		back, err := Decode(again, sum)
		if err != nil {
			t.Fatal(err)
		}
		if changes, _ := Diff(s, back); len(changes) > 0 {
			t.Errorf("%q", short(changes))
		}
	})
}
