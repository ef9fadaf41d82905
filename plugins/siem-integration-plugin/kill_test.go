package main

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// window is how many messages of syslog are unconfirmed at most, when nothing
// else is configured.
const window = 1000

// killable is a receiver that can be ended without a word.
type killable interface {
	start()
	kill()
}

// tally is what happened in a torment.
type tally struct{ events, ours, theirs int } // events, kills of the plugin, kills of the receiver

// torment delivers events while the plugin and, when there is one, the
// receiver are killed at random moments, so many times, and returns when the
// queue is empty. It checks that the host's batches are in the queue once.
func torment(t *testing.T, h *testHost, r killable, kills int) tally {
	t.Helper()
	if testing.Short() {
		kills /= 4
	}
	p := h.serve()
	stop, emitted := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				emitted <- n
				return
			case <-time.After(time.Millisecond):
				if n > 50_000 {
					continue // enough; what is delivered slowly is still on its way
				}
				k := 1 + rand.IntN(60)
				h.emit(findings(n, k)...)
				n += k
			}
		}
	}()
	ours := 0
	for i := range kills {
		time.Sleep(rand.N(150 * time.Millisecond))
		if r == nil || i%2 == 0 {
			p.kill()
			p = h.serve()
			ours++
			continue
		}
		r.kill()
		time.Sleep(rand.N(50 * time.Millisecond))
		r.start()
	}
	close(stop)
	events := <-emitted
	eventually(t, func() string { return fmt.Sprintf("the queue is delivered: %d events, %+v", events, h.status()) }, func() bool {
		s := h.status()
		return s.PID == p.cmd.Process.Pid && s.Queue.Records == 0 && s.Queue.Next == uint64(events)+1
	})
	p.stop(t)
	h.mu.Lock()
	defer h.mu.Unlock()
	t.Logf("%d events, sent %d times by the host; the plugin was killed %d times, the receiver %d times", events, h.sent, ours, kills-ours)
	return tally{events, ours, kills - ours}
}

// whole fails unless every event is there, and when more came again than the
// kills explain: at most so many for each of the plugin, and of the receiver.
// A ledger knows events by their ids, so what came again had the same one.
func whole(t *testing.T, l *ledger, k tally, eachOurs, eachTheirs int) {
	t.Helper()
	events := k.events
	ids, doubles := l.count()
	if ids != events {
		missing := 0
		for n := range events {
			if !l.has(finding(n).ID) {
				if missing++; missing < 5 {
					t.Errorf("%s is lost", finding(n).ID)
				}
			}
		}
		t.Errorf("%d of %d events, %d lost", ids, events, missing)
	}
	most := eachOurs*k.ours + eachTheirs*k.theirs
	t.Logf("%d events came again with the same id: %.1f for each kill; at most %d, %d for each of ours and %d for each of theirs",
		doubles, float64(doubles)/float64(k.ours+k.theirs), most, eachOurs, eachTheirs)
	if doubles > most {
		t.Errorf("%d events came again, more than %d", doubles, most)
	}
}

// Exactly once: the id of the event is that of the document.
func TestKillsWithBulk(t *testing.T) {
	e := &elastic{t: t}
	r := &httpReceiver{t: t, handler: e.life}
	r.start()
	h := newHost(t, settingsOf(quick(map[string]any{"name": "search", "type": "bulk", "url": "http://" + r.address, "batch_events": 200})),
		map[string]string{"destinations[0].token": "bulk-key"})
	whole(t, &e.docs, torment(t, h, r, 30), 0, 0)
	e.docs.inOrder(t)
	t.Logf("%d conflicts", e.conflict)
}

// Nothing is lost, though the receiver forgets what it has not indexed. It also
// forgets what it had to say of the rest, so that comes again.
func TestKillsWithHEC(t *testing.T) {
	s := &splunk{t: t}
	r := &httpReceiver{t: t, handler: s.life}
	r.start()
	h := newHost(t, settingsOf(quick(map[string]any{"name": "splunk", "type": "hec", "url": "http://" + r.address, "batch_events": 200, "window": 800, "ack_timeout": "2s"})),
		map[string]string{"destinations[0].token": "hec-token"})
	whole(t, &s.index, torment(t, h, r, 30), 200, 800)
}

// With a receiver that stays, a kill brings the batch again whose answer was
// not read, at most. What the receiver has acknowledged, and a kill kept from
// being read, it does not acknowledge again: that batch is sent again after
// ack_timeout, which has to be well below the patience of the test.
func TestKillsOfThePluginWithHEC(t *testing.T) {
	s := &splunk{t: t}
	r := &httpReceiver{t: t, handler: s.life}
	r.start()
	h := newHost(t, settingsOf(quick(map[string]any{"name": "splunk", "type": "hec", "url": "http://" + r.address, "batch_events": 200, "ack_timeout": "20s"})),
		map[string]string{"destinations[0].token": "hec-token"})
	whole(t, &s.index, torment(t, h, nil, 30), 200, 0)
	s.came.inOrder(t)
}

// With confirm: close, what rsyslog had not read when it was killed is sent
// again.
func TestKillsWithSyslogOverTLS(t *testing.T) {
	p := newPKI(t)
	r := newRsyslog(t, &p)
	r.start()
	h := newHost(t, settingsOf(quick(map[string]any{"name": "logs", "type": "syslog-tls", "address": r.address(), "ca_file": p.ca,
		"server_name": "logs.example.org", "confirm": "close"})),
		map[string]string{"destinations[0].client_cert": p.clientCert, "destinations[0].client_key": p.clientKey})
	k := torment(t, h, r, 30)
	whole(t, r.received(), k, window, window)
}

// With confirm: kernel, kills of the plugin lose nothing.
func TestKillsOfThePluginWithSyslog(t *testing.T) {
	p := newPKI(t)
	for _, kind := range []string{"syslog-tcp", "syslog-tls"} {
		t.Run(kind, func(t *testing.T) {
			d := quick(map[string]any{"name": "logs", "type": kind, "server_name": "logs.example.org", "ca_file": p.ca})
			r := newRsyslog(t, nil)
			if kind == "syslog-tls" {
				r = newRsyslog(t, &p)
			}
			d["address"] = r.address()
			r.start()
			h := newHost(t, settingsOf(d), map[string]string{"destinations[0].client_cert": p.clientCert, "destinations[0].client_key": p.clientKey})
			k := torment(t, h, nil, 20)
			eventually(t, func() string { n, _ := r.received().count(); return fmt.Sprintf("%d of %d", n, k.events) }, func() bool { n, _ := r.received().count(); return n == k.events })
			whole(t, r.received(), k, window, window)
		})
	}
}
