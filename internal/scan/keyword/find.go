package keyword

// minLane is the length from which the parts that are read side by side are worth it.
const minLane = 64

// Find appends a hit for every place in b at which a pattern ends, also for those
// that overlap. Hits come in no order. len(b) is at most MaxBuffer.
func (a *Automaton) Find(b []byte, hits []Hit) []Hit {
	if a.longest == 0 {
		return hits
	}
	lane := len(b) / 4
	if a.narrow == nil || lane < minLane || lane < a.longest {
		_, hits = a.scan(State{}, b, 0, hits)
		return hits
	}
	// A lane begins in the state in which the one before it ends: that depends on no
	// more bytes than the longest pattern has.
	var begin [4]State
	for i := 1; i < 4; i++ {
		begin[i] = a.walk(b[i*lane-a.longest+1 : i*lane])
	}
	hits, last := a.lanes(b[:4*lane], begin, hits)
	_, hits = a.scan(last, b[4*lane:], 4*lane, hits)
	return hits
}

// lanes reads the four quarters of b side by side.
func (a *Automaton) lanes(b []byte, begin [4]State, hits []Hit) ([]Hit, State) {
	lane := len(b) / 4
	b0 := b[:lane]
	b1 := b[lane : 2*lane][:len(b0)]
	b2 := b[2*lane : 3*lane][:len(b0)]
	b3 := b[3*lane : 4*lane][:len(b0)]
	s0, s1, s2, s3 := uint16(begin[0].row), uint16(begin[1].row), uint16(begin[2].row), uint16(begin[3].row)
	next, class := a.narrow, &a.class
	accept := uint16(a.accept) // fits: there are states beyond it
	for i, c := range b0 {
		s0 = next[s0+uint16(class[c])]
		s1 = next[s1+uint16(class[b1[i]])]
		s2 = next[s2+uint16(class[b2[i]])]
		s3 = next[s3+uint16(class[b3[i]])]
		if s0 >= accept {
			hits = a.report(hits, uint32(s0), i+1)
		}
		if s1 >= accept {
			hits = a.report(hits, uint32(s1), lane+i+1)
		}
		if s2 >= accept {
			hits = a.report(hits, uint32(s2), 2*lane+i+1)
		}
		if s3 >= accept {
			hits = a.report(hits, uint32(s3), 3*lane+i+1)
		}
	}
	return hits, State{uint32(s3)}
}

// report appends the hits of an accepting state.
func (a *Automaton) report(hits []Hit, row uint32, end int) []Hit {
	for _, p := range a.ends[(row-a.accept)/a.classes] {
		hits = append(hits, Hit{Pattern: p, End: int32(end)})
	}
	return hits
}

// Scan goes on reading a stream of which b is the next buffer, and appends the hits
// in it, with their ends counted from the start of b. A pattern that began in an
// earlier buffer is found.
func (a *Automaton) Scan(s State, b []byte, hits []Hit) (State, []Hit) {
	return a.scan(s, b, 0, hits)
}

func (a *Automaton) scan(s State, b []byte, offset int, hits []Hit) (State, []Hit) {
	if a.narrow == nil {
		row := s.row
		for i, c := range b {
			row = a.wide[row+uint32(a.class[c])]
			if row >= a.accept {
				hits = a.report(hits, row, offset+i+1)
			}
		}
		return State{row}, hits
	}
	row, accept, next := uint16(s.row), a.accept, a.narrow
	for i, c := range b {
		row = next[row+uint16(a.class[c])]
		if uint32(row) >= accept {
			hits = a.report(hits, uint32(row), offset+i+1)
		}
	}
	return State{uint32(row)}, hits
}

// walk is the state after b.
func (a *Automaton) walk(b []byte) State {
	var row uint16
	for _, c := range b {
		row = a.narrow[row+uint16(a.class[c])]
	}
	return State{uint32(row)}
}

// Present marks, by index, the patterns that are in b. len(present) is the number of
// patterns; what is marked stays marked. It returns the state after b, so that the
// buffers of a stream can be asked one after the other.
func (a *Automaton) Present(s State, b []byte, present []bool) State {
	var buf [64]Hit
	for len(b) > 0 {
		part := b[:min(len(b), 4096)]
		b = b[len(part):]
		var hits []Hit
		s, hits = a.scan(s, part, 0, buf[:0])
		for _, h := range hits {
			present[h.Pattern] = true
		}
	}
	return s
}
