package query

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// run gives the events to a query and its pipeline, and the table as text:
// rows by line, cells by |; or the numbers of the events that come out.
func run(t *testing.T, q *Query, events []made) string {
	t.Helper()
	p := q.Pipeline()
	e := q.NewEvaluator()
	var out []string
	p.OnEvent = func(ev *event.Event) error {
		i := slices.IndexFunc(events, func(m made) bool { return m.raw == string(ev.Raw) })
		if string(Values(ev, "message", nil)[0]) != events[i].message {
			t.Errorf("event %d came out with another message", i)
		}
		out = append(out, fmt.Sprint(i))
		return nil
	}
	for _, m := range events {
		ev := m.event()
		if !e.Eval(ev) {
			continue
		}
		err := p.Add(ev)
		for i := range ev.Raw {
			ev.Raw[i] = '#' // the bytes are used for the next event
		}
		if errors.Is(err, ErrDone) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	table, err := p.Result()
	if err != nil {
		t.Fatal(err)
	}
	if table.Partial {
		out = append(out, "partial: "+table.Why)
	}
	if !p.Tabular() {
		return strings.Join(out, " ")
	}
	return tableText(table)
}

func tableText(table Table) string {
	var out []string
	for _, row := range table.Rows {
		var cells []string
		for _, v := range row {
			cells = append(cells, v.Format(time.UTC))
		}
		out = append(out, strings.Join(cells, "|"))
	}
	return strings.Join(out, "\n")
}

func TestPipeline(t *testing.T) {
	for _, tc := range []struct{ expr, want string }{
		{`| count`, "8"},
		{`nothing-has-this | count`, "0"},
		{`nothing-has-this | stats avg(bytes), max(time), dc(user), count()`, "||0|0"},
		{`| stats count() by host`, "DB1|1\ndb1|3\nweb1|4"},
		{`nothing-has-this | stats count() by host`, ""},
		{`| stats count() by user`, "root|2\nwebmaster|2\n|4"},
		{`| stats count(user), count(bytes) by program`, "api|0|2\nkernel|0|0\nnginx|0|0\nsshd|4|0"},
		{`| stats sum(bytes), min(bytes), max(bytes), avg(bytes), p50(bytes), p99(bytes), max(took)`, "20992|512|20480|10496|512|20480|2.5"},
		{`sshd | stats min(time), max(time), min(pid)`, "2026-05-10 06:55:46|2026-05-10 07:07:38|24200"},
		{`| stats dc(addr), dc(user)`, "6|2"},
		{`| stats count() by addr | where addr=10.0.0.0/8`, "10.0.0.7|2\n10.0.0.9|1\n::ffff:10.0.0.7|1"},
		{`| stats count() by time(1h)`, "2026-05-10 06:00:00|2\n2026-05-10 07:00:00|3\n2026-05-10 08:00:00|1\n2026-05-10 09:00:00|1\n2026-05-10 11:00:00|1"},
		{`| histogram 1h`, "2026-05-10 06:00:00|2\n2026-05-10 07:00:00|3\n2026-05-10 08:00:00|1\n2026-05-10 09:00:00|1\n2026-05-10 10:00:00|0\n2026-05-10 11:00:00|1"},
		{`| histogram 6h by host`, "2026-05-10 06:00:00|DB1|1\n2026-05-10 06:00:00|db1|3\n2026-05-10 06:00:00|web1|4"},
		{`| histogram 1d`, "2026-05-10 00:00:00|8"},
		{`| histogram 1w`, "2026-05-04 00:00:00|8"},
		{`| top 2 program`, "sshd|4\napi|2"},
		{`| top 1 host, program`, "web1|sshd|4"},
		{`| stats count() by program | sort -count, program | head 3`, "sshd|4\napi|2\nkernel|1"},
		{`| stats count() by program | sort count desc, program | tail 1`, "nginx|1"},
		{`| stats count() as n by program | where n > 1`, "api|2\nsshd|4"},
		{`| stats count() as n by program | where n=1 and program!=nginx`, "kernel|1"},
		{`| stats count() as n by program | where n==[2..3] or program~/^k/`, "api|2\nkernel|1"},
		{`| stats avg(bytes) by program | where has(avg(bytes))`, "api|10496"},
		{`| stats avg(bytes) as b by program | where b < 20K`, "api|10496"},
		{`| stats max(time) by program | where max(time) >= 2026-05-10T09:00 | fields program`, "kernel\nnginx"},
		{`| stats count() by severity | where severity>=err`, "crit|1\nerr|1"},
		{`| stats count() by severity | sort -severity`, "crit|1\nerr|1\nwarning|1\nnotice|1\ninfo|3\n|1"},
		{`| stats count() by host, program | stats count() by host | sort -count, host`, "db1|2\nDB1|1\nweb1|1"},
		{`| stats count() by host | stats sum(count), max(count)`, "8|4"},

		{`| head 2`, "0 1"},
		{`| head 0`, ""},
		{`| tail 2`, "6 7"},
		{`| tail 0`, ""},
		{`| head 5 | tail 2`, "3 4"},
		{`| tail 5 | head 2`, "3 4"},
		{`| sort -time | head 3`, "7 6 5"},
		{`| sort severity, -time`, "5 1 0 2 3 4 6 7"},
		{`| sort -bytes | head 1`, "4"},
		{`| sort pid | head 4`, "0 1 2 3"},
		{`| dedup host`, "0 4 7"},
		{`| dedup host, severity`, "0 2 3 4 5 6 7"},
		{`| where user=root | count`, "2"},
		{`| where took > 1s`, "4"},
		{`| where Failed or not web1 | head 2`, "1 4"},
		{`sshd | head 2 | stats count() by user`, "webmaster|2"},
		{`| fields time, program, addr, nothing | tail 1`, "2026-05-10 11:30:00|nginx|2001:db8::7, ::ffff:10.0.0.7|"},
		{`unit=api | fields bytes, took | sort -bytes`, "20480|2.5s\n512|120ms"},
		{`unit=api | fields bytes, took | where took < 1s`, "512|120ms"},
	} {
		q := mustParse(t, tc.expr)
		if got := run(t, q, sample()); got != tc.want {
			t.Errorf("%s is\n%s\nwant\n%s", tc.expr, got, tc.want)
		}
		if got := run(t, mustParse(t, q.String()), sample()); got != tc.want {
			t.Errorf("%s, which is %s, is\n%s\nwant\n%s", q, tc.expr, got, tc.want)
		}
	}
}

func TestThen(t *testing.T) {
	q, err := mustParse(t, `sshd`).Then("top 1 user")
	if err != nil {
		t.Fatal(err)
	}
	if got := run(t, q, sample()); got != "root|2" {
		t.Errorf("top is %s", got)
	}
	if q, err = mustParse(t, `| stats count() by host`).Then("sort -count | head 1"); err != nil {
		t.Fatal(err)
	}
	if got := run(t, q, sample()); got != "web1|4" {
		t.Errorf("sorted: %s", got)
	}
	var e *Error
	if _, err = mustParse(t, `a`).Then("histogram 5x"); !errors.As(err, &e) || e.Column != 11 {
		t.Errorf("a bad stage: %v", err)
	}
}

// TestSortKeepsTheFirst compares a sort that keeps few with one that keeps all.
func TestSortKeepsTheFirst(t *testing.T) {
	r := rand.New(rand.NewSource(5))
	var events []made
	for i := range 3000 {
		events = append(events, made{raw: fmt.Sprint(i), message: fmt.Sprint(i), time: "2026-05-10T06:55:46Z", fields: fmt.Sprint("n=", r.Intn(50))})
	}
	all := strings.Fields(run(t, mustParse(t, `| sort -n`), events))
	some := strings.Fields(run(t, mustParse(t, `| sort -n | head 70`), events))
	if len(all) != 3000 || !slices.Equal(some, all[:70]) {
		t.Errorf("the first 70 of %d are %q, want %q", len(all), some, all[:70])
	}
}

// TestStopsEarly holds head to what makes it worth writing.
func TestStopsEarly(t *testing.T) {
	p := mustParse(t, `| head 2`).Pipeline()
	ev := sampleEvent()
	if err := p.Add(ev); err != nil {
		t.Fatal(err)
	}
	if err := p.Add(ev); err != ErrDone {
		t.Errorf("after the second: %v, want ErrDone", err)
	}
	if err := p.Add(ev); err != ErrDone {
		t.Errorf("after the third: %v, want ErrDone", err)
	}
	stop := errors.New("stop")
	p = mustParse(t, `*|dedup host`).Pipeline()
	p.OnEvent = func(*event.Event) error { return stop }
	if err := p.Add(ev); err != stop {
		t.Errorf("the error of OnEvent: %v", err)
	}
}

func TestCounting(t *testing.T) {
	for expr, want := range map[string]Counting{
		`| count`: CountTotal, `| stats count() as n | where n > 1`: CountTotal, `| histogram 1h`: CountTimes, `| stats count() by time(1d)`: CountTimes,
		`| stats count() by host`: CountNothing, `| stats count(user)`: CountNothing, `| top 5 host`: CountNothing, `| head 5`: CountNothing,
		`| where a==b | count`: CountNothing, `| stats count(), max(bytes)`: CountNothing,
	} {
		p := mustParse(t, expr).Pipeline()
		if got := p.Counting(); got != want {
			t.Errorf("%s counts %v, want %v", expr, got, want)
		}
	}
	p := mustParse(t, `| histogram 1h`).Pipeline()
	p.AddCount(testNow.UnixNano(), 3)
	p.AddCount(testNow.Add(2*time.Hour).UnixNano(), 4)
	table, err := p.Result()
	if err != nil || tableText(table) != "2026-05-10 12:00:00|3\n2026-05-10 13:00:00|0\n2026-05-10 14:00:00|4" {
		t.Errorf("%s, %v", tableText(table), err)
	}
}

// TestMerge holds that the work can be shared.
func TestMerge(t *testing.T) {
	for _, expr := range []string{`| top 3 user`, `| histogram 1h`, `| count`, `| stats count(), sum(n), min(n), max(n), avg(n), p95(n), dc(n), max(time) by user | sort user`} {
		q := mustParse(t, expr)
		whole, parts := q.Pipeline(), []*Pipeline{q.Pipeline(), q.Pipeline(), q.Pipeline()}
		r := rand.New(rand.NewSource(2))
		for range 20000 {
			m := made{raw: "x", time: "2026-05-10T06:55:46Z", user: fmt.Sprint("u", r.Intn(5)), fields: fmt.Sprint("n=", r.Intn(30000)-1000)}
			for _, p := range []*Pipeline{whole, parts[r.Intn(3)]} {
				if err := p.Add(m.event()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !parts[0].Mergeable() || !parts[0].Merge(parts[1]) || !parts[0].Merge(parts[2]) {
			t.Fatalf("%s: not merged", expr)
		}
		want, err := whole.Result()
		if err != nil {
			t.Fatal(err)
		}
		got, err := parts[0].Result()
		if err != nil || tableText(got) != tableText(want) {
			t.Errorf("%s: merged\n%s\nwhole\n%s\n%v", expr, tableText(got), tableText(want), err)
		}
	}
	q := mustParse(t, `| head 5`)
	if p := q.Pipeline(); p.Mergeable() || p.Merge(q.Pipeline()) {
		t.Error("head is merged: which five?")
	}
}

func TestLimits(t *testing.T) {
	p := mustParse(t, `| stats count() by user | stats count(), sum(count)`).Pipeline()
	m := made{raw: "x", time: "2026-05-10T06:55:46Z"}
	for i := range maxGroups + 10 {
		m.user = fmt.Sprint(i)
		if err := p.Add(m.event()); err != nil {
			t.Fatal(err)
		}
	}
	table, err := p.Result()
	if err != nil || !table.Partial || !strings.Contains(table.Why, "groups") || tableText(table) != "100000|100000" {
		t.Errorf("%s, partial %v %q, %v", tableText(table), table.Partial, table.Why, err)
	}

	p = mustParse(t, `| tail 1000000`).Pipeline()
	n := 0
	p.OnEvent = func(*event.Event) error { n++; return nil }
	m.raw = strings.Repeat("x", 1<<20)
	for range 200 {
		if err := p.Add(m.event()); err != nil {
			t.Fatal(err)
		}
	}
	table, err = p.Result()
	if err != nil || !table.Partial || n < 30 || n > 130 {
		t.Errorf("%d kept of 200 MiB, partial %v %q, %v", n, table.Partial, table.Why, err)
	}

	p = mustParse(t, `| sort -pid`).Pipeline()
	var pids []int64
	p.OnEvent = func(ev *event.Event) error { pids = append(pids, ev.PID); return nil }
	for i := range 200 {
		m.pid = int64(1 + i*7919%200)
		if err := p.Add(m.event()); err != nil {
			t.Fatal(err)
		}
	}
	table, err = p.Result()
	if err != nil || !table.Partial || len(pids) < 20 || pids[0] != 200 || pids[1] != 199 || pids[5] != 195 {
		t.Errorf("%v, partial %v %q, %v", pids, table.Partial, table.Why, err)
	}
}

func TestSketch(t *testing.T) {
	r := rand.New(rand.NewSource(3))
	var s sketch
	var all []float64
	for range 50000 {
		x := math.Exp(r.NormFloat64()*3) - 1
		s.add(x)
		all = append(all, x)
	}
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.25, 0.5, 0.9, 0.95, 0.99} {
		got, _ := s.quantile(q)
		if want := all[int(math.Ceil(q*50000))-1]; math.Abs(got-want) > 0.0101*math.Abs(want) {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

func TestDistinct(t *testing.T) {
	for _, n := range []int{0, 1, 1000, exactTexts, 50000, 200000} {
		var d distinct
		for i := range n {
			d.add(hash(fmt.Sprint("10.0.", i)))
			d.add(hash(fmt.Sprint("10.0.", i/2)))
		}
		if got := d.count(); math.Abs(got-float64(n)) > 0.05*float64(n) || n <= exactTexts && got != float64(n) {
			t.Errorf("%d different texts are counted as %v", n, got)
		}
	}
}

// TestDaylightSaving holds buckets of days to the days of people.
func TestDaylightSaving(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("no time zones on this machine: " + err.Error())
	}
	for _, tc := range []struct {
		length time.Duration
		at     time.Time
		want   string
	}{
		{24 * time.Hour, time.Date(2026, 3, 29, 23, 30, 0, 0, zone), "2026-03-29 00:00:00"},
		{24 * time.Hour, time.Date(2026, 3, 29, 0, 30, 0, 0, zone), "2026-03-29 00:00:00"},
		{24 * time.Hour, time.Date(2026, 10, 25, 23, 59, 0, 0, zone), "2026-10-25 00:00:00"},
		{7 * 24 * time.Hour, time.Date(2026, 4, 5, 12, 0, 0, 0, zone), "2026-03-30 00:00:00"},
		{7 * 24 * time.Hour, time.Date(1969, 12, 31, 12, 0, 0, 0, zone), "1969-12-29 00:00:00"},
		{time.Hour, time.Date(2026, 7, 1, 12, 59, 59, 0, zone), "2026-07-01 12:00:00"},
		{15 * time.Minute, time.Date(1969, 7, 1, 12, 59, 59, 0, zone), "1969-07-01 12:45:00"},
	} {
		if got := At(bucket(tc.at.UnixNano(), tc.length, zone)).Format(zone); got != tc.want {
			t.Errorf("%v in buckets of %v is in %s, want %s", tc.at, tc.length, got, tc.want)
		}
	}
	o := testOptions()
	o.Zone = zone
	q, err := Parse(`| histogram 1d`, o)
	if err != nil {
		t.Fatal(err)
	}
	p := q.Pipeline()
	p.AddCount(time.Date(2026, 3, 28, 12, 0, 0, 0, zone).UnixNano(), 1)
	p.AddCount(time.Date(2026, 3, 31, 12, 0, 0, 0, zone).UnixNano(), 1)
	table, err := p.Result()
	if err != nil || len(table.Rows) != 4 {
		t.Errorf("four days are %d, %v", len(table.Rows), err)
	}
}

func TestValueJSON(t *testing.T) {
	row := []Value{{}, Text("a\"b"), Text("\xff"), Num(3), Num(0.5), At(1e9), {kind: Duration, ns: 1.5e9}, Num(math.Inf(1))}
	got, err := json.Marshal(Table{Columns: []Column{{"a", Number}}, Rows: [][]Value{row}})
	want := `{"columns":[{"name":"a","kind":"number"}],"rows":[[null,"a\"b",{"base64":"/w=="},3,0.5,"1970-01-01T00:00:01Z",1.5,null]],"partial":false}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v, want\n%s", got, err, want)
	}
}
