package packages

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// Where apk keeps its database: the second place is that of apk-tools 3.
var apkInstalled = [...]string{"/lib/apk/db/installed", "/usr/lib/apk/db/installed"}

// apkDB is the text database of apk-tools 2 and 3, apk-installed(5): for each
// package a paragraph of lines "letter:value", in it F: for each directory, R:
// for each file in the directory before, and behind these M: or a: with uid,
// gid and permissions and Z: with the checksum.
type apkDB struct {
	tree    *tree
	aliases *aliases
	problem func(error)
	path    string
}

func findAPK(s *Set) (database, error) {
	for _, p := range apkInstalled {
		if ok, err := s.tree.exists(p); err != nil || ok {
			return &apkDB{s.tree, s.aliases, s.problem, p}, err
		}
	}
	return nil, nil
}

func (db *apkDB) manager() Manager { return APK }

func (db *apkDB) all(ctx context.Context) ([]Package, error) {
	var list []Package
	err := db.parse(ctx, func(p Package) { list = append(list, p) }, nil)
	return list, err
}

func (db *apkDB) each(ctx context.Context, _ bool, fn func(path []byte, f *File) error) error {
	var room []byte
	return db.parse(ctx, nil, func(path []byte, f *File) error {
		path, room = db.aliases.canonical(path, room)
		return fn(path, f)
	})
}

func (db *apkDB) lookup(ctx context.Context, paths [][]byte, out [][]File) error {
	w := newWanted(len(paths))
	var room []byte
	for i, p := range paths {
		p, room = db.aliases.canonical(p, room)
		w.add(p, int32(i))
	}
	return db.parse(ctx, nil, func(path []byte, f *File) error {
		path, room = db.aliases.canonical(path, room)
		for _, i := range w.find(path) {
			c := *f
			c.Digest.Sum = bytes.Clone(f.Digest.Sum)
			if f.Mode != nil {
				mode := *f.Mode
				c.Mode = &mode
			}
			out[i] = append(out[i], c)
		}
		return nil
	})
}

func (db *apkDB) parse(ctx context.Context, pkg func(Package), file func([]byte, *File) error) error {
	data, err := db.tree.read(db.path, maxDatabase)
	if err != nil {
		return err
	}
	return parseInstalled(ctx, db.tree.name(db.path), data, pkg, file)
}

// parseInstalled calls pkg with every package and file with every directory
// and file of it; either may be nil. What file is given is valid during the
// call.
func parseInstalled(ctx context.Context, name string, data []byte, pkg func(Package), file func(path []byte, f *File) error) error {
	p := apkParser{name: name, pkg: pkg, file: file}
	for len(data) > 0 {
		var l []byte
		l, data = cutLine(data)
		p.line++
		if p.line%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if len(l) == 0 {
			if err := p.end(); err != nil {
				return err
			}
			continue
		}
		if len(l) < 2 || l[1] != ':' {
			return p.bad("not a letter, a colon and a value")
		}
		if err := p.field(l[0], l[2:]); err != nil {
			return err
		}
	}
	return p.end()
}

// apkParser is where parseInstalled is.
type apkParser struct {
	name     string
	line     int
	pkg      func(Package)
	file     func([]byte, *File) error
	begun    bool
	packages int
	f        File
	dir      []byte // of F:, without slashes around it
	path     []byte // of the entry whose lines are read, empty: none
	mode     uint32
	sum      []byte
}

func (p *apkParser) bad(reason string) error {
	return &CorruptError{File: p.name, Line: p.line, Reason: reason}
}

func (p *apkParser) field(letter byte, value []byte) error {
	p.begun = true
	switch letter {
	case 'P':
		p.f.Package.Manager = APK
		p.f.Package.Name = string(value)
	case 'V':
		p.f.Package.Version = string(value)
	case 'A':
		p.f.Package.Arch = string(value)
	case 'F', 'R':
		if err := p.flush(); err != nil {
			return err
		}
		if letter == 'F' {
			p.dir = value
			p.path = append(append(p.path[:0], '/'), value...)
		} else {
			p.path = append(p.path[:0], '/')
			if len(p.dir) > 0 {
				p.path = append(append(p.path, p.dir...), '/')
			}
			p.path = append(p.path, value...)
		}
		p.mode = 0o644
		if letter == 'F' {
			p.mode = 0o755
		}
		p.f.Owner, p.f.Group, p.f.Digest = "root", "root", Digest{}
		p.f.Conffile = letter == 'R' && protected(p.path)
	case 'M', 'a':
		part := strings.SplitN(string(value), ":", 4)
		if len(p.path) == 0 || len(part) < 3 {
			return p.bad("not the permissions of an entry")
		}
		mode, err := strconv.ParseUint(part[2], 8, 12)
		if err != nil {
			return p.bad(fmt.Sprintf("%q is no mode", part[2]))
		}
		p.mode = uint32(mode)
		p.f.Owner, p.f.Group = apkID(part[0]), apkID(part[1])
	case 'Z':
		d, err := apkDigest(string(value), p.sum)
		if len(p.path) == 0 || err != nil {
			return p.bad("not the checksum of an entry")
		}
		p.f.Digest, p.sum = d, d.Sum
	}
	return nil
}

// apkID names the ids that apk writes as numbers: 0 is root everywhere.
func apkID(id string) string {
	if id == "0" {
		return "root"
	}
	return "#" + id
}

// apkDigest reads a checksum: "Q1" and SHA-1, or "Q2" and SHA-256, as base64;
// or MD5 as hexadecimal digits, as of long ago.
func apkDigest(s string, room []byte) (Digest, error) {
	algorithm, n := "md5", 16
	var sum []byte
	var err error
	switch {
	case strings.HasPrefix(s, "Q1"):
		algorithm, n = "sha1", 20
	case strings.HasPrefix(s, "Q2"):
		algorithm, n = "sha256", 32
	default:
		sum = decodeHex([]byte(s))
	}
	if algorithm != "md5" {
		sum, err = base64.StdEncoding.AppendDecode(room[:0], []byte(s[2:]))
	}
	if err != nil || len(sum) != n {
		return Digest{}, fmt.Errorf("%q is no checksum", s)
	}
	return Digest{algorithm, sum}, nil
}

// protected tells the paths whose files apk does not overwrite when the admin
// changed them. These are its defaults ("+etc", "@etc/init.d", "!etc/apk");
// the further ones of /etc/apk/protected_paths.d are not read.
func protected(path []byte) bool {
	return bytes.HasPrefix(path, []byte("/etc/")) && !bytes.HasPrefix(path, []byte("/etc/init.d/"))
}

// flush hands on the entry whose lines were read.
func (p *apkParser) flush() error {
	if len(p.path) == 0 {
		return nil
	}
	path := p.path
	p.path = p.path[:0]
	if p.file == nil || len(path) == 1 {
		return nil // "F:" is the root
	}
	mode := p.mode
	p.f.Mode = &mode
	return p.file(path, &p.f)
}

// end ends a package's paragraph.
func (p *apkParser) end() error {
	if !p.begun {
		return nil
	}
	if p.f.Package.Name == "" {
		return p.bad("a package without a name")
	}
	if err := p.flush(); err != nil {
		return err
	}
	if p.pkg != nil {
		p.pkg(p.f.Package)
	}
	if p.packages++; p.packages > maxPackages {
		return p.bad(fmt.Sprintf("more than %d packages", maxPackages))
	}
	p.f, p.begun, p.dir = File{}, false, nil
	return nil
}
