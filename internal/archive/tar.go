package archive

import (
	"bytes"
	"io"
	"strings"
	"time"
)

// blockBytes is the unit of tar: headers are one block, content is padded to
// blocks.
const blockBytes = 512

// Types of headers, POSIX pax "ustar Header Block", GNU and Solaris.
const (
	typeOldFile  = 0
	typeFile     = '0'
	typeHardLink = '1'
	typeSymlink  = '2'
	typeChar     = '3'
	typeBlock    = '4'
	typeDir      = '5'
	typeFIFO     = '6'
	typePax      = 'x'
	typePaxAll   = 'g'
	typeLongName = 'L'
	typeLongLink = 'K'
	typeSparse   = 'S'
	typeACL      = 'A'
	typeXattr    = 'E'
)

// Header is an entry of the archive as it is written there, with what pax
// records and long names say in place of what the block says. Nothing of it has
// been held against limits or other entries: Reader.Accept does that.
type Header struct {
	Name   string // as it is written, without a slash at its end
	Kind   Kind
	Size   int64 // of the content, in bytes
	slash  bool  // the name ended with a slash, which was taken off
	link   string
	mode   uint32 // the lowest 12 bits
	mtime  time.Time
	offset int64
}

// headers reads the headers of a tar archive. It knows v7, ustar, pax and GNU
// headers, and takes nothing that these could be mistaken for: archive/tar of
// the standard library understands everything that it accepts in the same way,
// which a fuzz test holds it to.
type headers struct {
	*stream
	most int   // bytes of pax records and long names of an entry
	all  int   // headers for all entries ('g') that are allowed
	left int64 // of the current entry's content
	pad  int64 // after it
	blk  [blockBytes]byte
	data []byte // of an extended header
}

// extended is what the headers before an entry's own say of it.
type extended struct {
	pax        bool
	name, link *string // of pax
	size       int64   // -1 when it is not given
	mtime      *time.Time
	longName   *string // of GNU tar
	longLink   *string
}

func (x *extended) any() bool { return x.pax || x.longName != nil || x.longLink != nil }

// nextHeader passes over what is left of the last entry, and reads the next.
// It returns io.EOF at the end of the archive and of the stream, proved.
func (a *headers) nextHeader() (*Header, error) {
	if err := a.skip(a.left + a.pad); err != nil {
		return nil, a.cut(err)
	}
	a.left, a.pad = 0, 0
	x := extended{size: -1}
	start := a.off
	for {
		offset := a.off
		if err := a.readFull(a.blk[:]); err != nil {
			return nil, a.cut(err)
		}
		if zero(a.blk[:]) {
			if x.any() {
				return nil, refuse(CodeFormat, "", offset, "the archive ends after an extended header")
			}
			return nil, a.end()
		}
		if !a.sumHolds() {
			return nil, refuse(CodeCorrupt, "", offset, "the checksum of a header is wrong")
		}
		var err error
		switch typ := a.blk[156]; typ {
		case typePax, typePaxAll, typeLongName, typeLongLink:
			err = a.extend(&x, typ, offset)
		default:
			return a.entry(&x, start, offset)
		}
		if err != nil {
			return nil, err
		}
	}
}

// cut makes an end of the stream what it is within an archive.
func (a *headers) cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return refuse(CodeTruncated, "", a.off, "the archive ends before its two blocks of zeros")
	}
	return err
}

// end reads what comes after the first block of zeros.
func (a *headers) end() error {
	offset := a.off
	if err := a.readFull(a.blk[:]); err != nil {
		return a.cut(err)
	}
	if !zero(a.blk[:]) {
		return refuse(CodeCorrupt, "", offset, "one block of zeros where the end of an archive has two")
	}
	for {
		p, err := a.take(ringBytes)
		if err != nil {
			return err // io.EOF when all was proved
		}
		if !zero(p) {
			return refuse(CodeTrailing, "", a.off-int64(len(p)), "bytes after the end of the archive; a second archive is never read")
		}
	}
}

func zero(p []byte) bool {
	for len(p) >= blockBytes {
		if !bytes.Equal(p[:blockBytes], zeros[:]) {
			return false
		}
		p = p[blockBytes:]
	}
	return bytes.Equal(p, zeros[:len(p)])
}

var zeros [blockBytes]byte

// sumHolds compares the sum of the block's bytes, unsigned as POSIX wants it,
// with that in the block, which counts as eight spaces.
func (a *headers) sumHolds() bool {
	var sum int64 = 8 * ' '
	for _, c := range a.blk[:148] {
		sum += int64(c)
	}
	for _, c := range a.blk[156:] {
		sum += int64(c)
	}
	want, ok := octal(a.blk[148:156])
	return ok && want == sum
}

// dialect is what a block's bytes from 257 on are.
type dialect int

const (
	v7 dialect = iota
	ustar
	gnu
)

// dialect tells by the magic number.
func (a *headers) dialect(offset int64) (dialect, *Error) {
	switch string(a.blk[257:265]) {
	case "ustar\x0000":
		if string(a.blk[508:]) == "tar\x00" {
			return 0, refuse(CodeFormat, a.field(0, 100), offset, "a header of the program star, with fields of its own; write the format ustar or pax")
		}
		return ustar, nil
	case "ustar  \x00":
		return gnu, nil
	case "\x00\x00\x00\x00\x00\x00\x00\x00":
		return v7, nil
	}
	return 0, refuse(CodeFormat, a.field(0, 100), offset, "a header of an unknown tar format")
}

// field returns a string field: up to a NUL, or all of it.
func (a *headers) field(from, length int) string {
	p := a.blk[from : from+length]
	if i := bytes.IndexByte(p, 0); i >= 0 {
		p = p[:i]
	}
	return string(p)
}

// extend reads a header that says something of the next entry.
func (a *headers) extend(x *extended, typ byte, offset int64) error {
	form, e := a.dialect(offset)
	if e == nil {
		e = a.checkNumbers(form, offset)
	}
	if e != nil {
		return e
	}
	size, _ := signed(a.blk[124:136])
	if size > int64(a.most) {
		return refuse(CodeTooLarge, "", offset, "an extended header of %d bytes; %d are allowed", size, a.most)
	}
	padded := (size + blockBytes - 1) / blockBytes * blockBytes
	if int64(cap(a.data)) < padded {
		a.data = make([]byte, padded)
	}
	data := a.data[:padded]
	if err := a.readFull(data); err != nil {
		return a.cut(err)
	}
	data = data[:size]
	switch typ {
	case typePaxAll:
		if a.all--; a.all < 0 {
			return refuse(CodeTooMany, "", offset, "too many headers for all entries")
		}
		if x.any() {
			return refuse(CodeFormat, "", offset, "a header for all entries between an entry and its own")
		}
		return checkPaxAll(data, offset)
	case typePax:
		if x.any() {
			return refuse(CodeFormat, "", offset, "two extended headers for one entry")
		}
		x.pax = true
		return x.readPax(data, offset)
	}
	// GNU: a string, with a NUL at its end or without.
	if i := bytes.IndexByte(data, 0); i >= 0 {
		if !zero(data[i:]) {
			return refuse(CodePathBytes, string(data[:i]), offset, "a NUL")
		}
		data = data[:i]
	}
	long := string(data)
	at := &x.longName
	if typ == typeLongLink {
		at = &x.longLink
	}
	if x.pax || *at != nil {
		return refuse(CodeFormat, long, offset, "two extended headers give one entry a name")
	}
	*at = &long
	return nil
}

// entry makes a header of the block, and of what headers before it said.
func (a *headers) entry(x *extended, start, offset int64) (*Header, error) {
	form, e := a.dialect(offset)
	if e == nil {
		e = a.checkNumbers(form, offset)
	}
	if e != nil {
		return nil, e
	}
	h := &Header{Name: a.field(0, 100), offset: start}
	typ := a.blk[156]
	if typ == typeSymlink {
		h.link = a.field(157, 100)
	}
	if form == ustar {
		if prefix := a.field(345, 155); prefix != "" {
			h.Name = prefix + "/" + h.Name
		}
	}
	if x.longName != nil {
		h.Name = *x.longName
	}
	if x.name != nil {
		h.Name = *x.name
	}
	if typ == typeSymlink && x.longLink != nil {
		h.link = *x.longLink
	}
	if typ == typeSymlink && x.link != nil {
		h.link = *x.link
	}
	if n := len(h.Name); n > 1 && h.Name[n-1] == '/' {
		h.Name, h.slash = h.Name[:n-1], true
	}
	if e := h.setKind(typ, offset); e != nil {
		return nil, e
	}
	return h, a.numbers(h, x, offset)
}

// setKind refuses every type but files, directories and symbolic links.
func (h *Header) setKind(typ byte, offset int64) *Error {
	switch typ {
	case typeFile, typeOldFile:
		h.Kind = File
		if h.slash && typ == typeOldFile {
			h.Kind = Dir // of v7, which had no type for it
		}
	case typeDir:
		h.Kind = Dir
	case typeSymlink:
		h.Kind = Symlink
	case typeHardLink:
		return refuse(CodeHardLink, h.Name, offset, "a hard link; packages have a file each time")
	case typeChar, typeBlock, typeFIFO:
		return refuse(CodeDevice, h.Name, offset, "a device or pipe (type %q)", typ)
	case typeACL, typeXattr:
		return refuse(CodeXattr, h.Name, offset, "an access control list or attributes (type %q)", typ)
	case typeSparse:
		return refuse(CodeType, h.Name, offset, "a sparse file; build the package without --sparse")
	default:
		return refuse(CodeType, h.Name, offset, "an entry of type %q; there may be files, directories and symbolic links", typ)
	}
	if h.slash && h.Kind != Dir {
		return refuse(CodeFormat, h.Name, offset, "a %s whose name ends with a slash, which some programs take for a directory", h.Kind)
	}
	return nil
}

// checkNumbers sees that a block is a header of its dialect in the fields that
// are of no use here too: others would stumble over them.
func (a *headers) checkNumbers(form dialect, offset int64) *Error {
	for _, f := range []struct {
		what     string
		from, to int
	}{{"mode", 100, 108}, {"owner", 108, 116}, {"group", 116, 124}, {"size", 124, 136}, {"time", 136, 148}, {"device", 329, 337}, {"device", 337, 345}} {
		if form == v7 && f.from > 257 {
			break
		}
		if n, ok := signed(a.blk[f.from:f.to]); !ok || n < 0 && (f.what == "size" || f.what == "mode") {
			return refuse(CodeFormat, a.field(0, 100), offset, "its %s is not a number that makes sense", f.what)
		}
	}
	if form != gnu {
		return nil
	}
	// Times of access and change stand where ustar has the prefix, then the
	// fields of several volumes and sparse files.
	for _, at := range []int{345, 357} {
		if _, ok := signed(a.blk[at : at+12]); !ok {
			return refuse(CodeFormat, a.field(0, 100), offset, "a GNU header with something else where times are")
		}
	}
	if !zero(a.blk[369:495]) {
		return refuse(CodeType, a.field(0, 100), offset, "a sparse file, or part of an archive of several volumes")
	}
	return nil
}

// numbers takes mode, size and time, which checkNumbers has seen.
func (a *headers) numbers(h *Header, x *extended, offset int64) error {
	mode, _ := signed(a.blk[100:108])
	h.mode = uint32(mode & 0o7777) // the type of the file is above, in some old archives
	h.Size, _ = signed(a.blk[124:136])
	if x.size >= 0 {
		h.Size = x.size
	}
	mtime, _ := signed(a.blk[136:148])
	h.mtime = clampTime(mtime, 0)
	if x.mtime != nil {
		h.mtime = *x.mtime
	}
	if h.Kind != File && h.Size != 0 {
		return refuse(CodeFormat, h.Name, offset, "a %s with a content of %d bytes", h.Kind, h.Size)
	}
	return nil
}

// begin makes an entry's content the next that is read. Sizes were checked
// against the limits, so nothing overflows.
func (a *headers) begin(h *Header) {
	a.left = h.Size
	a.pad = -h.Size & (blockBytes - 1)
}

// signed reads a numeric field: octal digits, or a binary number of GNU and
// star, whose first bit is set.
func signed(p []byte) (int64, bool) {
	if p[0]&0x80 == 0 {
		return octal(p)
	}
	// Two's complement, big endian; the highest bit says only that it is
	// binary, so the next one is the sign.
	negative := p[0]&0x40 != 0
	fill := byte(0)
	if negative {
		fill = 0xff
	}
	first := p[0]&0x7f | fill&0x80
	n := int64(int8(first))
	for _, c := range p[1:] {
		if n > 1<<54 || n < -1<<54 {
			return 0, false
		}
		n = n<<8 | int64(c)
	}
	return n, true
}

// octal reads octal digits between spaces and NULs. Nothing is 0.
func octal(p []byte) (int64, bool) {
	s := strings.Trim(string(p), " \x00")
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '7' || n >= 1<<60 {
			return 0, false
		}
		n = n<<3 | int64(s[i]-'0')
	}
	return n, true
}

// clampTime keeps times to those that every file system and format can have.
func clampTime(seconds, nanoseconds int64) time.Time {
	const most = 253402300799 // the end of 9999
	if seconds < 0 {
		return time.Unix(0, 0).UTC()
	}
	if seconds > most {
		return time.Unix(most, 0).UTC()
	}
	return time.Unix(seconds, nanoseconds).UTC()
}
