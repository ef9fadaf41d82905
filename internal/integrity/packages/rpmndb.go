package packages

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/adler32"
	"io"
)

// The numbers of rpm's own "ndb" database, Packages.db (rpmpkg.c), all little
// endian: a page with the database's header and the first slots, further pages
// of slots, then the blobs. A slot says at which block of 16 bytes a package's
// blob begins; a blob has a header, the package's header, padding, and a tail.
const (
	ndbMagic     = 'R' | 'p'<<8 | 'm'<<16 | 'P'<<24
	ndbSlotMagic = 'S' | 'l'<<8 | 'o'<<16 | 't'<<24
	ndbHeadMagic = 'B' | 'l'<<8 | 'b'<<16 | 'S'<<24
	ndbTailMagic = 'B' | 'l'<<8 | 'b'<<16 | 'E'<<24
	ndbPage      = 4096
	ndbSlot      = 16
	ndbBlock     = 16
	ndbHeadSize  = 16
	ndbTailSize  = 12
)

// readNDB calls fn with the header of each package, valid during the call.
func readNDB(r io.ReaderAt, size int64, fn func(blob []byte) error) error {
	w := &window{r: r, size: size}
	h, err := w.bytes(0, 32)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	if le.Uint32(h) != ndbMagic {
		return &CorruptError{Offset: 0, Reason: "not an ndb database of rpm"}
	}
	if v := le.Uint32(h[4:]); v != 0 {
		return fmt.Errorf("%w: version %d of ndb", ErrUnsupported, v)
	}
	pages := int64(le.Uint32(h[12:]))
	if pages == 0 || pages*ndbPage > size {
		return &CorruptError{Offset: 12, Reason: "more pages of slots than the file has"}
	}
	slots, err := w.bytes(0, int(pages*ndbPage))
	if err != nil {
		return err
	}
	slots = bytes.Clone(slots)
	total := int64(0)
	for at := 2 * ndbSlot; at < len(slots); at += ndbSlot {
		s := slots[at:]
		if le.Uint32(s) != ndbSlotMagic {
			return &CorruptError{Offset: int64(at), Reason: "not a slot"}
		}
		offset, room := int64(le.Uint32(s[8:]))*ndbBlock, int64(le.Uint32(s[12:]))*ndbBlock
		if offset == 0 {
			continue // free
		}
		if total += room; total > size {
			return &CorruptError{Offset: int64(at), Reason: "the slots claim more than the file has"}
		}
		blob, err := ndbBlob(w, s, offset, room)
		if err != nil {
			return err
		}
		if err := fn(blob); err != nil {
			return err
		}
	}
	return nil
}

// ndbBlob returns the content of a slot's blob.
func ndbBlob(w *window, slot []byte, offset, room int64) ([]byte, error) {
	le := binary.LittleEndian
	bad := func(reason string) ([]byte, error) { return nil, &CorruptError{Offset: offset, Reason: reason} }
	if room < ndbHeadSize+ndbTailSize || room > maxRPMData+1<<24 {
		return bad("a blob of an impossible size")
	}
	b, err := w.bytes(offset, int(room))
	if err != nil {
		return nil, err
	}
	length := int64(le.Uint32(b[12:]))
	if le.Uint32(b) != ndbHeadMagic || le.Uint32(b[4:]) != le.Uint32(slot[4:]) || length > room-ndbHeadSize-ndbTailSize {
		return bad("not the blob of its slot")
	}
	tail := b[room-ndbTailSize:]
	if le.Uint32(tail[8:]) != ndbTailMagic || le.Uint32(tail) != adler32.Checksum(b[:room-ndbTailSize]) {
		return bad("the checksum of a blob is wrong")
	}
	return b[ndbHeadSize:][:length], nil
}
