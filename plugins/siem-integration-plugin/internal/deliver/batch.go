package deliver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
	"github.com/mobileops/mobileops/plugins/siem-integration-plugin/internal/packed"
	"github.com/mobileops/mobileops/plugins/siem-integration-plugin/internal/queue"
)

const (
	freeBatches = 4 // that are used again; more may be under way
	piece       = 512
	lookAgain   = time.Second // how often dead letters that are to be sent again are looked for
)

// batch is events of the queue, encoded for a destination. Its messages are
// those that the filter wants and that can be encoded.
type batch struct {
	body  []byte           // all messages, one after the other
	ends  []int            // where each ends in body
	ids   []string         // of each
	nexts []queue.Position // nexts[i] is before message i
	from  uint64           // number of the first record, also of one that was left out
	next  queue.Position   // after all, also those that were left out

	packed     []byte // the events as the queue had them, for dead letters
	packedEnds []int

	refused   []letter
	dead      int    // how many of the messages are among refused
	filtered  uint64 // left out by the filter
	confirmed int    // messages that the receiver has
	again     bool   // these were dead letters; they are not in the queue
	done      func() error
}

func (b *batch) reset() {
	clear(b.ids)
	*b = batch{body: b.body[:0], ends: b.ends[:0], ids: b.ids[:0], nexts: b.nexts[:0], packed: b.packed[:0], packedEnds: b.packedEnds[:0], refused: b.refused[:0]}
}

// span returns where message i is in body.
func (b *batch) span(i int) (from, to int) {
	if i > 0 {
		from = b.ends[i-1]
	}
	return from, b.ends[i]
}

func (b *batch) raw(i int) []byte {
	from := 0
	if i > 0 {
		from = b.packedEnds[i-1]
	}
	return b.packed[from:b.packedEnds[i]]
}

// take returns an empty batch, one that is used again if there is one.
func (d *Destination) take() *batch {
	select {
	case b := <-d.free:
		b.reset()
		return b
	default:
		return &batch{}
	}
}

// give hands a batch back that nobody needs any more.
func (d *Destination) give(b *batch) {
	if cap(b.body) > 4*int(d.cfg.BatchBytes) {
		return
	}
	select {
	case d.free <- b:
	default:
	}
}

// read reads the queue ahead of the sender, until ctx is done.
func (d *Destination) read(ctx context.Context) error {
	var slot packed.Slot
	entries := make([]queue.Entry, 0, piece)
	looked := time.Now().Add(-lookAgain)
	next := d.cursor.At().Seq
	for {
		if time.Since(looked) >= lookAgain {
			looked = time.Now()
			if err := d.readDead(ctx); err != nil {
				return err
			}
		}
		b := d.take()
		wait, cancel := context.WithTimeout(ctx, lookAgain)
		b.from = next
		got, err := d.cursor.Read(wait, entries[:0], d.room(b, next))
		cancel()
		if err != nil {
			d.give(b)
			if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
				continue
			}
			return err
		}
		for {
			for i := range got {
				d.add(b, &slot, &got[i])
			}
			b.next = got[len(got)-1].Next
			next = b.next.Seq
			room := d.room(b, next)
			if room <= 0 {
				break
			}
			if got, err = d.cursor.TryRead(entries[:0], room); err != nil {
				return err
			}
			if len(got) == 0 {
				break
			}
		}
		select {
		case d.batches <- b:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// span is a part of the queue: the records from number From, before Next.
type span struct {
	From uint64 `json:"from"`
	Next uint64 `json:"next"`
}

// room returns how many records b may take now that next is the number of the
// one that comes. What was one batch in a former life is made one again: it
// ends where it ended, however large a batch may be now, and others end where
// it begins.
func (d *Destination) room(b *batch, next uint64) int {
	for len(d.sent) > 0 && d.sent[0].From < b.from {
		d.sent = d.sent[1:]
	}
	if len(d.sent) > 0 && d.sent[0].From == b.from {
		return int(min(piece, max(next, d.sent[0].Next)-next))
	}
	if len(b.body) >= int(d.cfg.BatchBytes) || b.filtered > 100_000 {
		return 0
	}
	room := min(d.piece(), d.cfg.BatchEvents-len(b.ends))
	if len(d.sent) > 0 {
		room = min(room, int(min(piece, max(next, d.sent[0].From)-next)))
	}
	return room
}

// piece is how many records are read at once, and so how far a batch can be
// larger than batch_bytes.
func (d *Destination) piece() int {
	if d.cfg.Format != "" { // syslog
		return piece / 8
	}
	return piece
}

// add adds an event of the queue to b.
func (d *Destination) add(b *batch, slot *packed.Slot, entry *queue.Entry) {
	e, err := slot.Read(entry.Raw)
	if err != nil {
		b.refused = append(b.refused, letter{Time: time.Now(), ID: string(entry.ID), Reason: "it cannot be read: " + err.Error()})
		return
	}
	if !d.filter.wants(e) {
		b.filtered++
		return
	}
	if err := d.encode(b, e, entry.Raw, entry.At); err != nil {
		b.refused = append(b.refused, letter{Time: time.Now(), Reason: "it cannot be written: " + err.Error(), packed: append([]byte(nil), entry.Raw...)})
	}
}

// encode appends an event to b as the destination wants it.
func (d *Destination) encode(b *batch, e *pluginsdk.Event, raw []byte, before queue.Position) error {
	start := len(b.body)
	var err error
	if d.cfg.Type == TypeSyslogTCP || d.cfg.Type == TypeSyslogTLS {
		b.body, err = d.frame(b.body, e)
	} else {
		b.body, err = d.enc.Append(b.body, e)
	}
	if err != nil {
		b.body = b.body[:start]
		return err
	}
	b.ends = append(b.ends, len(b.body))
	b.ids = append(b.ids, e.ID)
	b.nexts = append(b.nexts, before)
	b.packed = append(b.packed, raw...)
	b.packedEnds = append(b.packedEnds, len(b.packed))
	return nil
}

// frame appends a message and, before it, its length and a space: octet
// counting, RFC 5425 section 4.3 and RFC 6587 section 3.4.1. The length is not
// known before, so room for it is left and what is too much closed.
func (d *Destination) frame(body []byte, e *pluginsdk.Event) ([]byte, error) {
	const room = 8
	start := len(body)
	body = append(body, "        "[:room]...)
	body, err := d.enc.Append(body, e)
	if err != nil {
		return body, err
	}
	var number [24]byte
	head := append(strconv.AppendInt(number[:0], int64(len(body)-start-room), 10), ' ')
	if len(head) > room {
		return body, fmt.Errorf("%d bytes are more than a message may have", len(body)-start)
	}
	copy(body[start:], head)
	n := copy(body[start+len(head):], body[start+room:])
	return body[:start+len(head)+n], nil
}

// readDead sends the dead letters again that somebody asked for. They are in
// a file of their own, which goes when all of them were delivered or refused
// once more.
func (d *Destination) readDead(ctx context.Context) error {
	path := againPath(d.dead.path)
	letters, err := readLetters(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	b := d.take()
	b.again = true
	emit := func(last bool) error {
		if last {
			b.done = func() error {
				if err := os.Remove(path); err != nil {
					return fmt.Errorf("dead letters: %w", err)
				}
				n, err := d.dead.recount()
				d.count.dead.Store(n)
				return err
			}
		}
		select {
		case d.batches <- b:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !last {
			b = d.take()
			b.again = true
		}
		return nil
	}
	var raw []byte
	for _, l := range letters {
		if l.Event == nil {
			continue
		}
		if len(b.ends) >= d.cfg.BatchEvents || len(b.body) >= int(d.cfg.BatchBytes) {
			if err := emit(false); err != nil {
				return err
			}
		}
		raw = packed.Append(raw[:0], l.Event)
		if err := d.encode(b, l.Event, raw, queue.Position{}); err != nil {
			b.refused = append(b.refused, letter{Time: time.Now(), Reason: "it cannot be written: " + err.Error(), packed: append([]byte(nil), raw...)})
		}
	}
	if err := emit(true); err != nil {
		return err
	}
	// The same file must not be read again before it is gone.
	for {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		select {
		case <-time.After(lookAgain / 10):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
