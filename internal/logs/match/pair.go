package match

import (
	"encoding/binary"
	"math/bits"
)

const (
	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

// indexPairSlow is indexPair in portable code, by eight places at a time: a
// byte of x is zero where both bytes of the pair are as wanted, and the lowest
// of the high bits that (x-lowBits)&^x leaves stands at the first such byte.
func indexPairSlow(text []byte, n, off int, b1, m1, b2, m2 byte) int {
	i := 0
	want1, mask1 := uint64(b1)*lowBits, uint64(m1)*lowBits
	want2, mask2 := uint64(b2)*lowBits, uint64(m2)*lowBits
	for ; i+8 <= n; i += 8 {
		x := ((binary.LittleEndian.Uint64(text[i:]) | mask1) ^ want1) | ((binary.LittleEndian.Uint64(text[i+off:]) | mask2) ^ want2)
		if z := (x - lowBits) &^ x & highBits; z != 0 {
			return i + bits.TrailingZeros64(z)/8
		}
	}
	for ; i < n; i++ {
		if text[i]|m1 == b1 && text[i+off]|m2 == b2 {
			return i
		}
	}
	return -1
}

// lineStart returns where the line of buf begins that holds buf[at] or, when
// that is a newline, ends there; it does not look before from.
func lineStart(buf []byte, from, at int) int {
	const newlines = '\n' * uint64(lowBits)
	for ; at-from >= 8; at -= 8 {
		x := binary.LittleEndian.Uint64(buf[at-8:]) ^ newlines
		if (x-lowBits)&^x&highBits != 0 {
			break // one of these eight; the highest such bit may be a false one
		}
	}
	for at > from && buf[at-1] != '\n' {
		at--
	}
	return at
}
