package packages

import "encoding/binary"

// wanted are the paths that a lookup asks for, made for a scan through all the
// paths of a database: nearly every one of them is none of the wanted, and is
// to be passed over at the cost of a few instructions. So the last eight bytes
// of a path are looked up in a bitmap first, and only what is found there in
// the map.
type wanted struct {
	filter []uint64
	shift  uint
	byPath map[string][]int32 // canonical path → what it is wanted for
}

func newWanted(n int) *wanted {
	bits := uint(16)
	for 1<<bits < 16*n && bits < 24 {
		bits++
	}
	return &wanted{filter: make([]uint64, 1<<bits/64), shift: 64 - bits, byPath: make(map[string][]int32, n)}
}

// slot is the place of a path in the bitmap.
func (w *wanted) slot(p []byte) uint64 {
	var v uint64
	if n := len(p); n >= 8 {
		v = binary.LittleEndian.Uint64(p[n-8:])
	} else {
		for _, c := range p {
			v = v<<8 | uint64(c)
		}
	}
	return v * 0x9e3779b97f4a7c15 >> w.shift
}

// add wants a canonical path for the purpose that i numbers.
func (w *wanted) add(p []byte, i int32) {
	s := w.slot(p)
	w.filter[s/64] |= 1 << (s % 64)
	w.byPath[string(p)] = append(w.byPath[string(p)], i)
}

// find returns what a canonical path is wanted for, mostly nothing.
func (w *wanted) find(p []byte) []int32 {
	s := w.slot(p)
	if w.filter[s/64]&(1<<(s%64)) == 0 {
		return nil
	}
	return w.byPath[string(p)]
}
