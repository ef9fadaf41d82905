package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxFiles is how many files a Set reads at most, as JOURNAL_FILES_MAX.
const maxFiles = 7168

// Set is a number of journal files that are read as one.
type Set struct {
	opts  Options
	roots []string
	files []*file
	walk  walk // of Next
	codec codec
	entry Entry
	boot  idText // of the entry printed last
	known *[1 << knownBits]line
	watch watch

	searches []*walk // that go on

	problems []error
	damaged  int
	perFile  map[string]int     // problems, by file; others by their text
	young    map[fileKey]*young // files that could not be opened
	closed   bool
}

// fileKey is what a file is recognised by after it was renamed.
type fileKey struct{ dev, ino uint64 }

// young is a file that could not be opened. While the set is followed it may
// just be being made.
type young struct {
	since time.Time
	told  bool
	seen  bool // when directories were listed last
}

// youth is how long a new file may be no journal before that is reported.
const youth = 5 * time.Second

// Open opens journal files. A path is a file, or a directory with files
// (*.journal, *.journal~) and with directories of machines that have them. What
// cannot be read is reported to o.Report; only when a path itself does not
// exist or cannot be listed that is an error. A Set without files is none.
func Open(o Options, paths ...string) (*Set, error) {
	if o.MaxField <= 0 {
		o.MaxField = defaultMaxField
	}
	o.MaxField = min(o.MaxField, systemdMaxField)
	s := &Set{opts: o, roots: paths, perFile: map[string]int{}, young: map[fileKey]*young{}}
	s.codec.max = o.MaxField
	s.walk.s = s
	for _, p := range paths {
		if err := s.addRoot(p); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// Close unmaps all files. No entry of the set may be used any more.
func (s *Set) Close() error {
	for _, f := range s.files {
		f.close()
	}
	s.files, s.walk.streams, s.closed = nil, nil, true
	s.codec.close()
	return s.watch.close()
}

// Files returns the paths of the files that are read.
func (s *Set) Files() []string {
	var names []string
	for _, f := range s.files {
		names = append(names, f.path)
	}
	return names
}

// Damaged returns how often something could not be read so far.
func (s *Set) Damaged() int { return s.damaged }

// Problems returns what could not be read so far, each once, and of each file
// at most the first 16.
func (s *Set) Problems() []error { return slices.Clone(s.problems) }

// maxProblems is how many problems of one file are told. A file that was cut
// has as many as it lost entries.
const maxProblems = 16

// problem reports what could not be read.
func (s *Set) problem(err error) {
	s.damaged++
	var c *CorruptError
	if errors.As(err, &c) {
		if s.perFile[c.File]++; s.perFile[c.File] > maxProblems {
			return
		}
	} else if s.perFile[err.Error()]++; s.perFile[err.Error()] > 1 {
		return
	}
	s.problems = append(s.problems, err)
	if s.opts.Report != nil {
		s.opts.Report(err)
	}
}

// guarded calls fn and reports whether no file was cut meanwhile. If one was,
// that is a problem.
func (s *Set) guarded(fn func()) bool {
	err := guard(s.files, func() error {
		fn()
		return nil
	})
	if err != nil {
		s.problem(err)
	}
	return err == nil
}

func (s *Set) addRoot(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		s.addFile(path)
		return nil
	}
	return s.addDirectory(path, true)
}

// addDirectory opens the files of a directory in the order in which it lists
// them, which is that of journalctl.
func (s *Set) addDirectory(path string, root bool) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	s.watch.directory(path)
	for {
		list, err := d.ReadDir(512)
		for _, de := range list {
			name := filepath.Join(path, de.Name())
			switch t := de.Type(); {
			case (t.IsRegular() || t&fs.ModeSymlink != 0) && isJournalName(de.Name()):
				s.addFile(name)
			case root && (t.IsDir() || t&fs.ModeSymlink != 0) && s.isMachineName(de.Name()):
				if err := s.addDirectory(name, false); err != nil {
					s.problem(err)
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func isJournalName(name string) bool {
	return strings.HasSuffix(name, ".journal") || strings.HasSuffix(name, ".journal~")
}

// isMachineName reports whether a directory has the files of a machine: its
// name is an identifier, and after a dot the namespace.
func (s *Set) isMachineName(name string) bool {
	id, _, namespace := strings.Cut(name, ".")
	if namespace && !s.opts.Namespaces {
		return false
	}
	if len(id) == 36 && id[8] == '-' && id[13] == '-' && id[18] == '-' && id[23] == '-' {
		id = strings.ReplaceAll(id, "-", "")
	}
	_, ok := parseID(id)
	return ok
}

// addFile opens a file that is not open yet.
func (s *Set) addFile(path string) {
	st, err := os.Stat(path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) { // a name may vanish between listing and looking
			s.problem(err)
		}
		return
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return
	}
	key := fileKey{uint64(sys.Dev), uint64(sys.Ino)}
	for _, f := range s.files {
		if f.dev == key.dev && f.ino == key.ino {
			f.path, f.gone = path, false // known, perhaps renamed
			return
		}
	}
	if len(s.files) >= maxFiles {
		s.problem(fmt.Errorf("%s: not read: %d journal files are open already", path, maxFiles))
		return
	}
	f, err := openFile(path, s.problem)
	if err != nil {
		y := s.young[key]
		if y == nil {
			y = &young{since: time.Now()}
			s.young[key] = y
		}
		y.seen = true
		if !y.told && (s.watch.notify == nil || time.Since(y.since) > youth) {
			y.told = true
			s.problem(err)
		}
		return
	}
	delete(s.young, key)
	s.files = append(s.files, f)
	s.walk.add(f)
	for _, w := range s.searches {
		w.add(f)
	}
}

// Next returns the next entry in the order of journalctl. After the last one
// it returns io.EOF, and may be called again when there are more.
func (s *Set) Next() (*Entry, error) {
	if s.closed {
		return nil, fs.ErrClosed
	}
	s.release()
	for {
		found := false
		if !s.guarded(func() { found = s.walk.advance() }) {
			continue // what is left of the file is shorter now
		}
		if !found {
			return nil, io.EOF
		}
		st := s.walk.current
		s.entry.fill(s, st.f, &st.head)
		return &s.entry, nil
	}
}

// release unmaps what entries handed out before may have pointed into.
func (s *Set) release() {
	for _, f := range s.files {
		if len(f.old) > 0 {
			f.release()
		}
	}
}

// reset forgets where Next is.
func (s *Set) reset(p place, restore map[ID]uint64) {
	filter := s.walk.filter
	s.walk = walk{s: s, place: p, restore: restore, filter: filter}
	for _, f := range s.files {
		s.walk.add(f)
	}
}

// SeekHead makes Next go on with the first entry.
func (s *Set) SeekHead() { s.reset(place{}, nil) }

// SeekTime makes Next go on with the first entry at or after a time, in
// microseconds since 1970-01-01 UTC.
func (s *Set) SeekTime(realtime uint64) {
	s.reset(place{head: head{realtime: realtime}, hasRealtime: true}, nil)
}

// SeekCursor makes Next go on with the entry of a cursor, or the one after it
// when it is not there any more. The error says what is wrong with the cursor.
func (s *Set) SeekCursor(cursor string) error {
	p, _, err := parseCursor(cursor)
	if err != nil {
		return err
	}
	s.reset(p, nil)
	return nil
}

// Position returns where Next is, as text for Restore: the cursor of the last
// entry, and how far each file was read. journalctl takes it for a cursor.
func (s *Set) Position() string {
	var b []byte
	if p := &s.walk.place; p.exact {
		e := Entry{Realtime: p.realtime, Monotonic: p.monotonic, Boot: p.boot, Seqnum: p.seqnum, SeqnumID: p.seqnumID, xor: p.xor}
		b = e.AppendCursor(b)
	}
	for _, st := range s.walk.streams {
		s.guarded(func() {
			passed := s.walk.passed(st)
			if len(b) > 0 {
				b = append(b, ';')
			}
			b = st.f.id.append(append(b, "f="...))
			b = strconv.AppendUint(append(b, ':'), passed, 16)
		})
	}
	return string(b)
}

// Restore makes Next go on after a Position: with what was not handed out of
// the files that were there, whatever they are called now, and with all of the
// files that were not.
func (s *Set) Restore(position string) error {
	p, files, err := parseCursor(position)
	if err != nil {
		return err
	}
	s.reset(p, files)
	return nil
}

// parseCursor reads the text of Cursor and Position.
func parseCursor(text string) (p place, files map[ID]uint64, err error) {
	files = map[ID]uint64{}
	var hasSource, hasNumber, hasBoot, hasClock bool
	for word := range strings.SplitSeq(text, ";") {
		key, value, ok := strings.Cut(word, "=")
		if !ok || len(key) != 1 {
			return p, nil, fmt.Errorf("cursor %q: %q is not of the form k=value", text, word)
		}
		switch ok = true; key[0] {
		case 's':
			p.seqnumID, ok = parseID(value)
			hasSource = ok
		case 'b':
			p.boot, ok = parseID(value)
			hasBoot = ok
		case 'i':
			p.seqnum, ok = parseHex(value)
			hasNumber = ok
		case 'm':
			p.monotonic, ok = parseHex(value)
			hasClock = ok
		case 't':
			p.realtime, ok = parseHex(value)
			p.hasRealtime = ok
		case 'x':
			p.xor, ok = parseHex(value)
			p.hasXor = ok
		case 'f':
			id, number, _ := strings.Cut(value, ":")
			var file ID
			if file, ok = parseID(id); ok {
				files[file], ok = parseHex(number)
			}
		}
		if !ok {
			return p, nil, fmt.Errorf("cursor %q: %q cannot be read", text, word)
		}
	}
	p.hasSeqnum, p.hasMonotonic = hasSource && hasNumber, hasBoot && hasClock
	if !p.hasSeqnum && !p.hasMonotonic && !p.hasRealtime && len(files) == 0 {
		return p, nil, fmt.Errorf("cursor %q says neither number nor time", text)
	}
	p.exact = len(files) > 0 && p.hasSeqnum && p.hasMonotonic && p.hasRealtime && p.hasXor
	return p, files, nil
}

func parseHex(s string) (uint64, bool) {
	n, err := strconv.ParseUint(s, 16, 64)
	return n, err == nil
}
