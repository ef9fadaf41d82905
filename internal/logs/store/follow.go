package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/event"
)

// followEvery is how often Follow looks for what was appended.
const followEvery = 100 * time.Millisecond

// Follow calls fn with the records that are appended after the snapshot was
// taken, until the context ends. Raw is valid until fn returns. It goes from one
// generation of the write-ahead log to the next; the error is ErrGone when one
// was consumed before it could be read.
func (p *Snapshot) Follow(ctx context.Context, fn func(*event.Origin, *event.Record) error) error {
	if len(p.wal) == 0 {
		return failure.Hint(failure.New(failure.NotReady, "nothing was collected yet"), "collect the logs of this host: mobileops logs collect --follow")
	}
	if p.reading != nil {
		p.reading.Close() // segments need not stay for this
		p.reading = nil
	}
	r := p.wal[len(p.wal)-1]
	scan, err := r.frames(ctx, func(int64, []byte) error { return nil })
	if err != nil {
		return err
	}
	known := origins{}
	more := func() (bool, error) {
		st, err := r.f.(interface{ Stat() (os.FileInfo, error) }).Stat()
		if err != nil || st.Size() <= scan.End {
			return false, err
		}
		next := *r
		next.start, next.size, next.headless = scan.End, st.Size(), false
		from := scan.End
		scan, err = next.frames(ctx, func(_ int64, batches []byte) error {
			return decodeBatches(batches, known, func(f *framed) error {
				return f.each(func(rec *event.Record) error { return fn(&f.origin, rec) })
			})
		})
		return scan.End > from, err
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		found, err := more()
		if err != nil {
			return err
		}
		if found {
			continue
		}
		next, err := p.store.readGeneration(r.place.store, r.place.generation+1)
		switch {
		case err == nil:
			// What was appended last to the old one.
			if _, err := more(); err != nil {
				next.close()
				return err
			}
			p.wal = append(p.wal, next)
			r, scan = next, walScan{End: next.start}
			continue
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		if newest, err := walFiles(p.store.walDir()); err == nil && len(newest) > 0 && newest[0] > r.place.generation+1 {
			return ErrGone
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
