package store

import (
	"hash/maphash"
	"strings"
)

// paths numbers paths from 0, and keeps each once.
type paths struct {
	seed  maphash.Seed
	parts []*strings.Builder // their text, one after another; none grows beyond its first size
	where table[place]
	count int
	slots index
}

// place says where the text of a path is. One of length wholePart has a part of its
// own, for directories can be made deeper than any path that a kernel takes.
type place struct {
	part     uint32
	off, len uint16
}

const (
	textPart  = 1<<16 - 1 // bytes
	wholePart = 1<<16 - 1
)

func (p *paths) text(id uint32) string {
	at := p.where.at(int(id))
	part := p.parts[at.part].String()
	if at.len == wholePart {
		return part
	}
	return part[at.off : int(at.off)+int(at.len)]
}

func (p *paths) find(path string) (uint32, bool) {
	return p.slots.find(maphash.String(p.seed, path), func(id uint32) bool { return p.text(id) == path })
}

// add returns the number of a path.
func (p *paths) add(path string) uint32 {
	if id, ok := p.find(path); ok {
		return id
	}
	last := len(p.parts) - 1
	if last < 0 || p.parts[last].Len()+len(path) > textPart {
		p.parts = append(p.parts, new(strings.Builder))
		last++
		p.parts[last].Grow(max(textPart, len(path)))
	}
	id := uint32(p.count)
	p.count++
	*p.where.at(int(id)) = place{uint32(last), uint16(p.parts[last].Len()), uint16(min(len(path), wholePart))}
	p.parts[last].WriteString(path)
	p.slots.add(maphash.String(p.seed, path), func(id uint32) uint64 { return maphash.String(p.seed, p.text(id)) })
	return id
}

// table is an array that grows without being copied.
type table[T any] struct{ parts [][]T }

const tablePart = 1 << 11 // elements

// at returns the element of that number, which is made when there is none.
func (t *table[T]) at(i int) *T {
	for i/tablePart >= len(t.parts) {
		t.parts = append(t.parts, nil)
	}
	if t.parts[i/tablePart] == nil {
		t.parts[i/tablePart] = make([]T, tablePart)
	}
	return &t.parts[i/tablePart][i%tablePart]
}

// get returns the element of that number, zero when it was never made.
func (t *table[T]) get(i int) (e T) {
	if i/tablePart < len(t.parts) && t.parts[i/tablePart] != nil {
		e = t.parts[i/tablePart][i%tablePart]
	}
	return e
}

// index finds numbers by hashes: open addressing, with the number plus 1 in a
// slot, and a byte of the hash, so that hardly any other is looked at.
type index struct {
	slots []uint32
	tags  []uint8
	n     int
}

func tag(h uint64) uint8 { return uint8(h >> 56) }

// find returns the number of that hash of which is says yes.
func (x *index) find(h uint64, is func(uint32) bool) (uint32, bool) {
	if len(x.slots) == 0 {
		return 0, false
	}
	for i := h & uint64(len(x.slots)-1); ; i = (i + 1) & uint64(len(x.slots)-1) {
		switch s := x.slots[i]; {
		case s == 0:
			return 0, false
		case x.tags[i] == tag(h) && is(s-1):
			return s - 1, true
		}
	}
}

// add enters the number n, the next one; hash tells that of those before.
func (x *index) add(h uint64, hash func(uint32) uint64) {
	if (x.n+1)*8 > len(x.slots)*7 {
		size := max(64, 2*len(x.slots))
		x.slots, x.tags = nil, nil // before the larger ones are made
		x.slots, x.tags = make([]uint32, size), make([]uint8, size)
		for i := range uint32(x.n) { // in this order: it is the one in which they lie
			x.enter(hash(i), i+1)
		}
	}
	x.n++
	x.enter(h, uint32(x.n))
}

func (x *index) enter(h uint64, s uint32) {
	i := h & uint64(len(x.slots)-1)
	for x.slots[i] != 0 {
		i = (i + 1) & uint64(len(x.slots)-1)
	}
	x.slots[i], x.tags[i] = s, tag(h)
}
