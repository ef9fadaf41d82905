package source

import (
	"fmt"
	"time"
)

// missing deals with a file that is not to be found.
func (r *resolution) missing(t *file) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := r.c
	if t.f != nil && !t.cur.Detached {
		// It was deleted or moved away, and can be read nevertheless.
		if st, err := statFile(t.f); err == nil && (t.cur.Packed != "" || st.size >= t.cur.Offset) {
			t.note(st)
			if st.size > t.cur.Offset && t.cur.Packed == "" || t.cur.Packed != "" && !t.cur.Done {
				c.queue.put(t)
				return
			}
			if t.quiet() < heldDeleted {
				return
			}
		}
		t.close()
	}
	now := c.now().Unix()
	switch {
	case t.cur.Offset == 0 && t.spec == nil:
	case t.cur.Gone == 0:
		t.cur.Gone = now
		t.due = time.Time{}
		t.leave()
		if t.cur.Offset > 0 || t.cur.Done {
			t.keep()
		} else {
			c.forget(t, false)
		}
	case now-t.cur.Gone > int64(forgetAfter/time.Second):
		c.forget(t, true)
	case !t.cur.Lost && now-t.cur.Gone >= int64(lostAfter/time.Second):
		r.lost(t)
	}
}

// How long a file is held open in which nothing changes: one that was deleted,
// and every other one.
const (
	heldDeleted = 30 * time.Second
	heldIdle    = 10 * time.Minute
)

// lost reports the end of a file that went away before it was read. t.mu is
// held.
func (r *resolution) lost(t *file) {
	left := t.cur.Size - t.cur.Offset
	if t.cur.Packed != "" && !t.cur.Done && left <= 0 {
		left = 1
	}
	if left <= 0 || t.cur.Packed != "" && t.cur.Done {
		return
	}
	t.cur.Lost = true
	t.keep()
	what := fmt.Sprintf("the file went away, or was emptied, before its last %d bytes were read", left)
	if t.cur.Packed != "" {
		what = "the compressed file went away before it was read to its end"
	}
	r.c.gap(&t.meter, Gap{Source: t.cur.Path, Time: r.c.now(), Bytes: left, Reason: what})
}
