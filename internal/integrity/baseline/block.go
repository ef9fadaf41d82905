package baseline

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/zstd"
	"github.com/mobileops/mobileops/pkg/filehash"
	"golang.org/x/sys/unix"
)

// Limits on what is written and, since a baseline may come from elsewhere, on
// what is believed when reading.
const (
	maxRecords    = 4096    // in a block
	flushBytes    = 2 << 20 // of names, directories, link targets or attributes, after which a block is closed
	maxBlockBytes = 8 << 20 // of the columns of a block, uncompressed
	maxPath       = 1 << 18 // of a directory: 1,000 levels of 255 bytes
	maxTexts      = 8 << 20 // of the names and directories of a block, each directory counted in full
	maxXattrs     = 1 << 14 // of an entry: the kernel lists 64 KiB of names
)

// The columns of a block, in the order in which they stand in it.
const (
	colDirs    = iota // for each directory: shared prefix, suffix length, suffix, records
	colPrefix         // for each record: bytes its name shares with the name before it in its directory
	colSuffix         // length of the rest of the name
	colNames          // the rests of the names
	colOwner          // index into colOwners
	colOwners         // mode, uid, gid, device, flags, content state
	colLinks          // hard links
	colInode          // difference, zigzag
	colSize           // bytes
	colMtime          // difference of seconds, zigzag
	colMtimeNs        // nanoseconds, as a difference, zigzag
	colCtime          // as mtime
	colCtimeNs
	colBtime
	colBtimeNs
	colTarget // of links: length, bytes
	colRdev   // of devices
	colXattrs // for each record: number; for each: name length, name, value length, value
	columns
)

// owner is what many neighbouring files have in common.
type owner struct {
	mode, uid, gid, flags uint32
	dev                   uint64
	content               filehash.Content
}

// encoder collects the records of one block.
type encoder struct {
	cols   [columns][]byte
	sums   []byte
	n      int
	first  []byte // key of the first record: directory, NUL, name
	dir    []byte
	inDir  uint64 // records of dir
	texts  int    // bytes of names and directories once unpacked
	name   []byte
	prev   filehash.Info
	owners map[owner]uint64
	zstd   *zstd.Encoder
}

func newEncoder() (*encoder, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	return &encoder{owners: map[owner]uint64{}, zstd: z}, nil
}

func (e *encoder) full() bool {
	return e.n == maxRecords || len(e.cols[colNames])+len(e.cols[colTarget])+len(e.cols[colXattrs])+len(e.cols[colDirs]) > flushBytes || e.texts > flushBytes
}

func (e *encoder) put(col int, v uint64) { e.cols[col] = binary.AppendUvarint(e.cols[col], v) }

func (e *encoder) delta(col int, now, before int64) { e.put(col, zigzag(now-before)) }

func (e *encoder) bytes(col int, b []byte) {
	e.put(col, uint64(len(b)))
	e.cols[col] = append(e.cols[col], b...)
}

// add appends a record; the records come in walk order.
func (e *encoder) add(r *Record) {
	if e.n == 0 {
		e.first = append(append(append(e.first[:0], r.Dir...), 0), r.Name...)
	}
	if e.n == 0 || !bytes.Equal(r.Dir, e.dir) {
		e.closeDir()
		shared := commonPrefix(e.dir, r.Dir)
		e.put(colDirs, uint64(shared))
		e.bytes(colDirs, r.Dir[shared:])
		e.dir = append(e.dir[:0], r.Dir...)
		e.texts += len(r.Dir)
		e.name = e.name[:0]
	}
	e.inDir++
	e.texts += len(r.Name)
	shared := commonPrefix(e.name, r.Name)
	e.put(colPrefix, uint64(shared))
	e.put(colSuffix, uint64(len(r.Name)-shared))
	e.cols[colNames] = append(e.cols[colNames], r.Name[shared:]...)
	e.name = append(e.name[:0], r.Name...)

	i := &r.Info
	o := owner{i.Mode, i.UID, i.GID, i.Flags, i.Dev, r.Content}
	k, ok := e.owners[o]
	if !ok {
		k = uint64(len(e.owners))
		e.owners[o] = k
		e.put(colOwners, uint64(o.mode))
		e.put(colOwners, uint64(o.uid))
		e.put(colOwners, uint64(o.gid))
		e.put(colOwners, o.dev)
		e.put(colOwners, uint64(o.flags))
		e.put(colOwners, uint64(o.content))
	}
	e.put(colOwner, k)
	e.put(colLinks, uint64(i.Links))
	e.delta(colInode, int64(i.Ino), int64(e.prev.Ino))
	e.put(colSize, uint64(i.Size))
	e.time(colMtime, i.Mtime, e.prev.Mtime)
	e.time(colCtime, i.Ctime, e.prev.Ctime)
	// A file is mostly born shortly before its last change of status.
	e.time(colBtime, i.Btime, i.Ctime)
	switch i.Type() {
	case unix.S_IFLNK:
		e.bytes(colTarget, r.Target)
	case unix.S_IFCHR, unix.S_IFBLK:
		e.put(colRdev, i.Rdev)
	}
	e.put(colXattrs, uint64(len(r.Xattrs)))
	for _, x := range r.Xattrs {
		e.bytes(colXattrs, []byte(x.Name))
		e.bytes(colXattrs, x.Value)
	}
	if r.Content == filehash.Hashed {
		e.sums = append(e.sums, r.Sum[:]...)
	}
	e.prev = *i
	e.n++
}

func (e *encoder) time(col int, t, before filehash.Time) {
	e.delta(col, t.Sec, before.Sec)
	e.delta(col+1, int64(t.Nsec), int64(before.Nsec))
}

func (e *encoder) closeDir() {
	if e.inDir > 0 {
		e.put(colDirs, e.inDir)
		e.inDir = 0
	}
}

// block returns the encoded block and begins a new one:
//
//	uvarint  length of the first key, then the key
//	uvarint  records
//	uvarint  bytes of the columns, uncompressed
//	uvarint  bytes of the columns, compressed, then these
//	32 bytes for each record with content, in order
//
// The columns are the length of each as uvarint, then all of them.
func (e *encoder) block() []byte {
	e.closeDir()
	var raw []byte
	for _, c := range e.cols {
		raw = binary.AppendUvarint(raw, uint64(len(c)))
	}
	for i, c := range e.cols {
		raw = append(raw, c...)
		e.cols[i] = c[:0]
	}
	packed := e.zstd.EncodeAll(raw, nil)
	b := make([]byte, 0, len(e.first)+len(packed)+len(e.sums)+4*binary.MaxVarintLen32)
	b = binary.AppendUvarint(b, uint64(len(e.first)))
	b = append(b, e.first...)
	b = binary.AppendUvarint(b, uint64(e.n))
	b = binary.AppendUvarint(b, uint64(len(raw)))
	b = binary.AppendUvarint(b, uint64(len(packed)))
	b = append(b, packed...)
	b = append(b, e.sums...)
	e.sums, e.n, e.dir, e.name, e.prev, e.texts = e.sums[:0], 0, e.dir[:0], e.name[:0], filehash.Info{}, 0
	clear(e.owners)
	return b
}

func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

func zigzag(v int64) uint64   { return uint64(v<<1) ^ uint64(v>>63) }
func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

// Block is a decoded block. Decoding another one into it overwrites what its
// records refer to.
type Block struct {
	Records []Record // in walk order
	base    int      // number of the first record in the baseline
	raw     []byte   // the columns: link targets and attributes refer to it
	names   []byte   // directories and names refer to it
}

// column reads one column.
type column struct {
	b   []byte
	off int // of b in the block, for error messages
	err *CorruptError
}

func (c *column) fail(reason string) {
	if c.err.Reason == "" {
		*c.err = CorruptError{Offset: c.off, Reason: reason}
	}
	c.b = nil
}

func (c *column) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.fail("a number is cut off")
		return 0
	}
	c.b, c.off = c.b[n:], c.off+n
	return v
}

func (c *column) zigzag() int64 { return unzigzag(c.uvarint()) }

func (c *column) bytes(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.fail("a text is cut off")
		return nil
	}
	b := c.b[:n:n]
	c.b, c.off = c.b[n:], c.off+int(n)
	return b
}

// blockHead is the part of a block that is read without unpacking it.
type blockHead struct {
	dir, name    []byte
	records      int
	raw          int
	packed, sums []byte
}

func parseHead(b []byte) (h blockHead, err error) {
	var bad CorruptError
	c := column{b: b, err: &bad}
	key := c.bytes(c.uvarint())
	records, raw := c.uvarint(), c.uvarint()
	h.packed = c.bytes(c.uvarint())
	h.sums = c.b
	switch {
	case bad.Reason != "":
	case records == 0 || records > maxRecords:
		bad = CorruptError{Reason: fmt.Sprintf("it claims to have %d records", records)}
	case raw > maxBlockBytes:
		bad = CorruptError{Reason: fmt.Sprintf("it claims to unpack to %d bytes", raw)}
	}
	i := bytes.IndexByte(key, 0)
	if bad.Reason == "" && (i < 0 || len(key) > maxPath+256) {
		bad = CorruptError{Reason: "its first key is malformed"}
	}
	if bad.Reason != "" {
		return blockHead{}, &bad
	}
	h.dir, h.name, h.records, h.raw = key[:i], key[i+1:], int(records), int(raw)
	return h, nil
}

// decode unpacks a block.
func (blk *Block) decode(b []byte, z *zstd.Decoder) error {
	h, err := parseHead(b)
	if err != nil {
		return err
	}
	if cap(blk.raw) < h.raw {
		blk.raw = make([]byte, 0, h.raw)
	}
	raw, err := z.DecodeAll(h.packed, blk.raw[:0])
	if err != nil || len(raw) != h.raw {
		return &CorruptError{Offset: -1, Reason: "its columns cannot be unpacked"}
	}
	var bad CorruptError
	all := column{b: raw, err: &bad}
	var cols [columns]column
	var lens [columns]uint64
	for i := range lens {
		lens[i] = all.uvarint()
	}
	for i, n := range lens {
		off := all.off
		cols[i] = column{b: all.bytes(n), off: off, err: &bad}
	}
	if bad.Reason == "" && len(all.b) > 0 {
		all.fail("there is something behind the columns")
	}
	if bad.Reason != "" {
		return &bad
	}
	if blk.names == nil {
		blk.names = make([]byte, arenaBytes)
	}
	d := decoder{cols: cols, sums: h.sums, bad: &bad, arena: blk.names}
	if cap(blk.Records) < h.records {
		blk.Records = make([]Record, 0, h.records)
	}
	blk.Records = blk.Records[:0]
	for range h.records {
		blk.Records = append(blk.Records, Record{})
		d.record(&blk.Records[len(blk.Records)-1])
		if bad.Reason != "" {
			return &bad
		}
	}
	for i := range d.cols {
		if len(d.cols[i].b) > 0 {
			d.cols[i].fail("a column is longer than its records")
			return &bad
		}
	}
	if len(d.sums) > 0 || d.left > 0 {
		return &CorruptError{Offset: -1, Reason: "digests or directories do not match the records"}
	}
	r := &blk.Records[0]
	if !bytes.Equal(r.Dir, h.dir) || !bytes.Equal(r.Name, h.name) {
		return &CorruptError{Offset: -1, Reason: "its first key is not that of its first record"}
	}
	return nil
}

// decoder is what decode carries from record to record.
type decoder struct {
	cols   [columns]column
	sums   []byte
	bad    *CorruptError
	dir    []byte
	left   uint64 // records to come in dir
	name   []byte
	arena  []byte // names are cut from it, so that there is no allocation for each
	texts  int    // bytes of names and directories so far
	owners []owner
	prev   filehash.Info
}

// arenaBytes holds the names of most blocks.
const arenaBytes = 128 << 10

// text returns room for n bytes that stays.
func (d *decoder) text(n int) []byte {
	if n > len(d.arena) {
		d.arena = make([]byte, max(n, arenaBytes))
	}
	t := d.arena[:n:n]
	d.arena = d.arena[n:]
	return t
}

// extend returns before[:shared] + suffix.
func (d *decoder) extend(before []byte, shared uint64, suffix []byte) []byte {
	d.texts += int(shared) + len(suffix)
	t := d.text(int(shared) + len(suffix))
	copy(t[copy(t, before[:shared]):], suffix)
	return t
}

func (d *decoder) record(r *Record) {
	c := &d.cols
	if d.left == 0 {
		shared := c[colDirs].uvarint()
		suffix := c[colDirs].bytes(c[colDirs].uvarint())
		d.left = c[colDirs].uvarint()
		if shared > uint64(len(d.dir)) || int(shared)+len(suffix) > maxPath || d.left == 0 {
			c[colDirs].fail("a directory is malformed")
			return
		}
		dir := d.extend(d.dir, shared, suffix)
		if d.dir != nil && filehash.CompareDirs(d.dir, dir) >= 0 {
			c[colDirs].fail("directories are not in order")
			return
		}
		d.dir, d.name = dir, nil
	}
	d.left--
	r.Dir = d.dir
	shared := c[colPrefix].uvarint()
	suffix := c[colNames].bytes(c[colSuffix].uvarint())
	if shared > uint64(len(d.name)) || int(shared)+len(suffix) > 4096 || int(shared)+len(suffix) == 0 {
		c[colNames].fail("a name is malformed")
		return
	}
	r.Name = d.extend(d.name, shared, suffix)
	if bytes.Compare(d.name, r.Name) >= 0 {
		c[colNames].fail("names are not in order")
		return
	}
	d.name = r.Name
	if d.texts > maxTexts { // prefixes that repeat make few bytes unpack to many
		c[colNames].fail("its names and directories are too long")
		return
	}

	k := c[colOwner].uvarint()
	if k == uint64(len(d.owners)) {
		o := &c[colOwners]
		d.owners = append(d.owners, owner{
			mode: uint32(o.uvarint()), uid: uint32(o.uvarint()), gid: uint32(o.uvarint()),
			dev: o.uvarint(), flags: uint32(o.uvarint()), content: filehash.Content(o.uvarint()),
		})
	}
	if k >= uint64(len(d.owners)) {
		c[colOwner].fail("an owner is not there")
		return
	}
	o, i := &d.owners[k], &r.Info
	i.Mode, i.UID, i.GID, i.Dev, i.Flags, r.Content = o.mode, o.uid, o.gid, o.dev, o.flags, o.content
	i.Links = uint32(c[colLinks].uvarint())
	i.Ino = uint64(int64(d.prev.Ino) + c[colInode].zigzag())
	i.Size = int64(c[colSize].uvarint())
	i.Mtime = d.time(colMtime, d.prev.Mtime)
	i.Ctime = d.time(colCtime, d.prev.Ctime)
	i.Btime = d.time(colBtime, i.Ctime)
	switch i.Type() {
	case unix.S_IFLNK:
		r.Target = c[colTarget].bytes(c[colTarget].uvarint())
	case unix.S_IFCHR, unix.S_IFBLK:
		i.Rdev = c[colRdev].uvarint()
	}
	x := &c[colXattrs]
	if n := x.uvarint(); n > min(maxXattrs, uint64(len(x.b))) {
		x.fail("extended attributes are cut off")
	} else if n > 0 {
		r.Xattrs = make([]filehash.Xattr, n)
		for j := range r.Xattrs {
			r.Xattrs[j].Name = string(x.bytes(x.uvarint()))
			r.Xattrs[j].Value = x.bytes(x.uvarint())
		}
	}
	switch r.Content {
	case filehash.Hashed:
		if len(d.sums) < len(r.Sum) {
			c[colOwner].fail("digests are missing")
			return
		}
		d.sums = d.sums[copy(r.Sum[:], d.sums):]
	case filehash.NoContent, filehash.Unreadable, filehash.Unstable:
	default:
		c[colOwners].fail("a state of content is not known")
	}
	d.prev = *i
}

func (d *decoder) time(col int, before filehash.Time) filehash.Time {
	return filehash.Time{
		Sec:  before.Sec + d.cols[col].zigzag(),
		Nsec: uint32(int64(before.Nsec) + d.cols[col+1].zigzag()),
	}
}
