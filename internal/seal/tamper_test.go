package seal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const sealedSegment = SegmentSize + tagSize

// segments returns where the segments of a sealed file with the smallest
// header are, without their header.
func segments(b []byte) [][]byte {
	return slices.Collect(slices.Chunk(b[12288:], sealedSegment))
}

// assemble returns a file of a header and segments.
func assemble(header []byte, segments ...[]byte) []byte {
	return append(slices.Clone(header[:12288]), slices.Concat(segments...)...)
}

func TestEveryBitOfTheHeader(t *testing.T) {
	k := key(t, 1)
	b := sealed(t, []byte("content"), testContext, k)
	undetected := func(what string, flip func(bit int)) {
		for bit := range 12288 * 8 {
			flip(bit)
			if _, err := open(b, testContext, k); err == nil {
				t.Fatalf("%s: bit %d of byte %d is not noticed", what, bit%8, bit/8)
			} else if bit/8 >= 18 && !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s: bit %d of byte %d: %v; want ErrCorrupt", what, bit%8, bit/8, err)
			}
			flip(bit)
		}
	}
	undetected("one bit", func(bit int) { b[bit/8] ^= 1 << (bit % 8) })
	if got, err := content(b, testContext, k); err != nil || string(got) != "content" {
		t.Fatal("the test itself has changed the file")
	}
	// Who changes a bit in one copy can change it in the other.
	for bit := range 4096 * 8 {
		i, mask := bit/8, byte(1)<<(bit%8)
		b[4096+i] ^= mask
		b[8192+i] ^= mask
		_, err := open(b, testContext, k)
		switch {
		case err == nil:
			t.Fatalf("bit %d of byte %d of both slots is not noticed", bit%8, i)
		case errors.Is(err, ErrCorrupt):
		case errors.Is(err, ErrNoKey) && i >= slotHead && i < slotHead+4+8: // kind, length and key id of the only stanza
		default:
			t.Fatalf("bit %d of byte %d of both slots: %v", bit%8, i, err)
		}
		b[4096+i] ^= mask
		b[8192+i] ^= mask
	}
}

func TestBitsOfThePayload(t *testing.T) {
	k := key(t, 1)
	b := sealed(t, random(2*SegmentSize+5000, 1), testContext, k)
	rnd := rand.New(rand.NewPCG(1, 2))
	at := []int{12288, 12288 + SegmentSize - 1, 12288 + SegmentSize, 12288 + sealedSegment - 1, 12288 + sealedSegment, len(b) - 17, len(b) - 16, len(b) - 1}
	for range 60 {
		at = append(at, 12288+rnd.IntN(len(b)-12288))
	}
	for _, i := range at {
		mask := byte(1) << rnd.IntN(8)
		b[i] ^= mask
		_, err := content(b, testContext, k)
		wantCorrupt(t, fmt.Sprintf("byte %d", i), err)
		o, err := open(b, testContext, k)
		if err == nil {
			err = o.Verify(testCtx)
			var c *CorruptError
			if !errors.As(err, &c) || c.Segment != int64(i-12288)/sealedSegment || c.Offset != 12288+c.Segment*sealedSegment {
				t.Errorf("byte %d: Verify says %v", i, err)
			}
			buf := make([]byte, SegmentSize)
			if _, err := o.ReadAt(buf, int64(i-12288)/sealedSegment*SegmentSize); !errors.Is(err, ErrCorrupt) {
				t.Errorf("byte %d: ReadAt: %v", i, err)
			}
			if bytes.IndexFunc(buf, func(r rune) bool { return r != 0 }) >= 0 {
				t.Errorf("byte %d: ReadAt hands out what is not authentic", i)
			}
		}
		b[i] ^= mask
	}
}

func TestSegmentsStayWhereTheyAre(t *testing.T) {
	k := key(t, 1)
	data := random(4*SegmentSize, 1)
	a := sealed(t, data, testContext, k)
	same := sealed(t, data, testContext, k) // the same content, context and key file
	s, x := segments(a), segments(same)
	for name, b := range map[string][]byte{
		"swapped":                   assemble(a, s[0], s[2], s[1], s[3]),
		"last one first":            assemble(a, s[3], s[1], s[2], s[0]),
		"doubled":                   assemble(a, s[0], s[1], s[1], s[2], s[3]),
		"doubled in place":          assemble(a, s[0], s[1], s[1], s[3]),
		"last one doubled":          assemble(a, s[0], s[1], s[2], s[3], s[3]),
		"first dropped":             assemble(a, s[1], s[2], s[3]),
		"one dropped":               assemble(a, s[0], s[2], s[3]),
		"last dropped":              assemble(a, s[0], s[1], s[2]),
		"of another object":         assemble(a, s[0], x[1], s[2], s[3]),
		"all of another object":     assemble(a, x...),
		"header of another object":  assemble(same, s...),
		"last of another object":    assemble(a, s[0], s[1], s[2], x[3]),
		"first of another object":   assemble(a, x[0], s[1], s[2], s[3]),
		"a byte appended":           append(slices.Clone(a), 0),
		"a tag appended":            append(slices.Clone(a), make([]byte, 16)...),
		"17 bytes appended":         append(slices.Clone(a), make([]byte, 17)...),
		"a segment appended":        append(slices.Clone(a), make([]byte, sealedSegment)...),
		"an object appended":        append(slices.Clone(a), same...),
		"a byte in front":           append([]byte{0}, a...),
		"a byte in the middle":      slices.Insert(slices.Clone(a), 12288+sealedSegment, 0),
		"a byte out of the middle":  slices.Delete(slices.Clone(a), 12288+sealedSegment, 12288+sealedSegment+1),
		"first half and second one": append(slices.Clone(a[:len(a)/2]), a[len(a)/2+1:]...),
	} {
		if _, err := content(b, testContext, k); name == "a byte in front" {
			if !errors.Is(err, ErrNotSealed) {
				t.Errorf("%s: %v", name, err)
			}
		} else {
			wantCorrupt(t, name, err)
		}
		if o, err := open(b, testContext, k); err == nil {
			wantCorrupt(t, name+", verified", o.Verify(testCtx))
		}
	}
	if got, err := content(assemble(a, s...), testContext, k); err != nil || !bytes.Equal(got, data) {
		t.Error("the test itself is wrong")
	}
}

func TestTruncation(t *testing.T) {
	k := key(t, 1)
	for _, size := range []int{0, 10, SegmentSize, 3*SegmentSize + 100, 4 * SegmentSize} {
		b := sealed(t, random(size, 1), testContext, k)
		cuts := []int{0, 1, 15, 16, 17, 4095, 4096, 8192, 12287, 12288, 12289, 12288 + 16, 12288 + 17, len(b) - 1, len(b) - 16, len(b) - 17}
		for at := 12288; at < len(b); at += sealedSegment {
			cuts = append(cuts, at-1, at, at+1, at+16, at+17, at+SegmentSize/2)
		}
		for _, n := range cuts {
			if n < 0 || n >= len(b) {
				continue
			}
			_, err := open(b[:n], testContext, k)
			if n < 16 {
				if !errors.Is(err, ErrNotSealed) {
					t.Errorf("%d bytes cut to %d: %v", size, n, err)
				}
				continue
			}
			wantCorrupt(t, fmt.Sprintf("%d bytes, cut to %d of %d", size, n, len(b)), err)
		}
		// Cut off while it is open.
		r := &shrinking{b: b}
		o, err := Open(r, int64(len(b)), testContext, []Identity{k})
		if err != nil {
			t.Fatal(err)
		}
		r.b = b[:12288+1]
		wantCorrupt(t, "cut off while open", o.Verify(testCtx))
	}
}

type shrinking struct{ b []byte }

func (s *shrinking) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(s.b).ReadAt(p, off)
}

func TestWrongContextAndKeys(t *testing.T) {
	k := key(t, 1)
	b := sealed(t, []byte("content"), testContext, k)
	for _, context := range []string{"", "test object 2", testContext + "\x00", testContext[1:]} {
		_, err := open(b, context, k)
		wantCorrupt(t, fmt.Sprintf("context %q", context), err)
	}
	// The context in the file is changed to what the reader wants.
	forged := slices.Clone(b)
	copy(forged[atContext:], "test object 2")
	_, err := open(forged, "test object 2", k)
	wantCorrupt(t, "a forged context", err)
	if _, err := open(b, testContext, key(t, 2)); !errors.Is(err, ErrNoKey) {
		t.Errorf("another key: %v", err)
	}
	if _, err := open(b, testContext); !errors.Is(err, ErrNoKey) {
		t.Errorf("no key: %v", err)
	}
	for _, other := range [][]byte{nil, []byte("mobileops"), make([]byte, 20_000)} {
		if _, err := open(other, testContext, k); !errors.Is(err, ErrNotSealed) {
			t.Errorf("%d bytes that are not sealed: %v", len(other), err)
		}
	}
	newer := slices.Clone(b)
	newer[atVersion+1] = 2
	if _, err := open(newer, testContext, k); !errors.Is(err, ErrNewer) {
		t.Errorf("version 2: %v", err)
	}
}

// withSlot returns the file with both slots replaced.
func withSlot(b, slot []byte) []byte {
	out := slices.Clone(b)
	copy(out[4096:8192], slot)
	copy(out[8192:12288], slot)
	return out
}

func TestHeadersOfOthers(t *testing.T) {
	k, l := key(t, 1), key(t, 2)
	a := sealed(t, []byte("content of a"), testContext, k, l)
	other := sealed(t, []byte("content of b"), testContext, k, l)

	_, err := open(withSlot(a, other[4096:8192]), testContext, k)
	wantCorrupt(t, "the slots of another object", err)
	_, err = open(append(slices.Clone(other[:4096]), a[4096:]...), testContext, k)
	wantCorrupt(t, "the preamble of another object", err)

	// Stanzas are put together anew, with the MAC of the original.
	s, err := parseSlot(a[4096:8192], 4096)
	if err != nil {
		t.Fatal(err)
	}
	o, err := parseSlot(other[4096:8192], 4096)
	if err != nil {
		t.Fatal(err)
	}
	p, err := parsePreamble(a)
	if err != nil {
		t.Fatal(err)
	}
	for name, stanzas := range map[string][]stanza{
		"removed":              s.stanzas[:1],
		"added":                append(slices.Clone(s.stanzas), s.stanzas[0]),
		"reordered":            {s.stanzas[1], s.stanzas[0]},
		"of an unknown kind":   append(slices.Clone(s.stanzas), stanza{77, []byte("?")}),
		"of another object":    {s.stanzas[0], o.stanzas[1]},
		"all of other objects": o.stanzas,
	} {
		forged, err := (&slot{sequence: 1, stanzas: stanzas}).encode(p, make([]byte, 32))
		if err != nil {
			t.Fatal(err)
		}
		copy(forged[4096-macSize:], a[8192-macSize:8192])
		_, err = open(withSlot(a, forged), testContext, k)
		wantCorrupt(t, "stanzas "+name, err)
	}
	// The same age stanza in another object: it unwraps, but to another key.
	to, ids := ageKeys(t)
	a, other = sealed(t, []byte("a"), testContext, to...), sealed(t, []byte("b"), testContext, to...)
	_, err = open(withSlot(a, other[4096:8192]), testContext, ids...)
	wantCorrupt(t, "the age stanza of another object", err)
	// A sequence number is authenticated too.
	later := slices.Clone(a[4096:8192])
	binary.BigEndian.PutUint64(later[8:], 2)
	_, err = open(withSlot(a, later), testContext, ids...)
	wantCorrupt(t, "another sequence number", err)
}

// FuzzOpen opens whatever comes: as it comes, and as the parts of a header
// whose padding and copies are right, so that it gets behind their comparison.
// The parts are short, as the fuzzer spends its time on making them shorter.
func FuzzOpen(f *testing.F) {
	// The seed is a file that stays the same: its keys are known to all of the
	// processes that fuzz.
	ids, err := ParseIdentities(strings.NewReader(goldenIdentity))
	if err != nil {
		f.Fatal(err)
	}
	ids = append(ids, key(f, 1))
	whole, err := os.ReadFile(filepath.Join("testdata", "v1.sealed"))
	if err != nil {
		f.Fatal(err)
	}
	const context, plain = "golden", "sealed in 2026\n"
	end := 4096 + slotHead + int(binary.BigEndian.Uint32(whole[4096+20:]))
	f.Add(whole[:70], whole[4096:end], whole[8192-macSize:8192], whole[12288:], false)
	f.Add(whole[:70], whole[4096:4700], whole[8192-macSize:8192], whole[12288:], true)
	f.Add(whole[:70], []byte(slotMagic+"\x00\x00\x00\x00\x00\x00\x00\x01\x00\x02\x00\x00\x00\x00\x00\x08\x00\x01\x00\x00\x00\x02\x00\x00"), []byte(nil), []byte(nil), false)
	f.Add([]byte(magic), []byte(nil), []byte(nil), []byte(nil), false)
	f.Fuzz(func(t *testing.T, preamble, stanzas, mac, payload []byte, interrupted bool) {
		raw := slices.Concat(preamble, stanzas, mac, payload)
		if _, err := open(raw, context, ids...); err == nil && len(raw) < 12288 {
			t.Errorf("an object of %d bytes opens", len(raw))
		}
		slot := make([]byte, max(4096, min(maxSlot, (len(stanzas)+macSize+4095)/4096*4096)))
		copy(slot, stanzas)
		copy(slot[len(slot)-macSize:], mac)
		b := make([]byte, 4096)
		copy(b, preamble)
		copy(b[fixedSize:], stateWhole)
		if interrupted {
			copy(b[fixedSize:], stateRewrapped)
		}
		b = slices.Concat(b, slot, slot, payload)
		o, err := open(b, context, ids...)
		if err != nil {
			return
		}
		if o.Size() > int64(len(payload)) {
			t.Fatalf("%d bytes in a payload of %d", o.Size(), len(payload))
		}
		if got := make([]byte, o.Size()); second(o.ReadAt(got, 0)) != nil || string(got) != plain {
			t.Errorf("what nobody sealed opens: %q", got)
		}
	})
}
