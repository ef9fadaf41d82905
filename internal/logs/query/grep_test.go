package query

import (
	"bytes"
	"math/rand"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// pasted are lines out of which people copy what they look for.
func pasted() []string {
	lines := []string{
		`Dec 10 07:07:38 host sshd[24206]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=5.36.59.76  user=root`,
		`2026-05-10 18:01:47,978 INFO [main] org.apache.hadoop.mapreduce.v2.app.MRAppMaster: Created for application appattempt_1445144423722_0020_000001`,
		`081109 204005 35 INFO dfs.FSNamesystem: BLOCK NameSystem.addStoredBlock: blockMap updated: 10.251.73.220:50010 is added to blk_-7128370237687728475 size 67108864`,
		`10.11.10.1 "GET /v2/54fadb412c4e40cdbaed9335e4c35a9e/servers/detail?limit=5&x=%20 HTTP/1.1" status: 200 len: 1893 time: 0.2477829`,
		`level=warn ts=2026-05-10T10:00:00Z caller=main.go:42 msg="slow query" took=1.5s err="context deadline exceeded" path=/api/v1/x`,
		`{"time":"2026-05-10T10:00:00Z","level":"error","msg":"dial tcp [::1]:5432: connect: connection refused","n":42}`,
		`type=AVC msg=audit(1364481363.243:24287): avc:  denied  { read } for  pid=3538 comm="cat" name="x" scontext=u:r:t:s0`,
		`postfix/smtpd[1234]: NOQUEUE: reject: RCPT from unknown[1.2.3.4]: 554 5.7.1 <a@b.c>: Relay access denied; from=<x@y.z> to=<a@b.c>`,
		`kernel: [12345.678901] e1000e 0000:00:1f.6 eth0: NIC Link is Up 1000 Mbps; don't panic!`,
	}
	for _, m := range sample() {
		lines = append(lines, m.raw)
	}
	return lines
}

// TestPastedIsText holds what is copied out of a log against grep -F: it is
// found as text, or is an error, or is one of the few comparisons that
// docs/query.md names.
func TestPastedIsText(t *testing.T) {
	lines := pasted()
	r := rand.New(rand.NewSource(4))
	texts, errs := 0, 0
	for range 8000 {
		line := lines[r.Intn(len(lines))]
		words := strings.Fields(line)
		word := words[r.Intn(len(words))]
		if r.Intn(2) == 0 { // a part of it
			from := r.Intn(len(word))
			word = word[from : from+1+r.Intn(len(word)-from)]
		}
		q, err := Parse(word, testOptions())
		if err != nil {
			errs++
			continue
		}
		if !textOnly(q) {
			name := word[:nameLength(word)]
			if !known(name) && operatorAt(word[len(name):]) == "" {
				t.Errorf("%s is %s", word, q)
			}
			continue
		}
		if _, negated := q.filter.(*not); negated || len(q.Pipeline().stagesOf()) > 0 || strings.HasPrefix(word, "(") || strings.HasPrefix(word, `"`) ||
			strings.HasPrefix(word, "'") || strings.HasPrefix(word, "/") && strings.HasSuffix(word, "/") {
			continue
		}
		texts++
		e := q.NewEvaluator()
		for _, l := range lines {
			ev := &event.Event{Record: event.Record{Raw: []byte(l)}, Text: []byte(l)}
			if got, want := e.Eval(ev), bytes.Contains(ev.Raw, []byte(word)); got != want {
				t.Fatalf("%s, which is %s: %v, and grep -F says %v of\n%s", word, q, got, want, l)
			}
		}
	}
	if texts < 6000 || errs > 800 {
		t.Errorf("%d texts, %d errors of 8000", texts, errs)
	}
}

func (p *Pipeline) stagesOf() []stage {
	if p == nil {
		return nil
	}
	return p.stages
}

// textOnly reports whether the filter of a query looks at nothing but the Text.
func textOnly(q *Query) bool {
	only := true
	visit(q.filter, func(n node) {
		if _, ok := n.(*comparison); ok {
			only = false
		}
	})
	return only
}
