//go:build !amd64

package blake3tree

func chunkOrTree(buf []byte, chunk uint64, flags uint32) [8]uint32 {
	return portableChunkOrTree(buf, chunk, flags)
}

func parent(left, right [8]uint32, flags uint32) [8]uint32 {
	return portableParent(left, right, flags)
}

func children(buf []byte, chunk uint64) [2][8]uint32 { return portableChildren(buf, chunk) }
