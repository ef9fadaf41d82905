package store

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"golang.org/x/sys/unix"
)

// A generation of the write-ahead log is one file, wal/NNNNNNNNNN.wal:
//
//	header  magic 8 bytes, id of the store 16, generation uint64, time of its
//	        making int64 (ns), length of the sealed key uint32, the sealed key
//	        (package seal; none when the log is not encrypted), CRC-32C of all before
//	frames  each at a multiple of 8: magic uint32, length of the body uint32,
//	        time of writing int64 (ns), CRC-32C of the body, CRC-32C of the
//	        header, body, zeros up to the next multiple of 8
//
// all little endian. The checksum of a frame's header begins with the id of the
// store, the generation and the place of the frame, so that a frame stands for
// nothing elsewhere, and text in a log cannot pass for one.
//
// With a key, a body is a nonce of 12 random bytes and the AES-256-GCM of the
// batches; the place and the header (without checksums) are authenticated too.
// The nonce is random because a frame that could not be written whole is
// overwritten in its place.
const (
	walMagic       = "MOPSWAL\x01"
	walHeaderSize  = 8 + 16 + 8 + 8 + 4 // before the sealed key
	walSuffix      = ".wal"
	frameMagic     = 0x31464d57 // "WMF1"
	frameHeadSize  = 4 + 4 + 8 + 4 + 4
	frameAlign     = 8
	maxFrame       = 256 << 20 // bytes of the batches of one Append
	maxSealedKey   = 1 << 20
	gcmNonceSize   = 12
	gcmTagSize     = 16
	maxFrameOnDisk = maxFrame + gcmNonceSize + gcmTagSize
)

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// storeID tells one store from another.
type storeID [16]byte

// String returns the id as 32 hexadecimal digits.
func (id storeID) String() string { return hex.EncodeToString(id[:]) }

// walName is the name of a generation's file.
func walName(generation uint64) string { return fmt.Sprintf("%010d%s", generation, walSuffix) }

// walGeneration is the generation of a file name, or false.
func walGeneration(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, walSuffix)
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, ok && err == nil && n > 0 && walName(n) == name
}

// place is where in which generation of which store a frame is.
type place struct {
	store      storeID
	generation uint64
}

// bytes are the place of the frame at an offset, for checksums and ciphers.
func (p place) bytes(offset int64) []byte {
	b := make([]byte, 0, 64)
	b = append(b, p.store[:]...)
	b = binary.LittleEndian.AppendUint64(b, p.generation)
	return binary.LittleEndian.AppendUint64(b, uint64(offset))
}

// appendFrame appends the frame that holds batches, for the given offset.
func appendFrame(b []byte, p place, offset int64, when time.Time, aead cipher.AEAD, batches []byte) []byte {
	start := len(b)
	size := len(batches)
	if aead != nil {
		size += gcmNonceSize + gcmTagSize
	}
	le := binary.LittleEndian
	b = le.AppendUint32(b, frameMagic)
	b = le.AppendUint32(b, uint32(size))
	b = le.AppendUint64(b, uint64(when.UnixNano()))
	seed := p.bytes(offset)
	if aead == nil {
		b = append(b, make([]byte, 8)...)
		b = append(b, batches...)
	} else {
		aad := append(seed[:len(seed):len(seed)], b[start:start+16]...)
		b = append(b, make([]byte, 8+gcmNonceSize)...)
		nonce := b[start+frameHeadSize:]
		rand.Read(nonce) // never fails: crypto/rand.Read
		b = aead.Seal(b, nonce, batches, aad)
	}
	table := castagnoli()
	le.PutUint32(b[start+16:], crc32.Checksum(b[start+frameHeadSize:], table))
	le.PutUint32(b[start+20:], headSum(table, seed, b[start:start+20]))
	for (len(b)-start)%frameAlign != 0 {
		b = append(b, 0)
	}
	return b
}

func headSum(table *crc32.Table, seed, head []byte) uint32 {
	return crc32.Update(crc32.Checksum(seed, table), table, head)
}

// createWAL makes the file of a generation, without frames, and opens it for
// appending. sealedKey is empty for a log that is not encrypted.
func createWAL(dir string, p place, now time.Time, sealedKey []byte) (*os.File, int64, error) {
	le := binary.LittleEndian
	b := []byte(walMagic)
	b = append(b, p.store[:]...)
	b = le.AppendUint64(b, p.generation)
	b = le.AppendUint64(b, uint64(now.UnixNano()))
	b = le.AppendUint32(b, uint32(len(sealedKey)))
	b = append(b, sealedKey...)
	b = le.AppendUint32(b, crc32.Checksum(b, castagnoli()))
	for len(b)%frameAlign != 0 {
		b = append(b, 0)
	}
	path := filepath.Join(dir, walName(p.generation))
	if err := durable.WriteFile(path, b, 0o600); err != nil {
		return nil, 0, err
	}
	f, err := openFile(path, os.O_RDWR)
	return f, int64(len(b)), err
}

// openFile opens a regular file of the store. It neither follows a link nor
// waits for the other end of a FIFO: these are nothing that was made here, and
// the error is ErrTampered.
func openFile(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENXIO) {
		return nil, tampered("%s is not a regular file", path)
	}
	if err != nil {
		return nil, access(err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = tampered("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// walFiles lists the generations that are there, in order.
func walFiles(dir string) ([]uint64, error) {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, access(err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var list []uint64
	for _, name := range names {
		if n, ok := walGeneration(name); ok {
			list = append(list, n)
		}
	}
	sortNumbers(list)
	return list, nil
}

// walHasFrames tells whether any generation, of whatever store, is more than a
// header.
func (s *Store) walHasFrames() (bool, error) {
	list, err := walFiles(s.walDir())
	if err != nil {
		return false, err
	}
	for _, n := range list {
		f, err := openFile(walPath(s, n), os.O_RDONLY)
		if err != nil {
			return false, err
		}
		head := make([]byte, walHeaderSize)
		_, err = f.ReadAt(head, 0)
		st, serr := f.Stat()
		f.Close()
		if err != nil || serr != nil {
			return true, serr // shorter than a header: nothing that was made here
		}
		if st.Size() > padded(walHeaderSize+int64(binary.LittleEndian.Uint32(head[40:]))+4) {
			return true, nil
		}
	}
	return false, nil
}

func stamp(t int64) time.Time { return time.Unix(0, t).UTC() }
