package segment

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// filterBits is how many bits of the filter of a block there are for each
// distinct value: about one in a hundred values that are not there seem to be.
const filterBits = 10

// salts choose the bit in each word of a filter's group.
var salts = [8]uint32{0x47b6137b, 0x44974d91, 0x8824ad5b, 0xa2b7289d, 0x705495c7, 0x2df1424b, 0x9efc4947, 0x5c6bfb31}

// hashValue is the hash by which values are entered in filters. It is part of
// the format.
func hashValue(b []byte) uint64 {
	const k = 0x9fb21c651e98df25
	h := uint64(len(b)) * 0x9e3779b97f4a7c15
	for len(b) >= 8 {
		h = (h ^ binary.LittleEndian.Uint64(b)) * k
		h ^= bits.RotateLeft64(h, 29)
		b = b[8:]
	}
	var tail uint64
	for i, c := range b {
		tail |= uint64(c) << (8 * i)
	}
	h = (h ^ tail) * k
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return (h ^ h>>33) | 1 // sets have 0 for free places
}

// filter is a split block Bloom filter: groups of 8 words of 32 bits.
type filter []byte

const groupSize = 32 // bytes

// newFilter returns a filter of hashes.
func newFilter(hashes []uint64) filter {
	groups := len(hashes)*filterBits/(8*groupSize) + 1
	f := make(filter, groups*groupSize)
	for _, h := range hashes {
		g := f.group(h)
		for i, salt := range salts {
			w := g[4*i:]
			binary.LittleEndian.PutUint32(w, binary.LittleEndian.Uint32(w)|1<<(uint32(h)*salt>>27))
		}
	}
	return f
}

func (f filter) group(h uint64) []byte {
	return f[groupOf(h, len(f)/groupSize)*groupSize:][:groupSize]
}

// groupOf returns which of n groups a hash belongs to.
func groupOf(h uint64, n int) int {
	i, _ := bits.Mul64(h>>32<<32, uint64(n))
	return int(i)
}

// groupHas is false only if the hash was never entered in its group.
func groupHas(g []byte, h uint64) bool {
	for i, salt := range salts {
		if binary.LittleEndian.Uint32(g[4*i:])&(1<<(uint32(h)*salt>>27)) == 0 {
			return false
		}
	}
	return true
}

// pageSize is how much of a filter has a checksum of its own, in bytes: a search
// reads one page of most blocks.
const pageSize = 4 << 10

// pages returns the filter as it is kept: pages, each followed by its checksum.
func (f filter) pages() []byte {
	var out []byte
	for page := range slices.Chunk(f, pageSize) {
		out = append(out, page...)
		out = binary.LittleEndian.AppendUint32(out, checksum(page))
	}
	return out
}

// mayHave says whether the block may have a value, by its hash. What keeps it
// from being told is in b.failed; the answer is true then.
func (b *Block) mayHave(h uint64) bool {
	s := &b.info.filter
	groups := int(s.size / groupSize)
	if groups == 0 {
		return true
	}
	at := groupOf(h, groups) * groupSize
	if page := at / pageSize; page != b.page {
		from := int64(page) * (pageSize + 4)
		n := min(pageSize+4, s.packed-from)
		b.pageData = slices.Grow(b.pageData[:0], pageSize+4)[:n]
		if err := readAt(b.r.data, b.pageData, b.info.offset+s.at+from); err != nil {
			b.failed = err
			return true
		}
		content := b.pageData[:n-4]
		if checksum(content) != binary.LittleEndian.Uint32(b.pageData[n-4:]) {
			b.failed = corrupt(b.info.offset+s.at+from, "the checksum of a filter is wrong")
			return true
		}
		b.page, b.pageData = page, content
	}
	return groupHas(b.pageData[at%pageSize:][:groupSize], h)
}

// checkFilter reads all of the filter.
func (b *Block) checkFilter() error {
	s := &b.info.filter
	if err := b.read(s); err != nil {
		return err
	}
	for i, off := 0, 0; off < len(b.packed); i, off = i+1, off+pageSize+4 {
		page := b.packed[off:min(off+pageSize+4, len(b.packed))]
		if checksum(page[:len(page)-4]) != binary.LittleEndian.Uint32(page[len(page)-4:]) {
			return corrupt(b.info.offset+s.at+int64(off), "the checksum of a filter is wrong")
		}
	}
	return nil
}

// hashSet collects distinct hashes.
type hashSet struct {
	table []uint64 // 0: free; a power of two long
	list  []uint64
}

func (s *hashSet) add(h uint64) {
	if 2*len(s.list) >= len(s.table) {
		s.grow()
	}
	mask := uint64(len(s.table) - 1)
	for i := h >> 20 & mask; ; i = (i + 1) & mask {
		switch s.table[i] {
		case h:
			return
		case 0:
			s.table[i] = h
			s.list = append(s.list, h)
			return
		}
	}
}

func (s *hashSet) grow() {
	s.table = make([]uint64, max(1<<12, 2*len(s.table)))
	mask := uint64(len(s.table) - 1)
	for _, h := range s.list {
		i := h >> 20 & mask
		for s.table[i] != 0 {
			i = (i + 1) & mask
		}
		s.table[i] = h
	}
}

func (s *hashSet) reset() {
	clear(s.table)
	s.list = s.list[:0]
}
