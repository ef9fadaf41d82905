//go:build goexperiment.jsonv2

package secret

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"

	"github.com/mobileops/mobileops/internal/scan/keyword"
)

// A file of up to windowBytes is searched in one piece. A larger one is searched in
// windows of that size, each of which begins overlapBytes before the end of the one
// before. A secret is that window's in whose middle it begins, which has half of
// overlapBytes before it and behind it: so those of up to 512 KiB are found once,
// as a whole, with the right lines around them.
const (
	windowBytes  = 32 << 20
	overlapBytes = 1 << 20
)

// buffer is what a search needs. It is used again.
type buffer struct {
	bytes   []byte
	hits    []keyword.Hit
	ends    [][]int // of anchors, by rule
	touched []int32 // rules whose ends are not empty
	matches []match
}

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// keepBytes is the size of the largest buffer that is kept for the next file.
const keepBytes = 1 << 20

func (b *buffer) release() {
	if cap(b.bytes) > keepBytes {
		b.bytes = nil
	}
	if cap(b.hits) > keepBytes/8 {
		*b = buffer{bytes: b.bytes}
	}
	clear(b.matches[:cap(b.matches)])
	buffers.Put(b)
}

// grow makes room for n bytes. What is in the buffer stays.
func (b *buffer) grow(n int) {
	if n > cap(b.bytes) {
		size := 64 << 10
		for size < n && size < keepBytes {
			size *= 2
		}
		larger := make([]byte, max(n, size))
		copy(larger, b.bytes)
		b.bytes = larger
	}
	b.bytes = b.bytes[:cap(b.bytes)]
}

// search is that of one file.
type search struct {
	*engine
	*buffer
	memory *memory
	path   string
	at     location
	binary bool
	// byContent: what came of the same content is looked up, and known that it was found.
	byContent, known bool

	have     int   // bytes in the buffer
	offset   int   // of the buffer in the file
	line     int   // number of newlines before the buffer
	reported []int // by rule, where its last secret ends in the file
	before   []int // the same when the window was begun
	found    []ftypes.SecretFinding
}

// read searches what r has. have bytes of the file are in the buffer already; size
// is how many it is thought to have.
func (s *search) read(ctx context.Context, r io.Reader, size int64) error {
	s.grow(int(min(size+1, windowBytes)))
	for {
		room := s.bytes[:min(len(s.bytes), windowBytes)]
		n, err := io.ReadFull(r, room[s.have:])
		s.have += n
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			s.window(s.have, true)
			return nil
		case err != nil:
			return fmt.Errorf("read: %w", err)
		case len(room) < windowBytes: // the file has grown
			s.grow(windowBytes)
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		next := bytes.Clone(room[windowBytes-overlapBytes:]) // secrets will be blacked out
		lines := bytes.Count(room[:windowBytes-overlapBytes], newline)
		s.window(windowBytes, false)
		s.have = copy(room, next)
		s.offset += windowBytes - overlapBytes
		s.line += lines
	}
}

var newline = []byte{'\n'}

// window searches the first n bytes of the buffer, which are those at s.offset of
// the file, and, if last, its end.
func (s *search) window(n int, last bool) {
	content := s.bytes[:n]
	if s.offset == 0 && last && s.byContent {
		// The digest is taken before the secrets are blacked out.
		key := s.memory.contentKey(content, s.at.profile(s.path))
		if known, ok := s.memory.get(key); ok {
			s.found, s.known = known.findings, true
			return
		}
		defer func() { s.memory.keep(key, s.outcome()) }()
	}
	s.look(s.buffer, content, s.at)
	matches := s.matches
	if len(matches) == 0 {
		return
	}
	low, high := 0, n
	if s.offset > 0 {
		low = overlapBytes / 2
	}
	if !last {
		high -= overlapBytes / 2
	}
	for _, m := range matches {
		blackOut(content[m.start:m.end])
	}
	text := newText(content, s.line)
	for _, m := range matches {
		if m.start >= low && m.start < high && s.first(m) {
			f := text.finding(m)
			f.Offset += s.offset
			s.found = append(s.found, f)
		}
	}
	s.before = slices.Clone(s.reported)
}

// first tells whether a match is not a part of one that the window before has.
func (s *search) first(m match) bool {
	if s.before != nil && s.offset+m.start < s.before[m.rule.number] {
		return false
	}
	if s.reported == nil {
		s.reported = make([]int, len(s.rules))
	}
	s.reported[m.rule.number] = max(s.reported[m.rule.number], s.offset+m.end)
	return true
}

func (s *search) outcome() outcome {
	s.found = order(unique(s.found))
	switch {
	case len(s.found) == 0:
		return outcome{kind: nothing}
	case s.binary:
		return outcome{kind: binaryFindings, findings: s.found}
	}
	return outcome{kind: findings, findings: s.found}
}
