package segment

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/match"
)

// content is the bytes of a segment of a few records.
func content(t testing.TB, n int) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := NewWriter(&buf, Meta{event.Origin{Source: "s", Format: "plain", Host: "h"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range lines(rand.New(rand.NewPCG(7, 8)), n) {
		if err := w.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// examine does everything that a search does with a segment.
func examine(data []byte) error {
	r, err := Open(bytes.NewReader(data))
	if err != nil {
		return err
	}
	searches := []*Search{
		NewSearch(match.Need{}),
		NewSearch(match.Need{Exact: true, Clauses: []match.Clause{{{Text: []byte("Failed password")}}}}),
		NewSearch(match.Need{Exact: true, Clauses: []match.Clause{{{Text: []byte("10.")}}, {{Text: []byte("alice7")}, {Text: []byte("root"), Fold: true}}}}),
		NewSearch(match.Need{Clauses: []match.Clause{{{Text: []byte("10.1.2.3")}}}}),
	}
	var b Block
	for i := range r.Blocks() {
		if err := b.Load(r, i); err != nil {
			return err
		}
		for _, q := range searches {
			sel, err := b.Select(q)
			if err != nil {
				return err
			}
			if err := b.Each(sel, math.MinInt64, math.MaxInt64, func(int, *event.Record) error { return nil }); err != nil {
				return err
			}
		}
	}
	return r.Verify(context.Background())
}

func TestEveryFlippedBitIsNoticed(t *testing.T) {
	data := content(t, 400)
	if err := examine(data); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range len(data) {
		bad := bytes.Clone(data)
		bad[i] ^= 1 << rng.IntN(8)
		err := examine(bad)
		if err == nil {
			t.Fatalf("byte %d of %d was changed, and nothing noticed it", i, len(data))
		}
		var damage *CorruptError
		if !errors.As(err, &damage) || failure.KindOf(err) != failure.Untrustworthy {
			t.Fatalf("byte %d: %v is no damage", i, err)
		}
	}
}

func TestEveryCutIsNoticed(t *testing.T) {
	data := content(t, 400)
	for n := range len(data) {
		if err := examine(data[:n]); err == nil {
			t.Fatalf("cut to %d of %d bytes, and nothing noticed it", n, len(data))
		}
	}
	if err := examine(append(bytes.Clone(data), 0)); err == nil {
		t.Error("a byte more was not noticed")
	}
}

// FuzzSegment reads files that are no segments, or damaged ones.
func FuzzSegment(f *testing.F) {
	data := content(f, 60)
	f.Add(data)
	f.Add(data[:len(data)-9])
	f.Fuzz(func(t *testing.T, data []byte) { examine(data) })
}

// FuzzBlock reads blocks that were made to do harm: their checksums are right,
// and the index says of them what the maker wants.
func FuzzBlock(f *testing.F) {
	data := content(f, 60)
	r, err := Open(bytes.NewReader(data))
	if err != nil {
		f.Fatal(err)
	}
	var b Block
	if err := b.Load(r, 0); err != nil {
		f.Fatal(err)
	}
	if err := b.Each(b.All(), math.MinInt64, math.MaxInt64, func(int, *event.Record) error { return nil }); err != nil {
		f.Fatal(err)
	}
	if len(b.frames) != 1 {
		f.Fatalf("%d frames; one was expected", len(b.frames))
	}
	var frames []byte
	frames = b.frames[0].encode(binary.AppendUvarint(frames, 1))
	at := bytes.Index(b.dict, frames)
	if _, err := b.column(0); err != nil {
		f.Fatal(err)
	}
	f.Add(b.dict[:at], b.table, b.rowData, b.timeData, b.frameData[0], make([]byte, 64), b.info.records, b.info.raw)
	f.Fuzz(func(t *testing.T, templates, columns, rows, times, frame, flt []byte, records, raw int64) {
		if len(templates)+len(columns)+len(rows)+len(times)+len(frame)+len(flt) > 1<<18 {
			return
		}
		examine(assemble(templates, columns, rows, times, frame, flt, records, raw))
	})
}

// assemble makes a segment of one block from its parts.
func assemble(templates, columns, rows, times, frame, flt []byte, records, raw int64) []byte {
	var buf bytes.Buffer
	w, _ := NewWriter(&buf, Meta{})
	p := &w.pack
	p.out = p.out[:0]
	info := blockInfo{offset: w.off, records: records & math.MaxInt32, raw: raw & math.MaxInt32, maxTime: math.MaxInt64}
	packed := p.add(frame)
	info.rows, info.times = p.add(rows), p.add(times)
	info.dictionary, info.columns = p.addQuick(append(bytes.Clone(templates), packed.encode([]byte{1})...)), p.addQuick(columns)
	info.values = stamp{max: 1 << 20, run: 1 << 20, dots: 1 << 20, bytes: [2]uint64{math.MaxUint64, math.MaxUint64}}
	flt = flt[:len(flt)/groupSize*groupSize]
	kept := filter(flt).pages()
	info.filter = section{int64(len(p.out)), int64(len(kept)), int64(len(flt)), checksum(kept)}
	p.out = append(p.out, kept...)
	info.length = int64(len(p.out))
	w.write(p.out)
	w.index = []blockInfo{info}
	w.Close()
	return buf.Bytes()
}
