package archive

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/mobileops/mobileops/internal/archive/rawtar"
)

// attack is a package that is refused.
type attack struct {
	what    string
	code    Code
	entries []rawtar.Entry
	limits  Limits
	packed  []byte // in place of entries
}

func concat(parts ...[]byte) []byte               { return slices.Concat(parts...) }
func list(entries ...rawtar.Entry) []rawtar.Entry { return entries }
func sized(field string) func(*rawtar.Entry)      { return func(e *rawtar.Entry) { e.Size = field } }
func patched(at int, s string) func(*rawtar.Entry) {
	return func(e *rawtar.Entry) { e.Patch = map[int]string{at: s} }
}

func attacks() []attack {
	good := rawtar.Archive(rawtar.File("a"))
	long := strings.Repeat("n", 256)
	noise := make([]byte, 300<<10)
	rnd := rand.NewChaCha8([32]byte{7})
	rnd.Read(noise)
	big := rawtar.Archive(rawtar.Entry{Name: "noise", Body: string(noise)})
	return []attack{
		// Names.
		{what: "parent", code: CodeTraversal, entries: list(rawtar.File("../a"))},
		{what: "parent inside", code: CodeTraversal, entries: list(rawtar.File("a/../../b"))},
		{what: "parent that stays inside", code: CodeTraversal, entries: list(rawtar.File("a/b/../c"))},
		{what: "parent at the end", code: CodeTraversal, entries: list(rawtar.Dir("a/.."))},
		{what: "parent of a directory", code: CodeTraversal, entries: list(rawtar.Dir("../"))},
		{what: "dot", code: CodeTraversal, entries: list(rawtar.File("a/./b"))},
		{what: "two dots and slashes", code: CodeTraversal, entries: list(rawtar.File("././a"))},
		{what: "two slashes", code: CodeTraversal, entries: list(rawtar.File("a//b"))},
		{what: "two slashes at the end", code: CodeTraversal, entries: list(rawtar.Dir("a//"))},
		{what: "absolute", code: CodeAbsolute, entries: list(rawtar.File("/etc/passwd"))},
		{what: "root", code: CodeAbsolute, entries: list(rawtar.Dir("/"))},
		{what: "absolute by prefix", code: CodeAbsolute, entries: list(rawtar.Entry{Name: "passwd", Prefix: "/etc"})},
		{what: "absolute by pax", code: CodeAbsolute, entries: list(rawtar.Pax("path", "/etc/passwd"), rawtar.File("a"))},
		{what: "absolute by GNU long name", code: CodeAbsolute, entries: list(rawtar.OldGNU(rawtar.Entry{Name: "././@LongLink", Type: 'L', Body: "/etc/passwd\x00"}), rawtar.OldGNU(rawtar.File("a")))},
		{what: "no name", code: CodePathLength, entries: list(rawtar.File(""))},
		{what: "part too long", code: CodePathLength, entries: list(rawtar.Pax("path", "d/"+long), rawtar.File("a"))},
		{what: "name too long", code: CodePathLength, entries: list(rawtar.Pax("path", strings.Repeat("dir/", 300)+"a"), rawtar.File("a"))},
		{what: "target too long", code: CodePathLength, entries: list(rawtar.Pax("linkpath", strings.Repeat("dir/", 300)+"a"), rawtar.Symlink("a", "b"))},
		{what: "part of a target too long", code: CodePathLength, entries: list(rawtar.Pax("linkpath", long), rawtar.Symlink("a", "b"))},
		{what: "no target", code: CodePathLength, entries: list(rawtar.Symlink("a", ""))},
		{what: "newline", code: CodePathBytes, entries: list(rawtar.File("a\nb"))},
		{what: "escape", code: CodePathBytes, entries: list(rawtar.File("a\x1b[2Jb"))},
		{what: "delete", code: CodePathBytes, entries: list(rawtar.File("a\x7fb"))},
		{what: "C1 control", code: CodePathBytes, entries: list(rawtar.File("a\u009bb"))},
		{what: "backslash", code: CodePathBytes, entries: list(rawtar.File(`..\a`))},
		{what: "invalid UTF-8", code: CodePathBytes, entries: list(rawtar.File("a\xff"))},
		{what: "text turned around", code: CodePathBytes, entries: list(rawtar.File("a\u202egpj.exe"))},
		{what: "line separator", code: CodePathBytes, entries: list(rawtar.File("a\u2028b"))},
		{what: "NUL by pax", code: CodePathBytes, entries: list(rawtar.Pax("path", "a\x00/../../b"), rawtar.File("a"))},
		{what: "NUL by GNU long name", code: CodePathBytes, entries: list(rawtar.OldGNU(rawtar.Entry{Name: "L", Type: 'L', Body: "a\x00b\x00"}), rawtar.OldGNU(rawtar.File("a")))},
		{what: "bytes of a target", code: CodePathBytes, entries: list(rawtar.Symlink("a", "b\nc"))},
		{what: "deep", code: CodeDepth, entries: list(rawtar.Pax("path", strings.Repeat("d/", 64)+"a"), rawtar.File("a"))},

		// Links.
		{what: "absolute link", code: CodeSymlinkEscape, entries: list(rawtar.Symlink("a", "/etc"))},
		{what: "link up", code: CodeSymlinkEscape, entries: list(rawtar.Symlink("a", ".."))},
		{what: "link up from a directory", code: CodeSymlinkEscape, entries: list(rawtar.Symlink("d/a", "../../etc"))},
		{what: "link up after a name", code: CodeSymlinkEscape, entries: list(rawtar.Symlink("d/l", "e"), rawtar.Symlink("a", "d/l/.."))},
		{what: "chain of links", code: CodeSymlinkEscape, entries: list(rawtar.Symlink("l", "."), rawtar.Symlink("m", "l/l/../.."))},
		{what: "link with a name before dots", code: CodeSymlinkEscape, entries: list(rawtar.Symlink("d/a", "./b/../../../c"))},
		{what: "link up by pax", code: CodeSymlinkEscape, entries: list(rawtar.Pax("linkpath", "../x"), rawtar.Symlink("a", "b"))},
		{what: "link up by GNU long link", code: CodeSymlinkEscape, entries: list(rawtar.OldGNU(rawtar.Entry{Name: "K", Type: 'K', Body: "../x\x00"}), rawtar.OldGNU(rawtar.Symlink("a", "b")))},
		{what: "hard link outside", code: CodeHardLink, entries: list(rawtar.Entry{Name: "a", Type: '1', Link: "/etc/shadow"})},
		{what: "hard link inside", code: CodeHardLink, entries: list(rawtar.File("a"), rawtar.Entry{Name: "b", Type: '1', Link: "a"})},
		{what: "beneath a link", code: CodeParentNotDir, entries: list(rawtar.Dir("d"), rawtar.Symlink("l", "d"), rawtar.File("l/x"))},
		{what: "far beneath a link", code: CodeParentNotDir, entries: list(rawtar.Symlink("l", "d"), rawtar.File("l/x/y/z"))},
		{what: "beneath a file", code: CodeParentNotDir, entries: list(rawtar.File("a"), rawtar.File("a/b"))},
		{what: "a link where others went through", code: CodeFileOverDir, entries: list(rawtar.File("l/x"), rawtar.Symlink("l", "d"))},
		{what: "a link over a directory", code: CodeFileOverDir, entries: list(rawtar.Dir("l"), rawtar.Symlink("l", "d"))},
		{what: "a file over a directory", code: CodeFileOverDir, entries: list(rawtar.Dir("a/"), rawtar.File("a"))},
		{what: "a file over the tree", code: CodeFileOverDir, entries: list(rawtar.File("."))},
		{what: "a directory over a file", code: CodeDirOverFile, entries: list(rawtar.File("a"), rawtar.Dir("a/"))},
		{what: "a directory over a link", code: CodeDirOverFile, entries: list(rawtar.Symlink("a", "b"), rawtar.Dir("a"))},

		// Names twice.
		{what: "twice", code: CodeDuplicate, entries: list(rawtar.File("a"), rawtar.File("a"))},
		{what: "twice with a dot", code: CodeDuplicate, entries: list(rawtar.File("a"), rawtar.File("./a"))},
		{what: "directory twice", code: CodeDuplicate, entries: list(rawtar.Dir("a/"), rawtar.File("a/b"), rawtar.Dir("./a"))},
		{what: "link over a file", code: CodeDuplicate, entries: list(rawtar.File("a"), rawtar.Symlink("a", "b"))},
		{what: "file over a link", code: CodeDuplicate, entries: list(rawtar.Symlink("a", "b"), rawtar.File("a"))},
		{what: "tree twice", code: CodeDuplicate, entries: list(rawtar.Dir("./"), rawtar.Dir("."))},
		{what: "case", code: CodeCaseClash, entries: list(rawtar.File("a"), rawtar.File("A"))},
		{what: "case of a directory", code: CodeCaseClash, entries: list(rawtar.File("Bin/x"), rawtar.File("bin/X"))},
		{what: "case of a directory with an entry", code: CodeCaseClash, entries: list(rawtar.Dir("Bin"), rawtar.Dir("bin"))},
		{what: "case by Unicode", code: CodeCaseClash, entries: list(rawtar.File("Übung"), rawtar.File("übung"))},
		{what: "Kelvin", code: CodeCaseClash, entries: list(rawtar.File("k"), rawtar.File("\u212a"))},

		// What is no file.
		{what: "character device", code: CodeDevice, entries: list(rawtar.Entry{Name: "a", Type: '3'})},
		{what: "block device", code: CodeDevice, entries: list(rawtar.Entry{Name: "a", Type: '4'})},
		{what: "pipe", code: CodeDevice, entries: list(rawtar.Entry{Name: "a", Type: '6'})},
		{what: "setuid", code: CodeSetID, entries: list(rawtar.With(rawtar.File("a"), rawtar.Moded(0o4755)))},
		{what: "setgid", code: CodeSetID, entries: list(rawtar.With(rawtar.File("a"), rawtar.Moded(0o2755)))},
		{what: "setgid of a directory", code: CodeSetID, entries: list(rawtar.With(rawtar.Dir("a"), rawtar.Moded(0o2755)))},
		{what: "setgid of the tree", code: CodeSetID, entries: list(rawtar.With(rawtar.Dir("./"), rawtar.Moded(0o2755)))},
		{what: "xattr", code: CodeXattr, entries: list(rawtar.Pax("SCHILY.xattr.security.capability", "x"), rawtar.File("a"))},
		{what: "libarchive's xattr", code: CodeXattr, entries: list(rawtar.Pax("LIBARCHIVE.xattr.user.x", "eA"), rawtar.File("a"))},
		{what: "xattr for all", code: CodeXattr, entries: list(rawtar.PaxOf('g', "SCHILY.xattr.user.x", "x"), rawtar.File("a"))},
		{what: "access control list", code: CodeXattr, entries: list(rawtar.Pax("SCHILY.acl.access", "user::rwx"), rawtar.File("a"))},
		{what: "SELinux", code: CodeXattr, entries: list(rawtar.Pax("RHT.security.selinux", "x"), rawtar.File("a"))},
		{what: "file flags", code: CodeXattr, entries: list(rawtar.Pax("SCHILY.fflags", "immutable"), rawtar.File("a"))},
		{what: "access control list of Solaris", code: CodeXattr, entries: list(rawtar.Entry{Name: "a", Type: 'A'})},
		{what: "sparse", code: CodeType, entries: list(rawtar.OldGNU(rawtar.Entry{Name: "a", Type: 'S'}))},
		{what: "sparse by pax", code: CodeType, entries: list(rawtar.Pax("GNU.sparse.major", "1", "GNU.sparse.minor", "0"), rawtar.File("a"))},
		{what: "sparse fields of GNU", code: CodeType, entries: list(rawtar.OldGNU(rawtar.With(rawtar.File("a"), patched(483, "00000001000"))))},
		{what: "contiguous file", code: CodeType, entries: list(rawtar.Entry{Name: "a", Type: '7'})},
		{what: "volume", code: CodeType, entries: list(rawtar.Entry{Name: "a", Type: 'V'})},
		{what: "unknown type", code: CodeType, entries: list(rawtar.Entry{Name: "a", Type: 'z'})},

		// Headers that say two things.
		{what: "two extended headers", code: CodeFormat, entries: list(rawtar.Pax("path", "a"), rawtar.Pax("path", "b"), rawtar.File("c"))},
		{what: "pax and GNU long name", code: CodeFormat, entries: list(rawtar.Pax("path", "a"), rawtar.OldGNU(rawtar.Entry{Name: "L", Type: 'L', Body: "b"}), rawtar.File("c"))},
		{what: "two long names", code: CodeFormat, entries: list(rawtar.OldGNU(rawtar.Entry{Name: "L", Type: 'L', Body: "a"}), rawtar.OldGNU(rawtar.Entry{Name: "L", Type: 'L', Body: "b"}), rawtar.File("c"))},
		{what: "one key twice", code: CodeFormat, entries: list(rawtar.Pax("path", "a", "path", "b"), rawtar.File("c"))},
		{what: "path for all", code: CodeFormat, entries: list(rawtar.PaxOf('g', "path", "x"), rawtar.File("c"))},
		{what: "size for all", code: CodeFormat, entries: list(rawtar.PaxOf('g', "size", "0"), rawtar.File("c"))},
		{what: "for all, between", code: CodeFormat, entries: list(rawtar.Pax("path", "a"), rawtar.PaxOf('g', "comment", "x"), rawtar.File("c"))},
		{what: "unknown record", code: CodeFormat, entries: list(rawtar.Pax("VENDOR.path", "a"), rawtar.File("c"))},
		{what: "other character set", code: CodeFormat, entries: list(rawtar.Pax("hdrcharset", "ISO-IR 8859 1 1998"), rawtar.File("c"))},
		{what: "no record", code: CodeFormat, entries: list(rawtar.Entry{Name: "x", Type: 'x', Body: "garbage"}, rawtar.File("c"))},
		{what: "record longer than the header", code: CodeFormat, entries: list(rawtar.Entry{Name: "x", Type: 'x', Body: "99 path=a\n"}, rawtar.File("c"))},
		{what: "record with a signed length", code: CodeFormat, entries: list(rawtar.Entry{Name: "x", Type: 'x', Body: "+9 path=\n"}, rawtar.File("c"))},
		{what: "record shorter than itself", code: CodeFormat, entries: list(rawtar.Entry{Name: "x", Type: 'x', Body: "2 path=a\n"}, rawtar.File("c"))},
		{what: "empty record path", code: CodePathBytes, entries: list(rawtar.Pax("path", ""), rawtar.File("c"))},
		{what: "time that is none", code: CodeFormat, entries: list(rawtar.Pax("mtime", "1.2.3"), rawtar.File("c"))},
		{what: "extended header at the end", code: CodeFormat, entries: list(rawtar.Pax("path", "a"))},
		{what: "negative size", code: CodeFormat, entries: list(rawtar.With(rawtar.File("a"), sized("-0000000001\x00")))},
		{what: "negative binary size", code: CodeFormat, entries: list(rawtar.With(rawtar.File("a"), sized(strings.Repeat("\xff", 12))))},
		{what: "negative size of a long name", code: CodeFormat, entries: list(rawtar.OldGNU(rawtar.Entry{Name: "L", Type: 'L', Size: strings.Repeat("\xff", 12)}), rawtar.File("c"))},
		{what: "negative pax size", code: CodeFormat, entries: list(rawtar.Pax("size", "-1"), rawtar.File("c"))},
		{what: "binary size beyond 64 bits", code: CodeFormat, entries: list(rawtar.With(rawtar.File("a"), sized("\x80\x01"+strings.Repeat("\x00", 10))))},
		{what: "pax size beyond 64 bits", code: CodeFormat, entries: list(rawtar.Pax("size", "99999999999999999999"), rawtar.File("c"))},
		{what: "mode that is none", code: CodeFormat, entries: list(rawtar.With(rawtar.File("a"), patched(100, "rwxr-xr")))},
		{what: "owner that is none", code: CodeFormat, entries: list(rawtar.With(rawtar.File("a"), patched(108, "root")))},
		{what: "device that is none", code: CodeFormat, entries: list(rawtar.With(rawtar.File("a"), patched(330, "what")))},
		{what: "time in a header that is none", code: CodeFormat, entries: list(rawtar.Entry{Name: "a", ModTime: "yesterday"})},
		{what: "directory with content", code: CodeFormat, entries: list(rawtar.Entry{Name: "a", Type: '5', Body: rawtar.Hello})},
		{what: "link with content", code: CodeFormat, entries: list(rawtar.Entry{Name: "a", Type: '2', Link: "b", Body: rawtar.Hello})},
		{what: "directory with pax size", code: CodeFormat, entries: list(rawtar.Pax("size", "512"), rawtar.Dir("a"), rawtar.File("b"))},
		{what: "file with a slash at its end", code: CodeFormat, entries: list(rawtar.File("a/"))},
		{what: "unknown magic", code: CodeFormat, entries: list(rawtar.Entry{Name: "a", Magic: "ustar\x0001"})},
		{what: "star's header", code: CodeFormat, entries: list(rawtar.With(rawtar.File("a"), patched(508, "tar\x00")))},
		{what: "GNU header with a prefix", code: CodeFormat, entries: list(rawtar.OldGNU(rawtar.With(rawtar.File("a"), patched(345, "etc/cron.d"))))},
		{what: "an extended header of no format", code: CodeFormat, entries: list(rawtar.With(rawtar.Pax("path", "a"), func(r *rawtar.Entry) { r.Magic = "whatever" }), rawtar.File("b"))},

		// Too much.
		{what: "huge file", code: CodeTooLarge, entries: list(rawtar.With(rawtar.File("a"), sized("77777777777\x00"))), limits: Limits{FileBytes: 1 << 30}},
		{what: "huge binary size", code: CodeTooLarge, entries: list(rawtar.With(rawtar.File("a"), sized(rawtar.Base256(1<<62))))},
		{what: "huge pax size", code: CodeTooLarge, entries: list(rawtar.Pax("size", "9223372036854775807"), rawtar.File("a"))},
		{what: "all files", code: CodeTooLarge, entries: list(rawtar.File("a"), rawtar.File("b")), limits: Limits{TotalBytes: 20}},
		{what: "huge extended header", code: CodeTooLarge, entries: list(rawtar.With(rawtar.Pax("path", "a"), sized("77777777777\x00")), rawtar.File("a"))},
		{what: "extended header above the limit", code: CodeTooLarge, entries: list(rawtar.Pax("comment", strings.Repeat("x", 65<<10)), rawtar.File("a"))},
		{what: "huge long name", code: CodeTooLarge, entries: list(rawtar.OldGNU(rawtar.Entry{Name: "L", Type: 'L', Size: rawtar.Base256(1 << 40)}), rawtar.File("a"))},
		{what: "entries", code: CodeTooMany, entries: list(rawtar.File("a"), rawtar.File("b"), rawtar.File("c")), limits: Limits{Entries: 2}},
		{what: "implied directories", code: CodeTooMany, entries: list(rawtar.File("a/b/c/d")), limits: Limits{Entries: 3}},
		{what: "headers for all", code: CodeTooMany, entries: append(slices.Repeat(list(rawtar.PaxOf('g', "comment", "x")), 17), rawtar.File("a"))},

		// The archive's end.
		{what: "no end", code: CodeTruncated, packed: rawtar.Gzip(rawtar.File("a").Bytes())},
		{what: "half an end", code: CodeTruncated, packed: rawtar.Gzip(good[:len(good)-rawtar.BlockBytes])},
		{what: "half a block at the end", code: CodeTruncated, packed: rawtar.Gzip(good[:len(good)-100])},
		{what: "cut content", code: CodeTruncated, packed: rawtar.Gzip(good[:rawtar.BlockBytes+5])},
		{what: "cut header", code: CodeTruncated, packed: rawtar.Gzip(good[:100])},
		{what: "cut extended header", code: CodeTruncated, packed: rawtar.Gzip(rawtar.Pax("path", "a").Bytes()[:600])},
		{what: "nothing packed", code: CodeTruncated, packed: rawtar.Gzip(nil)},
		{what: "nothing packed by zstd", code: CodeTruncated, packed: rawtar.Zstd(nil, zstd.WithZeroFrames(true))},
		{what: "one block of zeros", code: CodeCorrupt, packed: rawtar.Gzip(concat(rawtar.File("a").Bytes(), make([]byte, rawtar.BlockBytes), rawtar.File("b").Bytes()))},
		{what: "an archive after the archive", code: CodeTrailing, packed: rawtar.Gzip(concat(good, rawtar.Archive(rawtar.File("b"))))},
		{what: "a byte after much padding", code: CodeTrailing, packed: rawtar.Zstd(concat(good, make([]byte, 20<<10), []byte{1}))},
		{what: "checksum of a header", code: CodeCorrupt, entries: list(rawtar.With(rawtar.File("a"), func(r *rawtar.Entry) { r.BadSum = true }))},

		// Packing.
		{what: "no package", code: CodeFormat, packed: []byte("#!/bin/sh\nrm -rf /\n")},
		{what: "not packed", code: CodeFormat, packed: good},
		{what: "nothing", code: CodeTruncated, packed: nil},
		{what: "two bytes", code: CodeTruncated, packed: []byte{0x1f, 0x8b}},
		{what: "two gzip members", code: CodeTrailing, packed: concat(rawtar.Gzip(good), rawtar.Gzip(good))},
		{what: "an archive in two gzip members", code: CodeTrailing, packed: concat(rawtar.Gzip(good[:600]), rawtar.Gzip(good[600:]))},
		{what: "a byte after gzip", code: CodeTrailing, packed: append(rawtar.Gzip(good), 0)},
		{what: "two zstd frames", code: CodeTrailing, packed: concat(rawtar.Zstd(good), rawtar.Zstd(good))},
		{what: "an archive in two zstd frames", code: CodeTrailing, packed: concat(rawtar.Zstd(good[:600]), rawtar.Zstd(good[600:]))},
		{what: "a byte after zstd", code: CodeTrailing, packed: append(rawtar.Zstd(good), 0)},
		{what: "a skippable frame after zstd", code: CodeTrailing, packed: append(rawtar.Zstd(good), "\x50\x2a\x4d\x18\x01\x00\x00\x00x"...)},
		{what: "a skippable frame before zstd", code: CodeFormat, packed: append([]byte("\x5a\x2a\x4d\x18\x01\x00\x00\x00x"), rawtar.Zstd(good)...)},
		{what: "a zstd dictionary", code: CodeFormat, packed: rawtar.Zstd(good, zstd.WithEncoderDictRaw(7, bytes.Repeat([]byte(rawtar.Hello), 100)))},
		{what: "a zstd window", code: CodeTooLarge, packed: concat([]byte(zstdMagic), []byte{0x00, 17 << 3}, make([]byte, 100))},
		{what: "a zstd segment as a window", code: CodeTooLarge, packed: concat([]byte(zstdMagic), []byte{0xe0}, binary.LittleEndian.AppendUint64(nil, 1<<40), make([]byte, 100))},
		{what: "zstd's reserved bit", code: CodeCorrupt, packed: concat([]byte(zstdMagic), []byte{0x08, 0x50}, make([]byte, 100))},
		{what: "zstd's reserved block", code: CodeCorrupt, packed: concat([]byte(zstdMagic), []byte{0x00, 0x50, 0x06, 0, 0}, make([]byte, 100))},
		{what: "a zstd block that is too large", code: CodeCorrupt, packed: concat([]byte(zstdMagic), []byte{0x00, 0x50, 0xf9, 0xff, 0xff}, make([]byte, 100))},
		{what: "gzip's checksum", code: CodeCorrupt, packed: with2(rawtar.Gzip(good), -8)},
		{what: "gzip's length", code: CodeCorrupt, packed: with2(rawtar.Gzip(good), -4)},
		{what: "zstd's checksum", code: CodeCorrupt, packed: with2(rawtar.Zstd(good), -1)},
		{what: "gzip's content", code: CodeCorrupt, packed: with2(rawtar.Gzip(big), 5000)},
		{what: "zstd's content", code: CodeCorrupt, packed: with2(rawtar.Zstd(big), 5000)},
		{what: "gzip's end", code: CodeTruncated, packed: rawtar.Gzip(good)[:len(rawtar.Gzip(good))-3]},
		{what: "zstd's end", code: CodeTruncated, packed: rawtar.Zstd(good)[:len(rawtar.Zstd(good))-3]},
		{what: "ratio of gzip", code: CodeBomb, packed: bomb(gzip.NewWriter), limits: Limits{RatioFrom: 1 << 20}},
		{what: "ratio of zstd", code: CodeBomb, packed: bomb(func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z }), limits: Limits{RatioFrom: 1 << 20}},
		{what: "padding without end", code: CodeTooLarge, packed: rawtar.Gzip(concat(good, make([]byte, 4<<20))), limits: Limits{RatioFrom: 1 << 20, TotalBytes: 1 << 20, Entries: 10, Ratio: 1 << 20}},
	}
}

// with2 flips a bit of a byte, counted from the end when negative.
func with2(data []byte, at int) []byte {
	if at < 0 {
		at += len(data)
	}
	data = slices.Clone(data)
	data[at] ^= 1
	return data
}

// bomb is a file of 16 MiB of zeros.
func bomb[W io.WriteCloser](packer func(io.Writer) W) []byte {
	var b bytes.Buffer
	z := packer(&b)
	z.Write(rawtar.Archive(rawtar.Entry{Name: "zeros", Body: string(make([]byte, 16<<20))}))
	z.Close()
	return b.Bytes()
}
