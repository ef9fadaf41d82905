package memo

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"math/bits"
	"slices"
)

// source is everything that goes into a new table.
type source struct {
	table *table
	tail  *tail
	newer []entry // of the frames and of this process, sorted by fingerprint, each once
}

// add takes in the frames and the new entries, which are sorted.
func (s *source) add(entries []entry) {
	if s.tail != nil {
		s.newer = append(s.newer, s.tail.entries...)
	}
	s.newer = append(s.newer, entries...)
	// Stable: of the same fingerprint the last one wins.
	slices.SortStableFunc(s.newer, func(a, b entry) int { return bytes.Compare(a.print[:], b.print[:]) })
	kept := s.newer[:0]
	for i := range s.newer {
		if i+1 < len(s.newer) && s.newer[i+1].print == s.newer[i].print {
			continue
		}
		kept = append(kept, s.newer[i])
	}
	s.newer = kept
}

// each calls yield with every entry in the order of fingerprints, each once. What
// the old table holds damaged is left out.
func (s *source) each(yield func(e *entry)) (bad bool) {
	defer guard(&bad)()
	newer := s.newer
	var i, end uint32
	if s.table != nil {
		end = s.table.records
	}
	var last fingerprint
	for first := true; i < end; i++ {
		e, ok := s.table.entry(i)
		if !ok || !first && bytes.Compare(e.print[:], last[:]) <= 0 {
			continue
		}
		first, last = false, e.print
		for len(newer) > 0 && bytes.Compare(newer[0].print[:], e.print[:]) < 0 {
			yield(&newer[0])
			newer = newer[1:]
		}
		if len(newer) > 0 && newer[0].print == e.print {
			continue // comes with the next, or at the end
		}
		yield(&e)
	}
	for j := range newer {
		yield(&newer[j])
	}
	return bad
}

// quota says which entries stay when there isn't room for all: those that were used
// after the hour, and of the hour itself as many bytes as are left.
type quota struct {
	hour uint32
	left int64
}

func (q *quota) keep(e *entry) bool {
	if e.used != q.hour {
		return e.used > q.hour
	}
	n := int64(len(e.value)) + recordBytes
	if n > q.left {
		return false
	}
	q.left -= n
	return true
}

// choose finds the quota for a limit. A table is filled to three quarters, so that
// the next processes have room to append.
func (s *source) choose(limit int64) (quota, error) {
	byHour := make(map[uint32]int64)
	var all int64
	if s.each(func(e *entry) {
		n := int64(len(e.value)) + recordBytes
		byHour[e.used] += n
		all += n
	}) {
		return quota{}, errUnreadable
	}
	room := limit - headerBytes - fanoutBytes(fanout(limit/recordBytes))
	if all <= room-room/8 {
		return quota{left: all + 1}, nil
	}
	room -= room / 4
	for _, hour := range slices.Backward(slices.Sorted(maps.Keys(byHour))) {
		if byHour[hour] > room {
			return quota{hour: hour, left: room}, nil
		}
		room -= byHour[hour]
	}
	return quota{}, nil
}

// errUnreadable says that the old table could not be read while the new one was made.
var errUnreadable = errors.New("its pages cannot be read")

// fanout is the number of bits of the prefix for a number of records: 16 of them
// share one.
func fanout(records int64) uint {
	return uint(min(maxFanout, bits.Len64(uint64(max(0, records)/16))))
}

// writeTable writes the table. The entries are gone through for each of its parts.
func (s *source) writeTable(w io.Writer, limit int64) error {
	q, err := s.choose(limit)
	if err != nil {
		return err
	}
	var records uint32
	var heap int64
	pass := func(do func(e *entry)) error {
		left := q
		if s.each(func(e *entry) {
			if left.keep(e) {
				do(e)
			}
		}) {
			return errUnreadable
		}
		return nil
	}
	if err := pass(func(e *entry) { records++; heap += int64(len(e.value)) }); err != nil {
		return err
	}
	prefix := fanout(int64(records))
	firsts := make([]uint32, 1<<prefix+1)
	if err := pass(func(e *entry) { firsts[binary.BigEndian.Uint32(e.print[:])>>(32-prefix)+1]++ }); err != nil {
		return err
	}
	b := appendHeader(nil, prefix, records, heap)
	for i := range firsts {
		if i > 0 {
			firsts[i] += firsts[i-1]
		}
		b = binary.LittleEndian.AppendUint32(b, firsts[i])
	}
	out := bufio.NewWriterSize(w, 1<<20)
	if _, err := out.Write(b); err != nil {
		return err
	}
	// What bufio.Writer could not write it says at Flush.
	var offset int64
	if err := pass(func(e *entry) {
		b = appendRecord(b[:0], e, uint32(offset))
		offset += int64(len(e.value))
		_, _ = out.Write(b)
	}); err != nil {
		return err
	}
	if err := pass(func(e *entry) { _, _ = out.Write(e.value) }); err != nil {
		return err
	}
	return out.Flush()
}
