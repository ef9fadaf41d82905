package nft

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Batch gathers what is to be done in one transaction. Its methods never fail;
// what went wrong is said by Commit.
type Batch struct {
	data []byte
	text strings.Builder
	// keepText is whether text is written, too: that of hundreds of thousands of
	// elements takes longer than all the rest.
	keepText bool
	seq      uint32
	start    int  // of the message being written
	filled   bool // with something to do
	last     uint32
	deeds    []deed // what messages do, by sequence number, for errors
	sets     uint32 // numbers of sets
	err      error
}

// deed is what a message does: a rule is put into words when it is refused.
type deed struct {
	text string
	rule []Expr
}

// NewBatch returns an empty batch.
func NewBatch() *Batch {
	b := &Batch{data: make([]byte, 0, 16<<10), deeds: make([]deed, 0, 128)}
	b.control(unix.NFNL_MSG_BATCH_BEGIN)
	return b
}

// NewTextBatch returns an empty batch that keeps its text.
func NewTextBatch() *Batch {
	b := NewBatch()
	b.keepText = true
	return b
}

// Text returns what the batch does as commands for nft -f; "" when it was not
// made by NewTextBatch.
func (b *Batch) Text() string { return b.text.String() }

// Err returns what is wrong with what was put into the batch.
func (b *Batch) Err() error { return b.err }

// Len returns the size of the encoded batch in bytes.
func (b *Batch) Len() int { return len(b.data) }

// Empty reports whether nothing has been put into the batch.
func (b *Batch) Empty() bool { return !b.filled }

func (b *Batch) say(format string, args ...any) {
	if b.keepText {
		fmt.Fprintf(&b.text, format+"\n", args...)
	}
}

func (b *Batch) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf("nftables: "+format, args...)
	}
}

func (b *Batch) what(seq uint32) string {
	if int(seq) < len(b.deeds) && b.deeds[seq].text != "" {
		m := &b.deeds[seq]
		words := []string{m.text}
		for _, e := range m.rule {
			words = append(words, e.text)
		}
		return strings.Join(words, " ")
	}
	return "commit"
}

// finish asks for an answer to the last message, ends the transaction and
// returns all of it; nothing when there is nothing to do.
func (b *Batch) finish() ([]byte, error) {
	if b.err != nil || b.Empty() {
		return nil, b.err
	}
	flags := binary.NativeEndian.Uint16(b.data[b.start+6:])
	binary.NativeEndian.PutUint16(b.data[b.start+6:], flags|unix.NLM_F_ACK)
	b.last = b.seq
	b.control(unix.NFNL_MSG_BATCH_END)
	data := b.data
	b.data, b.err = nil, fmt.Errorf("nftables: the batch was committed already")
	return data, nil
}

func (b *Batch) control(typ uint16) {
	b.header(typ, unix.NLM_F_REQUEST, 0, unix.NFNL_SUBSYS_NFTABLES)
	b.end()
}

// header begins a message: struct nlmsghdr and struct nfgenmsg.
func (b *Batch) header(typ, flags uint16, family Family, res uint16) {
	b.start = len(b.data)
	b.seq++
	b.data = append(b.data, 0, 0, 0, 0)
	b.data = binary.NativeEndian.AppendUint16(b.data, typ)
	b.data = binary.NativeEndian.AppendUint16(b.data, flags)
	b.data = binary.NativeEndian.AppendUint32(b.data, b.seq)
	b.data = append(b.data, 0, 0, 0, 0, byte(family), 0, byte(res>>8), byte(res))
}

// message begins a message that does something, and says what.
func (b *Batch) message(op int, flags uint16, family Family, what string) {
	b.header(uint16(unix.NFNL_SUBSYS_NFTABLES<<8|op), unix.NLM_F_REQUEST|flags, family, 0)
	b.filled = true
	for len(b.deeds) <= int(b.seq) {
		b.deeds = append(b.deeds, deed{})
	}
	b.deeds[b.seq].text = what
}

func (b *Batch) end() {
	binary.NativeEndian.PutUint32(b.data[b.start:], uint32(len(b.data)-b.start))
}

func (b *Batch) bytes(typ uint16, v []byte) {
	b.data = binary.NativeEndian.AppendUint16(b.data, uint16(4+len(v)))
	b.data = binary.NativeEndian.AppendUint16(b.data, typ)
	b.data = append(b.data, v...)
	for len(b.data)&3 != 0 {
		b.data = append(b.data, 0)
	}
}

func (b *Batch) string(typ uint16, s string) {
	b.data = binary.NativeEndian.AppendUint16(b.data, uint16(5+len(s)))
	b.data = binary.NativeEndian.AppendUint16(b.data, typ)
	b.data = append(b.data, s...)
	b.data = append(b.data, 0)
	for len(b.data)&3 != 0 {
		b.data = append(b.data, 0)
	}
}

func (b *Batch) u32(typ uint16, v uint32) {
	b.data = binary.NativeEndian.AppendUint16(b.data, 8)
	b.data = binary.NativeEndian.AppendUint16(b.data, typ)
	b.data = binary.BigEndian.AppendUint32(b.data, v)
}

func (b *Batch) u64(typ uint16, v uint64) {
	b.data = binary.NativeEndian.AppendUint16(b.data, 12)
	b.data = binary.NativeEndian.AppendUint16(b.data, typ)
	b.data = binary.BigEndian.AppendUint64(b.data, v)
}

// nest begins an attribute that holds others, up to the call of close with the
// value returned.
func (b *Batch) nest(typ uint16) int {
	at := len(b.data)
	b.data = append(b.data, 0, 0)
	b.data = binary.NativeEndian.AppendUint16(b.data, typ|unix.NLA_F_NESTED)
	return at
}

func (b *Batch) close(at int) {
	n := len(b.data) - at
	if n > 0xffff {
		b.fail("%s is longer than a message can be", b.what(b.seq))
		return
	}
	binary.NativeEndian.PutUint16(b.data[at:], uint16(n))
}
