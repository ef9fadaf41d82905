package merge

import "math"

// span is the lines [from, to) of a version.
type span struct{ from, to int }

func (s span) len() int { return s.to - s.from }

// edit is one change: the lines old of a became the lines new of b. Between
// two edits there is at least one line that a and b have in common.
type edit struct{ old, new span }

// aligner finds which lines of a and b correspond. A line is marked when it
// corresponds to none.
type aligner struct {
	a, b  version
	steps *int // what is left of the time
}

// version is one side of an alignment.
type version struct {
	ids    []int32
	marked []bool
	kept   []int // lines that occur on the other side: only they are searched
}

// align returns the edits that make b of a, and false when that takes more
// than *steps. All ids are below distinct.
//
// As in git, lines that are not on the other side at all are set aside first,
// and edits are then moved to where a reader expects them (see settle).
func align(a, b []int32, distinct int, steps *int) ([]edit, bool) {
	al := &aligner{
		a:     version{ids: a, marked: make([]bool, len(a))},
		b:     version{ids: b, marked: make([]bool, len(b))},
		steps: steps,
	}
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	al.a.setAside(head, tail, occurring(b, distinct))
	al.b.setAside(head, tail, occurring(a, distinct))

	na, nb := len(al.a.kept), len(al.b.kept)
	s := &search{
		al: al,
		// Diagonals run from -nb-1 to na+1, one beyond either end.
		zero: nb + 1,
		fwd:  make([]int, na+nb+3),
		bwd:  make([]int, na+nb+3),
	}
	if !s.compare(0, na, 0, nb) || !settle(&al.a, &al.b, steps) || !settle(&al.b, &al.a, steps) {
		return nil, false
	}
	return al.edits(), true
}

func occurring(ids []int32, distinct int) []bool {
	there := make([]bool, distinct)
	for _, id := range ids {
		there[id] = true
	}
	return there
}

// setAside marks the lines that are not there on the other side and keeps the
// others, but for the head and the tail that both sides have in common.
func (v *version) setAside(head, tail int, there []bool) {
	for i := head; i < len(v.ids)-tail; i++ {
		if there[v.ids[i]] {
			v.kept = append(v.kept, i)
		} else {
			v.marked[i] = true
		}
	}
}

// edits reads the marks.
func (al *aligner) edits() []edit {
	var list []edit
	for i, j := 0, 0; i < len(al.a.ids) || j < len(al.b.ids); {
		e := edit{span{i, i}, span{j, j}}
		for e.old.to < len(al.a.ids) && al.a.marked[e.old.to] {
			e.old.to++
		}
		for e.new.to < len(al.b.ids) && al.b.marked[e.new.to] {
			e.new.to++
		}
		if e.old.len()+e.new.len() > 0 {
			list = append(list, e)
		}
		i, j = e.old.to+1, e.new.to+1 // past the line in common
	}
	return list
}

// search is Myers' algorithm in linear space. A diagonal d holds the points
// with x-y = d; fwd and bwd have, for each diagonal, the x that is reached
// from the beginning and from the end.
type search struct {
	al       *aligner
	fwd, bwd []int
	zero     int // index of diagonal 0
}

// equal compares two kept lines.
func (s *search) equal(x, y int) bool {
	return s.al.a.ids[s.al.a.kept[x]] == s.al.b.ids[s.al.b.kept[y]]
}

// compare marks what is different between the kept lines [x0,x1) of a and
// [y0,y1) of b.
func (s *search) compare(x0, x1, y0, y1 int) bool {
	for x0 < x1 && y0 < y1 && s.equal(x0, y0) {
		x0++
		y0++
	}
	for x0 < x1 && y0 < y1 && s.equal(x1-1, y1-1) {
		x1--
		y1--
	}
	if x0 == x1 {
		for ; y0 < y1; y0++ {
			s.al.b.marked[s.al.b.kept[y0]] = true
		}
		return true
	}
	if y0 == y1 {
		for ; x0 < x1; x0++ {
			s.al.a.marked[s.al.a.kept[x0]] = true
		}
		return true
	}
	x, y, ok := s.middle(x0, x1, y0, y1)
	return ok && s.compare(x0, x, y0, y) && s.compare(x, x1, y, y1)
}

// middle returns a point on a shortest path from (x0,y0) to (x1,y1), where the
// furthest paths from both ends meet.
func (s *search) middle(x0, x1, y0, y1 int) (x, y int, ok bool) {
	low, high := x0-y1, x1-y0 // the diagonals of the box
	start, end := x0-y0, x1-y1
	odd := (start-end)&1 != 0
	f0, f1, b0, b1 := start, start, end, end // diagonals that were reached
	fwd, bwd, z := s.fwd, s.bwd, s.zero
	fwd[z+start], bwd[z+end] = x0, x1
	for {
		// One diagonal more at either end, or, at the edge of the box, one less.
		if f0 > low {
			f0--
			fwd[z+f0-1] = -1
		} else {
			f0++
		}
		if f1 < high {
			f1++
			fwd[z+f1+1] = -1
		} else {
			f1--
		}
		for d := f1; d >= f0; d -= 2 {
			x := fwd[z+d+1]
			if fwd[z+d-1] >= x {
				x = fwd[z+d-1] + 1
			}
			from := x
			for x < x1 && x-d < y1 && s.equal(x, x-d) {
				x++
			}
			fwd[z+d] = x
			if !s.spend(1 + x - from) {
				return 0, 0, false
			}
			if odd && b0 <= d && d <= b1 && bwd[z+d] <= x {
				return x, x - d, true
			}
		}
		if b0 > low {
			b0--
			bwd[z+b0-1] = math.MaxInt
		} else {
			b0++
		}
		if b1 < high {
			b1++
			bwd[z+b1+1] = math.MaxInt
		} else {
			b1--
		}
		for d := b1; d >= b0; d -= 2 {
			x := bwd[z+d-1]
			if x >= bwd[z+d+1] {
				x = bwd[z+d+1] - 1
			}
			from := x
			for x > x0 && x-d > y0 && s.equal(x-1, x-d-1) {
				x--
			}
			bwd[z+d] = x
			if !s.spend(1 + from - x) {
				return 0, 0, false
			}
			if !odd && f0 <= d && d <= f1 && x <= fwd[z+d] {
				return x, x - d, true
			}
		}
	}
}

func (s *search) spend(n int) bool { return spend(s.al.steps, n) }

// spend takes n of the steps that are left.
func spend(steps *int, n int) bool {
	*steps -= n
	return *steps >= 0
}
