package query

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// found are the numbers of the sample events that a query finds.
func found(q *Query) string {
	e := q.NewEvaluator()
	var hits []int
	for i, m := range sample() {
		if e.Eval(m.event()) {
			hits = append(hits, i)
		}
	}
	return fmt.Sprint(hits)
}

func TestEval(t *testing.T) {
	for _, tc := range []struct{ expr, want string }{
		{`*`, "[0 1 2 3 4 5 6 7]"},
		{`not *`, "[]"},
		{`Failed`, "[1]"},
		{`failed`, "[4]"},
		{`/[Ff]ailed/`, "[1 4]"},
		{`/failed/i`, "[1 4]"},
		{`webmaster -Failed`, "[0]"},
		{`webmaster or root`, "[0 1 2 3]"},
		{`[preauth]`, "[0]"},
		{`pam_unix(sshd:auth):`, "[3]"},
		{`uid=0 tty=ssh`, "[3]"},
		{`"file not found"`, "[7]"},
		{`/var/log/app/ error:`, "[7]"},

		{`host=web1`, "[0 1 2 3]"},
		{`host=db1`, "[4 5 6 7]"}, // names of hosts have no case
		{`host!=web1`, "[4 5 6 7]"},
		{`host:B1`, "[0 1 2 3 4 5 6 7]"},
		{`unit=ssh`, "[0 1 2 3]"},
		{`unit=ssh.service`, "[0 1 2 3]"},
		{`unit=ss*`, "[0 1 2 3]"},
		{`unit=*h`, "[0 1 2 3]"},
		{`unit=a*i`, "[4 5]"},
		{`unit=api.service`, "[4 5]"},
		{`unit=ap`, "[]"},
		{`program:ngin`, "[7]"},
		{`program~/^(sshd|kernel)$/`, "[0 1 2 3 6]"},
		{`program!~/ssh/`, "[4 5 6 7]"},
		{`pid=24200`, "[0 1]"},
		{`pid>24200`, "[2 3]"},
		{`pid in (24200, 24206)`, "[0 1 3]"},
		{`pid:[24200..24203]`, "[0 1 2]"},
		{`pid:[24203..]`, "[2 3]"},
		{`has(pid)`, "[0 1 2 3]"},
		{`pid=""`, "[4 5 6 7]"},
		{`user=root`, "[2 3]"},
		{`user=roo`, "[]"},
		{`user:roo`, "[2 3]"},
		{`-has(user)`, "[4 5 6 7]"},
		{`user in (root, web*)`, "[0 1 2 3]"},
		{`severity=err`, "[4]"},
		{`severity>=err`, "[4 6]"},
		{`severity>err`, "[6]"},
		{`severity<notice`, "[0 1 5]"},
		{`severity:[notice..err]`, "[2 3 4]"},
		{`severity:[err..notice]`, "[2 3 4]"},
		{`severity!=info`, "[2 3 4 6 7]"},
		{`severity=4`, "[3]"},
		{`not has(severity)`, "[7]"},
		{`addr=10.0.0.7`, "[2 5 7]"},
		{`addr=10.0.0.0/8`, "[2 4 5 7]"},
		{`addr in (173.234.0.0/16, 2001:db8::/32)`, "[0 1 7]"},
		{`addr:[10.0.0.8..10.0.0.255]`, "[4]"},
		{`addr:[2001:db8::1..]`, "[7]"},
		{`addr:173.2`, "[0 1]"},
		{`addr=10.0.*`, "[2 4 5]"},
		{`addr!=10.0.0.0/8`, "[0 1 3 6]"},
		{`message:"Killed process"`, "[6]"},
		{`message:[preauth]`, "[0]"},
		{`source=kmsg`, "[6]"},
		{`source=/var/log/*`, "[0 1 2 3 4 5]"},
		{`format=syslog source=journal`, "[7]"},
		{`clock=year-inferred`, "[0 1 2 3 4 5 6 7]"},
		{`clock=exact`, "[]"},

		{`http.status==500`, "[4]"},
		{`http.status>=200`, "[4 5]"},
		{`http.status==[400..599]`, "[4]"},
		{`http.status!=500`, "[0 1 2 3 5 6 7]"},
		{`bytes>10K`, "[4]"},
		{`bytes<=512B`, "[5]"},
		{`took>1s`, "[4]"},
		{`took<0.5`, "[5]"},
		{`level in (error, fatal)`, "[4]"},
		{`client==10.0.0.0/8`, "[4 5]"},
		{`client in (10.0.0.7/32)`, "[5]"},
		{`client==[10.0.0.8..10.0.0.10]`, "[4]"},
		{`has(port)`, "[1 2]"},
		{`port~/^3/ -root`, "[1]"},

		{`time>=2026-05-10T08:00`, "[5 6 7]"},
		{`time>"2026-05-10 06:55"`, "[2 3 4 5 6 7]"}, // after that minute
		{`time<=2026-05-10T07:10`, "[0 1 2 3 4]"},
		{`time<07:00`, "[0 1]"},
		{`time>=-1h`, "[7]"},
		{`time>=now-4h time<now-1h`, "[5 6]"},
		{`time=2026-05-10`, "[0 1 2 3 4 5 6 7]"},
		{`time=today -time=2026-05-10T07:10`, "[0 1 2 3 5 6 7]"},
		{`time=2026-05-10T07:02`, "[2]"},
		{`time:[2026-05-10T07:07..2026-05-10T07:10]`, "[3 4]"},
		{`time=yesterday`, "[]"},
		{`time>@1778400000`, "[5 6 7]"},
	} {
		q := mustParse(t, tc.expr)
		if got := found(q); got != tc.want {
			t.Errorf("%s finds %s, want %s", tc.expr, got, tc.want)
		}
		if got := found(mustParse(t, q.String())); got != tc.want {
			t.Errorf("%s, which is %s, finds %s, want %s", q, tc.expr, got, tc.want)
		}
	}
	o := testOptions()
	o.Fold = true
	for expr, want := range map[string]string{`FAILED`: "[1 4]", `user=ROOT`: "[2 3]", `user:OO`: "[2 3]", `unit=SSH*`: "[0 1 2 3]", `program~/SSH/`: "[0 1 2 3]"} {
		q, err := Parse(expr, o)
		if err != nil {
			t.Fatal(err)
		}
		if got := found(q); got != want {
			t.Errorf("-i %s finds %s, want %s", expr, got, want)
		}
	}
	o.Fold, o.Word = false, true
	for expr, want := range map[string]string{`user`: "[0 1 3]", `use`: "[]", `0`: "[2 3 4 5 7]"} {
		q, err := Parse(expr, o)
		if err != nil {
			t.Fatal(err)
		}
		if got := found(q); got != want {
			t.Errorf("-w %s finds %s, want %s", expr, got, want)
		}
	}
}

// TestTextDecidesFirst holds Eval to what makes a search fast.
func TestTextDecidesFirst(t *testing.T) {
	for _, tc := range []struct {
		expr  string
		want  int
		needs bool
	}{
		{`Failed`, 0, false},
		{`user=root absent`, 0, true},
		{`user=root or Invalid`, 0, true},
		{`time<2020-01-01 user=root`, 0, true},
		{`source=x user=root`, 0, true},
		{`user=root Invalid`, 0, true}, // there is no root in the record
		{`user=webmaster Invalid`, 1, true},
		{`severity=info user=webmaster pid=24200 addr=173.234.31.186`, 1, true},
		{`time>=2020-01-01`, 0, false},
	} {
		q := mustParse(t, tc.expr)
		if q.FieldsNeeded() != tc.needs {
			t.Errorf("%s: FieldsNeeded is %v", tc.expr, q.FieldsNeeded())
		}
		asked := 0
		m := sample()[0]
		m.parsed = &asked
		q.NewEvaluator().Eval(m.event())
		if asked != tc.want {
			t.Errorf("%s asked for fields %d times, want %d", tc.expr, asked, tc.want)
		}
	}
}

func TestTimeRange(t *testing.T) {
	ns := func(s string) int64 {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return at.UnixNano()
	}
	for _, tc := range []struct {
		expr         string
		since, until int64
	}{
		{`a`, math.MinInt64, math.MaxInt64},
		{`time>=2026-05-01 a`, ns("2026-05-01T00:00:00Z"), math.MaxInt64},
		{`a time>2026-05-01 b time<=2026-05-02`, ns("2026-05-02T00:00:00Z"), ns("2026-05-03T00:00:00Z")},
		{`time=2026-05`, ns("2026-05-01T00:00:00Z"), ns("2026-06-01T00:00:00Z")},
		{`time:[2026-05-01..2026-05-02]`, ns("2026-05-01T00:00:00Z"), ns("2026-05-03T00:00:00Z")},
		{`time in (2026-05-01, 2026-05-05)`, ns("2026-05-01T00:00:00Z"), ns("2026-05-06T00:00:00Z")},
		{`time=2026-05-01 or time=2026-05-03`, ns("2026-05-01T00:00:00Z"), ns("2026-05-04T00:00:00Z")},
		{`time=2026-05-01 or a`, math.MinInt64, math.MaxInt64},
		{`time!=2026-05-01`, math.MinInt64, math.MaxInt64},
		{`time>=1965-01-01`, ns("1965-01-01T00:00:00Z"), math.MaxInt64},
		{`time>=-1h`, testNow.Add(-time.Hour).UnixNano(), math.MaxInt64},
		{`time<2020-01-01 time>=2021-01-01`, ns("2021-01-01T00:00:00Z"), ns("2020-01-01T00:00:00Z")},
	} {
		since, until := mustParse(t, tc.expr).TimeRange()
		if since != tc.since || until != tc.until {
			t.Errorf("%s: %v to %v, want %v to %v", tc.expr, time.Unix(0, since).UTC(), time.Unix(0, until).UTC(), time.Unix(0, tc.since).UTC(), time.Unix(0, tc.until).UTC())
		}
	}
}

func TestSources(t *testing.T) {
	for expr, want := range map[string][]string{
		`a`: nil, `source=journal a`: {"journal"}, `source in (a, b)`: {"a", "b"}, `source=a*`: nil, `source!=a`: nil,
		`source=a or b`: nil, `source in (a, b) source in (b, c)`: {"b"}, `source:a`: nil,
	} {
		if got := mustParse(t, expr).Sources(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}

func TestFilters(t *testing.T) {
	o := testOptions()
	unit, err := Field("unit", o, "ssh", "ap*")
	if err != nil {
		t.Fatal(err)
	}
	text := Filter{mustParse(t, `"root from"`).filter}
	for _, tc := range []struct {
		expr    string
		filters []Filter
		want    string
	}{
		{`-Accepted`, []Filter{unit}, "[0 1 3 4 5]"},
		{`*`, []Filter{SeverityAtLeast(event.Warning)}, "[3 4 6]"},
		{`web1 or db1`, []Filter{unit, text}, "[2]"},
		{`web1`, []Filter{text}, "[2]"},
		{`web1`, []Filter{{}}, "[0 1 2 3]"},
	} {
		q := mustParse(t, tc.expr).And(tc.filters...)
		if got := found(q); got != tc.want {
			t.Errorf("%s finds %s, want %s", q, got, tc.want)
		}
		if _, err := Parse(q.String(), o); err != nil {
			t.Errorf("%s: %v", q, err)
		}
	}
	for _, value := range []string{"", "10.0.0"} {
		if _, err := Field("addr", o, value); err == nil {
			t.Errorf("addr %q is no error", value)
		}
	}
	if _, err := Field("a b", o, "x"); err == nil {
		t.Error("a name with a space is no error")
	}
	if s, ok := SeverityNamed("error"); !ok || s != event.Error {
		t.Errorf("error is %v, %v", s, ok)
	}
}

func TestValues(t *testing.T) {
	ev := sample()[7].event()
	for name, want := range map[string]string{
		"addr": "[2001:db8::7 ::ffff:10.0.0.7]", "pid": "[]", "severity": "[]", "user": "[]", "status": "[404]", "time": "[2026-05-10T11:30:00Z]",
		"clock": "[year-inferred]", "none": "[]", "host": "[DB1]",
	} {
		if got := fmt.Sprintf("%s", Values(ev, name, nil)); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func TestHighlights(t *testing.T) {
	if n := len(mustParse(t, `a (b or /c/) -dd not (e f) user~/g/ user=h`).Highlights()); n != 4 {
		t.Errorf("%d patterns, want a, b, c, g", n)
	}
}

func TestComplete(t *testing.T) {
	for in, want := range map[string][]string{
		"":                          {"time=", "host=", "source=", "unit=", "program=", "pid=", "severity=", "user=", "addr=", "message=", "format=", "clock=", "has("},
		"failed us":                 {"failed user="},
		"-us":                       {"-user="},
		"severity>=e":               {"severity>=emerg", "severity>=err"},
		"a | st":                    {"a | stats "},
		"a | stats co":              {"a | stats count("},
		"a | stats count() by host": nil,
		"a | top 10 pro":            {"a | top 10 program"},
		"a | sort -cou":             {"a | sort -count"},
		`"us`:                       nil,
	} {
		if got := Complete(in); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
