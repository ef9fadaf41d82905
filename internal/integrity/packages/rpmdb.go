package packages

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
)

// rpmDirs are where distributions keep rpm's database; the others are links to
// one of them.
var rpmDirs = [...]string{"/usr/lib/sysimage/rpm", "/var/lib/rpm", "/usr/share/rpm"}

// rpmBackends are the formats, in the order in which rpm itself prefers what it
// finds.
var rpmBackends = [...]rpmBackend{
	{"rpmdb.sqlite", readRPMSQLite},
	{"Packages.db", func(main, _ *os.File, fn func([]byte) error) error { return withSize(main, readNDB, fn) }},
	{"Packages", func(main, _ *os.File, fn func([]byte) error) error { return withSize(main, readBDB, fn) }},
}

type rpmBackend struct {
	file string
	read func(main, wal *os.File, fn func(blob []byte) error) error
}

func withSize(f *os.File, read func(io.ReaderAt, int64, func([]byte) error) error, fn func([]byte) error) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return read(f, st.Size(), fn)
}

func readRPMSQLite(main, wal *os.File, fn func([]byte) error) error {
	st, err := main.Stat()
	if err != nil {
		return err
	}
	if wal == nil {
		return readSQLite(main, st.Size(), nil, 0, "Packages", fn)
	}
	w, err := wal.Stat()
	if err != nil {
		return err
	}
	return readSQLite(main, st.Size(), wal, w.Size(), "Packages", fn)
}

// rpmDB is a database of rpm: the header of every installed package.
type rpmDB struct {
	tree    *tree
	aliases *aliases
	problem func(error)
	path    string
	backend rpmBackend
}

func findRPM(s *Set) (database, error) {
	for _, b := range rpmBackends {
		for _, d := range rpmDirs {
			path := d + "/" + b.file
			if ok, err := s.tree.exists(path); err != nil || ok {
				return &rpmDB{s.tree, s.aliases, s.problem, path, b}, err
			}
		}
	}
	return nil, nil
}

func (db *rpmDB) manager() Manager { return RPM }

// errChanged is that the database was written to while it was read.
var errChanged = failure.New(failure.Busy, "the database changes all the time: try again when rpm is done")

// again calls read, up to three times when the database changes meanwhile: what
// it has from the time before is to be dropped.
func again(read func() error) (err error) {
	for range 3 {
		if err = read(); !errors.Is(err, errChanged) {
			return err
		}
	}
	return err
}

// headers calls fn with every package's header. The locks of SQLite and rpm
// are files that would have to be written, so what is read while somebody
// writes may be torn: then the error wraps errChanged.
func (db *rpmDB) headers(ctx context.Context, fn func(*rpmHeader) error) error {
	before, err := db.stamp()
	if err != nil {
		return err
	}
	err = db.readOnce(ctx, fn)
	if after, e := db.stamp(); e == nil && before != after && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", db.tree.name(db.path), errChanged)
	}
	return err
}

// stamp tells whether the files of the database were written to.
func (db *rpmDB) stamp() (string, error) {
	text := ""
	for _, suffix := range []string{"", "-wal"} {
		f, err := db.tree.openFile(db.path + suffix)
		if suffix != "" && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		st, err := f.Stat()
		f.Close()
		if err != nil {
			return "", err
		}
		text += fmt.Sprint(st.Size(), st.ModTime().UnixNano(), ";")
	}
	return text, nil
}

func (db *rpmDB) readOnce(ctx context.Context, fn func(*rpmHeader) error) error {
	main, err := db.tree.openFile(db.path)
	if err != nil {
		return err
	}
	defer main.Close()
	wal, err := db.tree.openFile(db.path + "-wal")
	if err == nil {
		defer wal.Close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := db.unfinished(); err != nil {
		return err
	}
	packages := 0
	err = db.backend.read(main, wal, func(blob []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if db.backend.file == "Packages" && len(blob) == 4 {
			return nil // the record that has the number of the last package
		}
		if packages++; packages > maxPackages {
			return tooMany("", packages)
		}
		h, err := parseRPMHeader(blob)
		if err != nil {
			return err
		}
		return fn(h)
	})
	var c *CorruptError
	if errors.As(err, &c) && c.File == "" {
		c.File = db.tree.name(db.path)
	}
	return err
}

// unfinished refuses a database whose last transaction has to be taken back
// first: by SQLite itself, since that writes.
func (db *rpmDB) unfinished() error {
	if db.backend.file != "rpmdb.sqlite" {
		return nil
	}
	journal, err := db.tree.read(db.path+"-journal", maxDatabase)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(journal) >= 28 && binary.BigEndian.Uint64(journal) == 0xd9d505f920a163d7 {
		err = failure.Errorf(failure.NotReady, "%s has a transaction that was interrupted: let rpm recover it (rpm -qa)", db.tree.name(db.path))
	}
	return err
}

// eachPackage calls fn with each package but the keys that rpm keeps as
// packages (gpg-pubkey).
func (db *rpmDB) eachPackage(ctx context.Context, details bool, fn func(Package, *rpmFiles) error) error {
	return db.headers(ctx, func(h *rpmHeader) error {
		p, err := h.pkg()
		if err != nil {
			return err
		}
		if p.Name == "gpg-pubkey" {
			return nil
		}
		f, err := h.files(details)
		if err != nil {
			var c *CorruptError
			if errors.As(err, &c) {
				c.File, c.Offset, c.Reason = db.tree.name(db.path), -1, fmt.Sprintf("%s: %s", p.Name, c.Reason)
			}
			db.problem(err)
			f = &rpmFiles{}
		}
		return fn(p, f)
	})
}

func (db *rpmDB) all(ctx context.Context) ([]Package, error) {
	var list []Package
	err := again(func() error {
		list = nil
		return db.headers(ctx, func(h *rpmHeader) error {
			p, err := h.pkg()
			if err == nil && p.Name != "gpg-pubkey" {
				list = append(list, p)
			}
			return err
		})
	})
	slices.SortFunc(list, comparePackages)
	return list, err
}

func (db *rpmDB) lookup(ctx context.Context, paths [][]byte, out [][]File) error {
	w := newWanted(len(paths))
	var room [2][]byte
	for i, p := range paths {
		p, room[0] = db.aliases.canonical(p, room[0])
		w.add(p, int32(i))
	}
	type found struct {
		path int32
		file File
	}
	var list []found
	err := again(func() error {
		list = nil
		return db.eachPackage(ctx, true, func(p Package, f *rpmFiles) error {
			for i := range f.names {
				if !f.installed(i) {
					continue
				}
				room[0] = f.path(i, room[0])
				var path []byte
				path, room[1] = db.aliases.canonical(room[0], room[1])
				for _, n := range w.find(path) {
					list = append(list, found{n, f.file(i, p)})
				}
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(list, func(a, b found) int { return comparePackages(a.file.Package, b.file.Package) })
	for _, l := range list {
		out[l.path] = append(out[l.path], l.file)
	}
	return nil
}

func (db *rpmDB) each(ctx context.Context, digests bool, fn func(path []byte, f *File) error) error {
	var room [2][]byte
	return db.eachPackage(ctx, digests, func(p Package, f *rpmFiles) error {
		for i := range f.names {
			if !f.installed(i) {
				continue
			}
			room[0] = f.path(i, room[0])
			var path []byte
			path, room[1] = db.aliases.canonical(room[0], room[1])
			file := f.file(i, p)
			if err := fn(path, &file); err != nil {
				return err
			}
		}
		return nil
	})
}

func comparePackages(a, b Package) int {
	for _, c := range [][2]string{{a.Name, b.Name}, {a.Arch, b.Arch}, {a.Version, b.Version}} {
		if n := strings.Compare(c[0], c[1]); n != 0 {
			return n
		}
	}
	return 0
}
