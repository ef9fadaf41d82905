package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
)

func TestConversation(t *testing.T) {
	ready, health, problems := make(chan bool, 9), make(chan Health, 9), make(chan error, 9)
	s := serve(t, Options{
		Version: "1.2.3", HostVersion: "0.9.0", HostID: "abc", Store: newStore(t),
		Config:  secrets{"a[0].token": "hunter2"},
		OnReady: func() { ready <- true }, OnHealth: func(h Health) { health <- h }, OnError: func(err error) { problems <- err },
	})
	if l := s.next(); l.Method != "hello" || string(l.Params) !=
		`{"protocol":"mobileops.plugin/v1","host":{"version":"0.9.0","id":"abc"},"plugin":{"name":"probe","version":"1.2.3"},"role":"service"}` {
		t.Errorf("hello: %s", l.Params)
	}
	s.write(`{"method":"ready","params":{}}` + "\n" + `{"method":"ready"}` + "\n")
	s.write(`{"method":"health","params":{"status":"degraded","message":"slow\n\u202ereceiver","metrics":{"queued":12}}}` + "\n")
	s.write(`{"method":"health","params":{"status":"fine"}}` + "\n" + `{"method":"of-a-later-version","params":[1]}` + "\n")
	if got, refused := s.ask("config.get", "{}"); refused != nil || string(got) != `{"values":{"queue":7},"secrets":["a[0].token"]}` {
		t.Errorf("config: %s, %v", got, refused)
	}
	if got, refused := s.ask("secret.get", `{"name":"a[0].token","later":1}`); refused != nil || string(got) != `{"value":"hunter2"}` {
		t.Errorf("secret: %s, %v", got, refused)
	}
	s.refused(NotFound, "secret.get", `{"name":"b"}`)
	s.refused(NotFound, "secret.get", `null`)
	s.refused(Unknown, "secret.list", `{}`)
	s.refused(Invalid, "secret.get", `[]`)
	s.refused(Invalid, "secret.get", `{"name":7}`)
	if h := <-health; h.Status != "degraded" || h.Message != "slow  receiver" || h.Metrics["queued"] != 12 {
		t.Errorf("health %+v", h)
	}
	if err := <-problems; !strings.Contains(err.Error(), `"fine"`) {
		t.Errorf("bad health: %v", err)
	}
	if len(ready) != 1 || len(health) != 0 {
		t.Errorf("ready %d times, %d further states", len(ready), len(health))
	}
	s.close()
}

func TestWhatIsAskedBeforeTheEndIsAnswered(t *testing.T) {
	store := newStore(t)
	s := serve(t, Options{Store: store, Permissions: readAll(), drain: patience})
	s.hello()
	s.write(`{"id":1,"method":"findings.report","params":{"scope":"x","complete":true,"findings":[{"rule":"r","severity":"low","title":"t","subject":"s"}]}}` + "\n")
	s.conn.CloseWrite()
	if l := s.next(); l.ID != 1 || string(l.Result) != `{"new":1,"seen":0,"reopened":0,"resolved":0}` {
		t.Errorf("answer %+v %s", l, l.Result)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

func TestWhatWasWrittenBeforeTheEndIsTaken(t *testing.T) {
	store := newStore(t)
	ours, theirs := pair(t)
	for i := range 20 {
		fmt.Fprintf(theirs, `{"id":%d,"method":"findings.report","params":{"findings":[{"rule":"r","severity":"low","title":"t","subject":"s%d"}]}}`+"\n", i+1, i)
	}
	theirs.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // the process was seen to end before it was served at all
	err := Serve(ctx, ours, Options{Name: "probe", Role: RoleCommand, Store: store, Permissions: readAll(), drain: patience})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := store.View(t.Context(), func(tx *state.Tx) error {
		list, err := finding.List(tx, finding.Filter{}, time.Now())
		if len(list) != 20 {
			t.Errorf("%d findings of 20", len(list))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestBrokenLinesEndTheSession(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":      "hello\n",
		"cut":          `{"id":1,"method":"config.get"` + "\n",
		"array":        `[{"id":1}]` + "\n",
		"empty":        "\n",
		"id 0":         `{"id":0,"method":"config.get"}` + "\n",
		"negative id":  `{"id":-1,"method":"config.get"}` + "\n",
		"id a text":    `{"id":"1","method":"config.get"}` + "\n",
		"nothing":      `{}` + "\n",
		"two values":   `{"id":1,"method":"config.get"}{}` + "\n",
		"not UTF-8":    "{\"method\":\"\xff\"}\n",
		"deep":         `{"id":1,"method":"config.get","params":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "}\n",
		"long":         `{"id":1,"method":"` + strings.Repeat("x", MaxLine) + `"}` + "\n",
		"long, no end": strings.Repeat("x", MaxLine+readSize),
		"long method":  `{"id":1,"method":"` + strings.Repeat("x", 200) + `"}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, Options{Store: newStore(t)})
			go s.conn.Write([]byte(text)) // may be cut off
			err := s.end()
			if !isProtocol(err) || failure.KindOf(err) != failure.Untrustworthy || len(err.Error()) > 500 {
				t.Errorf("Serve: %v", err)
			}
		})
	}
	// A line of exactly the limit is no error, and half a line at the end neither.
	s := serve(t, Options{Store: newStore(t)})
	s.hello()
	const about = `{"id":1,"method":"x","params":""}`
	s.write(`{"id":1,"method":"x","params":"` + strings.Repeat("y", MaxLine-len(about)) + `"}` + "\n")
	if l := s.next(); l.Error == nil || l.Error.Code != Unknown {
		t.Errorf("longest line: %+v", l)
	}
	s.write(`{"id":2,"meth`)
	s.close()
}

func TestFindings(t *testing.T) {
	store := newStore(t)
	grow(t, store, 0, 1500)
	update(t, store, func(tx *state.Tx) error {
		_, err := finding.Report(tx, "threat", "", []finding.Finding{{Rule: "r", Severity: finding.High, Subject: "x"}}, time.Now())
		return err
	})
	s := serve(t, Options{Store: store, Permissions: Permissions{ReadFindings: true, ReportFindings: true, FindingsFrom: []string{"integrity"}}})
	s.hello()
	list := func(params string) (all []finding.Record) {
		t.Helper()
		after, seen := "", map[string]bool{}
		for {
			var page struct {
				Findings []finding.Record
				Next     string
			}
			s.granted("findings.list", fmt.Sprintf(`{%s"after":%q}`, params, after), &page)
			for _, r := range page.Findings {
				if seen[r.ID()] {
					t.Fatalf("%s twice", r.ID())
				}
				seen[r.ID()] = true
			}
			all = append(all, page.Findings...)
			if after = page.Next; after == "" {
				return all
			}
		}
	}
	if n := len(list("")); n != 1500 {
		t.Errorf("%d findings, want those of integrity", n)
	}
	if n := len(list(`"min_severity":"critical","state":"open","limit":7,`)); n != 300 {
		t.Errorf("%d critical findings", n)
	}
	if n := len(list(`"state":"resolved",`)); n != 0 {
		t.Errorf("%d resolved findings", n)
	}
	s.refused(Denied, "findings.list", `{"source":"threat"}`)
	s.refused(Invalid, "findings.list", `{"state":"gone"}`)
	s.refused(Invalid, "findings.list", `{"min_severity":"worst"}`)
	s.refused(Invalid, "findings.list", `{"after":"../x"}`)

	one := func(i int) string {
		return fmt.Sprintf(`{"source":"integrity","rule":"cve","severity":"high","title":"bad\nline\u001b[2J","subject":"p%d"}`, i)
	}
	many := func(first, n int) string {
		var all []string
		for i := range n {
			all = append(all, one(first+i))
		}
		return strings.Join(all, ",")
	}
	var sum finding.Summary
	report := func(rest string, want finding.Summary) {
		t.Helper()
		s.granted("findings.report", "{"+rest+"}", &sum)
		if sum != want {
			t.Errorf("%.60s: %+v, want %+v", rest, sum, want)
		}
	}
	report(`"scope":"x","part":true,"findings":[`+many(0, 1000)+`]`, finding.Summary{New: 1000})
	report(`"scope":"x","part":true,"findings":[`+many(1000, 1000)+`]`, finding.Summary{New: 1000})
	report(`"scope":"x","complete":true,"findings":[`+many(2000, 10)+`]`, finding.Summary{New: 10})
	report(`"scope":"x","part":true,"findings":[`+many(0, 1000)+`]`, finding.Summary{Seen: 1000})
	report(`"scope":"x","findings":[`+many(5000, 1)+`]`, finding.Summary{New: 1}) // partial: resolves nothing
	report(`"scope":"x","complete":true,"findings":[`+many(1000, 500)+`]`, finding.Summary{Seen: 500, Resolved: 511})
	report(`"scope":"x","complete":true,"findings":[]`, finding.Summary{Resolved: 1500})
	own := list(`"source":"plugin/probe",`)
	if len(own) != 2011 || own[0].Source != "plugin/probe" || own[0].Title != "bad line [2J" {
		t.Errorf("%d findings of the plugin, first %+v", len(own), own[0])
	}
	s.refused(TooLarge, "findings.report", `{"complete":true,"findings":[`+many(0, 1001)+`]}`)
	s.refused(Invalid, "findings.report", `{"complete":true,"part":true}`)
	s.refused(Invalid, "findings.report", `{"scope":"a\nb"}`)
	s.refused(Invalid, "findings.report", `{"findings":[{"severity":"low"}]}`)
	s.refused(Invalid, "findings.report", `{"findings":[{"rule":"a\u0000b","severity":"low"}]}`)
	s.refused(Invalid, "findings.report", `{"findings":[{"rule":"a","severity":"worst"}]}`)
	s.refused(Invalid, "findings.report", `{"findings":[7]}`)
	s.close()

	none := serve(t, Options{Store: store})
	none.hello()
	none.refused(Denied, "findings.list", `{}`)
	none.refused(Denied, "findings.report", `{"findings":[]}`)
	none.refused(Denied, "events.subscribe", `{}`)
	none.refused(Denied, "events.subscribe", `{"types":["audit"]}`)
	none.refused(NotFound, "events.ack", `{"cursor":"f1.a1"}`)
	none.close()
}

// still is a clock that stands: however slow the machine is, a flood comes at
// once.
func still() func() time.Time {
	now := time.Now()
	return func() time.Time { return now }
}

func TestAFloodIsRefusedAndSlowed(t *testing.T) {
	s := serve(t, Options{Store: newStore(t), now: still()})
	s.hello()
	const n = requestBurst + 20
	go func() {
		for i := range n {
			if _, err := fmt.Fprintf(s.conn, `{"id":%d,"method":"config.get"}`+"\n", i+1); err != nil {
				return
			}
		}
	}()
	got := map[Code]int{}
	for range n {
		if l := s.next(); l.Error != nil {
			got[l.Error.Code]++
		} else {
			got[""]++
		}
	}
	if got[Busy] == 0 || got[""] < 100 {
		t.Errorf("answers by code: %v", got)
	}
	s.close()
}

func TestAPluginThatDoesNotReadHoldsUpNobody(t *testing.T) {
	store := newStore(t)
	grow(t, store, 0, 5000)
	var healthy atomic.Int64
	s := serve(t, Options{Store: store, Permissions: readAll(), OnHealth: func(Health) { healthy.Add(1) }})
	s.write(`{"id":1,"method":"events.subscribe","params":{"from":"oldest"}}` + "\n")
	// It asks and asks until the host stops reading, too.
	s.conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
	var sent int
	for i := 2; ; i++ {
		n, err := fmt.Fprintf(s.conn, `{"id":%d,"method":"findings.list","params":{}}`+"\n", i)
		if sent += n; err != nil {
			break
		}
		if sent > 64<<20 {
			t.Fatal("the host takes everything and answers nothing")
		}
	}
	// The state is free, and the session ends when it is told to.
	update(t, store, func(*state.Tx) error { return nil })
	s.cancel()
	if err := s.end(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestWatchdog(t *testing.T) {
	s := serve(t, Options{Store: newStore(t), Watchdog: 4 * time.Second})
	s.hello()
	l := s.next()
	if l.Method != "ping" || l.ID == 0 {
		t.Fatalf("line %+v", l)
	}
	s.write(fmt.Sprintf(`{"id":%d,"result":{}}`+"\n", l.ID))
	if again := s.next(); again.Method != "ping" || again.ID == l.ID {
		t.Fatalf("line %+v", again)
	}
	s.close()

	silent := serve(t, Options{Store: newStore(t), Watchdog: 50 * time.Millisecond})
	if err := silent.end(); !errors.Is(err, ErrUnresponsive) {
		t.Errorf("silent plugin: %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{{}, {Name: "x", Role: RoleHook}, {Name: "x", Store: newStore(t), Role: "y"}, {Name: strings.Repeat("x", 200), Store: newStore(t), Role: RoleHook}} {
		ours, _ := pair(t)
		if err := Serve(t.Context(), ours, o); failure.KindOf(err) != failure.Usage {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
