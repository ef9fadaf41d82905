package source

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Problem is something that was to be read and was not.
type Problem struct {
	Source  string `json:"source"` // name of the Spec
	Path    string `json:"path"`
	PathB64 []byte `json:"path_b64,omitempty"` // when the path is not valid UTF-8
	Reason  string `json:"reason"`
	// Skipped says that this is no failure: binary files, devices and other
	// things that are no logs, in a place where logs are looked for.
	Skipped bool `json:"skipped,omitempty"`
}

func problem(source, path, reason string, skipped bool) Problem {
	p := Problem{Source: source, Path: path, Reason: reason, Skipped: skipped}
	if !utf8.ValidString(path) {
		p.PathB64 = []byte(path)
	}
	return p
}

// candidate is a file that a look at the sources found.
type candidate struct {
	*info
	spec    *spec
	path    string // without links
	names   []string
	named   bool // by its name, not by a pattern or a directory
	stem    string
	rotated bool
}

// spec is a Spec with what was made of it.
type spec struct {
	Spec
	include, exclude []pattern
}

func compileSpec(s Spec) (*spec, error) {
	out := &spec{Spec: s}
	var err error
	if out.include, err = parsePatterns(s.Include); err == nil {
		out.exclude, err = parsePatterns(s.Exclude)
	}
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", s.Name, err)
	}
	return out, nil
}

// scan is one look at the sources of files.
type scan struct {
	tree     *tree
	found    map[inode]*candidate
	dirs     map[string]bool // whose changes change the result
	problems []Problem
	seen     map[string]bool // paths looked at for this spec
	spec     *spec
}

type inode struct{ dev, ino uint64 }

const maxDepth = 64

// look lists the files of all specs, sorted by their paths.
func look(t *tree, specs []*spec) *scan {
	s := &scan{tree: t, found: map[inode]*candidate{}, dirs: map[string]bool{}}
	for _, sp := range specs {
		if sp.Kind != Files && sp.Kind != Utmp {
			continue
		}
		s.spec, s.seen = sp, map[string]bool{}
		for _, p := range sp.include {
			s.expand("/", p, 0)
		}
	}
	return s
}

func (s *scan) candidates() []*candidate {
	list := make([]*candidate, 0, len(s.found))
	for _, c := range s.found {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *candidate) int { return cmp.Compare(a.path, b.path) })
	return list
}

func (s *scan) problem(path string, err error) {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	s.problems = append(s.problems, problem(s.spec.Name, path, err.Error(), false))
}

func (s *scan) skipped(path, reason string) {
	s.problems = append(s.problems, problem(s.spec.Name, path, reason, true))
}

func join(dir, name string) string {
	if dir == "/" {
		return "/" + name
	}
	return dir + "/" + name
}

// expand finds what matches the parts of a pattern below a directory.
func (s *scan) expand(dir string, p pattern, depth int) {
	if depth > maxDepth || len(s.found) >= maxFiles {
		s.problem(dir, fmt.Errorf("not looked at: more than %d files, or %d directories deep", maxFiles, maxDepth))
		return
	}
	if len(p) == 0 {
		s.below(dir, depth)
		return
	}
	if !isPattern(p[0]) && len(p) > 1 {
		s.expand(join(dir, p[0]), p[1:], depth+1)
		return
	}
	entries, ok := s.list(dir, depth)
	if !ok {
		return
	}
	if p[0] == "**" {
		if rest := p[1:]; len(rest) > 0 {
			s.expand(dir, rest, depth)
		} else {
			for _, e := range entries {
				if !e.IsDir() {
					s.file(join(dir, e.Name()))
				}
			}
		}
		for _, e := range entries {
			if e.IsDir() && !s.excluded(join(dir, e.Name())) {
				s.expand(join(dir, e.Name()), p, depth+1)
			}
		}
		return
	}
	for _, e := range entries {
		name := e.Name()
		switch full := join(dir, name); {
		case len(p) > 1:
			if e.IsDir() && matchName(p[0], name) {
				s.expand(full, p[1:], depth+1)
			}
		case matchName(p[0], name):
			if e.IsDir() {
				if !isPattern(p[0]) {
					s.below(full, depth+1)
				}
			} else {
				s.file(full)
			}
		case !e.IsDir():
			if stem, rotated := Stem(name); rotated && matchName(p[0], stem) {
				s.file(full)
			}
		}
	}
}

// below finds all files of a directory and those below it.
func (s *scan) below(dir string, depth int) {
	if !s.excluded(dir) {
		s.expand(dir, pattern{"**"}, depth)
	}
}

// list reads a directory. The nearest one that exists is watched for it.
func (s *scan) list(dir string, depth int) ([]fs.DirEntry, bool) {
	entries, err := s.tree.list(dir)
	if err == nil {
		s.dirs[dir] = true
		return entries, true
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR):
		for d := path.Dir(dir); ; d = path.Dir(d) {
			if st, err := s.tree.stat(d); err == nil && st.directory() || d == "/" {
				s.dirs[d] = true
				break
			}
		}
	default:
		s.problem(dir, err)
	}
	return nil, false
}

func (s *scan) excluded(name string) bool {
	for _, p := range s.spec.exclude {
		if p.match(name) {
			return true
		}
	}
	return false
}

// file takes up a file by one of its names.
func (s *scan) file(name string) {
	if s.seen[name] || s.excluded(name) {
		return
	}
	s.seen[name] = true
	link, err := s.tree.lstat(name)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.problem(name, err)
		}
		return
	}
	st, real := link, name
	if link.link() {
		if st, err = s.tree.stat(name); err == nil {
			real, err = s.tree.real(name)
		}
		if err != nil {
			s.problem(name, err)
			return
		}
		if s.excluded(real) {
			return
		}
		// Whoever may write into a directory of logs must not make a file
		// readable that is not theirs.
		if link.uid != 0 && link.uid != st.uid {
			s.skipped(name, "a link that belongs neither to root nor to the owner of what it leads to")
			return
		}
		s.dirs[path.Dir(real)] = true
	}
	if !st.regular() {
		s.skipped(name, "it is "+st.what())
		return
	}
	id := inode{st.dev, st.ino}
	c := s.found[id]
	named := slices.ContainsFunc(s.spec.include, func(p pattern) bool { return p.names(name) })
	if c == nil {
		c = &candidate{info: st, spec: s.spec, path: real, named: named}
		c.stem, c.rotated = Stem(real)
		s.found[id] = c
	} else if c.spec == s.spec {
		c.named = c.named || named
		// Of two names of the file the one that is not that of a rotated one,
		// and then the first, is the name.
		if stem, rotated := Stem(real); real != c.path && (c.rotated && !rotated || c.rotated == rotated && real < c.path) {
			c.names = append(c.names, c.path)
			c.path, c.stem, c.rotated = real, stem, rotated
		}
	}
	if name != c.path && !slices.Contains(c.names, name) {
		c.names = append(c.names, name)
	}
}

// describe names a file with the other names that it has.
func (c *candidate) describe() string {
	if len(c.names) == 0 {
		return c.path
	}
	return c.path + " (also " + strings.Join(c.names, ", ") + ")"
}
