package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// SetFlags say what a set can hold.
type SetFlags uint32

// Flags of sets. Interval: ranges; of several fields each can be one. Timeout:
// elements that go by themselves. Dynamic: rules put elements in.
const (
	Constant SetFlags = 2
	Interval SetFlags = 4
	Timeout  SetFlags = 16
	Dynamic  SetFlags = 32
)

// Set is a named set of a table.
type Set struct {
	Table Table
	Name  string
	Key   []Type // the fields of its elements
	// Verdicts makes a map of the set, whose elements say what is done: see By.
	Verdicts bool
	Flags    SetFlags
	Timeout  time.Duration // of elements that have none of their own; 0: for ever
	Size     uint32        // most elements; 0: no limit
	Comment  string
}

// String names the set.
func (s *Set) String() string { return s.Table.String() + " " + s.Name }

// keySize is the length of a key: each field of several takes whole registers.
func (s *Set) keySize() int {
	if len(s.Key) == 1 {
		return s.Key[0].size
	}
	n := 0
	for _, t := range s.Key {
		n += (t.size + 3) &^ 3
	}
	return n
}

func (s *Set) typeID() (id uint32) {
	for _, t := range s.Key {
		id = id<<6 | t.id
	}
	return id
}

func (s *Set) typeText() string {
	words := make([]string, len(s.Key))
	for i, t := range s.Key {
		words[i] = t.Name
	}
	return strings.Join(words, " . ")
}

// AddSet makes a set.
func (b *Batch) AddSet(s Set) {
	b.name("set", s.Name)
	if s.keySize() > maxKey || len(s.Key) == 0 {
		b.fail("set %s: a key of %d bytes", s.Name, s.keySize())
	}
	b.sets++
	b.message(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, s.Table.Family, "add set "+s.String())
	b.string(unix.NFTA_SET_TABLE, s.Table.Name)
	b.string(unix.NFTA_SET_NAME, s.Name)
	b.u32(unix.NFTA_SET_ID, b.sets)
	b.u32(unix.NFTA_SET_KEY_TYPE, s.typeID())
	b.u32(unix.NFTA_SET_KEY_LEN, uint32(s.keySize()))
	const concat = 0x80 // NFT_SET_CONCAT
	flags := uint32(s.Flags)
	if len(s.Key) > 1 && s.Flags&Interval != 0 {
		flags |= concat
	}
	if s.Verdicts {
		flags |= unix.NFT_SET_MAP
	}
	b.u32(unix.NFTA_SET_FLAGS, flags)
	if s.Verdicts {
		b.u32(unix.NFTA_SET_DATA_TYPE, 0xffffff00) // NFT_DATA_VERDICT
	}
	if s.Timeout > 0 {
		b.u64(unix.NFTA_SET_TIMEOUT, uint64(s.Timeout.Milliseconds()))
	}
	if s.Size > 0 || flags&concat != 0 {
		b.describe(&s)
	}
	order := uint32(2)
	if s.Key[0].hostOrder {
		order = 1
	}
	data := binary.NativeEndian.AppendUint32([]byte{0, 4}, order) // NFTNL_UDATA_SET_KEYBYTEORDER
	if s.Comment != "" {
		data = append(data, b.comment(7, s.Comment)...) // NFTNL_UDATA_SET_COMMENT
	}
	b.bytes(unix.NFTA_SET_USERDATA, data)
	b.end()
	word := "set"
	if s.Verdicts {
		word = "map"
	}
	b.say("add %s %s { %s}", word, s.String(), s.body())
}

// describe writes the number of elements and the lengths of the fields.
func (b *Batch) describe(s *Set) {
	const descConcat, fieldLen = 2, 1 // NFTA_SET_DESC_CONCAT, NFTA_SET_FIELD_LEN
	desc := b.nest(unix.NFTA_SET_DESC)
	if s.Size > 0 {
		b.u32(unix.NFTA_SET_DESC_SIZE, s.Size)
	}
	if len(s.Key) > 1 && s.Flags&Interval != 0 {
		fields := b.nest(descConcat)
		for _, t := range s.Key {
			f := b.nest(unix.NFTA_LIST_ELEM)
			b.u32(fieldLen, uint32(t.size))
			b.close(f)
		}
		b.close(fields)
	}
	b.close(desc)
}

func (s *Set) body() string {
	var flags []string
	for _, f := range []struct {
		f    SetFlags
		text string
	}{{Constant, "constant"}, {Interval, "interval"}, {Timeout, "timeout"}, {Dynamic, "dynamic"}} {
		if s.Flags&f.f != 0 {
			flags = append(flags, f.text)
		}
	}
	text := "type " + s.typeText()
	if s.Verdicts {
		text += " : verdict"
	}
	text += "; "
	if len(flags) > 0 {
		text += "flags " + strings.Join(flags, ", ") + "; "
	}
	if s.Timeout > 0 {
		text += "timeout " + span(s.Timeout) + "; "
	}
	if s.Size > 0 {
		text += fmt.Sprintf("size %d; ", s.Size)
	}
	return text + commentText(s.Comment)
}

// span writes a duration as nft reads it.
func span(d time.Duration) string {
	text := ""
	for _, u := range []struct {
		d    time.Duration
		text string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if n := d / u.d; n > 0 {
			text += strconv.FormatInt(int64(n), 10) + u.text
			d -= n * u.d
		}
	}
	if text == "" {
		return "1ms"
	}
	return text
}

// FlushSet removes all elements of a set.
func (b *Batch) FlushSet(s Set) {
	b.message(unix.NFT_MSG_DELSETELEM, 0, s.Table.Family, "flush set "+s.String())
	b.string(unix.NFTA_SET_ELEM_LIST_TABLE, s.Table.Name)
	b.string(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	b.end()
	b.say("flush set %s", s.String())
}

// DeleteSet removes a set, which no rule may look at any more; that it is not
// there is unix.ENOENT.
func (b *Batch) DeleteSet(s Set) {
	b.message(unix.NFT_MSG_DELSET, 0, s.Table.Family, "delete set "+s.String())
	b.string(unix.NFTA_SET_TABLE, s.Table.Name)
	b.string(unix.NFTA_SET_NAME, s.Name)
	b.end()
	b.say("delete set %s", s.String())
}

// Element is an element of a set: one value for each field, or from Key to End,
// which belongs to the range. Ranges of a set must not overlap: see package
// addresses.
type Element struct {
	Key, End []Value       // End: nil but for a range
	Timeout  time.Duration // 0: that of the set; Never: none
	Verdict  Verdict       // of an element of a map
}

// AddElements puts n elements into a set. Elements of one set may come in
// several calls.
func (b *Batch) AddElements(s Set, n int, at func(i int) Element) {
	b.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, "add element ", &s, n, at)
}

// DeleteElements takes n elements out of a set. One that is not there, or has
// run out of time, is unix.ENOENT.
func (b *Batch) DeleteElements(s Set, n int, at func(i int) Element) {
	b.elements(unix.NFT_MSG_DELSETELEM, 0, "delete element ", &s, n, at)
}

// maxElements is how long a list of elements may grow: an attribute has less
// than 64 KiB.
const maxElements = 64000

func (b *Batch) elements(op int, flags uint16, what string, s *Set, n int, at func(i int) Element) {
	for i := 0; i < n; {
		b.message(op, flags, s.Table.Family, what+s.String())
		b.string(unix.NFTA_SET_ELEM_LIST_TABLE, s.Table.Name)
		b.string(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
		list := b.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		var words []string
		for ; i < n && len(b.data)-list < maxElements; i++ {
			e := at(i)
			if b.keepText {
				words = append(words, e.text())
			}
			b.element(s, &e)
		}
		if b.keepText {
			b.say("%s%s { %s }", what, s.String(), strings.Join(words, ", "))
		}
		b.close(list)
		b.end()
	}
}

func (b *Batch) element(s *Set, e *Element) {
	if len(e.Key) != len(s.Key) || e.End != nil && len(e.End) != len(s.Key) {
		b.fail("set %s: an element of %d fields", s.Name, len(e.Key))
		return
	}
	if len(s.Key) == 1 && s.Flags&Interval != 0 {
		// A range of one field is its first element and the one after its last.
		b.oneElement(s, e.Key, nil, 0, e)
		last := e.End
		if last == nil {
			last = e.Key
		}
		if after, ok := next(last[0].data); ok {
			b.oneElement(s, []Value{{data: after}}, nil, unix.NFT_SET_ELEM_INTERVAL_END, &Element{})
		}
		return
	}
	end := e.End
	if end == nil && s.Flags&Interval != 0 {
		end = e.Key
	}
	b.oneElement(s, e.Key, end, 0, e)
}

// text writes the element as nft does.
func (e *Element) text() string {
	var w strings.Builder
	for i, v := range e.Key {
		if i > 0 {
			w.WriteString(" . ")
		}
		w.WriteString(v.String())
		if e.End != nil && e.End[i].String() != v.String() {
			w.WriteString("-" + e.End[i].String())
		}
	}
	if e.Timeout > 0 {
		w.WriteString(" timeout " + span(e.Timeout))
	} else if e.Timeout == Never {
		w.WriteString(" timeout 0s")
	}
	if e.Verdict.text != "" {
		w.WriteString(" : " + e.Verdict.text)
	}
	return w.String()
}

func (b *Batch) oneElement(s *Set, key, end []Value, flags uint32, e *Element) {
	const keyEnd = 10 // NFTA_SET_ELEM_KEY_END
	elem := b.nest(unix.NFTA_LIST_ELEM)
	b.key(s, unix.NFTA_SET_ELEM_KEY, key)
	if end != nil {
		b.key(s, keyEnd, end)
	}
	if flags != 0 {
		b.u32(unix.NFTA_SET_ELEM_FLAGS, flags)
	}
	if e.Timeout != 0 {
		b.u64(unix.NFTA_SET_ELEM_TIMEOUT, elementTimeout(e.Timeout))
	}
	if s.Verdicts && flags == 0 {
		b.verdict(&e.Verdict)
	}
	b.close(elem)
}

func (b *Batch) key(s *Set, typ uint16, values []Value) {
	at := b.nest(typ)
	start := len(b.data)
	b.data = append(b.data, 0, 0)
	b.data = binary.NativeEndian.AppendUint16(b.data, unix.NFTA_DATA_VALUE)
	for i, v := range values {
		if len(v.data) != s.Key[i].size {
			b.fail("set %s: %q is not %s", s.Name, v, s.Key[i].Name)
			return
		}
		b.data = append(b.data, v.data...)
		for len(b.data)&3 != 0 && (len(values) > 1) {
			b.data = append(b.data, 0)
		}
	}
	binary.NativeEndian.PutUint16(b.data[start:], uint16(len(b.data)-start))
	for len(b.data)&3 != 0 {
		b.data = append(b.data, 0)
	}
	b.close(at)
}

// next is the value after a number of network byte order; there is none after
// the last.
func next(v []byte) ([]byte, bool) {
	out := append([]byte(nil), v...)
	for i := len(out) - 1; i >= 0; i-- {
		if out[i]++; out[i] != 0 {
			return out, true
		}
	}
	return nil, false
}

// Key returns the key of an element with these fields.
func Key(values ...Value) []Value { return values }

// AddrRange is the element for the addresses from first to last.
func AddrRange(first, last netip.Addr, timeout time.Duration) Element {
	e := Element{Key: []Value{Addr(first)}, Timeout: timeout}
	if first != last {
		e.End = []Value{Addr(last)}
	}
	return e
}

// One is the element with a single field, such as a port or a MAC address.
func One(v Value, timeout time.Duration) Element { return Element{Key: []Value{v}, Timeout: timeout} }

// Never is the time-out of an element that stays, in a set whose others don't.
const Never time.Duration = -1

// elementTimeout is a time-out in milliseconds, of which 0 is Never.
func elementTimeout(d time.Duration) uint64 {
	if d < 0 {
		return 0
	}
	return uint64(max(1, d.Milliseconds()))
}
