package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/segment"
	"github.com/mobileops/mobileops/internal/seal"
	"github.com/zeebo/blake3"
)

// freshSegment is a segment that was written and synced under a temporary name.
type freshSegment struct {
	id   uint64
	file *durable.File
	rec  SegmentRecord
}

// sealContext binds a sealed segment to its store and id, so that none can
// take the place of another.
func (id storeID) sealContext(segment uint64) string {
	return fmt.Sprintf("mobileops logs segment %d of store %s", segment, id)
}

// segmentWriter writes one segment.
type segmentWriter struct {
	ctx    context.Context
	fresh  *freshSegment
	sealer *seal.Writer // nil: not sealed
	hash   *blake3.Hasher
	w      *segment.Writer
	n      int
}

// createSegment begins the segment id. It must be ended by finish or abort.
func (s *Store) createSegment(ctx context.Context, store storeID, id uint64, origin event.Origin) (*segmentWriter, error) {
	file, err := durable.Create(s.segmentPath(id), 0o600)
	if err != nil {
		return nil, access(err)
	}
	w := &segmentWriter{ctx: ctx, fresh: &freshSegment{id: id, file: file}, hash: blake3.New()}
	w.fresh.rec = SegmentRecord{ID: id, Origin: origin, Sealed: len(s.opts.Recipients) > 0}
	var out io.Writer = file
	if w.fresh.rec.Sealed {
		if w.sealer, err = seal.NewWriter(file, store.sealContext(id), s.opts.Recipients, seal.Options{}); err != nil {
			w.abort()
			return nil, access(err)
		}
		out = w.sealer
	}
	if w.w, err = segment.NewWriter(io.MultiWriter(out, w.hash), segment.Meta{Origin: origin}); err != nil {
		w.abort()
		return nil, access(err)
	}
	return w, nil
}

func (w *segmentWriter) abort() {
	if w.sealer != nil {
		w.sealer.Abort()
	}
	w.fresh.file.Abort()
}

func (w *segmentWriter) append(r *event.Record) error {
	if w.n++; w.n%4096 == 0 {
		if err := w.ctx.Err(); err != nil {
			return err
		}
	}
	return w.w.Append(*r)
}

// finish ends the segment and syncs it.
func (w *segmentWriter) finish() (*freshSegment, error) {
	f := w.fresh
	err := func() error {
		sum, err := w.w.Close()
		if err != nil {
			return err
		}
		if w.sealer != nil {
			if err := w.sealer.Close(); err != nil {
				return err
			}
			w.sealer = nil
		}
		if err := f.file.Sync(); err != nil {
			return err
		}
		st, err := f.file.Stat()
		if err != nil {
			return err
		}
		f.rec.MinTime, f.rec.MaxTime = sum.MinTime, sum.MaxTime
		f.rec.Records, f.rec.RawBytes, f.rec.Bytes = sum.Records, sum.RawBytes, st.Size()
		w.hash.Sum(f.rec.Plain[:0])
		f.rec.Hash = f.rec.Plain
		if f.rec.Sealed {
			if f.rec.Hash, err = hashSegment(w.ctx, f.file, st.Size(), true); err != nil {
				return err
			}
		}
		// A change can have many thousands of segments, and a process has not as
		// many files. The lock of the change keeps the temporary name, not flock.
		return f.file.File.Close()
	}()
	if err != nil {
		w.abort()
		return nil, access(fmt.Errorf("write segment %d: %w", f.id, err))
	}
	return f, nil
}

// hashSegment hashes a segment's file; of a sealed one, what rewrapping leaves
// as it is.
func hashSegment(ctx context.Context, f io.ReaderAt, size int64, sealed bool) (out Hash, err error) {
	var r io.Reader = io.NewSectionReader(f, 0, size)
	if sealed {
		if r, err = seal.Fixed(f, size); err != nil {
			return out, err
		}
	}
	h := blake3.New()
	if _, err = io.CopyBuffer(durable.Writer(ctx, h), onlyReader{r}, make([]byte, 1<<20)); err != nil {
		return out, err
	}
	h.Sum(out[:0])
	return out, nil
}

// onlyReader hides other methods, so that io.CopyBuffer uses its buffer.
type onlyReader struct{ io.Reader }

// SegmentInfo is a segment of a snapshot.
type SegmentInfo struct {
	SegmentRecord
	Added int64  // when it was added to the catalogue, nanoseconds since 1970 UTC
	Leaf  uint64 // number of its record in the Merkle log, from 0

	store *Store
	id    storeID
}

// Path returns the path of the segment's file.
func (i *SegmentInfo) Path() string { return i.store.segmentPath(i.ID) }

// SegmentFile is an opened segment: what segment.Open wants.
type SegmentFile struct {
	io.ReaderAt
	size int64
	file *os.File
}

// Size returns the length of the content in bytes; decrypted, when it is sealed.
func (f *SegmentFile) Size() int64 { return f.size }

// Close closes the file.
func (f *SegmentFile) Close() error { return f.file.Close() }

// Open opens the segment. The error is ErrGone when it is not part of the
// store any more, and ErrTampered when its file is missing, although it is.
func (i *SegmentInfo) Open(ctx context.Context) (*SegmentFile, error) {
	f, err := openFile(i.Path(), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, i.store.why(ctx, i.ID)
	}
	if err != nil {
		return nil, err
	}
	data, err := i.open(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("segment %d: %w", i.ID, err)
	}
	return data, nil
}

func (i *SegmentInfo) open(f *os.File) (*SegmentFile, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() != i.Bytes {
		return nil, tampered("%s has %d bytes, and had %d", i.Path(), st.Size(), i.Bytes)
	}
	if !i.Sealed {
		return &SegmentFile{ReaderAt: f, size: st.Size(), file: f}, nil
	}
	if len(i.store.opts.Identities) == 0 {
		return nil, failure.Hint(failure.New(failure.NotReady, "it is encrypted, and there is no key to open it"), "name a key file: logs.identities in the configuration")
	}
	o, err := seal.Open(f, st.Size(), i.id.sealContext(i.ID), i.store.opts.Identities)
	if err != nil {
		return nil, err
	}
	return &SegmentFile{ReaderAt: o, size: o.Size(), file: f}, nil
}

// why says why the file of a segment is not there.
func (s *Store) why(ctx context.Context, id uint64) error {
	x, err := s.index(ctx)
	if err != nil {
		return err
	}
	if x != nil {
		if _, ok := x.find(id); ok {
			return tampered("the file of segment %d is missing", id)
		}
	}
	return fmt.Errorf("segment %d: %w", id, ErrGone)
}
