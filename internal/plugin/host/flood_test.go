package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/state"
)

// TestLargeParameters sends requests whose parameters are many empty things,
// which take far more memory when they are read than they do in a line.
func TestLargeParameters(t *testing.T) {
	s := serve(t, Options{Store: newStore(t), Permissions: readAll()})
	s.hello()
	for _, method := range []string{"events.subscribe", "config.get", "dial", "findings.list"} {
		s.refused(TooLarge, method, `{"types":[""`+strings.Repeat(`,""`, maxParams/3)+`]}`)
	}
	s.granted("config.get", `{"x":"`+strings.Repeat("x", maxParams/2)+`"}`, nil)
}

// held is a store whose updates wait.
type held struct {
	Store
	began   chan struct{}
	release chan struct{}
}

func (h held) Update(ctx context.Context, fn func(*state.Tx) error) error {
	h.began <- struct{}{}
	<-h.release
	return h.Store.Update(ctx, fn)
}

// TestOneReportAtATime shows that no report is read while another one is
// stored, so that only one of them has the memory for it.
func TestOneReportAtATime(t *testing.T) {
	h := held{newStore(t), make(chan struct{}, 8), make(chan struct{})}
	s := serve(t, Options{Store: h, Permissions: Permissions{ReportFindings: true}})
	s.hello()
	s.write(`{"id":1,"method":"findings.report","params":{"findings":[]}}` + "\n")
	<-h.began
	s.write(`{"id":2,"method":"findings.report","params":{"findings":[0` + strings.Repeat(",0", maxReport) + `]}}` + "\n")
	// What is only looked at would have been refused long before all of these.
	for id := 3; id < 200; id++ {
		s.write(fmt.Sprintf(`{"id":%d,"method":"config.get"}`+"\n", id))
		if l := s.next(); l.ID != uint64(id) {
			t.Fatalf("answer to %d: %+v", id, l)
		}
	}
	close(h.release)
	for range 2 { // in any order
		switch l := s.next(); {
		case l.ID == 1 && l.Error == nil:
		case l.ID == 2 && l.Error != nil && l.Error.Code == TooLarge:
		default:
			t.Errorf("%+v", l)
		}
	}
}

// TestFloods shows that answers to nothing are read no faster than requests,
// and that complaints about a plugin are not as many as its mistakes.
func TestFloods(t *testing.T) {
	for name, text := range map[string]string{"answers": `{"id":7}`, "health": `{"method":"health","params":{"status":"x"}}`} {
		t.Run(name, func(t *testing.T) {
			var complaints atomic.Int64
			s := serve(t, Options{Store: newStore(t), OnError: func(error) { complaints.Add(1) }})
			s.hello()
			const lines = requestBurst + 2*requestRate
			began := time.Now()
			for range lines / 100 {
				s.write(strings.Repeat(text+"\n", 100))
			}
			for refused := true; refused; {
				_, no := s.ask("config.get", `{}`)
				refused = no != nil && no.Code == Busy
			}
			if took := time.Since(began); took < time.Second/2 { // a lower bound: two seconds' worth
				t.Errorf("%d lines were read in %v", lines, took)
			}
			if n, most := complaints.Load(), int64(errorBurst+errorRate*time.Since(began).Seconds()+1); n > most {
				t.Errorf("%d complaints, of at most %d", n, most)
			}
		})
	}
}

// silent is a resolver that answers when nobody asks any more.
type silent struct{ asked chan struct{} }

func (r silent) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	close(r.asked)
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestDialHoldsNobodyUp ends a session whose plugin waits for a connection: who
// waits for a hook does not wait for that.
func TestDialHoldsNobodyUp(t *testing.T) {
	r := silent{make(chan struct{})}
	s := serve(t, Options{Store: newStore(t), Permissions: Permissions{Network: []string{"silent.example:1"}}, Resolver: r, drain: patience})
	s.hello()
	s.write(`{"id":1,"method":"dial","params":{"network":"tcp","address":"silent.example:1","timeout_ms":60000}}` + "\n")
	<-r.asked
	began := time.Now()
	s.cancel()
	if err := s.end(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("it took %v", took)
	}
}

// TestHealthFlood has a plugin change how it is all the time. Those who follow
// are told of a few, and of the last one.
func TestHealthFlood(t *testing.T) {
	var told atomic.Int64
	var last atomic.Value
	s := serve(t, Options{Store: newStore(t), OnHealth: func(h Health) { told.Add(1); last.Store(h.Message) }})
	s.hello()
	began := time.Now()
	const changes = 3000
	for i := range changes {
		s.write(fmt.Sprintf(`{"method":"health","params":{"status":"ok","message":"%d"}}`+"\n", i+1))
	}
	for end := time.Now().Add(patience); last.Load() != fmt.Sprint(changes); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the last that was told is %v", last.Load())
		}
	}
	if n, most := told.Load(), int64(healthBurst+time.Since(began)/healthEvery+2); n > most {
		t.Errorf("%d were told, of at most %d", n, most)
	}
}
