package packages

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

const (
	maxControl    = 64 << 20  // of control.tar, unpacked
	maxData       = 1 << 38   // of data.tar, unpacked
	maxDictionary = 128 << 20 // of xz and zstd: xz -9 and zstd --ultra -22 use 64 and 128 MiB
)

// debFormat reads Debian packages of format 2, deb(5): an ar archive of
// debian-binary, control.tar and data.tar, the two not compressed or with
// gzip, xz or zstd. The bzip2 and lzma of before 2011 are not supported.
func debFormat() *archiveFormat {
	return &archiveFormat{".deb", identifyDeb, debFiles}
}

// deb is an open .deb file.
type deb struct {
	f             io.ReaderAt
	control, data arMember
}

func openDeb(f io.ReaderAt, size int64) (*deb, error) {
	list, err := readAr(f, size)
	if err != nil {
		return nil, err
	}
	d := &deb{f: f}
	for i, m := range list {
		switch {
		case i == 0:
			var version [4]byte
			n, err := f.ReadAt(version[:min(m.size, 4)], m.offset)
			if err != nil && err != io.EOF {
				return nil, err
			}
			if m.name != "debian-binary" || !strings.HasPrefix(string(version[:n]), "2.") {
				return nil, &CorruptError{Offset: m.offset, Reason: "not a Debian package of format 2"}
			}
		case strings.HasPrefix(m.name, "control.tar") && d.control.size == 0:
			d.control = m
		case strings.HasPrefix(m.name, "data.tar") && d.data.size == 0:
			d.data = m
		}
	}
	if d.control.size == 0 || d.data.size == 0 {
		return nil, &CorruptError{Offset: -1, Reason: "control.tar or data.tar is missing"}
	}
	return d, nil
}

// unpack reads a member; close ends it.
func (d *deb) unpack(m arMember, limit int64) (r io.Reader, close func(), err error) {
	close = func() {}
	in := bufio.NewReaderSize(io.NewSectionReader(d.f, m.offset, m.size), 64<<10)
	switch ext := m.name[strings.Index(m.name, ".tar")+4:]; ext {
	case "":
		r = in
	case ".gz":
		r, err = gzip.NewReader(in)
	case ".xz":
		if err = xzDictionary(in); err == nil {
			r, err = xz.NewReader(in)
		}
	case ".zst":
		var z *zstd.Decoder
		z, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxDictionary))
		if err == nil {
			r, close = z, z.Close
		}
	default:
		err = fmt.Errorf("%w: compression %q; gzip, xz and zstd are", ErrUnsupported, ext)
	}
	if err != nil {
		return nil, nil, m.damaged(err)
	}
	return &limitedReader{r, limit}, close, nil
}

// damagedPart makes an error about what is in a part of an archive, at offset,
// a CorruptError, unless it says already where it is, the file could not be
// read, or somebody asked to stop.
func damagedPart(part string, offset int64, err error) error {
	var system *os.PathError
	var corrupt *CorruptError
	if err == nil || errors.As(err, &system) || errors.As(err, &corrupt) || errors.Is(err, ErrUnsupported) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &CorruptError{Offset: offset, Reason: fmt.Sprintf("%s: %v", part, err)}
}

func (m arMember) damaged(err error) error { return damagedPart(m.name, m.offset, err) }

// xzDictionary refuses a dictionary that takes more memory than packages need,
// before it is allocated: the size is in the header of the first block
// (xz-file-format.txt, sections 2.1.1, 3.1 and 5.3.1).
func xzDictionary(in *bufio.Reader) error {
	h, err := in.Peek(12 + 24)
	if len(h) < 12+8 {
		return err
	}
	b := h[12:]
	flags, i := b[1], 2
	for _, bit := range []byte{0x40, 0x80} { // compressed and uncompressed size, where present
		for flags&bit != 0 && i < len(b)-1 && b[i]&0x80 != 0 {
			i++
		}
		if flags&bit != 0 {
			i++
		}
	}
	if flags&3 != 0 || i+2 >= len(b) || b[i] != 0x21 {
		return nil // no LZMA2 alone: the library says what it thinks of it
	}
	size := b[i+2]
	if size > 40 || (2|uint64(size)&1)<<(size/2+11) > maxDictionary {
		return fmt.Errorf("its dictionary is larger than %d MiB", maxDictionary>>20)
	}
	return nil
}

// limitedReader fails when more is read than a limit, where io.LimitReader
// would say that it ended.
type limitedReader struct {
	r    io.Reader
	left int64
}

func (l *limitedReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, errors.New("it unpacks to more than is believable")
	}
	return n, err
}

// readControl returns the named files of control.tar, up to all of them.
func (d *deb) readControl(names ...string) (map[string][]byte, error) {
	r, done, err := d.unpack(d.control, maxControl)
	if err != nil {
		return nil, err
	}
	defer done()
	found := map[string][]byte{}
	for t := tar.NewReader(r); len(found) < len(names); {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, d.control.damaged(err)
		}
		for _, name := range names {
			if tarName(h.Name) == "/"+name && h.Typeflag == tar.TypeReg {
				if found[name], err = io.ReadAll(io.LimitReader(t, maxSmall)); err != nil {
					return nil, d.control.damaged(err)
				}
			}
		}
	}
	return found, nil
}

func identifyDeb(f *os.File) (Package, error) {
	d, err := debOf(f)
	if err != nil {
		return Package{}, err
	}
	return d.identify()
}

func debOf(f *os.File) (*deb, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return openDeb(f, st.Size())
}

func (d *deb) identify() (Package, error) {
	files, err := d.readControl("control")
	if err != nil {
		return Package{}, err
	}
	var p Package
	err = parseStatus("", files["control"], func(s stanza) error {
		p = s.Package
		return nil
	})
	if err == nil && (p.Name == "" || p.Version == "") {
		err = errors.New("its control file names no package")
	}
	return p, d.control.damaged(err)
}

func debFiles(ctx context.Context, f *os.File, want archiveWant) error {
	d, err := debOf(f)
	if err != nil {
		return err
	}
	return d.files(ctx, want)
}

func (d *deb) files(ctx context.Context, want archiveWant) error {
	control, err := d.readControl("conffiles", "control")
	if err != nil {
		return err
	}
	conffiles := map[string]bool{}
	for _, l := range strings.Split(string(control["conffiles"]), "\n") {
		conffiles[strings.TrimPrefix(strings.TrimSpace(l), "remove-on-upgrade ")] = true
	}
	found := want.found
	want.found = func(name string, f File) {
		f.Conffile = conffiles[name]
		found(name, f)
	}
	return d.data.damaged(tarFiles(ctx, want, func() (io.Reader, func(), error) { return d.unpack(d.data, maxData) }))
}
