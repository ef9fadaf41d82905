package journal

import (
	"bytes"
	"os"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// writer makes journal files in memory, also those that the systemd of this
// machine does not write: old hashes, other compressions, sealed files.
type writer struct {
	t       testing.TB
	b       []byte
	compact bool
	keyed   bool
	pack    byte // flagXZ, flagLZ4, flagZSTD: of values of 512 bytes and more
	sealed  bool

	tail        uint64
	nData       uint64
	nFields     uint64
	nArrays     uint64
	nTags       uint64
	nObjects    uint64
	nEntries    uint64
	tables      [2]uint64 // data, fields
	byValue     map[string]uint64
	byField     map[string]uint64
	chains      map[uint64]*testChain // by data object; 0: of the file
	first, last head
	seqnum      uint64
}

type testChain struct {
	n, room, tail, inTail uint64
}

const testBuckets = 64

func newWriter(t testing.TB, compact, keyed bool, pack byte, sealed bool) *writer {
	w := &writer{t: t, compact: compact, keyed: keyed, pack: pack, sealed: sealed,
		byValue: map[string]uint64{}, byField: map[string]uint64{}, chains: map[uint64]*testChain{}}
	w.b = make([]byte, 264)
	copy(w.b, signature)
	var flags uint32
	if compact {
		flags |= incompatibleSmall
	}
	if keyed {
		flags |= incompatibleKeyed
	}
	flags |= map[byte]uint32{flagXZ: incompatibleXZ, flagLZ4: incompatibleLZ4, flagZSTD: incompatibleZSTD}[pack]
	le.PutUint32(w.b[headerIncompatible:], flags)
	if sealed {
		le.PutUint32(w.b[headerCompatible:], 1)
	}
	for i := range 16 {
		w.b[headerFileID+i] = byte(i + 1)
		w.b[headerMachineID+i] = byte(i + 17)
		w.b[56+i] = byte(i + 33) // boot of the writer
		w.b[headerSeqnumID+i] = byte(i + 49)
	}
	w.put(headerSize, 264)
	if sealed {
		w.tag()
	}
	for i := range w.tables {
		w.tables[i] = w.object(byte(typeDataHashTable+i), 16+16*testBuckets)
		w.put(headerDataTable+16*i, w.tables[i]+16)
		w.put(headerDataTableSize+16*i, 16*testBuckets)
	}
	return w
}

func (w *writer) put(at int, v uint64)      { le.PutUint64(w.b[at:], v) }
func (w *writer) putAt(at uint64, v uint64) { le.PutUint64(w.b[at:], v) }
func (w *writer) get(at uint64) uint64      { return le.Uint64(w.b[at:]) }
func (w *writer) fileID() (k0, k1 uint64)   { return w.get(headerFileID), w.get(headerFileID + 8) }
func (w *writer) itemSize() uint64          { return map[bool]uint64{false: 8, true: 4}[w.compact] }
func (w *writer) setItem(at, i, offset uint64) {
	if w.compact {
		le.PutUint32(w.b[at+arrayItems+4*i:], uint32(offset))
	} else {
		w.putAt(at+arrayItems+8*i, offset)
	}
}

func (w *writer) hash(p []byte) uint64 {
	if w.keyed {
		k0, k1 := w.fileID()
		return siphash(k0, k1, p)
	}
	return jenkins(p)
}

// object appends an object and returns its offset.
func (w *writer) object(kind byte, size int) uint64 {
	for len(w.b)%8 != 0 {
		w.b = append(w.b, 0)
	}
	at := uint64(len(w.b))
	w.b = append(w.b, make([]byte, size)...)
	w.b[at] = kind
	w.putAt(at+objectSize, uint64(size))
	w.tail = at
	w.nObjects++
	return at
}

// tag appends what seals the objects before it; its seal is not valid.
func (w *writer) tag() {
	at := w.object(typeTag, tagSize)
	w.nTags++
	w.putAt(at+16, w.nTags)
	w.putAt(at+24, 0)
	for i := range uint64(32) {
		w.b[at+32+i] = byte(i * 7)
	}
}

// hashed enters an object into a hash table.
func (w *writer) hashed(table int, at, hash uint64) {
	bucket := w.tables[table] + 16 + hash%testBuckets*16
	if last := w.get(bucket + 8); last != 0 {
		w.putAt(last+dataNextHash, at)
	} else {
		w.putAt(bucket, at)
	}
	w.putAt(bucket+8, at)
}

func (w *writer) field(name string) uint64 {
	at, ok := w.byField[name]
	if !ok {
		at = w.object(typeField, 40+len(name))
		copy(w.b[at+40:], name)
		hash := w.hash([]byte(name))
		w.putAt(at+16, hash)
		w.hashed(1, at, hash)
		w.byField[name] = at
		w.nFields++
	}
	return at
}

func (w *writer) data(value []byte) uint64 {
	if at, ok := w.byValue[string(value)]; ok {
		return at
	}
	stored, flag := value, byte(0)
	if w.pack != 0 && len(value) >= 512 {
		if packed := w.compress(value); len(packed) < len(value) {
			stored, flag = packed, w.pack
		}
	}
	payload := dataRegular
	if w.compact {
		payload = dataCompact
	}
	at := w.object(typeData, payload+len(stored))
	w.b[at+1] = flag
	copy(w.b[at+uint64(payload):], stored)
	hash := w.hash(value)
	w.putAt(at+dataHash, hash)
	w.hashed(0, at, hash)
	w.byValue[string(value)] = at
	w.nData++
	name, _, ok := bytes.Cut(value, []byte("="))
	if ok {
		f := w.field(string(name))
		w.putAt(at+32, w.get(f+32)) // next data object of the field
		w.putAt(f+32, at)
	}
	return at
}

func (w *writer) compress(value []byte) []byte {
	switch w.pack {
	case flagZSTD:
		enc, err := zstd.NewWriter(nil)
		if err != nil {
			w.t.Fatal(err)
		}
		return enc.EncodeAll(value, nil)
	case flagLZ4:
		out := make([]byte, 8+lz4.CompressBlockBound(len(value)))
		le.PutUint64(out, uint64(len(value)))
		n, err := lz4.CompressBlock(value, out[8:], nil)
		if err != nil {
			w.t.Fatal(err)
		}
		if n == 0 {
			return value
		}
		return out[:8+n]
	default:
		var buf bytes.Buffer
		enc, err := xz.WriterConfig{DictCap: 1 << 20, NoCheckSum: true}.NewWriter(&buf)
		if err != nil {
			w.t.Fatal(err)
		}
		enc.Write(value)
		if err := enc.Close(); err != nil {
			w.t.Fatal(err)
		}
		return buf.Bytes()
	}
}

// link adds an entry to a chain: to arrays of growing size.
func (w *writer) link(c *testChain, setHead func(uint64), offset uint64) {
	if c.inTail == c.room {
		room := max(4, 2*c.room)
		at := w.object(typeEntryArray, arrayItems+int(room*w.itemSize()))
		w.nArrays++
		if c.tail != 0 {
			w.putAt(c.tail+arrayNext, at)
		} else {
			setHead(at)
		}
		c.tail, c.room, c.inTail = at, room, 0
	}
	w.setItem(c.tail, c.inTail, offset)
	c.inTail++
}

// add appends an entry.
func (w *writer) add(realtime, monotonic uint64, boot ID, fields ...string) {
	var offsets []uint64
	xor := uint64(0)
	for _, f := range fields {
		offsets = append(offsets, w.data([]byte(f)))
		if w.keyed {
			xor ^= jenkins([]byte(f))
		} else {
			xor ^= w.hash([]byte(f))
		}
	}
	slices.Sort(offsets)
	offsets = slices.Compact(offsets)
	item := 16
	if w.compact {
		item = 4
	}
	at := w.object(typeEntry, entryItems+item*len(offsets))
	w.seqnum++
	h := head{offset: at, seqnum: w.seqnum, realtime: realtime, monotonic: monotonic, boot: boot, xor: xor}
	if w.nEntries == 0 {
		w.first = h
	}
	w.last = h
	w.nEntries++
	w.putAt(at+entrySeqnum, h.seqnum)
	w.putAt(at+entryRealtime, realtime)
	w.putAt(at+entryMonotonic, monotonic)
	copy(w.b[at+entryBoot:], boot[:])
	w.putAt(at+entryXor, xor)
	for i, d := range offsets {
		if w.compact {
			le.PutUint32(w.b[at+entryItems+uint64(4*i):], uint32(d))
		} else {
			w.putAt(at+entryItems+uint64(16*i), d)
			w.putAt(at+entryItems+uint64(16*i)+8, w.get(d+dataHash))
		}
	}
	all := w.chains[0]
	if all == nil {
		all = &testChain{}
		w.chains[0] = all
	}
	w.link(all, func(a uint64) { w.put(headerEntryArray, a) }, at)
	all.n++
	for _, d := range offsets {
		if w.get(d+dataEntry) == 0 {
			w.putAt(d+dataEntry, at)
			w.chains[d] = &testChain{}
		} else {
			c := w.chains[d]
			w.link(c, func(a uint64) { w.putAt(d+dataEntryArray, a) }, at)
			if w.compact {
				le.PutUint32(w.b[d+64:], uint32(c.tail))
				le.PutUint32(w.b[d+68:], uint32(c.inTail))
			}
		}
		w.putAt(d+dataEntries, w.get(d+dataEntries)+1)
	}
	if w.sealed && w.nEntries%50 == 0 {
		w.tag()
	}
}

// bytes returns the file, archived.
func (w *writer) bytes() []byte {
	b := slices.Clone(w.b)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	put := func(at int, v uint64) { le.PutUint64(b[at:], v) }
	b[headerState] = 2
	put(headerArenaSize, uint64(len(b))-264)
	put(headerTailObject, w.tail)
	put(144, w.nObjects)
	put(headerEntries, w.nEntries)
	put(headerTailSeqnum, w.last.seqnum)
	put(headerHeadSeqnum, w.first.seqnum)
	put(184, w.first.realtime)
	put(192, w.last.realtime)
	put(200, w.last.monotonic)
	put(208, w.nData)
	put(216, w.nFields)
	put(224, w.nTags)
	put(232, w.nArrays)
	if c := w.chains[0]; c != nil && w.compact {
		le.PutUint32(b[256:], uint32(c.tail))
		le.PutUint32(b[260:], uint32(c.inTail))
	}
	copy(b[56:72], w.last.boot[:])
	return b
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
