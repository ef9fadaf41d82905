package baseline

import (
	"encoding/binary"
	"math/bits"

	"github.com/zeebo/blake3"
)

// The prefixes keep leaves and inner nodes apart (RFC 6962 section 2.1).
const (
	leafPrefix  = 0
	innerPrefix = 1
)

// leafHash is the hash of leaf number n with the given content. The number is
// in it, so that blocks cannot trade places.
func leafHash(n uint64, content []byte) Hash {
	h := blake3.New()
	var head [9]byte
	head[0] = leafPrefix
	binary.BigEndian.PutUint64(head[1:], n)
	h.Write(head[:])
	h.Write(content)
	var out Hash
	h.Sum(out[:0])
	return out
}

// merkleRoot returns the Merkle tree hash of leaves: that of the largest power
// of two smaller than their number, and of the rest.
func merkleRoot(leaves []Hash) Hash {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := 1 << (bits.Len(uint(len(leaves)-1)) - 1)
	left, right := merkleRoot(leaves[:k]), merkleRoot(leaves[k:])
	var node [65]byte
	node[0] = innerPrefix
	copy(node[1:], left[:])
	copy(node[33:], right[:])
	return blake3.Sum256(node[:])
}
