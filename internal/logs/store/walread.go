package store

import (
	"bytes"
	"context"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// Damage is a range of a generation of the write-ahead log whose bytes are not
// what was written.
type Damage struct {
	File   string `json:"file"`   // "wal/0000000012.wal"
	Offset int64  `json:"offset"` // bytes
	Length int64  `json:"length"` // bytes
}

func (d Damage) String() string {
	return fmt.Sprintf("%s: %d bytes from byte %d on are damaged", d.File, d.Length, d.Offset)
}

// DamageError says that records were lost because the write-ahead log is
// damaged. What stands before and after was read.
type DamageError struct{ Damage []Damage }

func (e *DamageError) Error() string {
	s := "the write-ahead log: " + e.Damage[0].String()
	if n := len(e.Damage) - 1; n > 0 {
		s += fmt.Sprintf(", and %d more places", n)
	}
	return s
}

// walReader reads a generation up to a size that was fixed when it was opened,
// so that it reads the same however much is appended meanwhile.
type walReader struct {
	f       io.ReaderAt
	close   func() error
	place   place
	size    int64
	start   int64 // of the first frame
	key     []byte
	aead    cipher.AEAD                              // nil: not encrypted, or not unlocked yet
	openKey func(sealed []byte) (cipher.AEAD, error) // nil: frames are checked, and not opened
	// headless is set when the header is damaged: where frames begin, and a
	// key, are not known then.
	headless bool
}

// openWAL opens a generation. key opens its data key once that is needed; with
// nil, frames can be checked, but those that are encrypted not be read.
func openWAL(path string, p place, key func(sealed []byte) (cipher.AEAD, error)) (*walReader, error) {
	f, err := openFile(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	r, err := newWALReader(f, p, key)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	r.close = f.Close
	return r, nil
}

func newWALReader(f interface {
	io.ReaderAt
	Stat() (os.FileInfo, error)
}, p place, key func([]byte) (cipher.AEAD, error)) (*walReader, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r := &walReader{f: f, place: p, size: st.Size(), openKey: key, close: func() error { return nil }}
	return r, r.readHeader()
}

// encrypted tells whether the frames are.
func (r *walReader) encrypted() bool { return len(r.key) > 0 }

// unlock opens the data key, when there is one.
func (r *walReader) unlock() (err error) {
	if r.encrypted() && r.aead == nil && r.openKey != nil {
		r.aead, err = r.openKey(r.key)
	}
	return err
}

// readHeader reads the header. A damaged one is no error: frames say
// themselves whether they are whole.
func (r *walReader) readHeader() error {
	head := make([]byte, walHeaderSize)
	if _, err := r.f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	le := binary.LittleEndian
	n := int64(le.Uint32(head[40:]))
	r.headless = true
	r.start = 0
	if !bytes.HasPrefix(head, []byte(walMagic)) || storeID(head[8:24]) != r.place.store || le.Uint64(head[24:]) != r.place.generation ||
		n > maxSealedKey || walHeaderSize+n+4 > r.size {
		return nil
	}
	all := make([]byte, walHeaderSize+n+4)
	if _, err := r.f.ReadAt(all, 0); err != nil {
		return err
	}
	body := all[:len(all)-4]
	if crc32.Checksum(body, castagnoli()) != le.Uint32(all[len(body):]) {
		return nil
	}
	r.headless = false
	r.key = body[walHeaderSize:]
	r.start = padded(int64(len(all)))
	return nil
}

// walScan is what reading a generation to its end found.
type walScan struct {
	End    int64 // of the last whole frame
	Torn   int64 // bytes after it: of a write that did not come to its end
	Frames int
	Damage []Damage
}

// frames calls fn with the time and the batches of each whole frame, in order.
// The batches are valid until fn returns; they are nil when the log is
// encrypted and its key was not opened. Damage is skipped and told.
func (r *walReader) frames(ctx context.Context, fn func(when int64, batches []byte) error) (walScan, error) {
	w := &window{f: r.f, size: r.size}
	scan := walScan{End: r.start}
	at := r.start
	if r.headless {
		scan.Damage = append(scan.Damage, Damage{Offset: 0, Length: min(r.size, walHeaderSize)})
	}
	for at < r.size {
		if err := ctx.Err(); err != nil {
			return scan, err
		}
		fr, err := r.frameAt(w, at)
		if err != nil {
			return scan, err
		}
		if fr == nil {
			next, err := r.resync(ctx, w, at+frameAlign)
			if err != nil {
				return scan, err
			}
			if next < 0 {
				break
			}
			if r.headless && scan.Frames == 0 {
				scan.Damage[0].Length = next
			} else {
				scan.Damage = append(scan.Damage, Damage{Offset: at, Length: next - at})
			}
			at = next
			continue
		}
		next := at + fr.size()
		body, ok, err := r.open(at, fr)
		if ok && err == nil {
			err = fn(fr.when, body)
		}
		if err != nil && !isFormat(err) {
			return scan, err
		}
		if !ok || err != nil { // whole, but not written by us
			scan.Damage = append(scan.Damage, Damage{Offset: at, Length: next - at})
		}
		scan.Frames++
		at, scan.End = next, next
	}
	scan.Torn = r.size - scan.End
	for i := range scan.Damage {
		scan.Damage[i].File = "wal/" + walName(r.place.generation)
	}
	return scan, nil
}

// rawFrame is a frame whose checksums are right.
type rawFrame struct {
	when       int64
	head, body []byte
}

// size is how many bytes the frame takes, up to the next one.
func (f *rawFrame) size() int64 { return padded(frameHeadSize + int64(len(f.body))) }

// padded is a length with the zeros up to the next multiple of 8.
func padded(n int64) int64 { return (n + frameAlign - 1) / frameAlign * frameAlign }

// frameAt returns the whole frame at an offset, or nil.
func (r *walReader) frameAt(w *window, at int64) (*rawFrame, error) {
	head, err := w.at(at, frameHeadSize)
	if head == nil {
		return nil, err
	}
	le := binary.LittleEndian
	if le.Uint32(head) != frameMagic {
		return nil, nil
	}
	n := int64(le.Uint32(head[4:]))
	table := castagnoli()
	if n > maxFrameOnDisk || at+padded(frameHeadSize+n) > r.size || headSum(table, r.place.bytes(at), head[:20]) != le.Uint32(head[20:]) {
		return nil, nil
	}
	all, err := w.at(at, int(frameHeadSize+n))
	if all == nil {
		return nil, err
	}
	body := all[frameHeadSize:]
	if crc32.Checksum(body, table) != le.Uint32(all[16:]) {
		return nil, nil
	}
	return &rawFrame{when: int64(le.Uint64(all[8:])), head: all[:16], body: body}, nil
}

// resync returns where the next whole frame at or after an offset begins, -1
// when there is none.
func (r *walReader) resync(ctx context.Context, w *window, at int64) (int64, error) {
	magic := binary.LittleEndian.AppendUint32(nil, frameMagic)
	const step = 1 << 20
	for at < r.size {
		if err := ctx.Err(); err != nil {
			return -1, err
		}
		n := min(step, r.size-at)
		b, err := w.at(at, int(n))
		if b == nil {
			return -1, err
		}
		var places []int64
		for i := 0; ; {
			j := bytes.Index(b[i:], magic)
			if j < 0 {
				break
			}
			if i += j; i%frameAlign == 0 { // at is a multiple too
				places = append(places, at+int64(i))
			}
			i++
		}
		for _, p := range places {
			fr, err := r.frameAt(w, p)
			if err != nil {
				return -1, err
			}
			if fr != nil {
				return p, nil
			}
		}
		at += n
	}
	return -1, nil
}

// open returns the batches of a frame, and false when they cannot be: it was
// not written with the key of this log, or the key is lost with the header.
func (r *walReader) open(at int64, fr *rawFrame) ([]byte, bool, error) {
	if r.headless {
		// Without the header nobody knows whether this is encrypted. Batches
		// that can be decoded are not.
		err := decodeBatches(fr.body, origins{}, func(f *framed) error { return f.each(func(*event.Record) error { return nil }) })
		return fr.body, err == nil, nil
	}
	if !r.encrypted() {
		return fr.body, true, nil
	}
	if err := r.unlock(); err != nil {
		return nil, false, err
	}
	if r.aead == nil {
		return nil, true, nil
	}
	if len(fr.body) < gcmNonceSize+gcmTagSize {
		return nil, false, nil
	}
	aad := append(r.place.bytes(at), fr.head...)
	nonce, sealed := fr.body[:gcmNonceSize], fr.body[gcmNonceSize:]
	b, err := r.aead.Open(nil, nonce, sealed, aad)
	return b, err == nil, nil
}

// window reads a file in pieces of a megabyte or more.
type window struct {
	f    io.ReaderAt
	size int64
	buf  []byte
	from int64
	n    int // bytes of buf that are read
}

const windowSize = 1 << 20

// at returns n bytes from an offset, valid until the next call, or nil when the
// file ends before.
func (w *window) at(offset int64, n int) ([]byte, error) {
	if offset+int64(n) > w.size {
		return nil, nil
	}
	if offset < w.from || offset+int64(n) > w.from+int64(w.n) {
		want := min(int64(max(n, windowSize)), w.size-offset)
		if int64(cap(w.buf)) < want {
			w.buf = make([]byte, want)
		}
		w.buf = w.buf[:want]
		got, err := w.f.ReadAt(w.buf, offset)
		w.from, w.n = offset, got
		if got < n {
			if err == nil || errors.Is(err, io.EOF) { // cut off since it was opened
				return nil, nil
			}
			return nil, err
		}
	}
	i := int(offset - w.from)
	return w.buf[i : i+n : i+n], nil
}
