package blake3tree

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

//go:generate go run ./generate

// avx512 tells whether processor and operating system can run our kernels.
// Tests switch it off.
var avx512 = cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL && cpu.X86.HasBMI2

// maxLanes is how many inputs the widest kernel compresses at a time.
const maxLanes = 16

// A job tells a kernel what to compress. All lanes have the same number of
// blocks, except the last one in use, which may have fewer and end within a
// block. Kernels read whole blocks only, as many from each lane.
//
// A job holds no pointer, or it could not live on the stack. Command generate
// knows the fields by name.
type job struct {
	direct     uint64 // lanes 0 to direct-1 are in the message, the others all in pad
	blocks     uint64 // of all lanes but the last
	tailBlocks uint64 // of the last lane, 1 to blocks
	ahead      uint64 // how many bytes further on the columns prefetch memory; 0: none
	counter    uint64 // chunk index of lane 0, a multiple of the kernel's lanes
	lastLane   uint32 // index of the last lane in use
	tailLen    uint32 // bytes in the last block of the last lane
	counted    uint32 // ^0: the counter goes up by 1 a lane; 0: it does not
	every      uint32 // flags of every block
	first      uint32 // more flags of the first block
	last       uint32 // more flags of the last block

	//lint:ignore U1000 The kernels keep the addresses of the lanes here while they run.
	addresses [maxLanes]uintptr
}

// The kernels read lane i at in + i*stride, or at pad, and write the chaining
// values of all lanes, those not in use too, to out: there must be room for as
// many as the name says. pad must be as long as the blocks to be read, and at
// least 512 bytes for the columns if the last lane is shorter than the others:
// once that is compressed, they put its chaining value there until the others
// are done too.

//go:noescape
func columns16(out *[8]uint32, in unsafe.Pointer, stride uintptr, pad unsafe.Pointer, j *job)

//go:noescape
func columns8(out *[8]uint32, in unsafe.Pointer, stride uintptr, pad unsafe.Pointer, j *job)

//go:noescape
func rows4(out *[8]uint32, in unsafe.Pointer, stride uintptr, pad unsafe.Pointer, j *job)

//go:noescape
func rows1(out *[8]uint32, in unsafe.Pointer, stride uintptr, pad unsafe.Pointer, j *job)

// run compresses the first n lanes with the smallest kernel that has so many.
// out needs room for the lanes of that kernel.
func (j *job) run(out *[8]uint32, in unsafe.Pointer, stride uintptr, pad unsafe.Pointer, n int) {
	j.lastLane = uint32(n - 1)
	switch {
	case n > 8:
		columns16(out, in, stride, pad, j)
	case n > 4:
		columns8(out, in, stride, pad, j)
	case n > 1:
		rows4(out, in, stride, pad, j)
	default:
		rows1(out, in, stride, pad, j)
	}
}

// leaves writes the chaining values of the chunks of buf, at most 16, to out,
// which must have room for 16, or for 1 if there is but one. flags are those
// beyond CHUNK_START and CHUNK_END that the last block has. An incomplete last
// chunk goes to pad, as its end may be the end of what can be read; pad is zero
// before, and as long as a chunk, or as the only chunk in whole blocks.
func (j *job) leaves(out *[8]uint32, buf, pad []byte, chunk uint64, flags uint32) (chunks int) {
	full := len(buf) / ChunkSize
	j.direct = uint64(full)
	j.blocks = ChunkSize / blockSize
	j.tailBlocks, j.tailLen = j.blocks, blockSize
	j.counter, j.counted = chunk, ^uint32(0)
	j.every, j.first, j.last = 0, flagChunkStart, flagChunkEnd|flags
	n := full
	if len(buf)%ChunkSize != 0 || n == 0 {
		tail := copy(pad, buf[full*ChunkSize:])
		j.tailBlocks = uint64(max(1, (tail+blockSize-1)/blockSize))
		j.tailLen = uint32(tail) - uint32(j.tailBlocks-1)*blockSize
		n = full + 1
		if n == 1 {
			j.blocks = j.tailBlocks
		}
	}
	j.run(out, unsafe.Pointer(unsafe.SliceData(buf)), ChunkSize, unsafe.Pointer(unsafe.SliceData(pad)), n)
	return n
}

// parents writes the chaining values of n parents, at most 16, to out, those of
// their children being the 2n values from in. The two may overlap.
func (j *job) parents(out, in *[8]uint32, n int, flags uint32) {
	j.direct = uint64(n)
	j.blocks, j.tailBlocks, j.tailLen = 1, 1, blockSize
	j.counter, j.counted = 0, 0
	j.every, j.first, j.last, j.ahead = flagParent|flags, 0, 0, 0
	j.run(out, unsafe.Pointer(in), blockSize, unsafe.Pointer(in), n)
}

// chunkOrTree returns the chaining value of the node over buf, at most
// batchSize bytes; flags are flagRoot or none.
func chunkOrTree(buf []byte, chunk uint64, flags uint32) (cv [8]uint32) {
	var j job
	switch {
	case !avx512:
		return portableChunkOrTree(buf, chunk, flags)
	case len(buf) <= 2*blockSize: // clearing a long pad would take longer than hashing
		var pad [2 * blockSize]byte
		j.leaves(&cv, buf, pad[:], chunk, flags)
	case len(buf) <= ChunkSize:
		var pad [ChunkSize]byte
		j.leaves(&cv, buf, pad[:], chunk, flags)
	default:
		cvs := children(buf, chunk)
		j.parents(&cv, &cvs[0], 1, flags)
	}
	return cv
}

// parent returns the chaining value of a parent.
func parent(left, right [8]uint32, flags uint32) (cv [8]uint32) {
	if !avx512 {
		return portableParent(left, right, flags)
	}
	var j job
	cvs := [2][8]uint32{left, right}
	j.parents(&cv, &cvs[0], 1, flags)
	return cv
}

// children returns the chaining values of the two children of the subtree over
// buf, which has more than one chunk and at most batchSize bytes.
func children(buf []byte, chunk uint64) [2][8]uint32 {
	switch {
	case !avx512:
		return portableChildren(buf, chunk)
	case len(buf) > maxLanes*ChunkSize:
		return pyramid(buf, chunk)
	}
	var j job
	var cvs [maxLanes][8]uint32
	var pad [ChunkSize]byte
	n := j.leaves(&cvs[0], buf, pad[:], chunk, 0)
	j.merge(&cvs[0], n)
	return [2][8]uint32(cvs[:2])
}

// merge joins n chaining values, at most 32, until two are left, in place. The
// result is the tree of the paper, all left subtrees complete: pairs are joined
// level by level, and an odd last value moves up as it is.
func (j *job) merge(cvs *[8]uint32, n int) {
	at := func(i int) *[8]uint32 { return (*[8]uint32)(unsafe.Add(unsafe.Pointer(cvs), i*32)) }
	for n > 2 {
		odd := *at(n - 1)
		j.parents(cvs, cvs, n/2, 0)
		if n%2 == 1 {
			*at(n / 2) = odd
		}
		n = (n + 1) / 2
	}
}

// pyramid is children for more than 16 chunks. Each level of the tree gathers
// chaining values until there are 32, enough to fill all lanes with parents.
func pyramid(buf []byte, chunk uint64) [2][8]uint32 {
	const levels = 7 // 16 to 1024 chunks
	var j job
	var pad [ChunkSize]byte
	var cvs [levels][2 * maxLanes][8]uint32
	var count [levels]int // 0 or 16 between the steps
	for len(buf) > maxLanes*ChunkSize {
		j.ahead = maxLanes * ChunkSize
		j.leaves(&cvs[0][count[0]], buf[:maxLanes*ChunkSize], pad[:], chunk, 0)
		buf = buf[maxLanes*ChunkSize:]
		chunk += maxLanes
		count[0] += maxLanes
		for level := 0; count[level] == 2*maxLanes; level++ {
			j.parents(&cvs[level+1][count[level+1]], &cvs[level][0], maxLanes, 0)
			count[level+1] += maxLanes
			count[level] = 0
		}
	}
	// The last group is not joined before it is known which levels stand
	// above it: with nothing above, two values are the end.
	j.ahead = 0
	count[0] += j.leaves(&cvs[0][count[0]], buf, pad[:], chunk, 0)
	top := levels - 1
	for count[top] == 0 {
		top--
	}
	for level := range top {
		n := count[level]
		above := &count[level+1]
		if n > 1 {
			j.parents(&cvs[level+1][*above], &cvs[level][0], n/2, 0)
			*above += n / 2
		}
		if n%2 == 1 {
			cvs[level+1][*above] = cvs[level][n-1]
			*above++
		}
	}
	j.merge(&cvs[top][0], count[top])
	return [2][8]uint32(cvs[top][:2])
}
