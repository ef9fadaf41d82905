package finding

import (
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// Outline is how a record stands, without what it says. Counting thousands of
// findings takes no more than that.
type Outline struct {
	Source, Rule string
	Severity     Severity
	State        State
	Scopes       []string // valid until the next outline is made
}

// Outlines calls fn with the outline of every record as it is at now, in no
// order that means anything. An error of fn ends it and is returned.
func Outlines(tx *state.Tx, now time.Time, fn func(*Outline) error) error {
	b, err := openBuckets(tx)
	if err != nil || b.records == nil {
		return err
	}
	d := outliner{known: map[string]string{}}
	return b.records.ForEach(func(k, v []byte) error {
		if len(k) != len(Fingerprint{}) || v == nil {
			return fmt.Errorf("finding: %w: %x is no fingerprint", state.ErrCorrupt, k)
		}
		d.decoder = decoder{b: v}
		d.read(now)
		if d.err != nil {
			return failure.Hint(failure.Errorf(failure.Untrustworthy, "finding %x: %w", k, d.err), "look: mobileops state check")
		}
		return fn(&d.outline)
	})
}

// outliner reads of stored records what an outline has, and passes over the
// rest.
type outliner struct {
	decoder
	outline Outline
	known   map[string]string // the few texts that are in every record
}

func (d *outliner) read(now time.Time) {
	o := &d.outline
	if v := d.byte(); d.err == nil && v != codecVersion {
		d.fail("format %d is not known", v)
	}
	o.Source, o.Rule = d.familiar(), d.familiar()
	o.Severity = d.severity()
	d.pass(2) // title, subject
	d.pass(2 * d.count(2))
	d.pass(1) // remediation
	d.pass(d.count(1))
	d.pass(d.count(1))
	for range 3 {
		d.time()
	}
	d.uvarint()
	o.State = d.state()
	d.pass(2) // owner, reason
	if until := d.time(); o.State == Waived && !now.Before(until) {
		o.State = Open
	}
	o.Scopes = o.Scopes[:0]
	for range d.count(1) {
		o.Scopes = append(o.Scopes, d.familiar())
	}
}

// pass reads strings and drops them.
func (d *outliner) pass(n int) {
	for range n {
		d.at += d.count(1)
	}
}

// familiar reads a string that many records have.
func (d *outliner) familiar() string {
	n := d.count(1)
	d.at += n
	text, ok := d.known[string(d.b[d.at-n:d.at])]
	if !ok {
		text = string(d.b[d.at-n : d.at])
		d.known[text] = text
	}
	return text
}
