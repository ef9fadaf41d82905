package store

import (
	"bytes"
	"context"
	"crypto/cipher"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// memFile is a file in memory.
type memFile struct{ *bytes.Reader }

func (m memFile) Stat() (os.FileInfo, error) { return memInfo{m.Size()}, nil }

type memInfo struct{ size int64 }

func (i memInfo) Name() string       { return "" }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) Mode() fs.FileMode  { return 0 }
func (i memInfo) ModTime() time.Time { return time.Time{} }
func (i memInfo) IsDir() bool        { return false }
func (i memInfo) Sys() any           { return nil }

func fuzzPlace() place { return place{storeID{1, 2, 3}, 7} }

// walBytes is a generation with frames, encrypted when there is an aead.
func walBytes(t testing.TB, aead cipher.AEAD, frames ...[]Batch) []byte {
	t.Helper()
	dir := t.TempDir()
	var sealed []byte
	if aead != nil {
		sealed = []byte("a sealed key")
	}
	f, end, err := createWAL(dir, fuzzPlace(), day0, sealed)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	b, err := os.ReadFile(f.Name())
	if err != nil || int64(len(b)) != end {
		t.Fatal(len(b), end, err)
	}
	for _, batches := range frames {
		raw, err := appendBatches(nil, batches)
		if err != nil {
			t.Fatal(err)
		}
		b = appendFrame(b, fuzzPlace(), int64(len(b)), day0, aead, raw)
	}
	return b
}

func testAEAD(t testing.TB) cipher.AEAD {
	a, err := newAEAD(make([]byte, walKeySize))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// FuzzWAL reads any bytes as a generation: what is found must lie within, and
// every byte is accounted for.
func FuzzWAL(f *testing.F) {
	plain := walBytes(f, nil, []Batch{batch("a", 0, 3), batch("b", 0, 1)}, []Batch{{Key: "k"}}, []Batch{batch("a", 3, 5)})
	f.Add(plain)
	f.Add(plain[:len(plain)-5])
	f.Add(plain[60:])
	torn := bytes.Clone(plain)
	torn[130] ^= 1
	f.Add(torn)
	f.Add(walBytes(f, testAEAD(f), []Batch{batch("a", 0, 3)}, []Batch{batch("a", 3, 5)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		open := func([]byte) (cipher.AEAD, error) { return testAEAD(t), nil }
		r, err := newWALReader(memFile{bytes.NewReader(b)}, fuzzPlace(), open)
		if err != nil {
			t.Fatal(err)
		}
		records := 0
		read := func(_ int64, batches []byte) error {
			return decodeBatches(batches, origins{}, func(f *framed) error {
				return f.each(func(r *event.Record) error {
					if r.Time < f.minTime {
						t.Log("a time before the least one") // a range is a hint for those who skip
					}
					records++
					return nil
				})
			})
		}
		scan, err := r.frames(context.Background(), read)
		if err != nil {
			t.Fatal(err)
		}
		if scan.End+scan.Torn != int64(len(b)) && scan.End <= int64(len(b)) {
			t.Errorf("%+v of %d bytes", scan, len(b))
		}
		for _, d := range scan.Damage {
			if d.Offset < 0 || d.Length < 0 || d.Offset+d.Length > int64(len(b)) {
				t.Errorf("%+v of %d bytes", d, len(b))
			}
		}
		if records > len(b) {
			t.Errorf("%d records in %d bytes", records, len(b))
		}
	})
}

// FuzzBatches decodes any bytes as the batches of a frame.
func FuzzBatches(f *testing.F) {
	for _, list := range [][]Batch{{batch("a", 0, 3), batch("b", 0, 1)}, {{Key: "k"}}, {{Key: "k", Cursor: []byte{}}}} {
		b, err := appendBatches(nil, list)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var list []Batch
		err := decodeBatches(b, origins{}, func(f *framed) error {
			x := Batch{Key: string(f.key), Origin: f.origin, Cursor: f.cursor}
			if f.cursor != nil && len(f.cursor) == 0 {
				x.Cursor = []byte{}
			}
			list = append(list, x)
			return f.each(func(r *event.Record) error {
				y := &list[len(list)-1]
				y.Records = append(y.Records, event.Record{Time: r.Time, Clock: r.Clock, Raw: bytes.Clone(r.Raw)})
				return nil
			})
		})
		if err != nil {
			if !isFormat(err) {
				t.Fatal(err)
			}
			return
		}
		// What was understood is written, and understood again, alike.
		again, err := appendBatches(nil, list)
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		err = decodeBatches(again, origins{}, func(f *framed) error {
			want := list[i]
			i++
			if string(f.key) != want.Key || f.origin != want.Origin || (f.cursor == nil) != (want.Cursor == nil) || f.records != len(want.Records) {
				t.Errorf("%+v; want %+v", f, want)
			}
			j := 0
			return f.each(func(r *event.Record) error {
				if w := &want.Records[j]; r.Time != timeOf(w) || r.Clock != w.Clock || !bytes.Equal(r.Raw, w.Raw) {
					t.Errorf("%+v; want %+v", r, w)
				}
				j++
				return nil
			})
		})
		if err != nil || i != len(list) {
			t.Error(i, err)
		}
	})
}

// fuzzIndex has something of everything.
func fuzzIndex(t testing.TB) (*index, []byte) {
	t.Helper()
	x := &index{head: head{store: fuzzPlace().store, nextID: 1, bytes: merkleHeaderSize}}
	log := merkleHeader(x.store)
	apply := func(op *operation) {
		frame := merkleFrame(&x.tree, op.encode())
		log = append(log, frame...)
		if err := x.apply(op, int64(len(frame))); err != nil {
			t.Fatal(err)
		}
	}
	seg := func(id uint64, sealed bool) *SegmentRecord {
		return &SegmentRecord{ID: id, Origin: event.Origin{Source: "a", Format: "b", Host: "c"}, MinTime: -5, MaxTime: 9, Records: 4, RawBytes: 5, Bytes: 6, Sealed: sealed}
	}
	apply(&operation{generation: 3, cursors: []cursorChange{{"k", []byte("c")}, {"l", nil}}, records: []*Record{
		{Kind: KindAdded, Time: 1, Segment: seg(1, false)}, {Kind: KindAdded, Time: 1, Segment: seg(2, true)},
		{Kind: KindDamaged, Time: 1, Damage: &Damage{"wal/x", 1, 2}},
	}})
	merged := seg(700, false)
	merged.Records = 8
	apply(&operation{records: []*Record{{Kind: KindMerged, Time: 2, Segment: merged, From: []uint64{1, 2}}}})
	apply(&operation{records: []*Record{{Kind: KindSealed, Time: 3, Seal: &Seal{Size: 4, Host: "h", Time: day0, PublicKey: make([]byte, 32), Signature: make([]byte, 64)}}}})
	apply(&operation{records: []*Record{{Kind: KindHeld, Time: 3, Hold: &Hold{Name: "n", Sources: []string{"a", "b*"}, Until: 7, Reason: "r", By: "b", Time: day0}}}})
	apply(&operation{records: []*Record{{Kind: KindAdded, Time: 4, Segment: seg(701, true)}, {Kind: KindRemoved, Time: 4, ID: 700, Reason: "old"}, {Kind: KindRewrapped, Replaced: 3}}})
	return x, log
}

// FuzzCatalogue decodes any bytes as what state.db holds.
func FuzzCatalogue(f *testing.F) {
	x, _ := fuzzIndex(f)
	f.Add(byte(0), x.head.encode())
	f.Add(byte(1), x.encodeChunk(2))
	f.Add(byte(2), encodeOrigins(x.origins))
	f.Add(byte(3), encodeHolds(x.holds))
	f.Fuzz(func(t *testing.T, what byte, b []byte) {
		var again []byte
		var err error
		switch what % 4 {
		case 0:
			var h head
			if h, err = decodeHead(b); err == nil {
				again = h.encode()
				_, err = decodeHead(again)
			}
		case 1:
			y := &index{origins: x.origins}
			if err = y.decodeChunk(b); err == nil && len(y.entries) > 0 {
				z := &index{origins: x.origins}
				again = y.encodeChunk(uint32(y.entries[0].ID / chunkSize))
				err = z.decodeChunk(again)
			}
		case 2:
			var list []event.Origin
			if list, err = decodeOrigins(b); err == nil {
				_, err = decodeOrigins(encodeOrigins(list))
			}
		case 3:
			var list []Hold
			if list, err = decodeHolds(b); err == nil {
				_, err = decodeHolds(encodeHolds(list))
			}
		}
		if err != nil && (!isFormat(err) || again != nil) {
			t.Error(err)
		}
	})
}

// FuzzMerkleLog reads any bytes as a Merkle log and applies what it says.
func FuzzMerkleLog(f *testing.F) {
	_, log := fuzzIndex(f)
	f.Add(log)
	f.Add(log[:len(log)-9])
	flipped := bytes.Clone(log)
	flipped[90] ^= 4
	f.Add(flipped)
	f.Fuzz(func(t *testing.T, b []byte) {
		y := &index{head: head{store: fuzzPlace().store, nextID: 1, bytes: merkleHeaderSize}}
		r, err := newMerkleReader(bytes.NewReader(b), int64(len(b)), y.store, 0, tree{})
		for err == nil {
			var op *operation
			at := r.at
			if op, err = r.next(context.Background()); err == nil {
				err = y.apply(op, r.at-at)
			}
			if err == nil && (y.tree.root() != r.tree.root() || y.bytes != r.at) {
				t.Fatal("the index and the log do not agree")
			}
		}
		if err != io.EOF && bytes.Equal(b, log) {
			t.Error(err)
		}
	})
}

// FuzzOperation decodes any bytes as the body of a frame: the checksums before
// it keep FuzzMerkleLog from most of them.
func FuzzOperation(f *testing.F) {
	_, log := fuzzIndex(f)
	r, err := newMerkleReader(bytes.NewReader(log), int64(len(log)), fuzzPlace().store, 0, tree{})
	if err != nil {
		f.Fatal(err)
	}
	for {
		op, err := r.next(context.Background())
		if err == io.EOF {
			break
		}
		if err != nil {
			f.Fatal(err)
		}
		f.Add(op.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		op, err := decodeOperation(b)
		if err != nil {
			if !isFormat(err) {
				t.Error(err)
			}
			return
		}
		for i, r := range op.records {
			if again, err := decodeRecord(r.encode()); err != nil || again.Kind != r.Kind {
				t.Errorf("%x: %v", op.leaves[i], err)
			}
		}
		y := &index{head: head{store: fuzzPlace().store, nextID: 1}}
		_ = y.apply(op, 1)
		_ = y.mergeable()
		_, _, _ = y.expired(&Policy{Limits: Limits{MaxAge: 1, MaxBytes: 1}}, day0)
	})
}

// FuzzProof verifies any bytes as a proof: none but the true one is right.
func FuzzProof(f *testing.F) {
	x, log := fuzzIndex(f)
	var leaves []Hash
	var first []byte
	r, err := newMerkleReader(bytes.NewReader(log), int64(len(log)), x.store, 0, tree{})
	if err != nil {
		f.Fatal(err)
	}
	for range 2 {
		op, err := r.next(context.Background())
		if err != nil {
			f.Fatal(err)
		}
		for _, l := range op.leaves {
			if first == nil {
				first = l
			}
			leaves = append(leaves, leafHash(l))
		}
	}
	s := &Seal{Store: x.store.String(), Host: "h", Size: uint64(len(leaves)), Root: rootOf(leaves), Time: day0, PublicKey: key().public()}
	s.Signature = sign(s)
	good := &Proof{Schema: ProofSchema, Leaf: first, Index: 0, Path: inclusionPath(0, leaves), Seal: s}
	if _, err := good.Verify(key().public()); err != nil {
		f.Fatal(err)
	}
	b, err := json.Marshal(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"schema":"` + ProofSchema + `","seal":{"schema":"` + SealSchema + `"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ReadProof(b)
		if err != nil {
			return
		}
		rec, err := p.Verify(key().public())
		if err == nil && (!bytes.Equal(p.Leaf, first) || rec.ID != 1) {
			t.Errorf("%s proves %+v", b, rec)
		}
	})
}
