package queue

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
)

// A note is what a destination wants to know again after its process was
// killed, beside how far it came: what is under way, for one. It is at
// cursors/NAME.note, and goes with the cursor. Like that it is written in turns
// to two slots, so that a write that was cut short leaves the other one:
// noteMagic, the number of the write, the length, CRC-32C of all that and the
// note, the note.
const (
	noteMagic  = "MOQNOT1\n"
	noteSuffix = ".note"
	noteHead   = 24
	noteSlot   = 16 << 10
	MaxNote    = noteSlot - noteHead // bytes of a note
)

type note struct {
	f          *os.File
	generation uint64
	text       []byte
	dirty      bool
}

// openNote reads the note at path. A damaged one counts as missing, so a note
// may only ever spare work.
func openNote(path string) (*note, error) {
	n := &note{}
	var err error
	if n.f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	b := make([]byte, 2*noteSlot)
	got, _ := n.f.ReadAt(b, 0)
	for at := 0; at+noteHead <= got; at += noteSlot {
		slot := b[at:min(at+noteSlot, got)]
		length := int(binary.LittleEndian.Uint32(slot[16:]))
		if string(slot[:8]) != noteMagic || length > len(slot)-noteHead || noteSum(slot[:20], slot[noteHead:noteHead+length]) != binary.LittleEndian.Uint32(slot[20:]) {
			continue
		}
		if g := binary.LittleEndian.Uint64(slot[8:]); g > n.generation {
			n.generation, n.text = g, slot[noteHead:noteHead+length]
		}
	}
	return n, nil
}

func noteSum(head, text []byte) uint32 {
	return crc32.Update(crc32.Checksum(head, castagnoli()), castagnoli(), text)
}

func (n *note) write(text []byte) error {
	n.generation++
	b := append(make([]byte, 0, noteHead+len(text)), noteMagic...)
	b = binary.LittleEndian.AppendUint64(b, n.generation)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	b = binary.LittleEndian.AppendUint32(b, noteSum(b, text))
	b = append(b, text...)
	n.dirty = true
	_, err := n.f.WriteAt(b, int64(n.generation%2)*noteSlot)
	return err
}

// sync makes the note survive a power cut.
func (n *note) sync() error {
	if n == nil || !n.dirty {
		return nil
	}
	n.dirty = false
	return fdatasync(n.f)
}

// Note returns the note that was written last; nil when there is none, or it
// is damaged.
func (c *Cursor) Note() []byte {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	return c.note.text
}

// SetNote writes a note of at most MaxNote bytes in place of the one before.
// As with Commit it survives the end of the process; a power cut may take what
// came after the last Sync, and leave an older note.
func (c *Cursor) SetNote(text []byte) error {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	if c.q.closed {
		return ErrClosed
	}
	if len(text) > MaxNote {
		return fmt.Errorf("queue: a note of %d bytes is too long", len(text))
	}
	c.note.text = append(c.note.text[:0:0], text...)
	if err := c.note.write(text); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	return nil
}

func notePath(dir, name string) string { return filepath.Join(dir, "cursors", name+noteSuffix) }
