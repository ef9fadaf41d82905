package query

import (
	"testing"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/format"
)

// benchEvent is a line of sshd with the real format behind it.
func benchEvent(b *testing.B) (*event.Event, func()) {
	set, err := format.Builtin()
	if err != nil {
		b.Fatal(err)
	}
	f, _ := set.Lookup("syslog")
	ev := new(event.Event)
	raw := []byte("Dec 10 06:55:48 LabSZ sshd[24200]: Failed password for invalid user webmaster from 173.234.31.186 port 38926 ssh2")
	origin := &event.Origin{Source: "auth.log", Format: "syslog", Host: "h"}
	return ev, func() {
		fields, addrs := ev.Fields, ev.Addrs
		*ev = event.Event{Record: event.Record{Time: testNow.UnixNano(), Raw: raw}, Origin: origin, Text: raw, Fill: f.Fill, Fields: fields, Addrs: addrs}
	}
}

func BenchmarkEval(b *testing.B) {
	for _, expr := range []string{`absent`, `Failed password`, `/user (a|web)m/`, `user=root`, `user=webmaster`, `addr in 10.0.0.0/8`, `severity>=err`} {
		b.Run(expr, func(b *testing.B) {
			q, err := Parse(expr, testOptions())
			if err != nil {
				b.Fatal(err)
			}
			ev, reset := benchEvent(b)
			e := q.NewEvaluator()
			b.ReportAllocs()
			for b.Loop() {
				reset()
				e.Eval(ev)
			}
		})
	}
}

func BenchmarkPipeline(b *testing.B) {
	for _, expr := range []string{`| count`, `| histogram 1h`, `| top 10 user`, `| stats count(), p95(port), dc(addr) by program, user`, `| sort -time | head 10`, `| dedup addr`} {
		b.Run(expr, func(b *testing.B) {
			q, err := Parse(expr, testOptions())
			if err != nil {
				b.Fatal(err)
			}
			ev, reset := benchEvent(b)
			p := q.Pipeline()
			b.ReportAllocs()
			for b.Loop() {
				reset()
				if err := p.Add(ev); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
