package store

import (
	"fmt"
	"os"
)

// spill is an array of records without pointers that grows without being copied.
// Blocks of it that were not used lately are in a file without a name, so that it
// takes no more memory than it is given, however many records there are. Where no
// file can be made or written, all of it stays in memory.
type spill[T any] struct {
	size   int // bytes of a record in the file
	encode func(*T, []byte)
	decode func(*T, []byte)
	most   int                      // blocks in memory
	create func() (*os.File, error) // makes the file

	file   *os.File
	stuck  bool  // nothing can be written
	err    error // a block could not be read again: what was returned since is not to be relied on
	blocks [][]T // nil: in the file, or never made
	state  []uint8
	inside []int // the blocks that are in memory, for a clock that looks for one to write out
	hand   int
	buf    []byte
}

const (
	spillBlock = 64 // records
	spillBytes = 2 << 20

	used    = 1 // since the hand of the clock passed
	changed = 2 // since it was written
	written = 4 // it is in the file
)

func newSpill[T any](size int, encode, decode func(*T, []byte), create func() (*os.File, error)) *spill[T] {
	return &spill[T]{size: size, encode: encode, decode: decode, most: spillBytes / size / spillBlock, create: create}
}

// look returns a record, zero when it was never set. It is valid until the next
// call, and not to be changed.
func (s *spill[T]) look(i int) *T {
	b := i / spillBlock
	for b >= len(s.blocks) {
		s.blocks, s.state = append(s.blocks, nil), append(s.state, 0)
	}
	if s.blocks[b] == nil {
		s.load(b)
	}
	s.state[b] |= used
	return &s.blocks[b][i%spillBlock]
}

// at is look for who changes the record before the next call.
func (s *spill[T]) at(i int) *T {
	r := s.look(i)
	s.state[i/spillBlock] |= changed
	return r
}

// load brings a block into memory, and another one out of it.
func (s *spill[T]) load(b int) {
	var block []T
	if len(s.inside) >= s.most {
		block = s.evict()
	}
	if block == nil {
		block = make([]T, spillBlock)
	}
	if s.state[b]&written == 0 {
		clear(block)
	} else if _, err := s.file.ReadAt(s.buf, int64(b)*int64(len(s.buf))); err != nil {
		s.err = fmt.Errorf("read what was put aside: %w", err)
		clear(block)
	} else {
		for i := range block {
			s.decode(&block[i], s.buf[i*s.size:])
		}
	}
	s.blocks[b] = block
	s.inside = append(s.inside, b)
}

// evict returns the memory of a block that is in the file; nil when none can be.
func (s *spill[T]) evict() []T {
	if s.stuck {
		return nil
	}
	if s.file == nil {
		var err error
		if s.file, err = s.create(); err != nil {
			s.stuck = true
			return nil
		}
		s.buf = make([]byte, s.size*spillBlock)
	}
	for ; ; s.hand++ {
		s.hand %= len(s.inside)
		b := s.inside[s.hand]
		if s.state[b]&used != 0 {
			s.state[b] &^= used
			continue
		}
		block := s.blocks[b]
		if s.state[b]&changed != 0 {
			for i := range block {
				s.encode(&block[i], s.buf[i*s.size:])
			}
			if _, err := s.file.WriteAt(s.buf, int64(b)*int64(len(s.buf))); err != nil {
				s.stuck = true
				return nil
			}
			s.state[b] = written
		}
		s.blocks[b] = nil
		last := len(s.inside) - 1
		s.inside[s.hand] = s.inside[last]
		s.inside = s.inside[:last]
		return block
	}
}

func (s *spill[T]) close() {
	if s.file != nil {
		s.file.Close()
	}
}

// aside makes a file that has no name: in the store, or, for who may not write
// there, where temporary files are.
func (s *Store) aside() (*os.File, error) {
	f, err := os.CreateTemp(s.path(nameTmp), "aside-")
	if err != nil {
		f, err = os.CreateTemp("", "mobileops-aside-")
	}
	if err != nil {
		return nil, err
	}
	_ = os.Remove(f.Name()) // or whoever takes the lock next does
	return f, nil
}
