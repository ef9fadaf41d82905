package store

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"

	"github.com/zeebo/blake3"
)

// Hash is a BLAKE3 hash of 256 bits.
type Hash [32]byte

// String returns the hash as 64 hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText makes a hash 64 hexadecimal digits in JSON.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (h *Hash) UnmarshalText(b []byte) error {
	raw, err := hex.DecodeString(string(b))
	if err != nil || len(raw) != len(h) {
		return errors.New("not a hash: 64 hexadecimal digits are expected")
	}
	copy(h[:], raw)
	return nil
}

// The tree is that of RFC 6962, section 2.1, with BLAKE3 as its hash: a leaf is
// hashed after a byte 0, an inner node after a byte 1, so that neither can be
// taken for the other.
const (
	leafPrefix = 0
	nodePrefix = 1
)

func leafHash(content []byte) (out Hash) {
	h := blake3.New()
	h.Write([]byte{leafPrefix})
	h.Write(content)
	h.Sum(out[:0])
	return out
}

func nodeHash(left, right Hash) Hash {
	var b [65]byte
	b[0] = nodePrefix
	copy(b[1:], left[:])
	copy(b[33:], right[:])
	return blake3.Sum256(b[:])
}

// tree is what it takes to append to a Merkle tree and to know its root: the
// roots of its full subtrees, the largest first, one for each bit of its size.
type tree struct {
	size  uint64
	roots []Hash
}

func (t *tree) clone() tree {
	return tree{t.size, append([]Hash(nil), t.roots...)}
}

// add appends a leaf.
func (t *tree) add(leaf Hash) {
	for n := t.size; n&1 == 1; n >>= 1 {
		last := len(t.roots) - 1
		leaf = nodeHash(t.roots[last], leaf)
		t.roots = t.roots[:last]
	}
	t.roots = append(t.roots, leaf)
	t.size++
}

// root is the tree's head; that of an empty tree is the hash of no bytes.
func (t *tree) root() Hash {
	if len(t.roots) == 0 {
		return blake3.Sum256(nil)
	}
	h := t.roots[len(t.roots)-1]
	for i := len(t.roots) - 2; i >= 0; i-- {
		h = nodeHash(t.roots[i], h)
	}
	return h
}

// split is the largest power of two smaller than n, which is at least 2.
func split(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }

func rootOf(leaves []Hash) Hash {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := split(len(leaves))
	return nodeHash(rootOf(leaves[:k]), rootOf(leaves[k:]))
}

// inclusionPath is PATH of RFC 6962, section 2.1.1: the hashes that lead from
// leaf number i to the root, the deepest first.
func inclusionPath(i int, leaves []Hash) []Hash {
	if len(leaves) == 1 {
		return nil
	}
	k := split(len(leaves))
	if i < k {
		return append(inclusionPath(i, leaves[:k]), rootOf(leaves[k:]))
	}
	return append(inclusionPath(i-k, leaves[k:]), rootOf(leaves[:k]))
}

// rootByPath computes the root of a tree of size leaves from leaf number i and
// its path (RFC 9162, section 2.1.3.2).
func rootByPath(leaf Hash, i, size uint64, path []Hash) (Hash, error) {
	if i >= size {
		return Hash{}, fmt.Errorf("leaf %d is not in a tree of %d", i, size)
	}
	h, last := leaf, size-1
	for _, p := range path {
		if last == 0 {
			return Hash{}, errors.New("the path is too long")
		}
		if i&1 == 1 || i == last {
			h = nodeHash(p, h)
			for i&1 == 0 && i != 0 {
				i, last = i>>1, last>>1
			}
		} else {
			h = nodeHash(h, p)
		}
		i, last = i>>1, last>>1
	}
	if last != 0 {
		return Hash{}, errors.New("the path is too short")
	}
	return h, nil
}
