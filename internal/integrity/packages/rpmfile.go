package packages

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
)

const (
	rpmLeadSize  = 96
	rpmMagicSize = 8
	// The tags of the signature header that have digests of the main header.
	rpmSigSHA1   = 269
	rpmSigSHA256 = 273
)

// rpmFormat reads .rpm files, of rpm 3 and later: a lead, a header with
// signatures, the header of the package, the files as a compressed cpio
// archive. The header has a digest of every file, and the signature header one
// of that header; the files themselves are not unpacked. What an archive says
// is trusted as far as the archive is.
func rpmFormat() *archiveFormat {
	return &archiveFormat{".rpm", identifyRPM, rpmArchiveFiles}
}

// readRPM returns the header of a package in a file.
func readRPM(r io.ReaderAt, size int64) (*rpmHeader, error) {
	read := func(at int64, n int) ([]byte, error) {
		b := make([]byte, n)
		if m, err := r.ReadAt(b, at); m < n {
			if err == nil || err == io.EOF {
				err = &CorruptError{Offset: at, Reason: "it is cut off"}
			}
			return nil, err
		}
		return b, nil
	}
	lead, err := read(0, rpmLeadSize)
	if err != nil {
		return nil, err
	}
	if binary.BigEndian.Uint32(lead) != 0xedabeedb {
		return nil, &CorruptError{Offset: 0, Reason: "not an rpm package"}
	}
	if lead[4] < 3 || binary.BigEndian.Uint16(lead[6:]) != 0 {
		return nil, fmt.Errorf("%w: a source package, or one of before rpm 3", ErrUnsupported)
	}
	header := func(at int64) ([]byte, error) {
		h, err := read(at, rpmMagicSize+8)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(h[:4], []byte{0x8e, 0xad, 0xe8, 1}) {
			return nil, &CorruptError{Offset: at, Reason: "not the beginning of a header"}
		}
		n, err := rpmHeaderSize(h[rpmMagicSize:])
		if err != nil || rpmMagicSize+n > size-at {
			return nil, &CorruptError{Offset: at, Reason: "a header claims to be larger than the file, or than possible"}
		}
		return read(at, rpmMagicSize+int(n))
	}
	sigs, err := header(rpmLeadSize)
	if err != nil {
		return nil, err
	}
	at := rpmLeadSize + int64(len(sigs)+7)&^7
	main, err := header(at)
	if err != nil {
		return nil, err
	}
	s, err := parseRPMHeader(sigs[rpmMagicSize:])
	if err == nil {
		err = checkRPMHeader(s, main)
	}
	if err != nil {
		return nil, err
	}
	h, err := parseRPMHeader(main[rpmMagicSize:])
	return h, err
}

// checkRPMHeader compares a header with the digest that the signature header
// has of it, SHA-256 or SHA-1, where it has one.
func checkRPMHeader(sigs *rpmHeader, main []byte) error {
	sum256, sum1 := sha256.Sum256(main), sha1.Sum(main)
	for tag, sum := range map[uint32][]byte{rpmSigSHA256: sum256[:], rpmSigSHA1: sum1[:]} {
		want, err := sigs.text(tag)
		if err != nil {
			return err
		}
		if want != "" && want != hex.EncodeToString(sum) {
			return &CorruptError{Offset: -1, Reason: "its header is not the one that its digest was made of"}
		}
	}
	return nil
}

func rpmOf(f *os.File) (*rpmHeader, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return readRPM(f, st.Size())
}

func identifyRPM(f *os.File) (Package, error) {
	h, err := rpmOf(f)
	if err != nil {
		return Package{}, err
	}
	return h.pkg()
}

func rpmArchiveFiles(_ context.Context, f *os.File, want archiveWant) error {
	h, err := rpmOf(f)
	if err != nil {
		return err
	}
	return h.wanted(want)
}

// wanted hands on the wanted files of a package's header.
func (h *rpmHeader) wanted(want archiveWant) error {
	f, err := h.files(true)
	if err != nil {
		return err
	}
	var room []byte
	for i := range f.names {
		room = f.path(i, room)
		if name := string(room); want.has(name) {
			want.found(name, f.file(i, Package{}))
		}
	}
	return nil
}
