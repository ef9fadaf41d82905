package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/mobileops/mobileops/internal/state"
)

// recover brings the store into order after a process that died, and opens the
// newest generation of the write-ahead log for appending.
func (w *Writer) recover(ctx context.Context) error {
	s := w.store
	// What somebody left half done is settled as every change begins.
	err := s.change(ctx, "logs collect", func(c *change) error {
		w.id = c.head.store
		return s.clean()
	})
	if err != nil {
		return err
	}
	var consumed uint64
	err = s.opts.State.View(ctx, func(tx *state.Tx) error {
		x, err := load(tx)
		if err != nil {
			return err
		}
		consumed = x.consumed
		w.cursors = readCursors(tx)
		return nil
	})
	if err != nil {
		return err
	}
	// Only the holder of the lock "logs" consumes and begins generations, so
	// this cannot change meanwhile.
	newest, err := w.newest(consumed)
	if err != nil {
		return err
	}
	for n := consumed + 1; n <= newest; n++ {
		if err := w.replay(ctx, n, n == newest); err != nil {
			return err
		}
	}
	if w.open.generation > consumed+1 {
		w.start()
	}
	return nil
}

func readCursors(tx *state.Tx) map[string][]byte {
	out := map[string][]byte{}
	if b := tx.Bucket([]byte(cursorBucket)); b != nil {
		_ = b.ForEach(func(k, v []byte) error { // fn returns no error
			setCursor(out, string(k), append([]byte{}, v...))
			return nil
		})
	}
	return out
}

// newest returns the generation to append to. When none is there, which was
// the case never before, one is made; those that are missing are found missing
// when segments are to be made of them.
func (w *Writer) newest(consumed uint64) (uint64, error) {
	list, err := walFiles(w.store.walDir())
	if err != nil {
		return 0, err
	}
	if n := len(list); n > 0 && list[n-1] > consumed {
		return list[n-1], nil
	}
	g, err := w.store.createGeneration(w.id, consumed+2)
	if err != nil {
		return 0, err
	}
	g.file.Close()
	return g.generation, nil
}

// replay reads a generation for what it says about cursors, and opens it for
// appending when it is the newest one.
func (w *Writer) replay(ctx context.Context, n uint64, newest bool) error {
	s := w.store
	r, err := s.readGeneration(w.id, n)
	if errors.Is(err, fs.ErrNotExist) {
		w.recovery.Damage = append(w.recovery.Damage, missingGeneration(n))
		return nil
	}
	if err != nil {
		return err
	}
	defer r.close()
	known := origins{}
	var raw, since int64
	scan, err := r.frames(ctx, func(when int64, batches []byte) error {
		if since == 0 {
			since = when
		}
		return decodeBatches(batches, known, func(f *framed) error {
			setCursor(w.cursors, string(f.key), f.cursor)
			raw += cost(f.records, len(f.body), string(f.key), f.cursor, &f.origin)
			return nil
		})
	})
	if errors.Is(err, errLocked) && s.writesOnly() {
		return w.passOver(r, newest)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", walPath(s, n), err)
	}
	w.recovery.Damage = append(w.recovery.Damage, scan.Damage...)
	if !newest {
		w.backlog += raw
		return nil
	}
	return w.resume(r, scan, raw, since)
}

// passOver leaves a generation alone that nobody here can read: it is kept for
// those who can, and what is in it is read from its sources again, because its
// cursors do not count.
func (w *Writer) passOver(r *walReader, newest bool) error {
	w.recovery.Locked = append(w.recovery.Locked, Damage{File: missingGeneration(r.place.generation).File, Length: r.size})
	if !newest {
		return nil
	}
	g, err := w.store.createGeneration(w.id, r.place.generation+1)
	if err != nil {
		return err
	}
	w.open, w.raw, w.since = g, 0, 0
	return nil
}

// resume opens the newest generation for appending, or begins another one when
// nothing can be appended to this.
func (w *Writer) resume(r *walReader, scan walScan, raw, since int64) error {
	path := walPath(w.store, r.place.generation)
	if scan.Torn > 0 && !r.headless {
		w.recovery.Cut = scan.Torn
		if err := truncate(path, scan.End); err != nil {
			return err
		}
	}
	f, err := openFile(path, os.O_RDWR)
	if err != nil {
		return err
	}
	w.open = &generation{place: r.place, file: f, end: scan.End}
	w.raw, w.since = raw, since
	if len(scan.Damage) > 0 || r.headless || r.encrypted() != (len(w.store.opts.Recipients) > 0) || r.unlock() != nil {
		w.since = max(since, 1) // also when there is nothing in it
		if err := w.rollOver(); err != nil {
			f.Close()
			return err
		}
		return nil
	}
	w.open.aead = r.aead
	return nil
}

func missingGeneration(n uint64) Damage { return Damage{File: "wal/" + walName(n)} }
