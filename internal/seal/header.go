package seal

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/mobileops/mobileops/internal/failure"
)

// The header is one preamble and two slots. The preamble never changes, but
// for the state of rewrapping in a sector of its own. The slots are copies of
// each other: Rewrap overwrites one after the other, so that at any moment one
// of them is whole.
const (
	magic   = "mobileops.seal\r\n" // CR LF: a transfer that "repairs" line ends shows at once
	version = 1

	preambleSize = 4096
	fixedSize    = 3584 // the part of the preamble that never changes; what follows is the sector of the state
	stateSize    = 8

	slotUnit = 4096  // slots are multiples of this
	maxSlot  = 28672 // so that a header has at most 60 KiB
	slotHead = 24
	macSize  = sha256.Size

	maxStanzas = 64
	maxContext = 1024
)

// offsets in the preamble
const (
	atVersion     = 16
	atSegmentSize = 20
	atSlotSize    = 24
	atContextSize = 28
	atNonce       = 32
	atContext     = 64
)

// The two states of the header. Any other value is damage: no single bit makes
// one of the other.
const (
	stateWhole     = "whole\x00\x00\x00"
	stateRewrapped = "rewrap\x00\x00" // being rewrapped, or interrupted in that: one slot may be torn
)

const slotMagic = "slot\x00\x00\x00\x01"

// preamble is what the header says about an object for good.
type preamble struct {
	slotSize int
	nonce    [32]byte // random, of this object
	context  string
}

// headerSize is the length of the whole header: where the payload begins.
func (p *preamble) headerSize() int { return preambleSize + 2*p.slotSize }

func (p *preamble) slotOffset(i int) int { return preambleSize + i*p.slotSize }

// encode returns the preamble without the sector of the state.
func (p *preamble) encode() []byte {
	b := make([]byte, fixedSize)
	copy(b, magic)
	binary.BigEndian.PutUint16(b[atVersion:], version)
	binary.BigEndian.PutUint32(b[atSegmentSize:], SegmentSize)
	binary.BigEndian.PutUint32(b[atSlotSize:], uint32(p.slotSize))
	binary.BigEndian.PutUint16(b[atContextSize:], uint16(len(p.context)))
	copy(b[atNonce:], p.nonce[:])
	copy(b[atContext:], p.context)
	return b
}

// parsePreamble reads the fixed part of a preamble; b holds at least that.
func parsePreamble(b []byte) (*preamble, error) {
	if !IsSealed(b) {
		return nil, ErrNotSealed
	}
	if v := binary.BigEndian.Uint16(b[atVersion:]); v > version {
		return nil, fmt.Errorf("%w: version %d, this program knows %d", ErrNewer, v, version)
	} else if v != version {
		return nil, corruptHeader(atVersion, "there is no version %d", v)
	}
	slot := binary.BigEndian.Uint32(b[atSlotSize:])
	if slot < slotUnit || slot > maxSlot || slot%slotUnit != 0 {
		return nil, corruptHeader(atSlotSize, "slots of %d bytes", slot)
	}
	n := int(binary.BigEndian.Uint16(b[atContextSize:]))
	if n > maxContext {
		return nil, corruptHeader(atContextSize, "a context of %d bytes", n)
	}
	p := &preamble{slotSize: int(slot), context: string(b[atContext : atContext+n])}
	copy(p.nonce[:], b[atNonce:])
	// There is one way to write a preamble: reserved bytes and the segment
	// size are held to it.
	if i := differ(b[:fixedSize], p.encode()); i >= 0 {
		return nil, corruptHeader(i, "unexpected byte %#02x in the preamble", b[i])
	}
	return p, nil
}

// differ returns the first index at which two slices of one length differ, or -1.
func differ(a, b []byte) int {
	const stride = 64 // compared at once, as most slices are the same
	for at := 0; at < len(a); at += stride {
		end := min(at+stride, len(a))
		if bytes.Equal(a[at:end], b[at:end]) {
			continue
		}
		for i := at; i < end; i++ {
			if a[i] != b[i] {
				return i
			}
		}
	}
	return -1
}

// nonZero returns the index of the first byte that is not zero, or -1.
func nonZero(b []byte) int {
	if rest := bytes.TrimLeft(b, "\x00"); len(rest) > 0 {
		return len(b) - len(rest)
	}
	return -1
}

// parseState reads the sector of the state and reports whether a rewrap is
// under way or was interrupted.
func parseState(b []byte) (rewrapped bool, err error) {
	if i := nonZero(b[fixedSize+stateSize : preambleSize]); i >= 0 {
		return false, corruptHeader(fixedSize+stateSize+i, "unexpected byte in the preamble")
	}
	switch s := string(b[fixedSize : fixedSize+stateSize]); s {
	case stateWhole:
		return false, nil
	case stateRewrapped:
		return true, nil
	default:
		return false, corruptHeader(fixedSize, "unknown state %q", s)
	}
}

// slot is the part of the header that a rewrap renews.
type slot struct {
	sequence uint64 // 1 when the object is made, one more with each rewrap
	stanzas  []stanza
}

// stanza is the data key wrapped for one reader.
type stanza struct {
	kind uint16
	body []byte
}

// slotRoom returns how many bytes of stanzas a slot holds.
func slotRoom(size int) int { return size - slotHead - macSize }

// encode returns the slot with its MAC.
func (s *slot) encode(p *preamble, dataKey []byte) ([]byte, error) {
	b := make([]byte, slotHead, p.slotSize)
	copy(b, slotMagic)
	binary.BigEndian.PutUint64(b[8:], s.sequence)
	binary.BigEndian.PutUint16(b[16:], uint16(len(s.stanzas)))
	for _, st := range s.stanzas {
		b = binary.BigEndian.AppendUint16(b, st.kind)
		b = binary.BigEndian.AppendUint16(b, uint16(len(st.body)))
		b = append(b, st.body...)
	}
	need := len(b) - slotHead
	if len(s.stanzas) > maxStanzas || need > slotRoom(p.slotSize) {
		return nil, failure.Hint(failure.Errorf(failure.Usage,
			"the header has no room for %d keys: they need %d bytes of %d", len(s.stanzas), need, slotRoom(p.slotSize)),
			"give fewer keys, or seal the content anew with room for more")
	}
	binary.BigEndian.PutUint32(b[20:], uint32(need))
	b = b[:p.slotSize-macSize]
	mac, err := slotMAC(p, b, dataKey)
	if err != nil {
		return nil, err
	}
	return append(b, mac...), nil
}

// slotMAC is the MAC over the fixed preamble and a slot without its MAC. Its
// key comes from the data key, so it also commits to that: no header opens
// with two keys to two different contents.
func slotMAC(p *preamble, body, dataKey []byte) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, dataKey, p.nonce[:], labelHeader, sha256.Size)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	h := hmac.New(sha256.New, key)
	h.Write(p.encode())
	h.Write(body)
	return h.Sum(nil), nil
}

// parseSlot reads the slot b, which begins at offset, without checking its MAC.
func parseSlot(b []byte, offset int) (*slot, error) {
	if string(b[:len(slotMagic)]) != slotMagic {
		return nil, corruptHeader(offset, "no slot begins here")
	}
	s := &slot{sequence: binary.BigEndian.Uint64(b[8:])}
	count := int(binary.BigEndian.Uint16(b[16:]))
	length := binary.BigEndian.Uint32(b[20:])
	if count < 1 || count > maxStanzas || b[18] != 0 || b[19] != 0 || int64(length) > int64(slotRoom(len(b))) {
		return nil, corruptHeader(offset+16, "%d stanzas in %d bytes", count, length)
	}
	rest := b[slotHead : slotHead+int(length)]
	for range count {
		at := offset + slotHead + int(length) - len(rest)
		if len(rest) < 4 {
			return nil, corruptHeader(at, "the stanzas end too early")
		}
		n := int(binary.BigEndian.Uint16(rest[2:]))
		if n > len(rest)-4 {
			return nil, corruptHeader(at, "a stanza of %d bytes where %d are left", n, len(rest)-4)
		}
		s.stanzas = append(s.stanzas, stanza{binary.BigEndian.Uint16(rest), rest[4 : 4+n]})
		rest = rest[4+n:]
	}
	if len(rest) > 0 {
		return nil, corruptHeader(offset+slotHead+int(length)-len(rest), "%d bytes behind the last stanza", len(rest))
	}
	pad := b[slotHead+int(length) : len(b)-macSize]
	if i := nonZero(pad); i >= 0 {
		return nil, corruptHeader(offset+slotHead+int(length)+i, "unexpected byte behind the stanzas")
	}
	return s, nil
}

// header is a header that was opened: its MAC is right.
type header struct {
	preamble
	slot
	dataKey     []byte
	from        int  // the slot that was opened
	interrupted bool // a rewrap is under way or was interrupted
}

// readHeader reads and opens the header of a sealed file of size bytes.
//
// A rewrap may go on in the meantime, so that the parts of one reading belong
// to different moments. What fails is therefore read again for as long as it
// changes; it is damaged only when it stays the same.
func readHeader(r io.ReaderAt, size int64, ids []Identity, lenient bool) (*header, error) {
	var last []byte
	for tries := 1; ; tries++ {
		b, err := readHeaderBytes(r, size)
		if err != nil {
			return nil, err
		}
		h, err := openHeader(b, ids, lenient)
		if err == nil || bytes.Equal(b, last) || tries == headerTries {
			return h, err
		}
		last = b
	}
}

// headerTries bounds the readings of a header that changes all the time.
const headerTries = 100

// readHeaderBytes reads as many bytes as the header has.
func readHeaderBytes(r io.ReaderAt, size int64) ([]byte, error) {
	b := make([]byte, preambleSize, preambleSize+2*slotUnit)
	n := min(size, preambleSize)
	if err := readFull(r, b[:n], 0); err != nil {
		return nil, err
	}
	if n < preambleSize {
		if !IsSealed(b[:n]) {
			return nil, ErrNotSealed
		}
		return nil, corruptHeader(int(n), "the file ends in its header")
	}
	p, err := parsePreamble(b)
	if err != nil {
		return nil, err
	}
	if size < int64(p.headerSize()) {
		return nil, corruptHeader(int(size), "the file ends in its header")
	}
	b = slices.Grow(b, 2*p.slotSize)[:p.headerSize()]
	if err := readFull(r, b[preambleSize:], preambleSize); err != nil {
		return nil, err
	}
	return b, nil
}

// readFull reads len(b) bytes at off. The end of the file before that is
// corruption of the header, as the caller knows the size of the file.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return corruptHeader(int(off)+n, "the file ends in its header")
	}
	return fmt.Errorf("read the header of a sealed file: %w", err)
}

// openHeader opens the header b. Both slots must be the same, unless a rewrap
// was interrupted or lenient asks for any slot that is right.
func openHeader(b []byte, ids []Identity, lenient bool) (*header, error) {
	p, err := parsePreamble(b)
	if err != nil {
		return nil, err
	}
	rewrapped, err := parseState(b)
	if err != nil && !lenient {
		return nil, err
	}
	raw := [2][]byte{b[p.slotOffset(0):p.slotOffset(1)], b[p.slotOffset(1):p.headerSize()]}
	order := []int{0, 1}
	if bytes.Equal(raw[0], raw[1]) {
		order = order[:1]
	} else if !rewrapped && !lenient {
		return nil, corruptHeader(p.slotOffset(0)+differ(raw[0], raw[1]), "its two copies differ")
	} else if binary.BigEndian.Uint64(raw[1][8:]) > binary.BigEndian.Uint64(raw[0][8:]) {
		order = []int{1, 0}
	}
	var errs []error
	for _, i := range order {
		h, err := openSlot(p, raw[i], p.slotOffset(i), ids)
		if err == nil {
			h.from, h.interrupted = i, rewrapped
			return h, nil
		}
		errs = append(errs, err)
	}
	// A slot that is whole, but not for these keys, says more than a torn one.
	for _, err := range errs {
		if errors.Is(err, ErrNoKey) {
			return nil, err
		}
	}
	return nil, errs[0]
}

// openSlot parses a slot, unwraps the data key and checks the MAC.
func openSlot(p *preamble, b []byte, offset int, ids []Identity) (*header, error) {
	s, err := parseSlot(b, offset)
	if err != nil {
		return nil, err
	}
	dataKey, err := unwrap(s.stanzas, p, offset, ids)
	if err != nil {
		return nil, err
	}
	body := b[:len(b)-macSize]
	mac, err := slotMAC(p, body, dataKey)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(mac, b[len(b)-macSize:]) {
		return nil, corruptHeader(offset, "not authentic: altered, or of another object")
	}
	return &header{preamble: *p, slot: *s, dataKey: dataKey}, nil
}
