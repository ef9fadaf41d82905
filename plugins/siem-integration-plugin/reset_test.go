package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"regexp"
	"strconv"
	"testing"
)

// rude is a syslog receiver that, on its first connections, reads a part of
// what it gets and ends the connection with the rest unread: its kernel then
// resets it.
type rude struct {
	ledger
	l      net.Listener
	resets int
}

func newRude(t *testing.T, resets int) *rude {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rude{l: l, resets: resets}
	t.Cleanup(func() { l.Close() })
	id := regexp.MustCompile(` id="(f-\d+)"`)
	go func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var from io.Reader = c
			if n < r.resets {
				_ = c.(*net.TCPConn).SetReadBuffer(8 << 10)
				from = io.LimitReader(c, 1000+rand.Int64N(100_000))
			}
			in := bufio.NewReaderSize(from, 2048)
			for {
				head, err := in.ReadString(' ')
				if err != nil {
					break
				}
				length, err := strconv.Atoi(head[:len(head)-1])
				if err != nil {
					t.Errorf("a message begins with %q", head)
					break
				}
				message := make([]byte, length)
				if _, err := io.ReadFull(in, message); err != nil {
					break
				}
				r.add(id.FindStringSubmatch(string(message))[1])
			}
			c.Close()
		}
	}()
	return r
}

// TestResets: with confirm: kernel nothing is sent again that the kernel of the
// receiver had acknowledged, so next to nothing comes twice; with confirm:
// close nothing is lost.
func TestResets(t *testing.T) {
	for _, confirm := range []string{"kernel", "close"} {
		t.Run(confirm, func(t *testing.T) {
			r := newRude(t, 12)
			h := newHost(t, settingsOf(quick(map[string]any{"name": "logs", "type": "syslog-tcp", "address": r.l.Addr().String(), "confirm": confirm})), nil)
			p := h.serve()
			const events = 8000
			h.emit(findings(0, events)...)
			eventually(t, func() string { return fmt.Sprintf("%+v", h.status()) }, func() bool { s := h.status(); return s.Queue.Next == events+1 && s.Queue.Records == 0 })
			p.stop(t)
			ids, doubles := r.count()
			t.Logf("%d of %d events, %d doubles, %d resent", ids, events, doubles, h.status().Destinations[0].Resent)
			// The receiver's kernel puts an acknowledgement off for a moment, and a
			// reset takes its place: what was read in that moment comes again.
			if confirm == "kernel" && doubles > 100*r.resets {
				t.Errorf("%d doubles of %d resets", doubles, r.resets)
			}
			if confirm == "close" && (ids != events || doubles > window*r.resets) {
				t.Errorf("%d of %d events, %d doubles of %d resets", ids, events, doubles, r.resets)
			}
			r.inOrder(t)
		})
	}
}
