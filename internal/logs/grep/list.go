package grep

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
)

// partBytes is how much of a large file is one part: enough that dividing costs
// nothing, and little enough that what is found in those that wait for their
// turn does not take much memory.
const partBytes = 1 << 20

// part is what one worker searches at a time: the lines of a file that begin
// within [off, end), or all when end is -1. The worker sends what it finds, and
// closes found; the rest is valid then.
type part struct {
	file     *file
	off, end int64
	last     bool // of its file
	found    chan *batch

	opened   bool
	count    int64 // matching lines
	newlines int64 // in this part, with Options.Numbers
	bytes    int64
	binary   bool
	cut      int64
	err      error
}

// file is what the parts of a file share.
type file struct {
	path  string
	stdin bool
	cause error // why it is not opened at all

	// A file of several parts is opened by the first worker that comes to it,
	// and closed by the last one.
	parts  atomic.Int64
	opened sync.Once
	f      *os.File
	packed bool // it is compressed
	binary bool
	err    error
}

var errIsDirectory = errors.New("is a directory (search what is in it: --recursive)")

// list calls give with the parts of all files in the order of the search, until
// it returns false.
func (s *search) list(give func(*part) bool) {
	for _, path := range s.Paths {
		if path == "-" {
			if !give(s.newPart(&file{path: path, stdin: true}, 0, -1, true)) {
				return
			}
			continue
		}
		info, err := os.Stat(path)
		switch {
		case err != nil:
			err = cause(err)
		case info.IsDir() && !s.Recursive:
			err = errIsDirectory
		case info.IsDir():
			if !s.directory(path, give) {
				return
			}
			continue
		}
		if !s.give(path, info, err, give) {
			return
		}
	}
}

// directory lists what is below a directory. It returns false when it is to
// stop.
func (s *search) directory(path string, give func(*part) bool) bool {
	entries, err := os.ReadDir(path)
	if err != nil && !s.give(path, nil, cause(err), give) {
		return false
	}
	prefix := path
	if !strings.HasSuffix(prefix, "/") {
		prefix += "/"
	}
	for _, e := range entries {
		name := e.Name()
		if name[0] == '.' && !s.Hidden {
			continue
		}
		ok := true
		switch mode := e.Type(); {
		case mode.IsDir():
			ok = s.directory(prefix+name, give)
		case mode.IsRegular():
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // it was removed meanwhile, as rotation does
			}
			ok = s.give(prefix+name, info, cause(err), give)
		}
		if !ok || s.ctx.Err() != nil {
			return false
		}
	}
	return true
}

// give hands over the parts of one file, or the error that keeps it from being
// searched.
func (s *search) give(path string, info fs.FileInfo, err error, give func(*part) bool) bool {
	f := &file{path: path}
	if err != nil {
		f.cause = err
		return give(s.newPart(f, 0, -1, true))
	}
	// Lines around a match may lie in another part, and special files say
	// nothing about their size: they are one part.
	size := info.Size()
	if !info.Mode().IsRegular() || s.Before > 0 || s.After > 0 || size <= int64(s.partBytes)*3/2 {
		return give(s.newPart(f, 0, -1, true))
	}
	each := int64(s.partBytes)
	n := (size + each - 1) / each
	f.parts.Store(n)
	for i := range n {
		off := i * each
		if !give(s.newPart(f, off, min(off+each, size), i == n-1)) {
			return false
		}
	}
	return true
}

func (s *search) newPart(f *file, off, end int64, last bool) *part {
	return &part{file: f, off: off, end: end, last: last, found: make(chan *batch, s.waiting())}
}

// cause is err without the name of the file, which stands beside it anyway.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
