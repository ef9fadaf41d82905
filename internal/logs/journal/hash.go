package journal

import (
	"bytes"
	"math/bits"
)

// find returns the offset of the data object with a value ("FIELD=value"), or 0.
func (f *file) find(c *codec, value []byte) (uint64, error) {
	table, size := f.counterPair(headerDataTable)
	n := size / 16
	if n == 0 {
		return 0, nil
	}
	if table < f.first || table > uint64(len(f.m)) || size > uint64(len(f.m))-table {
		return 0, f.bad(headerDataTable, "hash table of %d bytes at %d", size, table)
	}
	hash := f.hash(value)
	offset := le.Uint64(f.m[table+hash%n*16:])
	for steps := uint64(0); offset != 0; steps++ {
		o, err := f.data(offset)
		if err != nil {
			return 0, err
		}
		if le.Uint64(o[dataHash:]) == hash {
			v, err := c.value(f, offset, o)
			if err != nil {
				return 0, err
			}
			if bytes.Equal(v, value) {
				return offset, nil
			}
		}
		if steps > uint64(len(f.m))/dataRegular {
			return 0, f.bad(offset, "chain of a hash table that goes in a circle")
		}
		offset = le.Uint64(o[dataNextHash:])
	}
	return 0, nil
}

// counterPair reads an offset and a size from the header.
func (f *file) counterPair(at int) (uint64, uint64) { return f.counter(at), f.counter(at + 8) }

// hash is the hash of a value in this file: SipHash-2-4 keyed with the file's
// identifier, or Jenkins' lookup3 in files without keyed hashes.
func (f *file) hash(p []byte) uint64 {
	if f.keyed {
		return siphash(le.Uint64(f.id[:]), le.Uint64(f.id[8:]), p)
	}
	return jenkins(p)
}

// siphash is SipHash-2-4 (Aumasson and Bernstein, 2012).
func siphash(k0, k1 uint64, p []byte) uint64 {
	v0, v1 := k0^0x736f6d6570736575, k1^0x646f72616e646f6d
	v2, v3 := k0^0x6c7967656e657261, k1^0x7465646279746573
	round := func() {
		v0 += v1
		v2 += v3
		v1 = bits.RotateLeft64(v1, 13) ^ v0
		v3 = bits.RotateLeft64(v3, 16) ^ v2
		v0 = bits.RotateLeft64(v0, 32)
		v2 += v1
		v0 += v3
		v1 = bits.RotateLeft64(v1, 17) ^ v2
		v3 = bits.RotateLeft64(v3, 21) ^ v0
		v2 = bits.RotateLeft64(v2, 32)
	}
	last := uint64(len(p)) << 56
	for ; len(p) >= 8; p = p[8:] {
		m := le.Uint64(p)
		v3 ^= m
		round()
		round()
		v0 ^= m
	}
	for i, b := range p {
		last |= uint64(b) << (8 * i)
	}
	v3 ^= last
	round()
	round()
	v0 ^= last
	v2 ^= 0xff
	round()
	round()
	round()
	round()
	return v0 ^ v1 ^ v2 ^ v3
}

// jenkins is hashlittle2 of Bob Jenkins' lookup3.c (2006), with the first half
// above the second.
func jenkins(p []byte) uint64 {
	a := 0xdeadbeef + uint32(len(p))
	b, c := a, a
	for ; len(p) > 12; p = p[12:] {
		a += le.Uint32(p)
		b += le.Uint32(p[4:])
		c += le.Uint32(p[8:])
		a = (a - c) ^ bits.RotateLeft32(c, 4)
		c += b
		b = (b - a) ^ bits.RotateLeft32(a, 6)
		a += c
		c = (c - b) ^ bits.RotateLeft32(b, 8)
		b += a
		a = (a - c) ^ bits.RotateLeft32(c, 16)
		c += b
		b = (b - a) ^ bits.RotateLeft32(a, 19)
		a += c
		c = (c - b) ^ bits.RotateLeft32(b, 4)
		b += a
	}
	if len(p) > 0 {
		var tail [12]byte
		copy(tail[:], p)
		a += le.Uint32(tail[:])
		b += le.Uint32(tail[4:])
		c += le.Uint32(tail[8:])
		c = (c ^ b) - bits.RotateLeft32(b, 14)
		a = (a ^ c) - bits.RotateLeft32(c, 11)
		b = (b ^ a) - bits.RotateLeft32(a, 25)
		c = (c ^ b) - bits.RotateLeft32(b, 16)
		a = (a ^ c) - bits.RotateLeft32(c, 4)
		b = (b ^ a) - bits.RotateLeft32(a, 14)
		c = (c ^ b) - bits.RotateLeft32(b, 24)
	}
	return uint64(c)<<32 | uint64(b)
}
