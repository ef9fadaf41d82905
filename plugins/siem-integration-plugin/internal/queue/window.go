package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
)

// window remembers the ids of the last WindowSize records. At the start it is
// made from the records that are still there; those whose segments were removed
// are in a file that is written before they are.
//
// The file is windowMagic, the number of the record that came next when it was
// written (8 bytes, little-endian), ids with two bytes of length before each,
// and the CRC-32C of all of it. A damaged one counts as missing: the queue then
// cannot know some doubles, and loses nothing.
type window struct {
	ids  map[string]bool
	ring []string
	at   int
	next uint64 // of the file: where numbering goes on when no segment is left
}

const windowMagic = "MOQWIN1\n"

func readWindow(dir string) (*window, error) {
	w := &window{ids: make(map[string]bool, WindowSize), ring: make([]string, WindowSize), next: 1}
	data, err := os.ReadFile(filepath.Join(dir, "window"))
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	const head = len(windowMagic) + 8
	if len(data) < head+4 || string(data[:len(windowMagic)]) != windowMagic ||
		crc32.Checksum(data[:len(data)-4], castagnoli()) != binary.LittleEndian.Uint32(data[len(data)-4:]) {
		return w, nil
	}
	w.next = max(1, binary.LittleEndian.Uint64(data[len(windowMagic):]))
	for rest := data[head : len(data)-4]; len(rest) >= 2; {
		n := int(binary.LittleEndian.Uint16(rest))
		if n > len(rest)-2 {
			break
		}
		w.add(string(rest[2 : 2+n]))
		rest = rest[2+n:]
	}
	return w, nil
}

func (w *window) has(id string) bool { return w.ids[id] }

func (w *window) add(id string) {
	if w.ids[id] {
		return
	}
	if old := w.ring[w.at]; old != "" {
		delete(w.ids, old)
	}
	w.ring[w.at] = id
	w.ids[id] = true
	w.at = (w.at + 1) % len(w.ring)
}

func (w *window) write(dir string, next uint64) error {
	b := binary.LittleEndian.AppendUint64([]byte(windowMagic), next)
	for i := range w.ring {
		if id := w.ring[(w.at+i)%len(w.ring)]; id != "" {
			b = binary.LittleEndian.AppendUint16(b, uint16(len(id)))
			b = append(b, id...)
		}
	}
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli()))
	if err := replace(filepath.Join(dir, "window"), b); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	return nil
}
