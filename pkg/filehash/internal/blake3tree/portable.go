package blake3tree

import (
	"encoding/binary"

	"github.com/zeebo/blake3"
	"lukechampine.com/blake3/guts"
)

// This file is for machines without AVX-512. zeebo/blake3 is the faster one
// there (AVX2, SSE4.1), but gives whole hashes only; guts gives chaining
// values.

const groupSize = guts.MaxSIMD * ChunkSize

func portableChunkOrTree(buf []byte, chunk uint64, flags uint32) (cv [8]uint32) {
	switch {
	case flags == flagRoot: // then chunk is 0
		sum := blake3.Sum256(buf)
		for i := range cv {
			cv[i] = binary.LittleEndian.Uint32(sum[4*i:])
		}
		return cv
	case len(buf) > ChunkSize:
		cvs := portableChildren(buf, chunk)
		return portableParent(cvs[0], cvs[1], flags)
	}
	return guts.ChainingValue(guts.CompressChunk(buf, &guts.IV, chunk, 0))
}

func portableParent(left, right [8]uint32, flags uint32) [8]uint32 {
	return guts.ChainingValue(guts.ParentNode(left, right, &guts.IV, flags))
}

// portableChildren returns the chaining values of the two children of the
// subtree over buf, which has more than one chunk.
func portableChildren(buf []byte, chunk uint64) [2][8]uint32 {
	var cvs [batchChunks/guts.MaxSIMD + 1][8]uint32
	n := 0
	for len(buf) >= groupSize {
		node := guts.CompressBuffer((*[groupSize]byte)(buf), groupSize, &guts.IV, chunk, 0)
		buf = buf[groupSize:]
		if n == 0 && len(buf) == 0 {
			return [2][8]uint32{[8]uint32(node.Block[:8]), [8]uint32(node.Block[8:])}
		}
		cvs[n] = guts.ChainingValue(node)
		n++
		chunk += guts.MaxSIMD
	}
	if len(buf) > 0 {
		// guts wants a whole group to read from, even for less.
		var group [groupSize]byte
		copy(group[:], buf)
		node := guts.CompressBuffer(&group, len(buf), &guts.IV, chunk, 0)
		if n == 0 {
			return [2][8]uint32{[8]uint32(node.Block[:8]), [8]uint32(node.Block[8:])}
		}
		cvs[n] = guts.ChainingValue(node)
		n++
	}
	// Pairing level by level, an odd last one moving up as it is, gives the
	// tree of the paper: all left subtrees complete.
	for n > 2 {
		for i := 0; i+1 < n; i += 2 {
			cvs[i/2] = portableParent(cvs[i], cvs[i+1], 0)
		}
		if n%2 == 1 {
			cvs[n/2] = cvs[n-1]
		}
		n = (n + 1) / 2
	}
	return [2][8]uint32(cvs[:2])
}
