package store

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// sealedStore has three segments of a and one of b, two seals, a hold, one
// segment after the last seal, and records in the write-ahead log.
func sealedStore(t *testing.T) *Store {
	t.Helper()
	s, c := newStore(t, nil)
	w := writer(t, s)
	for i := range 3 {
		appendTo(t, w, batch("a", i*10, i*10+10))
		flushed(t, w)
	}
	if _, err := s.Seal(ctx); err != nil {
		t.Fatal(err)
	}
	c.add(time.Hour)
	appendTo(t, w, batch("b", 0, 10))
	flushed(t, w)
	if err := s.Hold(ctx, Hold{Name: "case 7", Sources: []string{"a"}, Reason: "a reason", By: "root"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Seal(ctx); err != nil {
		t.Fatal(err)
	}
	appendTo(t, w, batch("b", 10, 20))
	flushed(t, w)
	appendTo(t, w, batch("b", 20, 30))
	w.Close()
	return s
}

// inState changes what state.db says, as somebody with its bytes could.
func inState(t *testing.T, s *Store, change func(x *index)) {
	t.Helper()
	err := s.opts.State.Update(ctx, func(tx *state.Tx) error {
		x, err := load(tx)
		if err != nil {
			return err
		}
		for i := range x.entries {
			x.touch(x.entries[i].ID)
		}
		change(x)
		x.newHolds = true
		return x.save(tx, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyNamesWhatWasDone(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(t *testing.T, s *Store)
		want []string // "what name", in order; detail must contain what follows a colon
	}{
		"a byte of a segment": {
			func(t *testing.T, s *Store) { flip(t, s.segmentPath(2), 100) },
			[]string{"altered segments/0000000002.seg:10 records of a from 2026-03-14 00:00:10"},
		},
		"a segment cut off": {
			func(t *testing.T, s *Store) { os.Truncate(s.segmentPath(2), 50) },
			[]string{"altered segments/0000000002.seg"},
		},
		"a segment removed": {
			func(t *testing.T, s *Store) { os.Remove(s.segmentPath(3)) },
			[]string{"missing segments/0000000003.seg:10 records of a"},
		},
		"a segment became a directory": {
			func(t *testing.T, s *Store) {
				os.Remove(s.segmentPath(3))
				os.Mkdir(s.segmentPath(3), 0o700)
			},
			[]string{"altered segments/0000000003.seg:not a regular file"},
		},
		"two segments swapped": {
			func(t *testing.T, s *Store) {
				a, b := s.segmentPath(1), s.segmentPath(2)
				os.Rename(a, a+"x")
				os.Rename(b, a)
				os.Rename(a+"x", b)
			},
			[]string{"altered segments/0000000001.seg", "altered segments/0000000002.seg"},
		},
		"segments inserted": {
			func(t *testing.T, s *Store) {
				copyFile(t, s.segmentPath(1), s.segmentPath(99))
				copyFile(t, s.segmentPath(1), filepath.Join(s.segmentDir(), "evil"))
			},
			[]string{"inserted segments/evil", "inserted segments/0000000099.seg"},
		},
		"a segment taken out of the catalogue": {
			func(t *testing.T, s *Store) {
				inState(t, s, func(x *index) { x.entries = append(x.entries[:1], x.entries[2:]...) })
				os.Remove(s.segmentPath(2))
			},
			[]string{"missing state.db:segment 2"},
		},
		"a segment replaced with the catalogue": {
			func(t *testing.T, s *Store) {
				copyFile(t, s.segmentPath(1), s.segmentPath(2))
				inState(t, s, func(x *index) {
					x.entries[1].SegmentRecord = x.entries[0].SegmentRecord
					x.entries[1].ID = 2
				})
			},
			[]string{"altered state.db:segment 2"},
		},
		"a segment put into the catalogue": {
			func(t *testing.T, s *Store) {
				copyFile(t, s.segmentPath(1), s.segmentPath(9))
				inState(t, s, func(x *index) {
					e := x.entries[0]
					e.ID = 9
					x.entries = append(x.entries, e)
					x.touch(9)
				})
			},
			[]string{"inserted state.db:segment 9"},
		},
		"a hold taken away": {
			func(t *testing.T, s *Store) { inState(t, s, func(x *index) { x.holds = nil }) },
			[]string{"altered state.db:\"case 7\""},
		},
		"the consumed generation moved on": {
			func(t *testing.T, s *Store) { inState(t, s, func(x *index) { x.consumed++ }) },
			[]string{"altered state.db", "missing wal/0000000007.wal"},
		},
		"a byte of the Merkle log": {
			func(t *testing.T, s *Store) { flip(t, s.merklePath(), 200) },
			[]string{"altered merkle.log:byte"},
		},
		"the beginning of the Merkle log": {
			func(t *testing.T, s *Store) { flip(t, s.merklePath(), 3) },
			[]string{"altered merkle.log"},
		},
		"the end of the Merkle log cut off": {
			func(t *testing.T, s *Store) {
				x, _ := s.index(ctx)
				os.Truncate(s.merklePath(), x.bytes-10)
			},
			[]string{"missing merkle.log:cut off"},
		},
		"the Merkle log removed": {
			func(t *testing.T, s *Store) { os.Remove(s.merklePath()) },
			[]string{"missing merkle.log"},
		},
		"the write-ahead log removed": {
			func(t *testing.T, s *Store) { os.Remove(walPath(s, 6)) },
			[]string{"missing wal/0000000006.wal"},
		},
		"the log written anew without a segment": {
			func(t *testing.T, s *Store) { rewriteLog(t, s, nil) },
			[]string{"altered record 2:not those that were sealed", "unsigned record 2", "altered record 5", "unsigned record 5"},
		},
		"and sealed by another key": {
			func(t *testing.T, s *Store) {
				rewriteLog(t, s, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)))
			},
			[]string{"unsigned record 2", "unsigned record 5"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := sealedStore(t)
			clean(t, s)
			tc.do(t, s)
			r, err := s.Verify(ctx, VerifyOptions{Key: key().public()})
			if err != nil {
				t.Fatal(err)
			}
			ok := len(r.Problems) == len(tc.want)
			for i := range tc.want {
				if !ok {
					break
				}
				want, detail, _ := strings.Cut(tc.want[i], ":")
				p := r.Problems[i]
				ok = p.What+" "+p.Name == want && strings.Contains(p.Detail, detail)
			}
			if !ok {
				t.Errorf("%+v; want %q", r.Problems, tc.want)
			}
			kind := failure.Untrustworthy
			if strings.HasPrefix(tc.want[0], Unreadable) {
				kind = failure.Incomplete
			}
			if r.Kind() != kind {
				t.Errorf("kind %v", r.Kind())
			}
		})
	}
}

// rewriteLog makes a Merkle log and a catalogue without segment 1, each tree
// and checksum as it must be, as somebody who may write everything could. With
// a key it is sealed anew.
func rewriteLog(t *testing.T, s *Store, with ed25519.PrivateKey) {
	t.Helper()
	x, err := s.index(ctx)
	if err != nil {
		t.Fatal(err)
	}
	y := &index{head: head{store: x.store, nextID: 1, bytes: merkleHeaderSize}}
	log := merkleHeader(x.store)
	err = s.history(ctx, x, func(op *operation) error {
		if r := op.records[0]; r.Segment != nil && r.Segment.ID == 1 {
			op.records, op.leaves = nil, [][]byte{}
		}
		if len(op.records) == 1 && op.records[0].Kind == KindSealed {
			seal := op.records[0].Seal
			seal.Size = y.tree.size
			if with != nil {
				seal.Store = x.store.String()
				seal.Root = y.tree.root()
				seal.PublicKey = with.Public().(ed25519.PublicKey)
				seal.Signature = ed25519.Sign(with, seal.message())
			}
			op.leaves = nil
		}
		frame := merkleFrame(&y.tree, op.encode())
		log = append(log, frame...)
		return y.apply(op, int64(len(frame)))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.merklePath(), log, 0o600); err != nil {
		t.Fatal(err)
	}
	os.Remove(s.segmentPath(1))
	inState(t, s, func(x *index) { x.head, x.entries = y.head, y.entries })
}

func TestSealsFromOutside(t *testing.T) {
	s := sealedStore(t)
	newest, leaves, err := s.Head(ctx)
	if err != nil || newest == nil || newest.Size != 6 || leaves != 8 {
		t.Fatal(newest, leaves, err)
	}
	verify := func(seals ...*Seal) *VerifyReport {
		t.Helper()
		// They go through their exported form.
		b, err := json.Marshal(seals)
		if err != nil {
			t.Fatal(err)
		}
		var read []*Seal
		if err := json.Unmarshal(b, &read); err != nil {
			t.Fatal(err)
		}
		r, err := s.Verify(ctx, VerifyOptions{Key: key().public(), Outside: read})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := verify(newest); len(r.Problems) > 0 {
		t.Errorf("%+v", r.Problems)
	}
	forged := *newest
	forged.Root[0] ^= 1
	if r := verify(&forged); len(r.Problems) != 1 || r.Problems[0].What != Unsigned {
		t.Errorf("a forged one: %+v", r.Problems)
	}
	other := *newest
	other.Store = fmt.Sprintf("%032x", 1)
	if r := verify(&other); len(r.Problems) != 1 || r.Problems[0].What != Altered {
		t.Errorf("one of another store: %+v", r.Problems)
	}
	// The end of the log is cut off before the second seal, and all else is made
	// to fit: what is left is a store that was once so.
	x, err := s.index(ctx)
	if err != nil {
		t.Fatal(err)
	}
	y := &index{head: head{store: x.store, nextID: 1, bytes: merkleHeaderSize}}
	err = s.history(ctx, x, func(op *operation) error {
		if y.tree.size == 5 {
			return errCrash
		}
		// The frames end where they did: the sizes are those of the file.
		frame := merkleFrame(&y.tree, op.encode())
		return y.apply(op, int64(len(frame)))
	})
	if err != errCrash {
		t.Fatal(err)
	}
	os.Truncate(s.merklePath(), y.bytes)
	for id := uint64(5); id < 9; id++ {
		os.Remove(s.segmentPath(id))
	}
	for g := uint64(1); g < 9; g++ {
		os.Remove(walPath(s, g))
	}
	inState(t, s, func(x *index) { x.head, x.entries, x.holds = y.head, y.entries, y.holds })
	g, err := s.createGeneration(x.store, y.consumed+1)
	if err != nil {
		t.Fatal(err)
	}
	g.file.Close()
	if r := verify(); len(r.Problems) != 0 {
		t.Errorf("the cut should not show by itself: %+v", r.Problems)
	}
	if r := verify(newest); len(r.Problems) != 1 || r.Problems[0].What != Missing || !strings.Contains(r.Problems[0].Detail, "6 records, and there are 5") {
		t.Errorf("the cut, by a seal from outside: %+v", r.Problems)
	}
}

func TestProofs(t *testing.T) {
	s := sealedStore(t)
	newest, _, _ := s.Head(ctx)
	for id := uint64(1); id <= 4; id++ {
		p, err := s.Prove(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if p, err = ReadProof(b); err != nil {
			t.Fatal(err)
		}
		f, err := os.ReadFile(s.segmentPath(id))
		if err != nil {
			t.Fatal(err)
		}
		rec, err := p.VerifyFile(ctx, key().public(), bytes.NewReader(f), int64(len(f)))
		if err != nil || rec.ID != id || rec.Records != 10 {
			t.Fatalf("segment %d: %+v, %v", id, rec, err)
		}
		for what, change := range map[string]func(p *Proof, f *[]byte){
			"file":  func(_ *Proof, f *[]byte) { (*f)[7] ^= 1 },
			"leaf":  func(p *Proof, _ *[]byte) { p.Leaf[3] ^= 1 },
			"index": func(p *Proof, _ *[]byte) { p.Index ^= 1 },
			"path":  func(p *Proof, _ *[]byte) { p.Path[0][0] ^= 1 },
			"short": func(p *Proof, _ *[]byte) { p.Path = p.Path[1:] },
			"long":  func(p *Proof, _ *[]byte) { p.Path = append(p.Path, Hash{}) },
			"size":  func(p *Proof, _ *[]byte) { p.Seal.Size++ },
			"time":  func(p *Proof, _ *[]byte) { p.Seal.Time = p.Seal.Time.Add(1) },
			"host":  func(p *Proof, _ *[]byte) { p.Seal.Host += "x" },
			"seal":  func(p *Proof, _ *[]byte) { s := *newest; s.Signature = bytes.Repeat([]byte{1}, 64); p.Seal = &s },
		} {
			q, _ := ReadProof(b)
			g := bytes.Clone(f)
			change(q, &g)
			if _, err := q.VerifyFile(ctx, key().public(), bytes.NewReader(g), int64(len(g))); err == nil {
				t.Errorf("segment %d: another %s is proved", id, what)
			}
		}
	}
	if _, err := s.Prove(ctx, 5); failure.KindOf(err) != failure.NotReady {
		t.Errorf("a segment after the last seal: %v", err)
	}
	if _, err := s.Prove(ctx, 99); failure.KindOf(err) != failure.No {
		t.Errorf("a segment that never was: %v", err)
	}
}

func TestTree(t *testing.T) {
	var tr tree
	var leaves []Hash
	for n := range 70 {
		h := leafHash([]byte{byte(n)})
		tr.add(h)
		leaves = append(leaves, h)
		if tr.root() != rootOf(leaves) {
			t.Fatalf("the root of %d leaves", n+1)
		}
		for i := range leaves {
			path := inclusionPath(i, leaves)
			if r, err := rootByPath(leaves[i], uint64(i), uint64(len(leaves)), path); err != nil || r != tr.root() {
				t.Fatalf("leaf %d of %d: %v", i, len(leaves), err)
			}
		}
	}
}
