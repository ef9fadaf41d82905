package packages

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// dpkgDB is a dpkg database. Its status, diversions and overrides are read at
// the first use and kept.
type dpkgDB struct {
	tree    *tree
	aliases *aliases
	problem func(error)

	mu         sync.Mutex
	loaded     bool
	packages   []dpkgPackage
	diversions []diversion
	overrides  map[string]override
}

func (db *dpkgDB) manager() Manager { return Dpkg }

func (db *dpkgDB) load(ctx context.Context) (err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.loaded {
		return nil
	}
	if db.packages, err = readStatus(ctx, db.tree); err != nil {
		return err
	}
	if db.diversions, err = readDiversions(db.tree); err != nil {
		return err
	}
	if db.overrides, err = readOverrides(db.tree); err != nil {
		return err
	}
	// Overrides and diversions are looked up by where a file really is.
	for p, o := range db.overrides {
		if c := db.real(p); c != p {
			delete(db.overrides, p)
			db.overrides[c] = o
		}
	}
	for i := range db.diversions {
		d := &db.diversions[i]
		d.from, d.to = db.real(d.from), db.real(d.to)
	}
	db.loaded = true
	return nil
}

func (db *dpkgDB) real(p string) string {
	c, _ := db.aliases.canonical([]byte(p), nil)
	return string(c)
}

func (db *dpkgDB) all(ctx context.Context) ([]Package, error) {
	if err := db.load(ctx); err != nil {
		return nil, err
	}
	list := make([]Package, len(db.packages))
	for i := range db.packages {
		list[i] = db.packages[i].Package
	}
	return list, nil
}

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
	err = eachSum(file, sums, func(path, _ []byte) {
		path, room = clean(path, room)
		list = append(append(list, path...), '\n')
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
// carriage returns in the path are escaped. After an error in a line the
// others are still read.
func eachSum(file string, data []byte, fn func(path, sum []byte)) error {
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
		if len(l) < 35 || l[32] != ' ' || l[33] != ' ' && l[33] != '*' || !isHex(l[:32]) {
			if first == nil {
				first = &CorruptError{File: file, Line: line, Reason: "not an MD5 digest and a path"}
			}
			continue
		}
		path := l[34:]
		if escaped {
			path = unescapeSum(path)
		}
		fn(path, l[:32])
	}
	return first
}

func isHex(b []byte) bool {
	for _, c := range b {
		if c-'0' > 9 && c|0x20-'a' > 5 {
			return false
		}
	}
	return true
}

func unescapeSum(p []byte) []byte {
	return []byte(strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\r`, "\r").Replace(string(p)))
}

// dpkgTarget is what a path is wanted for: an answer, or the owner of the file
// behind an alternative.
type dpkgTarget struct {
	path   int    // index of the question
	only   string // the package that alone has its file there, because it diverted the others
	except string // the package whose own file is not diverted there
	via    string // the path in the packages of a diverted file
	alt    *alternative
}

// hit is a file of a package that is wanted.
type hit struct {
	pkg    int
	target int32
	path   string // as in the list, canonical
}

// want works out under which paths the packages have what is asked for.
func (db *dpkgDB) want(paths [][]byte, alts map[string]alternative) (*wanted, []dpkgTarget) {
	w := newWanted(len(paths))
	var targets []dpkgTarget
	var room []byte
	add := func(p []byte, t dpkgTarget) {
		w.add(p, int32(len(targets)))
		targets = append(targets, t)
	}
	from, to := map[string]*diversion{}, map[string]*diversion{}
	for i := range db.diversions {
		d := &db.diversions[i]
		from[d.from], to[d.to] = d, d
	}
	for i, p := range paths {
		var c []byte
		c, room = db.aliases.canonical(p, room)
		t := dpkgTarget{path: i}
		if d := from[string(c)]; d != nil {
			t.only = d.by // of a local diversion ":", which no package is called
		}
		add(c, t)
		if d := to[string(c)]; d != nil {
			add([]byte(d.from), dpkgTarget{path: i, except: d.by, via: d.from})
		}
		if a, ok := alts[string(c)]; ok {
			add([]byte(db.real(a.chosen)), dpkgTarget{path: i, alt: &a})
		}
	}
	return w, targets
}

// lookup adds the owners of each path to out.
func (db *dpkgDB) lookup(ctx context.Context, paths [][]byte, out [][]File) error {
	if err := db.load(ctx); err != nil {
		return err
	}
	alts, err := db.alternatives()
	if err != nil {
		return err
	}
	info, status, err := db.infoDirs()
	defer closeDirs(info, status)
	if err != nil {
		return err
	}
	w, targets := db.want(paths, alts)
	hits, err := db.scan(ctx, info, status, w, targets)
	if err != nil {
		return err
	}
	r := &infoReader{info: info, status: status}
	for len(hits) > 0 {
		n := 1
		for n < len(hits) && hits[n].pkg == hits[0].pkg {
			n++
		}
		if err := db.answer(r, hits[:n], targets, out); err != nil {
			return err
		}
		hits = hits[n:]
	}
	db.answerAlternatives(paths, alts, out)
	return nil
}

func (db *dpkgDB) alternatives() (map[string]alternative, error) {
	alts, err := readAlternatives(db.tree, db.problem)
	for p, a := range alts {
		if c := db.real(p); c != p {
			delete(alts, p)
			alts[c] = a
		}
	}
	return alts, err
}

// scan goes through the lists of all packages, by several workers, and returns
// the wanted files in the order of the packages.
func (db *dpkgDB) scan(ctx context.Context, info, status dir, w *wanted, targets []dpkgTarget) ([]hit, error) {
	const chunk = 16
	var next atomic.Int64
	var mu sync.Mutex
	var hits []hit
	var failed error
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), 4, len(db.packages)/chunk+1) {
		wg.Go(func() {
			r := &infoReader{info: info, status: status, list: make([]byte, 0, 256<<10)}
			var mine []hit
			var err error
			for err == nil {
				begin := int(next.Add(chunk)) - chunk
				if begin >= len(db.packages) {
					break
				}
				if err = ctx.Err(); err == nil {
					mine, err = db.scanSome(r, begin, min(begin+chunk, len(db.packages)), w, targets, mine)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			hits = append(hits, mine...)
			failed = errors.Join(failed, err)
		})
	}
	wg.Wait()
	slices.SortStableFunc(hits, func(a, b hit) int { return cmp.Compare(a.pkg, b.pkg) })
	return hits, failed
}

func (db *dpkgDB) scanSome(r *infoReader, begin, end int, w *wanted, targets []dpkgTarget, hits []hit) ([]hit, error) {
	var room []byte
	for i := begin; i < end; i++ {
		p := &db.packages[i]
		list, err := r.files(p)
		if err != nil {
			if list, err = db.lessThanWhole(list, err); err != nil {
				return nil, fmt.Errorf("package %s: %w", p.Name, err)
			}
		}
		for len(list) > 0 {
			var l []byte
			l, list = cutLine(list)
			l, room = db.aliases.canonical(l, room)
			for _, t := range w.find(l) {
				if o := targets[t].only; (o == "" || o == p.Name) && (targets[t].except == "" || targets[t].except != p.Name) {
					hits = append(hits, hit{i, t, string(l)})
				}
			}
		}
	}
	return hits, nil
}

// lessThanWhole tells what a single package lacks, which is a problem to tell
// about, from what makes the answer worthless.
func (db *dpkgDB) lessThanWhole(b []byte, err error) ([]byte, error) {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrDamaged) {
		db.problem(err)
		return b, nil
	}
	return nil, err
}

// answer adds the wanted files of one package to out.
func (db *dpkgDB) answer(r *infoReader, hits []hit, targets []dpkgTarget, out [][]File) error {
	p := &db.packages[hits[0].pkg]
	conffiles := parseConffiles(p.conffiles)
	digests := make(map[string][]byte, len(hits))
	for _, h := range hits {
		digests[h.path] = nil
	}
	sums, file, err := r.digests(p)
	if err == nil {
		var room, room2 []byte
		err = eachSum(file, sums, func(path, sum []byte) {
			path, room = clean(path, room)
			path, room2 = db.aliases.canonical(path, room2)
			if _, ok := digests[string(path)]; ok {
				digests[string(path)] = decodeHex(sum)
			}
		})
	}
	if err != nil {
		if _, err = db.lessThanWhole(nil, err); err != nil {
			return err
		}
	}
	for path, c := range conffiles {
		if real := db.real(path); real != path {
			conffiles[real] = c
		}
	}
	for _, h := range hits {
		t := &targets[h.target]
		f := File{Package: p.Package}
		if t.alt != nil {
			f.Alternative, f.LinkTarget = true, t.alt.target
			out[t.path] = append(out[t.path], f)
			continue
		}
		f.Recorded = t.via
		db.fill(&f, h.path, cmp.Or(t.real(db), h.path), digests[h.path], conffiles)
		out[t.path] = append(out[t.path], f)
	}
	return nil
}

// real is where a diverted file is, else "".
func (t *dpkgTarget) real(db *dpkgDB) string {
	if t.via == "" {
		return ""
	}
	for i := range db.diversions {
		if db.diversions[i].from == t.via {
			return db.diversions[i].to
		}
	}
	return ""
}

// fill sets what is recorded of the file at real that its package has as path.
func (db *dpkgDB) fill(f *File, path, real string, sum []byte, conffiles map[string]conffile) {
	if sum != nil {
		f.Digest = Digest{"md5", sum}
	}
	if c, ok := conffiles[path]; ok {
		f.Conffile = true
		if c.sum != nil {
			f.Digest = Digest{"md5", c.sum}
		}
	}
	if o, ok := db.overrides[real]; ok {
		mode := o.mode
		f.Mode, f.Owner, f.Group = &mode, o.owner, o.group
	}
}

// answerAlternatives answers for the links of which no package has the target,
// and keeps one answer of those where several have it.
func (db *dpkgDB) answerAlternatives(paths [][]byte, alts map[string]alternative, out [][]File) {
	for i, p := range paths {
		c, _ := db.aliases.canonical(p, nil)
		a, ok := alts[string(c)]
		if !ok {
			continue
		}
		seen := false
		out[i] = slices.DeleteFunc(out[i], func(f File) bool {
			again := f.Alternative && seen
			seen = seen || f.Alternative
			return again
		})
		if !seen {
			out[i] = append(out[i], File{Alternative: true, LinkTarget: a.target})
		}
	}
}

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
			err = eachSum(file, b, func(path, sum []byte) {
				path = bytes.TrimPrefix(bytes.TrimPrefix(path, []byte("./")), []byte("/"))
				e.sums[string(path)] = unhex(sum)
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

// unhex decodes 32 digits that isHex has seen.
func unhex(digits []byte) (sum [16]byte) {
	for i := range sum {
		sum[i] = nibble(digits[2*i])<<4 | nibble(digits[2*i+1])
	}
	return sum
}

// nibble is the value of a hexadecimal digit.
func nibble(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
