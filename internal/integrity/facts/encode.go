package facts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/zeebo/blake3"
)

// Schema names the file format.
const Schema = "mobileops.integrity.facts/v1"

// Limits of a file of facts. A host with more of anything has a problem that no
// list of facts describes.
const (
	MaxEncoded   = 16 << 20 // bytes of the file
	maxDecoded   = 64 << 20 // bytes of its JSON
	MaxFacts     = 200_000
	maxSources   = 10_000
	maxAttribute = 64 // attributes of a fact
	maxText      = 64 << 10
)

// ErrDamaged is wrapped by every error about a file of facts that is not what
// was written.
var ErrDamaged = failure.New(failure.Untrustworthy, "the facts of the baseline are damaged")

// Digest is the BLAKE3 digest of an encoded snapshot.
type Digest = [32]byte

// Encode returns the snapshot as the content of a file, and its digest. It
// fails only for a snapshot beyond the limits.
func Encode(s *Snapshot) ([]byte, Digest, error) {
	if err := s.check(); err != nil {
		return nil, Digest{}, failure.Errorf(failure.Failed, "too much to keep: %w", err)
	}
	text, err := json.Marshal(document{Schema, s})
	if err != nil {
		return nil, Digest{}, err
	}
	if len(text) > maxDecoded {
		return nil, Digest{}, failure.Errorf(failure.Failed, "too much to keep: %d bytes of facts", len(text))
	}
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return nil, Digest{}, err
	}
	defer w.Close()
	b := w.EncodeAll(text, nil)
	if len(b) > MaxEncoded {
		return nil, Digest{}, failure.Errorf(failure.Failed, "too much to keep: %d bytes of facts, compressed", len(b))
	}
	return b, blake3.Sum256(b), nil
}

type document struct {
	Schema string `json:"schema"`
	*Snapshot
}

// Decode reads what Encode wrote. The digest is that of the catalogue. Every
// error wraps ErrDamaged.
func Decode(b []byte, want Digest) (*Snapshot, error) {
	if blake3.Sum256(b) != want {
		return nil, fmt.Errorf("%w: they are not those in the catalogue", ErrDamaged)
	}
	return decode(b)
}

func decode(b []byte) (*Snapshot, error) {
	if len(b) > MaxEncoded {
		return nil, fmt.Errorf("%w: %d bytes", ErrDamaged, len(b))
	}
	r, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxDecoded))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer r.Close()
	dec := json.NewDecoder(io.LimitReader(r, maxDecoded+1))
	dec.DisallowUnknownFields()
	doc := document{Snapshot: new(Snapshot)}
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("%w: at byte %d: %w", ErrDamaged, dec.InputOffset(), err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: more than one document, at byte %d", ErrDamaged, dec.InputOffset())
	}
	if doc.Schema != Schema {
		return nil, failure.Hint(fmt.Errorf("%w: their format is %q", ErrDamaged, doc.Schema), "a newer mobileops may have written them")
	}
	if err := doc.Snapshot.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return doc.Snapshot, nil
}

// check holds a snapshot to the invariants and the limits.
func (s *Snapshot) check() error {
	if s == nil || len(s.Facts) > MaxFacts || len(s.Sources) > maxSources || len(s.Aspects) > len(Aspects()) {
		return errors.New("more facts or sources than any host has")
	}
	for i := range s.Aspects {
		if i > 0 && s.Aspects[i-1] >= s.Aspects[i] {
			return errors.New("the aspects are out of order")
		}
	}
	last := ""
	for i := range s.Sources {
		src := &s.Sources[i]
		if id := src.ID(); !s.Has(src.Aspect) || id <= last || !text(id) || !text(src.Detail) {
			return fmt.Errorf("source %d is out of place", i)
		} else {
			last = id
		}
		switch src.State {
		case OK, Absent, Partial, Denied, Failed:
		default:
			return fmt.Errorf("source %d is in the unknown state %q", i, src.State)
		}
	}
	last = ""
	for i := range s.Facts {
		f := &s.Facts[i]
		id := f.ID()
		if !s.Has(f.Aspect) || id <= last || !text(id) || !text(f.Source) || f.Kind == "" || strings.Contains(f.Kind, "/") {
			return fmt.Errorf("fact %d is out of place", i)
		}
		last = id
		if len(f.Attributes) > maxAttribute {
			return fmt.Errorf("fact %d has %d attributes", i, len(f.Attributes))
		}
		for name, v := range f.Attributes {
			if name == "" || !text(name) || !text(v) {
				return fmt.Errorf("fact %d has an attribute that is not text", i)
			}
		}
	}
	return nil
}

func text(s string) bool { return len(s) <= maxText && utf8.ValidString(s) }
