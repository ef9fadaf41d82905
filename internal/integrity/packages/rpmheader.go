package packages

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
)

// The tags of rpm's header that are read (rpmtag.h).
const (
	rpmName            = 1000
	rpmVersion         = 1001
	rpmRelease         = 1002
	rpmEpoch           = 1003
	rpmArch            = 1022
	rpmOldFilenames    = 1027
	rpmFileStates      = 1029
	rpmFileModes       = 1030
	rpmFileDigests     = 1035
	rpmFileLinktos     = 1036
	rpmFileFlags       = 1037
	rpmFileUser        = 1039
	rpmFileGroup       = 1040
	rpmDirIndexes      = 1116
	rpmBasenames       = 1117
	rpmDirnames        = 1118
	rpmFileDigestAlgo  = 5011
	rpmTypeInt16       = 3
	rpmTypeInt32       = 4
	rpmTypeString      = 6
	rpmTypeStringArray = 8
	rpmTypeI18NString  = 9
)

// Flags and states of files (rpmfiles.h).
const (
	rpmFileConfig    = 1 << 0
	rpmFileGhost     = 1 << 6
	rpmStateNormal   = 0
	rpmStateNetShare = 3
)

// Limits of rpm itself (header.c).
const (
	maxRPMTags = 1 << 16
	maxRPMData = 256 << 20
)

// rpmHeader is a header as the databases hold it and, behind eight bytes of
// magic, the .rpm files: the numbers of entries and of data bytes, 16 bytes for
// each entry, the data. All numbers are big endian.
type rpmHeader struct {
	entries []byte
	data    []byte
}

// rpmHeaderSize returns how long a header is according to its first 8 bytes.
func rpmHeaderSize(b []byte) (int64, error) {
	il, dl := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	if il == 0 || il > maxRPMTags || dl > maxRPMData {
		return 0, &CorruptError{Offset: 0, Reason: fmt.Sprintf("a header claims %d tags and %d bytes", il, dl)}
	}
	return 8 + 16*int64(il) + int64(dl), nil
}

func parseRPMHeader(b []byte) (*rpmHeader, error) {
	if len(b) < 8 {
		return nil, &CorruptError{Offset: 0, Reason: "a header is cut off"}
	}
	size, err := rpmHeaderSize(b)
	if err != nil {
		return nil, err
	}
	if size > int64(len(b)) {
		return nil, &CorruptError{Offset: 0, Reason: "a header is cut off"}
	}
	end := 8 + 16*int(binary.BigEndian.Uint32(b))
	return &rpmHeader{b[8:end], b[end:size]}, nil
}

// entry returns the data of a tag and the number of its values, nil when it is
// not there. It must be of one of the types.
func (h *rpmHeader) entry(tag uint32, types ...uint32) (data []byte, count int, err error) {
	for at := 0; at < len(h.entries); at += 16 {
		e := h.entries[at:]
		if binary.BigEndian.Uint32(e) != tag {
			continue
		}
		kind, offset, n := binary.BigEndian.Uint32(e[4:]), binary.BigEndian.Uint32(e[8:]), binary.BigEndian.Uint32(e[12:])
		known := false
		for _, t := range types {
			known = known || t == kind
		}
		if !known || uint64(offset) > uint64(len(h.data)) || uint64(n) > uint64(len(h.data))-uint64(offset) {
			return nil, 0, h.bad(at, tag)
		}
		return h.data[offset:], int(n), nil
	}
	return nil, 0, nil
}

func (h *rpmHeader) bad(at int, tag uint32) error {
	return &CorruptError{Offset: int64(8 + at), Reason: fmt.Sprintf("tag %d of a header is malformed", tag)}
}

// text returns a string; of a list, or one in several languages, the first.
func (h *rpmHeader) text(tag uint32) (string, error) {
	list, err := h.texts(tag)
	if err != nil || len(list) == 0 {
		return "", err
	}
	return string(list[0]), nil
}

// texts returns a list of strings, which end with a zero byte each.
func (h *rpmHeader) texts(tag uint32) ([][]byte, error) {
	data, n, err := h.entry(tag, rpmTypeString, rpmTypeStringArray, rpmTypeI18NString)
	if err != nil {
		return nil, err
	}
	list := make([][]byte, 0, n)
	for range n {
		i := bytes.IndexByte(data, 0)
		if i < 0 {
			return nil, h.bad(0, tag)
		}
		list = append(list, data[:i])
		data = data[i+1:]
	}
	return list, nil
}

// numbers returns a list of numbers of 16 or 32 bits.
func (h *rpmHeader) numbers(tag uint32, kind uint32) ([]uint32, error) {
	data, n, err := h.entry(tag, kind)
	if err != nil {
		return nil, err
	}
	size := 4
	if kind == rpmTypeInt16 {
		size = 2
	}
	if n > len(data)/size {
		return nil, h.bad(0, tag)
	}
	list := make([]uint32, n)
	for i := range list {
		if size == 2 {
			list[i] = uint32(binary.BigEndian.Uint16(data[2*i:]))
		} else {
			list[i] = binary.BigEndian.Uint32(data[4*i:])
		}
	}
	return list, nil
}

// pkg returns which package the header is of.
func (h *rpmHeader) pkg() (Package, error) {
	p := Package{Manager: RPM}
	var release string
	var err error
	for tag, to := range map[uint32]*string{rpmName: &p.Name, rpmVersion: &p.Version, rpmRelease: &release, rpmArch: &p.Arch} {
		if *to, err = h.text(tag); err != nil {
			return Package{}, err
		}
	}
	epoch, err := h.numbers(rpmEpoch, rpmTypeInt32)
	if err != nil {
		return Package{}, err
	}
	if p.Name == "" || p.Version == "" {
		return Package{}, &CorruptError{Offset: 0, Reason: "a header without the name or the version of a package"}
	}
	if release != "" {
		p.Version += "-" + release
	}
	if len(epoch) > 0 {
		p.Version = strconv.FormatUint(uint64(epoch[0]), 10) + ":" + p.Version
	}
	return p, nil
}

// rpmFiles is what a header says of the files.
type rpmFiles struct {
	names, dirs, digests, targets, users, groups [][]byte
	index, modes, flags                          []uint32
	states                                       []byte
	algorithm                                    string
	size                                         int // bytes of a digest
}

// files reads the lists of files. Without digests, those and what else is only
// in File are left out.
func (h *rpmHeader) files(details bool) (*rpmFiles, error) {
	var f rpmFiles
	var err error
	texts := func(tag uint32, to *[][]byte) {
		if err == nil {
			*to, err = h.texts(tag)
		}
	}
	numbers := func(tag, kind uint32, to *[]uint32) {
		if err == nil {
			*to, err = h.numbers(tag, kind)
		}
	}
	texts(rpmBasenames, &f.names)
	texts(rpmDirnames, &f.dirs)
	numbers(rpmDirIndexes, rpmTypeInt32, &f.index)
	if err == nil && len(f.names) == 0 { // as rpm 3 wrote them
		texts(rpmOldFilenames, &f.names)
		f.dirs, f.index = [][]byte{nil}, make([]uint32, len(f.names))
	}
	if err == nil {
		var n int
		f.states, n, err = h.entry(rpmFileStates, 1, 2)
		f.states = f.states[:min(n, len(f.states))]
	}
	var algorithm []uint32
	if details {
		texts(rpmFileDigests, &f.digests)
		texts(rpmFileLinktos, &f.targets)
		texts(rpmFileUser, &f.users)
		texts(rpmFileGroup, &f.groups)
		numbers(rpmFileModes, rpmTypeInt16, &f.modes)
		numbers(rpmFileFlags, rpmTypeInt32, &f.flags)
		numbers(rpmFileDigestAlgo, rpmTypeInt32, &algorithm)
	}
	if err != nil {
		return nil, err
	}
	n := len(f.names)
	for _, l := range []int{len(f.index), len(f.digests), len(f.targets), len(f.users), len(f.groups), len(f.modes), len(f.flags), len(f.states)} {
		if l != n && l != 0 || l == 0 && n > 0 && len(f.index) == 0 {
			return nil, &CorruptError{Offset: 0, Reason: "a header's lists of files differ in length"}
		}
	}
	for _, i := range f.index {
		if int(i) >= len(f.dirs) {
			return nil, &CorruptError{Offset: 0, Reason: "a header's file is in a directory that it does not have"}
		}
	}
	id := uint32(1)
	if len(algorithm) > 0 {
		id = algorithm[0]
	}
	f.algorithm, f.size = rpmAlgorithm(id)
	return &f, nil
}

// rpmAlgorithm returns the digest that a number stands for, as in OpenPGP
// (RFC 4880, section 9.4). Digests by another are as if they were not recorded.
func rpmAlgorithm(id uint32) (name string, size int) {
	switch id {
	case 1:
		return "md5", 16
	case 2:
		return "sha1", 20
	case 8:
		return "sha256", 32
	case 9:
		return "sha384", 48
	case 10:
		return "sha512", 64
	case 11:
		return "sha224", 28
	}
	return "", 0
}

// installed tells whether file i is on the disk as this package has it: it may
// have been left out (documentation), or replaced by that of another package.
func (f *rpmFiles) installed(i int) bool {
	return len(f.states) == 0 || f.states[i] == rpmStateNormal || f.states[i] == rpmStateNetShare
}

// path returns the path of file i, in the room of buf.
func (f *rpmFiles) path(i int, buf []byte) []byte {
	return append(append(buf[:0], f.dirs[f.index[i]]...), f.names[i]...)
}

// file returns what is recorded of file i.
func (f *rpmFiles) file(i int, p Package) File {
	file := File{Package: p}
	if len(f.digests) > 0 && len(f.digests[i]) == 2*f.size && f.size > 0 {
		sum := make([]byte, f.size)
		if _, err := hex.Decode(sum, f.digests[i]); err == nil {
			file.Digest = Digest{f.algorithm, sum}
		}
	}
	if len(f.flags) > 0 {
		file.Conffile, file.Ghost = f.flags[i]&rpmFileConfig != 0, f.flags[i]&rpmFileGhost != 0
	}
	if len(f.modes) > 0 {
		mode := f.modes[i]
		file.Mode = &mode
	}
	if len(f.users) > 0 {
		file.Owner = string(f.users[i])
	}
	if len(f.groups) > 0 {
		file.Group = string(f.groups[i])
	}
	if len(f.targets) > 0 {
		file.LinkTarget = string(f.targets[i])
	}
	return file
}
