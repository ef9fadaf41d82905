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
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
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
	target int32
	path   string // as in the list, canonical; "" of a directory of which nothing more is known
	dir    bool   // the next in the list is below it
}

// answer is a file of a package for a question. Directories are in so many
// packages that they are told in short: nil is that nothing is known of it.
type answer struct {
	path int
	file *File
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
	found, err := db.scan(ctx, info, status, w, targets)
	if err != nil {
		return err
	}
	count := make([]int, len(paths))
	for _, answers := range found {
		for _, a := range answers {
			count[a.path]++
		}
	}
	for i, n := range count {
		out[i] = slices.Grow(out[i], n)
	}
	for i, answers := range found {
		for _, a := range answers {
			if a.file == nil {
				out[a.path] = append(out[a.path], File{Package: db.packages[i].Package})
			} else {
				out[a.path] = append(out[a.path], *a.file)
			}
		}
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
// the wanted files of each package.
func (db *dpkgDB) scan(ctx context.Context, info, status dir, w *wanted, targets []dpkgTarget) ([][]answer, error) {
	const chunk = 16
	var next atomic.Int64
	var mu sync.Mutex
	answers := make([][]answer, len(db.packages))
	var failed error
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), 4, len(db.packages)/chunk+1) {
		wg.Go(func() {
			s := &dpkgScan{db: db, r: infoReader{info: info, status: status}, w: w, targets: targets}
			s.r.list, s.r.sums = make([]byte, 0, 256<<10), make([]byte, 0, 256<<10)
			var err error
			for err == nil {
				begin := int(next.Add(chunk)) - chunk
				if begin >= len(db.packages) {
					break
				}
				err = ctx.Err()
				for i := begin; i < min(begin+chunk, len(db.packages)) && err == nil; i++ {
					answers[i], err = s.one(i)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
		})
	}
	wg.Wait()
	return answers, failed
}

// dpkgScan is a worker of scan.
type dpkgScan struct {
	db      *dpkgDB
	r       infoReader
	w       *wanted
	targets []dpkgTarget
	room    [2][]byte
	hits    []hit
}

// one looks for wanted files in the list of a package, and if there are any in
// its digests.
func (s *dpkgScan) one(i int) ([]answer, error) {
	p := &s.db.packages[i]
	list, err := s.r.files(p)
	if err != nil {
		if list, err = s.db.lessThanWhole(list, err); err != nil {
			return nil, fmt.Errorf("package %s: %w", p.Name, err)
		}
	}
	s.hits = s.hits[:0]
	for len(list) > 0 {
		var line, l []byte
		line, list = cutLine(list)
		l, s.room[0] = s.db.aliases.canonical(line, s.room[0])
		for _, n := range s.w.find(l) {
			if t := &s.targets[n]; (t.only == "" || t.only == p.Name) && (t.except == "" || t.except != p.Name) {
				dir := len(list) > len(line) && list[len(line)] == '/' && bytes.Equal(list[:len(line)], line)
				if _, more := s.db.overrides[string(l)]; dir && !more && t.alt == nil && t.via == "" {
					s.hits = append(s.hits, hit{target: n, dir: true})
				} else {
					s.hits = append(s.hits, hit{n, string(l), dir})
				}
			}
		}
	}
	if len(s.hits) == 0 {
		return nil, nil
	}
	return s.answer(i)
}

// lessThanWhole tells what a single package lacks, which is a problem to tell
// about, from what makes the answer worthless.
func (db *dpkgDB) lessThanWhole(b []byte, err error) ([]byte, error) {
	// A link in the place of a record (ELOOP) is as good as none.
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrDamaged) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		db.problem(err)
		return b, nil
	}
	return nil, err
}

// answer returns what is known of the hits in a package.
func (s *dpkgScan) answer(i int) ([]answer, error) {
	db, p := s.db, &s.db.packages[i]
	digests := map[string][]byte{}
	for _, h := range s.hits {
		if !h.dir {
			digests[h.path] = nil
		}
	}
	var sums []byte
	var file string
	var err error
	if len(digests) > 0 { // of directories such as /usr, which all packages have, there are none
		sums, file, err = s.r.digests(p)
	}
	if err == nil {
		err = eachSum(file, sums, func(path, digits []byte) bool {
			path, s.room[0] = clean(path, s.room[0])
			path, s.room[1] = db.aliases.canonical(path, s.room[1])
			if s.w.find(path) == nil {
				return true
			}
			sum, ok := unhex(digits)
			if _, hit := digests[string(path)]; hit && ok {
				digests[string(path)] = sum[:]
			}
			return ok
		})
	}
	if err != nil {
		if _, err = db.lessThanWhole(nil, err); err != nil {
			return nil, err
		}
	}
	var conffiles map[string]conffile
	if len(digests) > 0 {
		conffiles = parseConffiles(p.conffiles)
	}
	for path, c := range conffiles {
		if real := db.real(path); real != path {
			conffiles[real] = c
		}
	}
	answers := make([]answer, 0, len(s.hits))
	for _, h := range s.hits {
		t := &s.targets[h.target]
		if h.path == "" {
			answers = append(answers, answer{t.path, nil})
			continue
		}
		f := &File{Package: p.Package}
		if t.alt != nil {
			f.Alternative, f.LinkTarget = true, t.alt.target
		} else {
			f.Recorded = t.via
			db.fill(f, h.path, cmp.Or(t.real(db), h.path), digests[h.path], conffiles)
		}
		answers = append(answers, answer{t.path, f})
	}
	return answers, nil
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
