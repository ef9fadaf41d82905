package deliver

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/mobileops/mobileops/plugins/siem-integration-plugin/internal/queue"
)

// hecNote is what is written down of the batches under way. The cookies are
// those by which a balancer of load keeps us at the machine that has the
// channel.
type hecNote struct {
	URL     string            `json:"url"`
	Channel string            `json:"channel"`
	Cookies map[string]string `json:"cookies,omitempty"`
	Flights []hecNoted        `json:"flights"`
}

// hecNoted is a batch under way: which records of the queue it was made of, by
// number and by a digest of the ids of its events. Only a batch with the same
// events is taken for it, whatever became of the queue and the filter.
type hecNoted struct {
	span
	Again   bool   `json:"again,omitempty"` // of dead letters, which have no numbers
	Digest  string `json:"digest"`
	ID      int64  `json:"id"`
	Guess   bool   `json:"guess,omitempty"`
	Acked   bool   `json:"acked,omitempty"`
	Sent    int64  `json:"sent"`              // milliseconds since 1970
	Refused []int  `json:"refused,omitempty"` // messages that were taken out
}

const (
	maxNotedRefused = 100     // of a batch; one with more is sent again after a kill
	maxNotedCookies = 4 << 10 // bytes
)

// digestOf is a digest of the ids of a batch, in their order.
func digestOf(b *batch) string {
	sum := sha256.New()
	for _, id := range b.ids {
		_, _ = sum.Write(append([]byte(id), 0))
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// write writes down what is under way. sending is a batch whose request is
// about to be made.
func (h *hec) write(sending *hecFlight) error {
	if !*h.d.cfg.Acknowledge || h.d.cursor == nil {
		return nil
	}
	n := hecNote{URL: h.url.String(), Channel: h.channel, Cookies: map[string]string{}}
	size := 0
	for _, c := range h.client.Jar.Cookies(h.url) {
		if size += len(c.Name) + len(c.Value); size <= maxNotedCookies {
			n.Cookies[c.Name] = c.Value
		}
	}
	for _, f := range h.flights {
		if !f.posted && f != sending || f.digest == "" {
			continue
		}
		e := hecNoted{Again: f.b.again, Digest: f.digest, ID: f.id, Guess: f.guess, Acked: f.acked, Sent: f.sent.UnixMilli()}
		if !f.b.again {
			e.span = span{f.b.from, f.b.next.Seq}
		}
		if f == sending {
			e.ID, e.Guess, e.Sent = h.last+1, true, time.Now().UnixMilli()
		}
		for i, k := 0, 0; i < len(f.b.ends); i++ {
			if k < len(f.keep) && f.keep[k] == i {
				k++
			} else {
				e.Refused = append(e.Refused, i)
			}
		}
		if len(e.Refused) <= maxNotedRefused {
			n.Flights = append(n.Flights, e)
		}
	}
	n.Flights = append(n.Flights, h.noted...)
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if len(text) > queue.MaxNote { // nothing to go by after a kill, rather than what is out of date
		text = nil
	}
	return h.d.cursor.SetNote(text)
}

// restore takes up what a former life wrote down. Its channel is only asked;
// when nothing in it waits any more there will be a new one.
func (h *hec) restore() {
	var n hecNote
	if !*h.d.cfg.Acknowledge || h.d.cursor == nil || json.Unmarshal(h.d.cursor.Note(), &n) != nil || n.URL != h.url.String() {
		return
	}
	at := h.d.cursor.At().Seq
	for _, e := range n.Flights {
		if e.Again || e.From >= at && e.Next > e.From {
			h.noted = append(h.noted, e)
			h.last = max(h.last, e.ID)
		}
	}
	if len(h.noted) == 0 {
		return
	}
	slices.SortFunc(h.noted, func(a, b hecNoted) int { return int(int64(a.From) - int64(b.From)) })
	for _, e := range h.noted {
		if !e.Again {
			h.d.sent = append(h.d.sent, e.span)
		}
	}
	var cookies []*http.Cookie
	for name, value := range n.Cookies {
		cookies = append(cookies, &http.Cookie{Name: name, Value: value, Path: "/"})
	}
	h.client.Jar.SetCookies(h.url, cookies)
	h.channel, h.drain = n.Channel, true
}

// recall marks a batch that a former life has sent, and forgets what can not
// come any more.
func (h *hec) recall(f *hecFlight) {
	b := f.b
	i := slices.IndexFunc(h.noted, func(e hecNoted) bool {
		return e.Digest == f.digest && e.Again == b.again && (b.again || e.span == span{b.from, b.next.Seq})
	})
	if i >= 0 {
		e := h.noted[i]
		for _, k := range e.Refused {
			if at := slices.Index(f.keep, k); at >= 0 {
				f.keep = slices.Delete(f.keep, at, at+1)
				b.refuse(k, "the receiver refused it, before this plugin was started again")
			}
		}
		f.posted, f.id, f.guess, f.acked = true, e.ID, e.Guess, e.Acked
		f.sent = time.UnixMilli(min(e.Sent, time.Now().UnixMilli()))
		h.noted = slices.Delete(h.noted, i, i+1)
	}
	if !b.again { // dead letters come first
		h.noted = slices.DeleteFunc(h.noted, func(e hecNoted) bool { return e.Again || e.From < b.next.Seq })
	}
}
