package packages

import (
	"errors"
	"io/fs"
	"strings"
)

// infoReader reads the info files of packages, one after the other.
type infoReader struct {
	info   dir // fd -1: there is none
	status dir // status.d, likewise
	list   []byte
	sums   []byte
}

func (db *dpkgDB) infoDirs() (info, status dir, err error) {
	open := func(path string) dir {
		d, e := db.tree.dir(path)
		if e != nil {
			d.fd = -1
			if !errors.Is(e, fs.ErrNotExist) {
				err = errors.Join(err, e)
			}
		}
		return d
	}
	info, status = open(dpkgInfo), open(dpkgStatusD)
	return info, status, err
}

func closeDirs(list ...dir) {
	for _, d := range list {
		if d.fd >= 0 {
			d.close()
		}
	}
}

// read reads NAME.ext or NAME:ARCH.ext; the error wraps fs.ErrNotExist when
// there is neither.
func (r *infoReader) read(p *dpkgPackage, ext string, buf []byte) ([]byte, string, error) {
	if r.info.fd < 0 {
		return nil, "", &fs.PathError{Op: "open", Path: r.info.name, Err: fs.ErrNotExist}
	}
	names := p.infoNames(ext)
	b, err := r.info.read(names[0], maxList, buf)
	if errors.Is(err, fs.ErrNotExist) {
		var e error
		if b, e = r.info.read(names[1], maxList, buf); e == nil {
			return b, r.info.name + "/" + names[1], nil
		}
	}
	return b, r.info.name + "/" + names[0], err
}

// files returns the lines of the package's list: a path in each. Those of a
// distroless package are made of its digests.
func (r *infoReader) files(p *dpkgPackage) ([]byte, error) {
	if p.statusD == "" {
		b, _, err := r.read(p, ".list", r.list)
		if err == nil {
			r.list = b
		}
		return b, err
	}
	sums, file, err := r.digests(p)
	if err != nil || sums == nil {
		return nil, err
	}
	list := r.list[:0]
	var room []byte
	err = eachSum(file, sums, func(path, _ []byte) bool {
		path, room = clean(path, room)
		list = append(append(list, path...), '\n')
		return true
	})
	r.list = list
	return list, err
}

// digests returns the package's md5sums, nil when it has none.
func (r *infoReader) digests(p *dpkgPackage) (b []byte, file string, err error) {
	if p.statusD != "" {
		file = r.status.name + "/" + p.statusD + ".md5sums"
		b, err = r.status.read(p.statusD+".md5sums", maxList, r.sums)
	} else {
		b, file, err = r.read(p, ".md5sums", r.sums)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, file, nil
	}
	if err == nil {
		r.sums = b
	}
	return b, file, err
}

// eachSum calls fn with every path and its digest, in hexadecimal digits, of a
// file as md5sum(1) writes it: 32 digits, two blanks or a blank and "*", the
// path. A backslash before the digits says that backslashes, newlines and
// carriage returns in the path are escaped. fn returns false when it finds
// that the digits are none. After an error in a line the others are still
// read.
func eachSum(file string, data []byte, fn func(path, sum []byte) bool) error {
	var first error
	for line := 1; len(data) > 0; line++ {
		var l []byte
		l, data = cutLine(data)
		if len(l) == 0 {
			continue
		}
		escaped := l[0] == '\\'
		if escaped {
			l = l[1:]
		}
		ok := len(l) > 34 && l[32] == ' ' && (l[33] == ' ' || l[33] == '*')
		if ok {
			path := l[34:]
			if escaped {
				path = unescapeSum(path)
			}
			ok = fn(path, l[:32])
		}
		if !ok && first == nil {
			first = &CorruptError{File: file, Line: line, Reason: "not an MD5 digest and a path"}
		}
	}
	return first
}

func unescapeSum(p []byte) []byte {
	return []byte(strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\r`, "\r").Replace(string(p)))
}

// unhex decodes the 32 digits of an MD5 digest.
func unhex(digits []byte) (sum [16]byte, ok bool) {
	bad := byte(0)
	for i := range sum {
		h, l := hexValue[digits[2*i]], hexValue[digits[2*i+1]]
		sum[i] = h<<4 | l&0xf
		bad |= h | l
	}
	return sum, bad&0x80 == 0
}

// hexValue is the value of each hexadecimal digit, 0x80 of other bytes.
var hexValue = [256]byte{
	0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
	0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
	0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
	0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
	0x80, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
	0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
	0x80, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
	0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
	0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
	0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
	0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
	0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
	0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
	0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
	0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
	0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
}
