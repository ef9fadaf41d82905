package filehash

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// scratchBytes holds the names of all extended attributes (XATTR_LIST_MAX) and
// any path (PATH_MAX).
const scratchBytes = 64 << 10

// worker is one goroutine of a walk, with the buffers that it reuses.
type worker struct {
	walk           *walk
	n              int
	prior          Prior
	buf            []byte // segmentBytes
	dents          []byte
	scratch        []byte // link targets and names of attributes
	noatimeRefused bool
}

func newWorker(w *walk, n int) *worker {
	wk := &worker{walk: w, n: n}
	if w.opts.NewPrior != nil {
		wk.prior = w.opts.NewPrior()
	}
	return wk
}

func (w *worker) run() {
	w.dents = make([]byte, 32<<10)
	w.scratch = make([]byte, scratchBytes)
	w.buf = make([]byte, segmentBytes)
	for {
		big, s := w.walk.take(w.n)
		switch {
		case big != nil:
			big.help(w)
		case s != nil:
			w.do(s)
			w.walk.finish(s)
		default:
			return
		}
	}
}

// do works on a slot: it lists a directory, or visits some entries of one.
func (w *worker) do(s *slot) {
	d := s.d
	switch {
	case s.subdirs:
		c, err := d.openChild(w, int(d.subs[s.lo]))
		d.unref()
		if c == nil {
			return
		}
		if err != nil {
			s.batch = w.newBatch(c)
			s.batch.Err = err
			return
		}
		w.enter(s, c)
	case s.lo < 0: // the root
		w.enter(s, d)
	default:
		s.batch = w.newBatch(d)
		w.visit(s.batch, d, s.lo, s.hi)
		d.unref()
	}
}

// enter lists a directory that was opened, and visits its first entries.
func (w *worker) enter(s *slot, d *dir) {
	d.refs.Store(1)
	err := d.list(w)
	w.walk.expand(s, d)
	s.batch = w.newBatch(d)
	s.batch.Err = err
	w.visit(s.batch, d, 0, min(chunkEntries, len(d.ents)))
	d.unref()
}

func (w *worker) newBatch(d *dir) *Batch {
	b := w.walk.pool.Get().(*Batch)
	b.Dir = d.path
	return b
}

// visit looks at the entries [lo, hi) of d and appends them to b.
func (w *worker) visit(b *Batch, d *dir, lo, hi int) {
	w.noatimeRefused = false
	for i := lo; i < hi; i++ {
		if w.walk.ctx.Err() != nil {
			return
		}
		name := d.name(i)
		want, tag := d.sel.Select(name)
		if want&WantEntry == 0 || want&OnlyRegular != 0 && d.ents[i].kind != unix.DT_REG {
			continue
		}
		b.Entries = append(b.Entries, Entry{Name: name, Tag: tag})
		e := &b.Entries[len(b.Entries)-1]
		if !w.entry(d, i, e, want) {
			b.Entries = b.Entries[:len(b.Entries)-1] // it vanished
			continue
		}
		w.walk.ctr.Files.Add(1)
	}
}

// entry finds out about one name. It returns false when there is none any more.
func (w *worker) entry(d *dir, i int, e *Entry, want Want) bool {
	regular := d.ents[i].kind == unix.DT_REG
	if !regular || want&WantContent == 0 || want&WantPrior != 0 {
		if errno := lstatAt(d.fd, d.namez(i), &e.Info); errno == unix.ENOENT {
			return false
		} else if errno != 0 {
			e.Err = errno
			e.Content = Unreadable
			return true
		}
		regular = e.Info.Type() == unix.S_IFREG
	}
	if regular && want&WantContent != 0 {
		return w.regular(d, i, e, want)
	}
	switch e.Info.Type() {
	case unix.S_IFDIR:
		e.Mountpoint = e.Info.Dev != d.dev && !d.few && !w.walk.opts.CrossDevice
	case unix.S_IFLNK:
		target, errno := w.readlinkAt(d.fd, d.namez(i))
		if errno == unix.ENOENT {
			return false
		} else if errno != 0 && errno != unix.EINVAL { // EINVAL: not a link any more
			e.Err = errno
		}
		e.Target = append([]byte(nil), target...)
	}
	if want&WantXattrs == 0 {
		return true
	}
	if want&WantPrior != 0 && w.prior != nil && w.prior.Lookup(d.path, e.Name, &e.Info).Known {
		e.Content = Known
		return true
	}
	if err := w.xattrsAt(d, i, e); err != nil && e.Err == nil {
		e.Err = err
	}
	return true
}

// A file that another program holds a lease on (fcntl(2), F_SETLEASE; file
// servers do) refuses the first attempt to open it and asks that program to
// give it up.
var leaseRetries = 20 // more in tests

const leaseWait = 50 * time.Millisecond

// regular opens and reads a regular file, unless Prior vouches for it.
func (w *worker) regular(d *dir, i int, e *Entry, want Want) bool {
	var ans PriorAnswer
	asked := want&WantPrior != 0 && w.prior != nil
	if asked {
		ans = w.prior.Lookup(d.path, e.Name, &e.Info)
		if ans.Known {
			e.Sum, e.Content = ans.Sum, Known
			w.walk.ctr.Known.Add(1)
			return true
		}
	}
	// O_NONBLOCK and O_NOCTTY: should a FIFO or a terminal have taken the
	// file's place since it was listed, opening it has no effect.
	fd, errno := w.openAt(d.fd, d.namez(i), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	for n := 0; errno == unix.EAGAIN && n < leaseRetries && sleep(w.walk.ctx, leaseWait) == nil; n++ {
		fd, errno = w.openAt(d.fd, d.namez(i), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	}
	if errno == unix.ENOENT {
		return false
	}
	if errno != 0 {
		stat := lstatAt(d.fd, d.namez(i), &e.Info)
		if stat == unix.ENOENT {
			return false
		}
		if stat == 0 && e.Info.Type() != unix.S_IFREG {
			return w.irregular(d, i, e, want)
		}
		e.Content, e.Err = Unreadable, errno
		return true
	}
	defer unix.Close(fd)
	if errno := fstat(fd, &e.Info); errno != 0 {
		e.Content, e.Err = Unreadable, errno
		return true
	}
	if e.Info.Type() != unix.S_IFREG {
		return w.irregular(d, i, e, want)
	}
	err := w.content(fd, e, want, ans.Prefix)
	switch {
	case err == nil:
		e.Content = Hashed
		w.walk.ctr.Hashed.Add(1)
	case errors.Is(err, errUnstable):
		e.Content = Unstable
	default:
		e.Content, e.Err = Unreadable, err
	}
	if want&WantXattrs != 0 {
		if err := w.xattrs(fd, e); err != nil && e.Err == nil {
			e.Err = err
		}
	}
	return true
}

// irregular tells what has taken the place of a regular file: a link or a
// device. When that is a file once more, nothing is known of its content, and
// it must not pass for one whose content was not wanted.
func (w *worker) irregular(d *dir, i int, e *Entry, want Want) bool {
	there := w.entry(d, i, e, want&^(WantContent|WantPrior))
	if there && e.Info.Type() == unix.S_IFREG && e.Content == NoContent {
		e.Content = Unstable
	}
	return there
}
