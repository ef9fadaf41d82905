package store

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// What a Problem is about.
const (
	Altered    = "altered"    // bytes are not those that were written
	Missing    = "missing"    // something that must be there is not
	Inserted   = "inserted"   // something is there that was never written
	Reordered  = "reordered"  // what was written is not in its place
	Unsigned   = "unsigned"   // a seal is not signed by this host
	Unreadable = "unreadable" // it could not be examined
)

// Problem is one thing that is not as mobileops left it.
type Problem struct {
	What    string `json:"what"`              // one of the constants above
	Name    string `json:"name"`              // of the file, or of the record
	Segment uint64 `json:"segment,omitempty"` // its id, when it is about one
	Detail  string `json:"detail"`
}

// VerifyOptions say what the store is compared with.
type VerifyOptions struct {
	Key ed25519.PublicKey // of this host; nil: signatures are not checked
	// Outside are seals that were kept elsewhere: they show when the end of the
	// Merkle log was cut off and all else made to fit.
	Outside  []*Seal
	Progress func(done, total int64) // bytes of segments; called by one goroutine at a time
}

// VerifyReport says what verification found.
type VerifyReport struct {
	Segments int64     `json:"segments"` // in the catalogue
	Records  int64     `json:"records"`  // in them
	Bytes    int64     `json:"bytes"`    // of them
	Leaves   uint64    `json:"leaves"`   // records of the Merkle log
	Unsealed uint64    `json:"unsealed"` // of them, since the last seal
	Seals    int64     `json:"seals"`
	Newest   *Seal     `json:"newest,omitempty"` // the last seal
	Merged   int64     `json:"merged"`           // segments that became part of others
	Removed  int64     `json:"removed"`          // segments that retention let go
	Frames   int64     `json:"frames"`           // of the write-ahead log
	Problems []Problem `json:"problems"`
	// Notes are what is worth knowing and nobody's fault: records that are known
	// to be lost, remains of a process that died, a clock that was set back.
	Notes []string `json:"notes"`
}

// Kind is how bad the worst problem is.
func (r *VerifyReport) Kind() failure.Kind {
	kind := failure.None
	for _, p := range r.Problems {
		if p.What == Unreadable {
			kind = failure.Worse(kind, failure.Incomplete)
		} else {
			return failure.Untrustworthy
		}
	}
	return kind
}

// verification is one run of Verify.
type verification struct {
	*VerifyReport
	store *Store
	opts  VerifyOptions
	index *index // as state.db has it
	log   *index // as the Merkle log tells it
	names []string
	// unfinished are segments of a change that did not come to its end yet.
	unfinished map[uint64]bool
	// outsideSize is how many records the greatest seal from outside speaks of
	// that was passed, and gone how many segments that it speaks of were merged or
	// removed behind it.
	outsideSize uint64
	gone        int64
	first       int64 // time of the first record of the log, ns
}

func (v *verification) problem(what, name string, segment uint64, format string, args ...any) {
	v.Problems = append(v.Problems, Problem{what, name, segment, fmt.Sprintf(format, args...)})
}

func (v *verification) note(format string, args ...any) {
	v.Notes = append(v.Notes, fmt.Sprintf(format, args...))
}

// Verify compares everything that the store has with what the Merkle log and
// its seals say, and names what is not so. It takes no lock: collecting goes
// on. An error says that verification itself could not be done.
func (s *Store) Verify(ctx context.Context, opts VerifyOptions) (*VerifyReport, error) {
	v := &verification{VerifyReport: &VerifyReport{Problems: []Problem{}, Notes: []string{}}, store: s, opts: opts, unfinished: map[uint64]bool{}}
	reading, err := s.reading()
	if err != nil {
		return nil, err
	}
	if reading != nil {
		defer reading.Close()
	}
	// In this order: what appears while this goes on is in what is read later.
	if v.names, err = readNames(s.segmentDir()); err != nil {
		return nil, err
	}
	if v.index, err = s.index(ctx); err != nil {
		return nil, err
	}
	if v.index == nil {
		if err := s.nothingThere(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return nil, failure.Hint(failure.New(failure.NotReady, "no logs were collected yet"), "collect some: mobileops logs collect")
	}
	whole, err := v.merkleLog(ctx)
	if err != nil {
		return nil, err
	}
	if whole {
		v.catalogue()
	}
	if err := v.tail(ctx); err != nil {
		return nil, err
	}
	v.files()
	if err := v.segments(ctx); err != nil {
		return nil, err
	}
	return v.VerifyReport, v.wal(ctx)
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, access(err)
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

const merkleName = "merkle.log"

// unsealedFor is after which time a store without any seal is none that was
// left alone: a collector makes the first one with the first segment.
const unsealedFor = time.Hour

// merkleLog replays the log up to the head and checks its seals. It returns
// false when the log cannot be followed to its end.
func (v *verification) merkleLog(ctx context.Context) (bool, error) {
	v.log = &index{head: head{store: v.index.store, nextID: 1, bytes: merkleHeaderSize}}
	st, err := os.Lstat(v.store.merklePath())
	if errors.Is(err, fs.ErrNotExist) {
		v.problem(Missing, merkleName, 0, "the Merkle log is gone")
		return false, nil
	}
	if err != nil {
		return false, access(err)
	}
	if st.Size() < v.index.bytes {
		v.problem(Missing, merkleName, 0, "its end was cut off: it has %d bytes, and had %d", st.Size(), v.index.bytes)
	}
	r, f, err := openMerkle(v.store.merklePath(), v.index.store, 0, tree{}, v.index.bytes)
	if isFormat(err) {
		v.problem(Altered, merkleName, 0, "%v", err)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	outside := map[uint64][]*Seal{}
	for _, s := range v.opts.Outside {
		outside[s.Size] = append(outside[s.Size], s)
	}
	for {
		for _, s := range outside[v.log.tree.size] {
			v.outside(s)
		}
		delete(outside, v.log.tree.size)
		at := r.at
		op, err := r.next(ctx)
		if err == io.EOF {
			break
		}
		if errors.Is(err, errTorn) || isFormat(err) {
			if st.Size() >= v.index.bytes { // otherwise this was said
				v.problem(Altered, merkleName, 0, "at byte %d, after record %d: %v", at, v.log.tree.size, err)
			}
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if !v.operation(op, r.at-at) {
			return false, nil
		}
	}
	for _, list := range outside {
		for _, s := range list {
			v.problem(Missing, merkleName, 0, "a seal from outside of %s speaks of %d records, and there are %d: the end was cut off, or an older store was put in its place",
				s.Time.Format(time.RFC3339), s.Size, v.log.tree.size)
		}
	}
	if v.gone > 0 {
		v.note("%d segments that the last seal from outside speaks of were merged or removed since: it says nothing about what became of them", v.gone)
	}
	if first := v.first; v.log.seal == nil && first != 0 && v.opts.Key != nil && v.store.opts.Now().Sub(stamp(first)) > unsealedFor {
		v.problem(Unsigned, merkleName, 0, "its records go back to %s, and there is no seal", stamp(first).Format(time.RFC3339))
	}
	v.Leaves, v.Newest = v.log.tree.size, v.log.seal
	if v.Unsealed = v.Leaves; v.Newest != nil {
		v.Unsealed = v.Leaves - v.Newest.Size - 1
	}
	return true, nil
}

// operation looks at one frame of the log, and applies it.
func (v *verification) operation(op *operation, size int64) bool {
	for i, r := range op.records {
		if v.first == 0 {
			v.first = r.Time
		}
		name := fmt.Sprintf("record %d", v.log.tree.size+uint64(i))
		switch r.Kind {
		case KindMerged:
			v.Merged += int64(len(r.From))
			v.let(name, r.From)
		case KindRemoved:
			v.Removed++
			v.let(name, []uint64{r.ID})
		case KindDamaged:
			if r.Damage.Length == 0 {
				v.note("%s was gone when segments were to be made of it: its records are lost, unless their source still has them", r.Damage.File)
			} else {
				v.note("%d bytes from byte %d of %s on could not be read when segments were made of it, for damage or for want of a key: their records are lost, unless their source still had them (it is kept as damaged/%s)",
					r.Damage.Length, r.Damage.Offset, r.Damage.File, strings.TrimPrefix(r.Damage.File, "wal/"))
			}
		case KindSealed:
			v.Seals++
			r.Seal.Store = v.index.store.String()
			v.seal(r.Seal, name, i)
		}
	}
	if err := v.log.apply(op, size); err != nil {
		v.problem(Altered, merkleName, 0, "%v", err)
		return false
	}
	return true
}

// let looks whether segments that a record lets go were free to go, and whether
// a seal from outside speaks of them.
func (v *verification) let(name string, ids []uint64) {
	for _, id := range ids {
		i, ok := v.log.find(id)
		if !ok {
			continue // apply says it
		}
		e := &v.log.entries[i]
		if h := v.log.heldBy(&e.SegmentRecord); h != nil {
			v.problem(Missing, name, id, "it lets segment %d go, which the hold %q keeps: %s", id, h.Name, describe(e))
		}
		if e.leaf < v.outsideSize {
			v.gone++
		}
	}
}

func (v *verification) seal(s *Seal, name string, i int) {
	when := s.Time.Format(time.RFC3339)
	if i != 0 || s.Size != v.log.tree.size {
		v.problem(Reordered, name, 0, "the seal of %s is of %d records, and stands after %d", when, s.Size, v.log.tree.size)
		return
	}
	if s.Root != v.log.tree.root() {
		v.problem(Altered, name, 0, "the records before the seal of %s are not those that were sealed", when)
	}
	if last := v.log.seal; last != nil && s.Time.Before(last.Time) {
		v.note("the clock was set back: the seal of %s follows that of %s", when, last.Time.Format(time.RFC3339))
	}
	if v.opts.Key == nil {
		return
	}
	if err := s.Verify(v.opts.Key); err != nil {
		v.problem(Unsigned, name, 0, "the seal of %s by the key %s: %v", when, keyName(s.PublicKey), err)
	}
}

func (v *verification) outside(s *Seal) {
	when := s.Time.Format(time.RFC3339)
	if s.Store != v.index.store.String() {
		v.problem(Altered, merkleName, 0, "a seal from outside of %s is of another store: this one was made anew, or that seal belongs elsewhere", when)
		return
	}
	if v.opts.Key != nil {
		if err := s.Verify(v.opts.Key); err != nil {
			v.problem(Unsigned, "seal from outside of "+when, 0, "%v", err)
			return
		}
	}
	if s.Root != v.log.tree.root() {
		v.problem(Altered, merkleName, 0, "its first %d records are not those of a seal from outside of %s", s.Size, when)
		return
	}
	v.outsideSize, v.gone = s.Size, 0
}

// catalogue compares state.db with what the log tells.
func (v *verification) catalogue() {
	x, l := v.index, v.log
	if x.tree.size != l.tree.size || x.tree.root() != l.tree.root() || x.bytes != l.bytes {
		v.problem(Altered, merkleName, 0, "its %d records are not the %d that state.db knows", l.tree.size, x.tree.size)
	}
	for i, j := 0, 0; i < len(l.entries) || j < len(x.entries); {
		switch {
		case j == len(x.entries) || i < len(l.entries) && l.entries[i].ID < x.entries[j].ID:
			v.problem(Missing, "state.db", l.entries[i].ID, "segment %d is not in the catalogue, and nothing in the log says that it was removed", l.entries[i].ID)
			i++
		case i == len(l.entries) || x.entries[j].ID < l.entries[i].ID:
			v.problem(Inserted, "state.db", x.entries[j].ID, "segment %d is in the catalogue, and was never added", x.entries[j].ID)
			j++
		default:
			if l.entries[i] != x.entries[j] {
				v.problem(Altered, "state.db", x.entries[j].ID, "the catalogue describes segment %d differently than when it was added", x.entries[j].ID)
			}
			i, j = i+1, j+1
		}
	}
	if !bytes.Equal(encodeHolds(x.holds), encodeHolds(l.holds)) {
		v.problem(Altered, "state.db", 0, "the legal holds are not those that were set: %s, and by the log %s", holdNames(x.holds), holdNames(l.holds))
	}
	if x.consumed != l.consumed || x.nextID != l.nextID {
		v.problem(Altered, "state.db", 0, "the head of the store is not what the log tells")
	}
}

func holdNames(holds []Hold) string {
	names := make([]string, len(holds))
	for i := range holds {
		names[i] = strconv.Quote(holds[i].Name)
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
