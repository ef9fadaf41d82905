package blake3tree

func oneChunk(buf []byte, chunk uint64, flags uint32) [8]uint32 {
	return portableChunk(buf, chunk, flags)
}

func parent(left, right [8]uint32, flags uint32) [8]uint32 {
	return portableParent(left, right, flags)
}

func children(buf []byte, chunk uint64) (left, right [8]uint32) { return portableChildren(buf, chunk) }
