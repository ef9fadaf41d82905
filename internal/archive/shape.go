package archive

import (
	"hash/maphash"
	"strings"
	"unicode"
	"unicode/utf8"
)

// shape remembers every name of a package and what it is, to tell names that
// clash. It keeps 16 bytes for each: a hash of the name folded to one case,
// and of the name itself. The hash has a seed of this process, so nobody can
// make names that collide; that two of a quarter of a million do by chance
// happens once in 10⁹ packages, and then one is refused that is good.
type shape struct {
	seed  maphash.Seed
	names map[uint64]uint64
	most  int
	last  string // the directory in which the last entry was, known to be one
	buf   []byte
}

// What a name is, in the lowest bits of the values of shape.names.
const (
	isFile    = uint64(File)
	isDir     = uint64(Dir)
	isSymlink = uint64(Symlink)
	isImplied = 4 // a directory that has no entry so far
	kindBits  = 7
)

func newShape(l *Limits) *shape {
	return &shape{seed: maphash.MakeSeed(), names: map[uint64]uint64{}, most: l.Entries}
}

// add enters a clean name, and says with what it clashes.
func (s *shape) add(name string, kind Kind) *Problem {
	dir := ""
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		dir = name[:i]
	}
	if dir != s.last {
		for i := range len(dir) + 1 {
			if i < len(dir) && dir[i] != '/' || dir == "" {
				continue
			}
			if p := s.parent(dir[:i]); p != nil {
				return p
			}
		}
		s.last = dir
	}
	key, exact := s.hash(name)
	old, ok := s.names[key]
	switch {
	case !ok:
		if len(s.names) >= s.most {
			return Trouble(CodeTooMany, "more than %d entries", s.most)
		}
	case old&^kindBits != exact:
		return Trouble(CodeCaseClash, "another name differs from it by case alone")
	case old&kindBits == isImplied && kind == Dir:
	case (old&kindBits == isImplied || old&kindBits == isDir) && kind != Dir:
		return Trouble(CodeFileOverDir, "a %s where the package has a directory", kind)
	case (old&kindBits == isFile || old&kindBits == isSymlink) && kind == Dir:
		return Trouble(CodeDirOverFile, "a directory where the package has a file or link")
	default:
		return Trouble(CodeDuplicate, "the name is there twice")
	}
	s.names[key] = exact | uint64(kind)
	return nil
}

// parent sees that a name is, or may be, a directory.
func (s *shape) parent(dir string) *Problem {
	key, exact := s.hash(dir)
	old, ok := s.names[key]
	switch {
	case !ok:
		if len(s.names) >= s.most {
			return Trouble(CodeTooMany, "more than %d entries and directories", s.most)
		}
		s.names[key] = exact | isImplied
	case old&^kindBits != exact:
		return Trouble(CodeCaseClash, "another name differs from its directory %q by case alone", Abridge(dir))
	case old&kindBits == isSymlink:
		return Trouble(CodeParentNotDir, "it lies beneath the link %q", Abridge(dir))
	case old&kindBits == isFile:
		return Trouble(CodeParentNotDir, "it lies beneath the file %q", Abridge(dir))
	}
	return nil
}

// hash returns the hash of a name folded to one case, and that of the name.
func (s *shape) hash(name string) (folded, exact uint64) {
	s.buf = appendFolded(s.buf[:0], name)
	return maphash.Bytes(s.seed, s.buf), maphash.String(s.seed, name) &^ kindBits
}

// appendFolded appends a name of which all that differ by case alone have the
// same, by the simple case folding of Unicode.
func appendFolded(b []byte, name string) []byte {
	for i := 0; i < len(name); {
		if c := name[i]; c < utf8.RuneSelf {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			b = append(b, c)
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(name[i:])
		b = utf8.AppendRune(b, foldRune(r))
		i += n
	}
	return b
}

// foldRune returns one of the runes that differ by case alone: the ASCII
// letter in lower case if there is one (K is also the Kelvin sign), else the
// least.
func foldRune(r rune) rune {
	least := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		least = min(least, f)
	}
	if 'A' <= least && least <= 'Z' {
		least += 'a' - 'A'
	}
	return least
}

// Fold returns a name of which all that differ by case alone have the same, by
// the simple case folding of Unicode.
func Fold(name string) string { return string(appendFolded(nil, name)) }
