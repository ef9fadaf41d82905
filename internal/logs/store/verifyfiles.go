package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/mobileops/mobileops/internal/seal"
)

// tail looks at what stands in the Merkle log behind the head: one change at
// most, which is under way, or which a process that died did not end.
func (v *verification) tail(ctx context.Context) error {
	x := v.index
	st, err := os.Lstat(v.store.merklePath())
	if err != nil || st.Size() <= x.bytes {
		return nil // said already
	}
	ops, _, err := v.store.tail(ctx, x)
	if isFormat(err) || errors.Is(err, ErrTampered) {
		v.problem(Altered, merkleName, 0, "behind its end: %v", err)
		return nil
	}
	if err != nil {
		return err
	}
	for _, op := range ops {
		for _, r := range op.records {
			if r.Segment != nil {
				v.unfinished[r.Segment.ID] = true
			}
		}
	}
	if _, changing := v.store.opts.State.Holder("logs-store"); len(ops) > 0 && !changing {
		v.note("%d bytes behind the end of the Merkle log are a change that did not come to its end: collecting, or any other change, ends it", st.Size()-x.bytes)
	}
	if len(ops) > 1 {
		// While this goes on others can make changes; those state.db knows.
		now, err := v.store.index(ctx)
		if err == nil && now != nil && now.bytes == x.bytes {
			v.problem(Altered, "state.db", 0, "it is older than the log: %d changes are not in it", len(ops))
		}
	}
	return nil
}

// segmentID is the id in a segment's file name.
func segmentID(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	id, err := strconv.ParseUint(digits, 10, 64)
	return id, ok && err == nil && segmentName(id) == name
}

// files looks for files that belong to no segment.
func (v *verification) files() {
	doomed := map[uint64]bool{}
	for _, d := range v.index.doomed {
		doomed[d.id] = true
	}
	slices.Sort(v.names)
	for _, name := range v.names {
		path := filepath.Join("segments", name)
		if strings.HasPrefix(name, ".") && strings.Contains(name, ".tmp-") {
			continue // being written, or of a process that died: no segment
		}
		id, ok := segmentID(name)
		if ok {
			if _, known := v.index.find(id); known || doomed[id] || v.unfinished[id] {
				continue
			}
		}
		if _, err := os.Lstat(filepath.Join(v.store.segmentDir(), name)); errors.Is(err, fs.ErrNotExist) {
			continue // removed while this goes on
		}
		v.problem(Inserted, path, id, "no segment of that name is in the catalogue")
	}
}

// segments hashes every segment.
func (v *verification) segments(ctx context.Context) error {
	x := v.index
	var total, done int64
	for i := range x.entries {
		total += x.entries[i].Bytes
		v.Records += x.entries[i].Records
	}
	v.Segments, v.Bytes = int64(len(x.entries)), total
	var mu sync.Mutex
	var wg sync.WaitGroup
	room := make(chan struct{}, runtime.GOMAXPROCS(0))
	var failed error
	for i := range x.entries {
		if ctx.Err() != nil {
			break
		}
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			e := &x.entries[i]
			what, detail, err := v.segment(ctx, e)
			mu.Lock()
			defer mu.Unlock()
			if what != "" {
				v.problem(what, "segments/"+segmentName(e.ID), e.ID, "%s", detail)
			}
			failed = cmp.Or(failed, err)
			if done += e.Bytes; v.opts.Progress != nil {
				v.opts.Progress(done, total)
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	slices.SortStableFunc(v.Problems, func(a, b Problem) int { return cmp.Compare(a.Segment, b.Segment) })
	return failed
}

// segment says what is wrong with a segment's file, "" for nothing.
func (v *verification) segment(ctx context.Context, e *entry) (what, detail string, err error) {
	f, err := openFile(v.store.segmentPath(e.ID), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		if errors.Is(v.store.why(ctx, e.ID), ErrGone) {
			return "", "", nil
		}
		return Missing, "its file is gone: " + describe(e), nil
	}
	if errors.Is(err, ErrTampered) {
		return Altered, "it is not a regular file: " + describe(e), nil
	}
	if err != nil {
		return Unreadable, err.Error(), nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Unreadable, err.Error(), nil
	}
	if st.Size() != e.Bytes {
		return Altered, fmt.Sprintf("it has %d bytes, and had %d: %s", st.Size(), e.Bytes, describe(e)), nil
	}
	sum, err := hashSegment(ctx, f, st.Size(), e.Sealed)
	switch {
	case ctx.Err() != nil:
		return "", "", ctx.Err()
	case errors.Is(err, seal.ErrCorrupt), errors.Is(err, seal.ErrNotSealed):
		return Altered, err.Error(), nil
	case err != nil:
		return Unreadable, err.Error(), nil
	case sum != e.Hash:
		return Altered, "its content is not what was written: " + describe(e), nil
	case e.Sealed:
		return v.header(f, e)
	}
	return "", "", nil
}

// header looks at what a rewrap may change of an encrypted segment, and the
// hash therefore leaves out: without it nobody can read the rest. With a key it
// is authenticated. Without one it must be whole, and both copies the same.
func (v *verification) header(f *os.File, e *entry) (what, detail string, err error) {
	_, err = seal.Open(f, e.Bytes, v.index.store.sealContext(e.ID), v.store.opts.Identities)
	switch {
	case errors.Is(err, seal.ErrCorrupt), errors.Is(err, seal.ErrNotSealed):
		return Altered, fmt.Sprintf("nobody can decrypt it any more: %v: %s", err, describe(e)), nil
	case err != nil && !errors.Is(err, seal.ErrNoKey):
		return Unreadable, err.Error(), nil
	}
	return "", "", nil
}

// describe says what an operator loses with a segment.
func describe(e *entry) string {
	r := func(t int64) string { return stamp(t).Format("2006-01-02 15:04:05") }
	return fmt.Sprintf("%d records of %s from %s to %s UTC", e.Records, e.Origin.Source, r(e.MinTime), r(e.MaxTime))
}

// wal checks the checksums of the write-ahead log.
func (v *verification) wal(ctx context.Context) error {
	x, err := v.store.index(ctx)
	if err != nil {
		return err
	}
	list, err := walFiles(v.store.walDir())
	if err != nil {
		return err
	}
	next := x.consumed + 1
	for _, n := range list {
		if n <= x.consumed {
			continue // about to be removed
		}
		for ; next < n; next++ {
			if v.stillOpen(ctx, next) {
				v.problem(Missing, missingGeneration(next).File, 0, "records that are in no segment yet are gone")
			}
		}
		next = n + 1
		if err := v.generation(ctx, x.store, n, n == list[len(list)-1]); err != nil {
			return err
		}
	}
	if next == x.consumed+1 && v.stillOpen(ctx, next) {
		v.problem(Missing, missingGeneration(next).File, 0, "records that are in no segment yet are gone")
	}
	return nil
}

// stillOpen tells whether a generation is in no segment even now.
func (v *verification) stillOpen(ctx context.Context, n uint64) bool {
	x, err := v.store.index(ctx)
	return err == nil && x != nil && x.consumed < n
}

func (v *verification) generation(ctx context.Context, id storeID, n uint64, newest bool) error {
	name := missingGeneration(n).File
	r, err := openWAL(walPath(v.store, n), place{id, n}, nil)
	if errors.Is(err, fs.ErrNotExist) && !v.stillOpen(ctx, n) {
		return nil
	}
	if err != nil {
		what := Unreadable
		if errors.Is(err, ErrTampered) {
			what = Altered
		}
		v.problem(what, name, 0, "%v", err)
		return nil
	}
	defer r.close()
	scan, err := r.frames(ctx, func(int64, []byte) error { return nil })
	if err != nil {
		return err
	}
	v.Frames += int64(scan.Frames)
	for _, d := range scan.Damage {
		v.problem(Altered, name, 0, "%d bytes from byte %d on are damaged", d.Length, d.Offset)
	}
	if scan.Torn > 0 && !r.headless {
		if _, writing := v.store.opts.State.Holder("logs"); newest && writing {
			return nil // a frame is being written
		}
		if newest {
			v.note("%s ends with %d bytes of a frame that was not written to its end", name, scan.Torn)
		} else {
			v.problem(Altered, name, 0, "its end, from byte %d on, is damaged", scan.End)
		}
	}
	return nil
}
