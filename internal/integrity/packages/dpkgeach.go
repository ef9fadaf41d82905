package packages

import (
	"bytes"
	"context"
)

// each calls fn with every path of every package.
func (db *dpkgDB) each(ctx context.Context, digests bool, fn func(path []byte, f *File) error) error {
	if err := db.load(ctx); err != nil {
		return err
	}
	info, status, err := db.infoDirs()
	defer closeDirs(info, status)
	if err != nil {
		return err
	}
	e := dpkgEach{db: db, r: infoReader{info: info, status: status, list: make([]byte, 0, 256<<10), sums: make([]byte, 0, 256<<10)}, fn: fn, sums: map[string][16]byte{}}
	e.diverted = make(map[string]*diversion, len(db.diversions))
	for i := range db.diversions {
		e.diverted[db.diversions[i].from] = &db.diversions[i]
	}
	for i := range db.packages {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := e.one(&db.packages[i], digests); err != nil {
			return err
		}
	}
	return nil
}

// dpkgEach goes through the packages.
type dpkgEach struct {
	db       *dpkgDB
	r        infoReader
	fn       func(path []byte, f *File) error
	diverted map[string]*diversion
	sums     map[string][16]byte // of the package, by path without the leading slash
	room     []byte
}

func (e *dpkgEach) one(p *dpkgPackage, digests bool) error {
	clear(e.sums)
	if digests {
		b, file, err := e.r.digests(p)
		if err == nil {
			err = eachSum(file, b, func(path, digits []byte) bool {
				sum, ok := unhex(digits)
				if ok {
					path = bytes.TrimPrefix(bytes.TrimPrefix(path, []byte("./")), []byte("/"))
					e.sums[string(path)] = sum
				}
				return ok
			})
		}
		if err != nil {
			if _, err = e.db.lessThanWhole(nil, err); err != nil {
				return err
			}
		}
	}
	list, err := e.r.files(p)
	if err != nil {
		if list, err = e.db.lessThanWhole(list, err); err != nil {
			return err
		}
	}
	conffiles := parseConffiles(p.conffiles)
	for len(list) > 0 {
		var l []byte
		l, list = cutLine(list)
		if len(l) < 2 || l[0] != '/' || string(l) == "/." {
			continue // every list begins with "/."
		}
		f := File{Package: p.Package}
		var sum []byte
		if s, ok := e.sums[string(l[1:])]; ok {
			sum = s[:]
		}
		var path []byte
		path, e.room = e.db.aliases.canonical(l, e.room)
		if len(e.diverted) > 0 {
			if d := e.diverted[string(path)]; d != nil && d.by != p.Name {
				f.Recorded, path = string(l), []byte(d.to)
			}
		}
		if sum != nil || conffiles != nil || len(e.db.overrides) > 0 {
			e.db.fill(&f, string(l), string(path), sum, conffiles)
		}
		if err := e.fn(path, &f); err != nil {
			return err
		}
	}
	return nil
}
