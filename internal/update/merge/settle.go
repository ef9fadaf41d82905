package merge

// Where lines repeat, an edit can be moved without being changed: a block that
// was added after an equal one may as well have been added before it. Both
// sides of a merge have to choose in the same way, or the same change would
// look like two. As in git, an edit goes down as far as it can, unless it can
// be beside an edit of the other version, with which it then makes one.

// group is a run of marked lines, possibly an empty one, between two lines
// that are in common. Both versions have the same number of groups.
type group struct {
	v *version
	span
}

func firstGroup(v *version) group {
	g := group{v: v}
	g.growDown()
	return g
}

func (g *group) growDown() {
	for g.to < len(g.v.ids) && g.v.marked[g.to] {
		g.to++
	}
}

func (g *group) growUp() {
	for g.from > 0 && g.v.marked[g.from-1] {
		g.from--
	}
}

// next goes to the group below and reports whether there is one.
func (g *group) next() bool {
	if g.to == len(g.v.ids) {
		return false
	}
	g.from, g.to = g.to+1, g.to+1
	g.growDown()
	return true
}

// previous goes to the group above. There must be one.
func (g *group) previous() {
	g.from, g.to = g.from-1, g.from-1
	g.growUp()
}

// up moves the group by a line, if the line above equals its last one, and
// joins the group that it then touches.
func (g *group) up() bool {
	if g.from == 0 || g.v.ids[g.from-1] != g.v.ids[g.to-1] {
		return false
	}
	g.from--
	g.to--
	g.v.marked[g.from], g.v.marked[g.to] = true, false
	g.growUp()
	return true
}

// down moves the group by a line, if the line below equals its first one, and
// joins the group that it then touches.
func (g *group) down() bool {
	if g.to == len(g.v.ids) || g.v.ids[g.from] != g.v.ids[g.to] {
		return false
	}
	g.v.marked[g.from], g.v.marked[g.to] = false, true
	g.from++
	g.to++
	g.growDown()
	return true
}

// settle moves the groups of v. It returns false when no steps are left.
func settle(v, other *version, steps *int) bool {
	g, o := firstGroup(v), firstGroup(other)
	for more := true; more; more = g.next() && o.next() {
		if g.len() == 0 {
			continue
		}
		var beside, moves bool
		for size := -1; size != g.len(); {
			size = g.len()
			for g.up() {
				o.previous()
				if !spend(steps, 1) {
					return false
				}
			}
			beside, moves = o.len() > 0, false
			for g.down() {
				o.next()
				moves, beside = true, beside || o.len() > 0
				if !spend(steps, 1) {
					return false
				}
			}
		}
		for moves && beside && o.len() == 0 {
			g.up()
			o.previous()
		}
	}
	return true
}
