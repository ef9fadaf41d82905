package main

import (
	"fmt"
	"testing"
)

// hecKilled runs the plugin against a collector until so many requests have
// come, kills it, and starts it again.
func hecKilled(t *testing.T, s *splunk, events, requests int, ackTimeout string, between func(r *httpReceiver)) *testHost {
	t.Helper()
	s.t = t
	r := &httpReceiver{t: t, handler: s.life}
	r.start()
	h := newHost(t, settingsOf(quick(map[string]any{"name": "splunk", "type": "hec", "url": "http://" + r.address, "batch_events": 100, "window": 1000, "ack_timeout": ackTimeout})),
		map[string]string{"destinations[0].token": "hec-token"})
	p := h.serve()
	h.emit(findings(0, events)...)
	locked := func(ok func() bool) func() bool {
		return func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return ok()
		}
	}
	say := func() string {
		s.mu.Lock()
		defer s.mu.Unlock()
		return fmt.Sprintf("%d requests, %d questions, channel %s: %+v", s.requests, s.asked, s.channel, h.status().Destinations)
	}
	eventually(t, say, locked(func() bool { return s.requests >= requests }))
	eventually(t, say, func() bool { return h.status().Queue.Next == uint64(events)+1 })
	if !s.mute { // the answer was read when it is asked for
		before := 0
		locked(func() bool { before = s.asked; return true })()
		eventually(t, say, locked(func() bool { return s.asked > before+1 }))
	}
	s.mu.Lock()
	channel := s.channel
	s.mu.Unlock()
	p.kill()
	s.mu.Lock()
	s.mute, s.asked = false, 0
	s.mu.Unlock()
	if between != nil {
		between(r)
	}
	p = h.serve()
	eventually(t, say, locked(func() bool { return s.asked > 0 }))
	s.mu.Lock()
	if s.channel != channel && s.slow {
		t.Errorf("channel %s, not %s in which events wait for their acknowledgement", s.channel, channel)
	}
	s.slow = false
	s.mu.Unlock()
	eventually(t, say, func() bool { st := h.status(); return st.PID == p.cmd.Process.Pid && st.Queue.Records == 0 })
	p.stop(t)
	return h
}

// TestHECAsksAgainAfterAKill: what waited for an acknowledgement is asked for
// by the next process, in the same channel, and not sent again.
func TestHECAsksAgainAfterAKill(t *testing.T) {
	s := &splunk{tires: 4}
	hecKilled(t, s, 2000, 7, "5m", nil)
	if n, doubles := s.came.count(); n != 2000 || doubles != 0 {
		t.Errorf("%d events, %d doubles", n, doubles)
	}
	s.came.inOrder(t)
}

// TestHECRefusedBeforeAKill: what was taken out of a batch that waited goes to
// the dead letters when that is acknowledged, once.
func TestHECRefusedBeforeAKill(t *testing.T) {
	s := &splunk{tires: 4, refuse: func(id string) bool { return id > "f-000150" && id <= "f-000400" && id[len(id)-1] == '7' }}
	h := hecKilled(t, s, 2000, 7, "5m", nil)
	dead := h.status().Destinations[0].DeadLetters
	if n, doubles := s.came.count(); n != 1975 || doubles != 0 || dead != 25 {
		t.Errorf("%d events, %d doubles, %d dead letters", n, doubles, dead)
	}
}

// TestHECGuessesTheNumberOfAnAnswerThatWasLost: the number of a request whose
// answer a kill cut off is the next one.
func TestHECGuessesTheNumberOfAnAnswerThatWasLost(t *testing.T) {
	s := &splunk{mute: true}
	hecKilled(t, s, 1000, 1, "5m", nil)
	if n, doubles := s.came.count(); n != 1000 || doubles != 0 {
		t.Errorf("%d events, %d doubles", n, doubles)
	}
}

// TestHECFirstOfAChannelIsAlone: a receiver that was started anew counts from
// the first number again, which must not be that of other events.
func TestHECFirstOfAChannelIsAlone(t *testing.T) {
	s := &splunk{slow: true}
	hecKilled(t, s, 1000, 1, "5m", func(*httpReceiver) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.requests != 1 {
			t.Errorf("%d requests, with none acknowledged", s.requests)
		}
	})
}

// TestHECAfterBothWereKilled: the receiver knows nothing of the numbers, so
// what waited comes again, and nothing is lost.
func TestHECAfterBothWereKilled(t *testing.T) {
	s := &splunk{mute: true}
	lost := 0
	hecKilled(t, s, 1000, 1, "3s", func(r *httpReceiver) {
		r.kill()
		lost, _ = s.came.count()
		s.mu.Lock()
		s.index = ledger{} // it was not indexed
		s.mu.Unlock()
		r.start()
	})
	if n, doubles := s.index.count(); n != 1000 || doubles != 0 {
		t.Errorf("%d events, %d doubles", n, doubles)
	}
	if _, doubles := s.came.count(); doubles != lost {
		t.Errorf("%d came twice, not the %d that were lost", doubles, lost)
	}
}
