package journal

import (
	"bytes"
	"errors"
	"strconv"
)

// head is what entries are ordered by.
type head struct {
	offset                           uint64
	seqnum, realtime, monotonic, xor uint64
	boot                             ID
}

func (h *head) set(offset uint64, o []byte) {
	h.offset = offset
	h.seqnum = le.Uint64(o[entrySeqnum:])
	h.realtime = le.Uint64(o[entryRealtime:])
	h.monotonic = le.Uint64(o[entryMonotonic:])
	h.xor = le.Uint64(o[entryXor:])
	copy(h.boot[:], o[entryBoot:])
}

// Entry is one entry of a journal. It is valid until the next call of Next, or
// until the function that Search called with it returns.
type Entry struct {
	Realtime  uint64 // microseconds since 1970-01-01 UTC
	Monotonic uint64 // microseconds since the boot Boot
	Boot      ID
	Seqnum    uint64 // counts entries of the source SeqnumID
	SeqnumID  ID

	xor    uint64
	offset uint64
	f      *file
	set    *Set
}

func (e *Entry) fill(s *Set, f *file, h *head) {
	*e = Entry{
		Realtime: h.realtime, Monotonic: h.monotonic, Boot: h.boot,
		Seqnum: h.seqnum, SeqnumID: f.seqnumID, xor: h.xor, offset: h.offset, f: f, set: s,
	}
}

// File returns the path of the file that the entry was read from.
func (e *Entry) File() string { return e.f.path }

// Cursor returns the text by which the entry is found again (SeekCursor), as
// sd_journal_get_cursor does: "s=…;i=…;b=…;m=…;t=…;x=…".
func (e *Entry) Cursor() string { return string(e.AppendCursor(nil)) }

// AppendCursor appends what Cursor returns.
func (e *Entry) AppendCursor(dst []byte) []byte {
	dst = e.SeqnumID.append(append(dst, "s="...))
	dst = strconv.AppendUint(append(dst, ";i="...), e.Seqnum, 16)
	dst = e.Boot.append(append(dst, ";b="...))
	dst = strconv.AppendUint(append(dst, ";m="...), e.Monotonic, 16)
	dst = strconv.AppendUint(append(dst, ";t="...), e.Realtime, 16)
	return strconv.AppendUint(append(dst, ";x="...), e.xor, 16)
}

// errStop ends an iteration before its end.
var errStop = errors.New("stop")

// Each calls fn with every field, as "FIELD=value", in the order in which they
// are stored. The bytes are valid during the call only and must not be changed.
// A field that cannot be read is reported and left out. Each returns the error
// of fn, and ends at the first.
func (e *Entry) Each(fn func(data []byte) error) error {
	var own error
	err := guard(e.set.files, func() error {
		own = e.each(fn)
		return nil
	})
	if err != nil {
		e.set.problem(err)
	}
	return own
}

// each is Each without a guard.
func (e *Entry) each(fn func(data []byte) error) error {
	return e.items(func(offset, hash uint64) error {
		if value := e.value(offset, hash); value != nil {
			return fn(value)
		}
		return nil
	})
}

// items calls fn with the offset of each data object of the entry, and with the
// hash that it should have; in compact files that is not known, and 0. It
// returns the error of fn, and ends at the first.
func (e *Entry) items(fn func(offset, hash uint64) error) error {
	o, err := e.f.entry(e.offset)
	if err != nil {
		e.set.problem(err)
		return nil
	}
	if e.f.compact {
		for o = o[entryItems:]; len(o) >= 4; o = o[4:] {
			if err := fn(uint64(le.Uint32(o)), 0); err != nil {
				return err
			}
		}
		return nil
	}
	for o = o[entryItems:]; len(o) >= 16; o = o[16:] {
		if err := fn(le.Uint64(o), le.Uint64(o[8:])); err != nil {
			return err
		}
	}
	return nil
}

// value returns the field of a data object, "FIELD=value". One that cannot be
// read is reported, and nil.
func (e *Entry) value(offset, hash uint64) []byte {
	d, err := e.f.data(offset)
	if err == nil && !e.f.compact && le.Uint64(d[dataHash:]) != hash {
		err = e.f.bad(e.offset, "entry whose field at %d has another hash", offset)
	}
	if err == nil {
		d, err = e.set.codec.value(e.f, offset, d)
	}
	if err != nil {
		e.set.problem(err)
		return nil
	}
	return d
}

// Get returns a copy of the value of the first field with a name.
func (e *Entry) Get(name string) (value []byte, ok bool) {
	e.Each(func(data []byte) error {
		if len(data) > len(name) && data[len(name)] == '=' && string(data[:len(name)]) == name {
			value, ok = bytes.Clone(data[len(name)+1:]), true
			return errStop
		}
		return nil
	})
	return value, ok
}
