// Package blake3tree computes BLAKE3 chaining values and hashes of messages
// that are already in memory, fast enough that reading the file costs as much
// as hashing it. It is the hot kernel of package filehash.
//
// A BLAKE3 message is cut into chunks of 1024 bytes. Each chunk gives a
// chaining value of 256 bits, and chaining values are joined in pairs into a
// binary tree whose left subtrees are complete; the last compression alone
// carries the ROOT flag. All of this is parallel by nature, and that is what
// the package lives on:
//
//   - Sum256 hashes a whole message.
//   - NewSegment and Tree hash one message in segments, by any number of
//     goroutines, in any order, before the length is known.
//   - Subtree, Parent and Root are the bare building blocks.
//
// Inside, a kernel compresses several inputs ("lanes") at the same time. On
// amd64 with AVX-512 the kernels are our own: see kernel_amd64.go. Elsewhere
// zeebo/blake3 and lukechampine.com/blake3/guts do the work.
//
// Invariants: no byte outside of the given slice is ever read (it may end at
// the end of a mapped page), no slice is kept after return, nothing is
// allocated on the heap per call. A slice may be a mapped file: when somebody
// truncates that file, the fault is an ordinary run-time panic in a goroutine
// which has called debug.SetPanicOnFault(true), and can be recovered.
//
// Source: J. O'Connor, J.-P. Aumasson, S. Neves, Z. Wilcox-O'Hearn, "BLAKE3:
// one function, fast everywhere", sections 2.1-2.5 and 5.1.2. Only the
// unkeyed hash with 32 bytes of output is here.
package blake3tree

import (
	"encoding/binary"
	"math/bits"
)

const (
	// ChunkSize is the length of a leaf of the tree in bytes.
	ChunkSize = 1024

	blockSize = 64
	// batchSize is how much is hashed before the tree above it is walked
	// recursively: it bounds the space for chaining values on the stack.
	batchSize   = 1 << 20
	batchChunks = batchSize / ChunkSize
)

// Domain separation flags (paper, table 3).
const (
	flagChunkStart = 1 << 0
	flagChunkEnd   = 1 << 1
	flagParent     = 1 << 2
	flagRoot       = 1 << 3
)

// Subtree returns the chaining value of a subtree that is not the root.
// len(buf) must be 1024·2^k bytes, and chunk, the index of its first chunk in
// the message, a multiple of its length in chunks. It panics otherwise: such a
// subtree does not exist in any BLAKE3 tree.
func Subtree(buf []byte, chunk uint64) [8]uint32 {
	chunks := uint64(len(buf) / ChunkSize)
	if len(buf)%ChunkSize != 0 || bits.OnesCount64(chunks) != 1 || chunk&(chunks-1) != 0 {
		panic("blake3tree: not a subtree: its length must be 1024 * 2^k and its first chunk a multiple of that")
	}
	return chainingValue(buf, chunk)
}

// Parent returns the chaining value of an inner node, not the root, from those
// of its children.
func Parent(left, right [8]uint32) [8]uint32 { return parent(left, right, 0) }

// Root returns the hash of a message of more than one chunk from the chaining
// values of the root's children.
func Root(left, right [8]uint32) [32]byte { return toBytes(parent(left, right, flagRoot)) }

// Sum256 returns the BLAKE3 hash of a whole message of any length.
func Sum256(buf []byte) [32]byte {
	if len(buf) <= batchSize {
		return toBytes(chunkOrTree(buf, 0, flagRoot))
	}
	left := leftLen(len(buf))
	return Root(chainingValue(buf[:left], 0), chainingValue(buf[left:], uint64(left/ChunkSize)))
}

// chainingValue returns the chaining value of the (not root) node over buf,
// which is not empty and begins at the given chunk. Its length need not be a
// power of two at the right edge of the message.
func chainingValue(buf []byte, chunk uint64) [8]uint32 {
	if len(buf) <= batchSize {
		return chunkOrTree(buf, chunk, 0)
	}
	left := leftLen(len(buf))
	return Parent(chainingValue(buf[:left], chunk), chainingValue(buf[left:], chunk+uint64(left/ChunkSize)))
}

// leftLen returns how many of n > 1024 bytes are below the left child: the
// largest complete tree that leaves at least one byte for the right child
// (paper, section 2.1).
func leftLen(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }

func toBytes(words [8]uint32) (sum [32]byte) {
	for i, w := range words {
		binary.LittleEndian.PutUint32(sum[4*i:], w)
	}
	return sum
}
