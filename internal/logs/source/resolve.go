package source

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// resolution finds out which file is which: it joins the files that a look
// found with those that are known.
type resolution struct {
	c       *Collector
	scan    *scan
	byInode map[inode][]*file
	byStem  map[string][]*file // last element of the path, without marks of rotation
	here    map[*file]*candidate
}

// shadow is a copy of a file that is read itself.
type shadow struct {
	size, mod int64
	of        *file
}

// resolve brings c.files up to date with a look, and puts what there is to
// read into the queue. Only one goroutine calls it.
func (c *Collector) resolve(s *scan) {
	r := &resolution{c: c, scan: s, byInode: map[inode][]*file{}, byStem: map[string][]*file{}, here: map[*file]*candidate{}}
	known := c.known()
	slices.SortFunc(known, func(a, b *file) int { return cmp.Compare(a.key, b.key) })
	for _, t := range known {
		t.mu.Lock()
		if !t.cur.Detached {
			id := inode{t.cur.Dev, t.cur.Ino}
			r.byInode[id] = append(r.byInode[id], t)
		}
		r.index(t)
		t.mu.Unlock()
	}
	var fresh []*candidate
	for _, cand := range s.candidates() {
		if t := r.match(cand); t != nil {
			r.here[t] = cand
			r.locate(t, cand)
		} else if cand.size > 0 {
			fresh = append(fresh, cand)
		}
	}
	// What is not named like a copy comes first: a copy is told by it.
	slices.SortStableFunc(fresh, func(a, b *candidate) int {
		return cmp.Or(compareBool(a.rotated, b.rotated), compareBool(isPackedName(a.path), isPackedName(b.path)), cmp.Compare(b.mod, a.mod))
	})
	for _, cand := range fresh {
		if err := r.identify(cand); errors.Is(err, errMoved) {
			c.lookAgain()
		} else if err != nil {
			s.spec = cand.spec
			s.problem(cand.path, err)
		}
	}
	for _, t := range c.known() {
		if r.here[t] == nil {
			r.missing(t)
		}
	}
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func isPackedName(name string) bool {
	return slices.ContainsFunc(compressions[:], func(ext string) bool { return strings.HasSuffix(name, ext) })
}

// index makes a file findable by what its copies are called. t.mu is held.
func (r *resolution) index(t *file) {
	stem, _ := Stem(path.Base(t.cur.Path))
	r.byStem[stem] = append(r.byStem[stem], t)
}

// match finds the file that has the inode of a candidate, if it still has the
// content.
func (r *resolution) match(cand *candidate) *file {
	var found *file
	furthest := int64(-1)
	for _, t := range r.byInode[inode{cand.dev, cand.ino}] {
		t.mu.Lock()
		if r.is(t, cand) {
			if t.cur.Offset > furthest {
				found, furthest = t, t.cur.Offset
			}
		} else if !t.cur.Detached {
			t.detach()
		}
		t.mu.Unlock()
	}
	return found
}

// is reports whether the candidate, which has the inode of t, has its content.
// t.mu is held.
func (r *resolution) is(t *file, cand *candidate) bool {
	if t.cur.Detached || t.cur.Born != 0 && cand.born != 0 && t.cur.Born != cand.born {
		return false
	}
	if t.cur.Packed == "" {
		if cand.size < t.cur.Offset {
			// It was looked at before the last of it was read, perhaps.
			st, err := r.c.tree.stat(cand.path)
			if err != nil || st.dev != cand.dev || st.ino != cand.ino {
				r.c.lookAgain() // it was renamed meanwhile, and may be what it was
				return true
			}
			cand.info = st
		}
		if cand.size < t.cur.Offset {
			return false
		}
		if t.head != nil || t.cur.Size == cand.size && t.cur.Mod == cand.mod {
			return true // what is read is compared again when it is read
		}
	} else if !t.cur.Done && t.spec != nil || t.cur.Size == cand.size && t.cur.Mod == cand.mod {
		return true
	}
	v, err := r.c.tree.view(cand)
	if err != nil {
		// It cannot be read now, which says nothing about what it is.
		return true
	}
	defer v.close()
	if v.packed != t.cur.Packed {
		return false
	}
	ok, err := v.continues(&t.cur)
	if ok && t.cur.Packed != "" {
		t.cur.Done = false // more was added
	}
	return ok || err != nil
}

// locate notes where a file is, and queues it when there is something to read.
func (r *resolution) locate(t *file, cand *candidate) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spec, t.rotated = cand.spec, cand.rotated
	t.origin.Source, t.origin.Host = r.c.sourceName(cand), r.c.opts.Host
	t.origin.Format = t.cur.Format
	moved := t.cur.Path != cand.path || t.cur.Dev != cand.dev || t.cur.Ino != cand.ino
	t.cur.Path, t.cur.Dev, t.cur.Ino, t.cur.Born = cand.path, cand.dev, cand.ino, cand.born
	if t.cur.Gone != 0 {
		t.cur.Gone, t.cur.Lost, moved = 0, false, true
	}
	t.place(t.spec.Name, t.origin.Source, cand.describe(), t.cur.Packed)
	if moved && t.cur.Offset > 0 {
		t.keep()
	}
	changed := cand.mod != t.seen.mod
	unchanged := t.failed.size == cand.size && t.failed.mod == cand.mod && t.failed.ctime == cand.ctime
	t.note(cand.info)
	t.goal = cand.size
	if t.f != nil && t.un == nil && t.due.IsZero() && cand.size == t.cur.Offset && t.quiet() > heldIdle {
		t.close() // so that it is in nobody's way
	}
	if r.c.following {
		t.goal = 1<<63 - 1
	}
	switch {
	case unchanged && t.failed.size > 0:
	case t.cur.Packed != "" && !t.cur.Done, t.cur.Packed == "" && (cand.size != t.cur.Offset || changed && t.head != nil):
		r.c.queue.put(t)
	}
}

// identify finds out what a file is that has no known inode, or another
// content than was known of it.
func (r *resolution) identify(cand *candidate) error {
	c := r.c
	id := inode{cand.dev, cand.ino}
	if s, ok := c.shadows[id]; ok && s.size == cand.size && s.mod == cand.mod && r.here[s.of] != nil {
		return nil
	}
	delete(c.shadows, id)
	v, err := c.tree.view(cand)
	if err != nil {
		return err
	}
	defer func() { v.close() }()
	if v.spec.Kind == Files && !cand.named && isBinary(v.head) {
		r.scan.spec = cand.spec
		r.scan.skipped(cand.path, "it is no text (name it to have it read)")
		return nil
	}
	if len(v.head) == 0 {
		return unpackable(v)
	}
	stem, _ := Stem(path.Base(cand.path))
	related := r.byStem[stem]
	orphan, writing := r.orphan(v, related)
	if orphan != nil {
		r.adopt(orphan, v)
		return nil
	}
	if !writing && (v.rotated || v.packed != "") {
		n, ok, unfinished := r.within(v, related)
		if ok {
			r.copied(v, n)
			return nil
		}
		writing = unfinished
	}
	start := int64(0)
	if v.rotated || v.packed != "" {
		_, start = r.original(v, related)
		if start < 0 {
			return nil
		}
	}
	if (writing || v.err != nil && len(v.head) < printBytes) && !v.old(c) {
		c.lookLater()
		r.scan.spec = cand.spec
		r.scan.skipped(cand.path, "it is being written (it will be read when it is finished)")
		return nil
	}
	r.begin(v, start)
	return nil
}

func (v *view) old(c *Collector) bool {
	return time.Duration(c.now().UnixNano()-v.mod) >= copyStable
}

// unpackable is why a file has no content.
func unpackable(v *view) error {
	if v.err == nil || errors.Is(v.err, io.ErrUnexpectedEOF) {
		return nil
	}
	return v.err
}

// displaced reports whether a file has no place: none was found by this look, or
// reading found meanwhile that something else is there now. t.mu is held.
func (r *resolution) displaced(t *file) bool { return r.here[t] == nil || t.cur.Detached }

// orphan finds the file without a place that v is the continuation of.
func (r *resolution) orphan(v *view, related []*file) (best *file, writing bool) {
	for _, t := range related {
		t.mu.Lock()
		if r.displaced(t) && t.f == nil && t.cur.Offset > 0 && t.kind() == v.spec.Kind &&
			// A few bytes that are the same do not make a new file an old one.
			(v.rotated || v.packed != "" || t.cur.Offset >= printBytes && !t.cur.Detached || t.cur.Ino == v.ino && t.cur.Dev != v.dev) {
			ok, err := v.continues(&t.cur)
			writing = writing || errors.Is(err, io.ErrUnexpectedEOF)
			if ok && (best == nil || t.cur.Offset > best.cur.Offset) {
				best = t
			}
		}
		t.mu.Unlock()
	}
	return best, writing
}

// within finds out whether v is a copy of a part of a file without a place, all
// of which was read.
func (r *resolution) within(v *view, related []*file) (n int64, ok, writing bool) {
	for _, t := range related {
		t.mu.Lock()
		if r.displaced(t) && t.f == nil && t.cur.Offset > 0 && t.kind() == v.spec.Kind {
			size, is, err := v.endsWithin(&t.cur, t.head)
			writing = writing || errors.Is(err, io.ErrUnexpectedEOF)
			if is {
				n, ok = size, true
			}
		}
		t.mu.Unlock()
	}
	return n, ok, writing
}

// kind is that of the source by which the file was read. t.mu is held.
func (t *file) kind() Kind {
	if t.cur.Format == utmpFormat {
		return Utmp
	}
	return Files
}

// adopt gives a file its place again: in another file with the same content.
func (r *resolution) adopt(t *file, v *view) {
	t.mu.Lock()
	t.cur.Detached, t.cur.Packed, t.cur.Done = false, v.packed, false
	if v.packed == "" {
		t.head, t.tail = nil, nil
	}
	t.hold(v.f)
	v.f = nil
	t.cur.Path = "" // so that its new place is kept
	t.mu.Unlock()
	r.here[t] = v.candidate
	r.locate(t, v.candidate)
}

// original finds the file that v is a copy of, or a copy of its beginning. n
// is -1 when nothing of v has to be read, or nothing can be said now; otherwise
// v has more than the original, behind the first n bytes.
func (r *resolution) original(v *view, related []*file) (of *file, n int64) {
	for _, t := range related {
		place := r.here[t]
		t.mu.Lock()
		open := t.f != nil
		alike := (place != nil || open) && !t.cur.Detached &&
			(t.cur.Head.of(v.head) || len(t.head) >= len(v.head) && bytes.HasPrefix(t.head, v.head))
		if !alike {
			t.mu.Unlock()
			continue
		}
		same := v.packed != "" && t.cur.Packed == "" && strip(v.path) == t.cur.Path
		cur := t.cur
		w := t.look(place)
		t.mu.Unlock()
		if w == nil {
			r.c.lookAgain() // it is elsewhere meanwhile
			return t, -1
		}
		n, equal, whole, err := int64(0), true, true, error(nil)
		if !same { // gzip removes the file when it is done
			n, equal, whole, err = v.sharedWith(w)
		}
		still := w.still(&cur)
		w.close()
		switch {
		case err != nil || !still:
			// The original is another file now, or something is being written.
			r.c.lookLater()
			return t, -1
		case !equal:
			continue
		case whole:
			r.c.shadows[inode{v.dev, v.ino}] = shadow{v.size, v.mod, t}
			if !same && v.old(r.c) && cur.Offset >= n {
				r.copied(v, n)
			}
			return t, -1
		default:
			return t, n
		}
	}
	return nil, 0
}

// look returns a view of a file that is known; nil when it cannot be opened.
// t.mu is held.
func (t *file) look(place *candidate) *view {
	if t.f != nil {
		fd, err := unix.FcntlInt(t.f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil
		}
		return &view{candidate: &candidate{spec: t.spec}, f: newFile(fd, t.cur.Path), packed: t.cur.Packed}
	}
	v, err := t.c.tree.view(place)
	if err != nil {
		return nil
	}
	return v
}

// copied notes that everything in a file has been read from another one, so
// that this is known when the other one is no longer there.
func (r *resolution) copied(v *view, n int64) {
	t := r.c.newFile(v)
	t.cur.Copy, t.cur.Done, t.cur.Since = true, v.packed != "", 0
	t.cur.Size, t.cur.Mod = v.size, v.mod
	if r.c.skipTo(t, v, n) != nil {
		return
	}
	t.keep()
	r.take(t, v)
}

// begin takes up a file that is new, behind the first bytes that are known.
func (r *resolution) begin(v *view, start int64) {
	t := r.c.newFile(v)
	since := r.c.opts.Since
	if !since.IsZero() && v.mod < since.UnixNano() {
		// Nothing in it is as new as its last change.
		t.cur.Done = v.packed != ""
		if v.packed == "" {
			start = v.size
		}
		t.cur.Since = 0
	}
	if start > 0 && r.c.skipTo(t, v, start) != nil {
		return
	}
	if start > 0 || t.cur.Done {
		t.keep()
	}
	if !t.cur.Done && t.cur.Offset < v.size && r.c.open.Load() < maxOpen {
		t.hold(v.f)
		v.f = nil
	}
	r.take(t, v)
}

func (r *resolution) take(t *file, v *view) {
	r.c.remember(t)
	r.here[t] = v.candidate
	r.index(t)
	r.locate(t, v.candidate)
}

// skipTo sets the position in a file that was not read by this program.
func (c *Collector) skipTo(t *file, v *view, n int64) error {
	t.cur.Offset = n
	err := v.content(func(in io.Reader) error {
		if u, ok := in.(*unpacker); ok {
			tail, err := u.skip(n)
			t.tail = tail
			return err
		}
		t.tail = make([]byte, min(n, printBytes))
		_, err := readFull(v.f, t.tail, n-int64(len(t.tail)))
		return err
	})
	t.cur.Tail = fingerprintOf(t.tail)
	return err
}
