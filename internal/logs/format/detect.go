package format

import (
	"bytes"
	"path"
	"strings"
)

// Limits of what is looked at to find out a format.
const (
	maxSampleLines = 200
	maxSampleLine  = 64 << 10
)

// Detect returns the format in which a file is written, by the lines at its
// beginning: the format that fits the most of them, of those alike the one of
// the highest rank, and of those still alike the one whose paths match. It
// never returns nil: what fits nothing is plain.
func (s *Set) Detect(name string, sample []byte) *Format {
	plain := s.formats[plainName]
	if f, ok := s.formats["utmp"]; ok && IsUtmp(sample) {
		return f
	}
	lines := sampleLines(sample)
	best, bestScore := plain, 0
	for _, n := range s.Names() {
		f := s.formats[n]
		if f == plain {
			continue
		}
		if score := f.score(name, lines); score > bestScore {
			best, bestScore = f, score
		}
	}
	return best
}

// sampleLines returns the lines of sample that are there wholly; a last one
// without its end counts when it is the only one.
func sampleLines(sample []byte) (lines [][]byte) {
	for len(sample) > 0 && len(lines) < maxSampleLines {
		i := bytes.IndexByte(sample, '\n')
		if i < 0 {
			if len(lines) == 0 {
				lines = append(lines, sample)
			}
			break
		}
		if line := bytes.TrimSuffix(sample[:i], []byte{'\r'}); len(line) > 0 && len(line) <= maxSampleLine {
			lines = append(lines, line)
		}
		sample = sample[i+1:]
	}
	return lines
}

// score says how well lines fit: tenths of the lines first, where eight are as
// good as all, then the rank, then the path. 0 is not at all.
func (f *Format) score(name string, lines [][]byte) int {
	fit, counted := 0, 0
	r := Reader{f: f}
	for i, line := range lines {
		switch {
		case f.fits(line):
			fit += 4
			counted += 4
		case i > 0 && f.join.any() && r.continues(line):
			if line[0] != ' ' && line[0] != '\t' {
				counted++ // perhaps
			}
		default:
			counted += 4
		}
	}
	if fit == 0 || fit*2 < counted {
		return 0
	}
	// A few lines that do not fit are no reason to prefer what is less particular.
	score := min(fit*10/counted, 8)*1000 + f.rank*2
	if f.matchesPath(name) {
		score++
	}
	return score
}

// fits reports whether line is of the format.
func (f *Format) fits(line []byte) bool {
	switch f.kind {
	case kindJSON, kindDocker:
		return f.hasKeys(line)
	case kindLogfmt, kindUtmp:
		return f.hasPairs(line)
	}
	var c captures
	for _, p := range f.patterns {
		if p.weak {
			continue
		}
		if p.lines {
			if _, ok := match(p.before, line, 0, len(line), &c); ok && p.time >= 0 {
				return true
			}
			continue
		}
		if end, ok := match(p.steps, line, 0, len(line), &c); ok && end == len(line) {
			return true
		}
	}
	return false
}

// hasKeys reports whether line is an object with all members that are required.
func (f *Format) hasKeys(line []byte) bool {
	o := openObject(line)
	found := 0
	for {
		key, _, ok := o.next()
		if !ok {
			break
		}
		for _, k := range f.require {
			if string(key) == k {
				found++
			}
		}
	}
	return o.closed() && found >= len(f.require)
}

// hasPairs reports whether line has all pairs that are required, at least two,
// and little besides pairs.
func (f *Format) hasPairs(line []byte) bool {
	p := pairs{b: line}
	n, found, size := 0, 0, 0
	for {
		name, val, quoted, ok := p.next()
		if !ok {
			break
		}
		n++
		size += len(name) + len(val) + 2
		if quoted {
			size += 2
		}
		for _, k := range f.require {
			if string(name) == k {
				found++
			}
		}
	}
	return n >= 2 && found >= len(f.require) && size*10 >= len(line)*8
}

// matchesPath reports whether the path is one of the usual ones: a pattern
// without a slash is for the last part alone.
func (f *Format) matchesPath(name string) bool {
	for _, p := range f.paths {
		n := name
		if !strings.Contains(p, "/") {
			n = path.Base(name)
		}
		if ok, _ := path.Match(p, n); ok {
			return true
		}
	}
	return false
}
