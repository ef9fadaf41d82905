package deliver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// hec is Splunk's HTTP Event Collector with indexer acknowledgement. A request
// is answered with a number (ackId) in its channel; asked for that, the
// receiver says whether the events are indexed, and says yes once. Some batches
// are under way at once; the cursor follows the first that is not acknowledged.
//
// What is under way is written down beside the cursor (hecnote.go) before and
// after every request, so a process that follows one that was killed asks for
// the same numbers. There is one request at a time, and it asks for one number,
// so no more than one batch can come twice because of a kill of ours. Even that
// batch mostly does not: when an answer was lost, the number that it had is
// most likely the one after the last, and is asked for.
//
// The receiver keeps numbers and what it has not indexed in its memory. Numbers
// in a channel only grow: one that does not says that the receiver has started
// anew. Then, and when an acknowledgement takes longer than ack_timeout, all
// that is not acknowledged is sent again, in its order and in a new channel: at
// most window events. The id of an event is a field of it, so a search can
// leave out what came twice.
//
// A number must never be taken for that of other events, or they would be lost.
// After a restart that we have not noticed the channel counts from its first
// number again. So nothing else is under way while the first number of a
// channel is, and after an answer that was lost nothing is sent in the channel
// any more: no number that we ask for can have been given a second time.
type hec struct {
	d        *Destination
	client   *http.Client
	url, ack *url.URL
	body     []byte
	flights  []*hecFlight
	noted    []hecNoted // of a former life, and not taken from the queue yet

	channel string
	last    int64 // the newest number of the channel; -1: none
	proven  bool  // something of the channel was acknowledged
	drain   bool  // nothing more is sent in the channel

	poll     time.Duration
	nextPoll time.Time
}

// hecFlight is a batch that was taken, and waits for its acknowledgement.
type hecFlight struct {
	b      *batch
	keep   []int // its messages that are not refused
	digest string
	id     int64
	sent   time.Time
	acked  bool
	posted bool // in this channel
	guess  bool // no answer was read, and id is what it probably said
}

const (
	hecWindow = 8                // batches under way
	hecGrace  = 10 * time.Second // how long a number that was guessed is asked for
	firstPoll = 20 * time.Millisecond
	lastPoll  = time.Second
)

func newHEC(d *Destination) (*hec, error) {
	h := &hec{d: d, poll: firstPoll}
	var err error
	if h.client, err = d.httpClient(); err != nil {
		return nil, err
	}
	if h.url, err = endpoint(d.cfg.URL, "/services/collector/event"); err != nil {
		return nil, err
	}
	ack := *h.url
	ack.Path = ack.Path[:len(ack.Path)-len("event")] + "ack"
	h.ack = &ack
	h.newChannel()
	h.restore()
	return h, nil
}

// newChannel makes a channel of our own: a GUID, by chance.
func (h *hec) newChannel() {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand.Read
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h.channel = fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	h.last, h.proven, h.drain = -1, false, false
}

func (h *hec) run(soft, hard context.Context) error {
	h.d.state("idle")
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		batches := h.d.batches
		if h.full() {
			batches = nil
		}
		if len(h.flights) > 0 {
			timer.Reset(time.Until(h.nextPoll))
		}
		var err error
		select {
		case b, ok := <-batches:
			if !ok {
				return h.finish(hard)
			}
			h.flights = append(h.flights, h.take(b))
		case <-timer.C:
			err = h.ask(soft, hard)
		case <-soft.Done():
			return h.finish(hard)
		}
		if err == nil {
			err = h.commit()
		}
		if err == nil {
			err = h.postAll(soft, hard)
		}
		if err == nil {
			err = h.commit() // what needs no acknowledgement
		}
		if err != nil {
			return err
		}
	}
}

// full says whether one more batch could be more than may come twice.
func (h *hec) full() bool {
	n := 0
	for _, f := range h.flights {
		n += len(f.keep)
	}
	return len(h.flights) >= hecWindow || n+h.d.cfg.BatchEvents > h.d.cfg.Window && n > 0 && len(h.noted) == 0
}

// take makes a flight of a batch. One that a former life has sent is under way
// already.
func (h *hec) take(b *batch) *hecFlight {
	f := &hecFlight{b: b, acked: len(b.ends) == 0}
	for i := range b.ends {
		f.keep = append(f.keep, i)
	}
	if *h.d.cfg.Acknowledge && !f.acked {
		f.digest = digestOf(b)
	}
	h.recall(f)
	return f
}

// ask asks for acknowledgements, and draws conclusions from what is not there.
func (h *hec) ask(soft, hard context.Context) error {
	answered := false
	news := false
	for {
		i := slices.IndexFunc(h.flights, (*hecFlight).waits)
		if i < 0 {
			break
		}
		var err error
		if answered, err = h.pollAcks(hard, h.flights[i:i+1]); err != nil {
			return err
		}
		if !h.flights[i].acked {
			break
		}
		news = true
		if err := h.commit(); err != nil {
			return err
		}
	}
	if news {
		h.poll = firstPoll
	} else {
		h.poll = min(2*h.poll, lastPoll)
	}
	h.nextPoll = time.Now().Add(h.poll)
	i := slices.IndexFunc(h.flights, (*hecFlight).waits)
	if i < 0 || !answered { // who cannot be asked may have indexed all the same
		return nil
	}
	f, patience := h.flights[i], time.Duration(h.d.cfg.AckTimeout)
	switch age := time.Since(f.sent); {
	case f.guess && age > min(patience, hecGrace):
		// It is the only one that waits, since nothing was sent after it.
		h.d.count.resent.Add(uint64(len(f.keep)))
		f.posted, f.guess = false, false
		return nil
	case age > patience:
		if _, err := h.pollAcks(hard, h.flights); err != nil { // spare what can be spared
			return err
		}
		return h.anew(soft, fmt.Errorf("no acknowledgement within %s", patience))
	}
	return nil
}

func (f *hecFlight) waits() bool { return f.posted && !f.acked }

// postAll sends what is not sent in this channel yet, as far as that may be.
func (h *hec) postAll(soft, hard context.Context) error {
	for _, f := range h.flights {
		if f.acked || f.posted {
			continue
		}
		waiting := slices.ContainsFunc(h.flights, (*hecFlight).waits)
		if h.drain {
			if waiting || len(h.noted) > 0 {
				return nil
			}
			h.newChannel()
		}
		if waiting && !h.proven && *h.d.cfg.Acknowledge {
			return nil
		}
		fail, err := h.post(hard, f)
		if err != nil {
			return err
		}
		h.poll = firstPoll
		if soon := time.Now().Add(h.poll); !waiting || h.nextPoll.After(soon) {
			h.nextPoll = soon
		}
		if fail != nil {
			h.d.failed(fail.err)
			if fail.unknown && *h.d.cfg.Acknowledge {
				f.posted, f.guess, f.id, f.sent = true, true, h.last+1, time.Now()
				h.drain = true
			}
			return h.d.pause(soft, fail.after)
		}
		if f.acked {
			continue
		}
		if f.id <= h.last { // its numbering began anew: the others under way are lost to us
			return h.anew(soft, errors.New("the receiver has started anew"))
		}
		h.last = f.id
		if err := h.write(nil); err != nil {
			return err
		}
	}
	return nil
}

// anew sends all that is not acknowledged again, in a new channel.
func (h *hec) anew(soft context.Context, why error) error {
	n := 0
	for _, f := range h.flights {
		if f.waits() {
			n += len(f.keep)
		}
		f.posted, f.guess = false, false
	}
	h.noted = nil
	h.d.count.resent.Add(uint64(n))
	h.d.failed(fmt.Errorf("%s: %w; %d events are sent again", h.url.Host, why, n))
	h.newChannel()
	return h.d.pause(soft, 0)
}

// commit moves the cursor behind the batches that are acknowledged.
func (h *hec) commit() error {
	for len(h.flights) > 0 && h.flights[0].acked {
		b := h.flights[0].b
		if err := h.d.commit(b, len(b.ends)); err != nil {
			return err
		}
		h.d.give(b)
		h.flights = h.flights[1:]
	}
	return nil
}

// finish waits for the acknowledgements of what is under way. A new process
// asks for those that do not come in time.
func (h *hec) finish(hard context.Context) error {
	for hard.Err() == nil {
		i := slices.IndexFunc(h.flights, (*hecFlight).waits)
		if i < 0 {
			break
		}
		f := h.flights[i]
		if _, err := h.pollAcks(hard, []*hecFlight{f}); err != nil {
			return err
		}
		if err := h.commit(); err != nil {
			return err
		}
		if f.acked {
			continue
		}
		select {
		case <-time.After(firstPoll):
		case <-hard.Done():
		}
	}
	return h.commit()
}

func (h *hec) probe(ctx context.Context, b *batch) (string, error) {
	f := &hecFlight{b: b, keep: []int{0}}
	answer, resp, fail := h.once(ctx, f)
	if fail != nil {
		return "", fail.err
	}
	said := fmt.Sprintf("%s answered %s, code %d: %.300q", h.url, resp.Status, answer.Code, answer.Text)
	switch {
	case resp.StatusCode/100 != 2 || answer.Code != 0:
		return "", errors.New(said)
	case !*h.d.cfg.Acknowledge:
		return said, nil
	case answer.AckID == nil:
		return "", errors.New(said + "; without an ackId: switch indexer acknowledgement on for the token, or set acknowledge: false")
	}
	f.posted, f.id = true, *answer.AckID
	for wait := firstPoll; ; wait = min(2*wait, lastPoll) {
		if _, err := h.pollAcks(ctx, []*hecFlight{f}); err != nil {
			return "", err
		}
		if f.acked {
			return said + "; it has indexed the event", nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return "", fmt.Errorf("%s; it has not said yet that the event is indexed", said)
		}
	}
}
