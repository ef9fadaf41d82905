package match

import "bytes"

// An automaton waits for the table at each byte: the next look-up needs the
// result of the one before. So where matches are rare, four stretches of a text
// are read side by side, which takes hardly longer than one.
const (
	lanes     = 4
	laneBytes = 8 << 10
	// quietBytes have to be without a match before that is worth it: when there
	// is one in the first stretch, the others were read for nothing.
	quietBytes = 4 << 10
)

// sideBySide looks at lines from the one on that begins at from, when buf holds
// enough of them. It returns a place in the first line that matches as
// firstMatch does, or -1 and where the first line begins that it has not looked
// at.
func (d *dfa) sideBySide(buf []byte, from int) (at, resume int) {
	var begin [lanes + 1]int
	begin[0] = from
	for i := 1; i <= lanes; i++ {
		to := from + i*laneBytes
		if to <= begin[i-1] || to >= len(buf) {
			return -1, from
		}
		n := bytes.IndexByte(buf[to:], '\n')
		if n < 0 {
			return -1, from
		}
		begin[i] = to + n + 1
	}
	shortest := len(buf)
	for i := range lanes {
		shortest = min(shortest, begin[i+1]-begin[i])
	}
	var text [lanes][]byte
	state := [lanes]uint32{d.start, d.start, d.start, d.start}
	for i := range lanes {
		text[i] = buf[begin[i]:][:shortest:shortest]
	}
	resets := d.resets
	k := 0
	for {
		k = d.lockstep(&text, &state, k)
		if k == shortest {
			break
		}
		// At least one of them has to make a state, or matches.
		for i := range lanes {
			b := text[i][k]
			next := d.trans[state[i]+uint32(d.p.class[b])]
			if next == rowUnknown {
				next = d.step(state[i], b)
				if d.resets != resets {
					return -1, from // the other states are no more
				}
			}
			if next != d.last() {
				state[i] = next
				continue
			}
			// The lanes before may have a match, too; those behind do not matter.
			for j := range i {
				if at := d.finish(buf, begin[j]+k+1, begin[j+1], state[j]); at != -1 {
					return at, from
				}
				if d.resets != resets {
					return -1, begin[j+1]
				}
			}
			return begin[i] + k, from
		}
		k++
	}
	for i := range lanes {
		if at := d.finish(buf, begin[i]+k, begin[i+1], state[i]); at != -1 {
			return at, from
		}
		if d.resets != resets {
			return -1, begin[i+1]
		}
	}
	return -1, begin[lanes]
}

// finish reads on in one lane, from a state. What it returns is a place in a
// line that matches, or -1.
func (d *dfa) finish(buf []byte, from, end int, state uint32) int {
	for i := from; i < end; i++ {
		next := d.trans[state+uint32(d.p.class[buf[i]])]
		if next == rowUnknown {
			next = d.step(state, buf[i])
		}
		if next == d.last() {
			return i
		}
		state = next
	}
	return -1
}

// lockstep reads on in all lanes from k on, until there is something to do
// about the byte k that it returns.
func (d *dfa) lockstep(text *[lanes][]byte, state *[lanes]uint32, k int) int {
	class := &d.p.class
	t, last := d.trans, d.last()
	b0 := text[0]
	b1, b2, b3 := text[1][:len(b0)], text[2][:len(b0)], text[3][:len(b0)]
	s0, s1, s2, s3 := state[0], state[1], state[2], state[3]
	for ; k < len(b0); k++ {
		n0 := t[s0+uint32(class[b0[k]])]
		n1 := t[s1+uint32(class[b1[k]])]
		n2 := t[s2+uint32(class[b2[k]])]
		n3 := t[s3+uint32(class[b3[k]])]
		if n0 <= last || n1 <= last || n2 <= last || n3 <= last {
			break
		}
		s0, s1, s2, s3 = n0, n1, n2, n3
	}
	*state = [lanes]uint32{s0, s1, s2, s3}
	return k
}
