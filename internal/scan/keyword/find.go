package keyword

// minLane is the length from which the parts that are read side by side are worth it.
const minLane = 64

// Find appends a hit for every place in b at which a pattern ends, also for those
// that overlap. Hits come in no order. len(b) is less than 2 GiB, for Hit.End.
func (a *Automaton) Find(b []byte, hits []Hit) []Hit {
	if a.longest == 0 {
		return hits
	}
	lane := len(b) / 4
	if a.narrow == nil || lane < minLane || lane < a.longest {
		return a.scan(0, b, 0, hits)
	}
	// A lane begins in the state in which the one before it ends: that depends on no
	// more bytes than the longest pattern has.
	var begin [4]uint32
	for i := 1; i < 4; i++ {
		begin[i] = a.walk(b[i*lane-a.longest+1 : i*lane])
	}
	hits, last := a.lanes(b[:4*lane], begin, hits)
	return a.scan(last, b[4*lane:], 4*lane, hits)
}

// lanes reads the four quarters of b side by side.
func (a *Automaton) lanes(b []byte, begin [4]uint32, hits []Hit) ([]Hit, uint32) {
	lane := len(b) / 4
	b0 := b[:lane]
	b1 := b[lane : 2*lane][:len(b0)]
	b2 := b[2*lane : 3*lane][:len(b0)]
	b3 := b[3*lane : 4*lane][:len(b0)]
	s0, s1, s2, s3 := uint16(begin[0]), uint16(begin[1]), uint16(begin[2]), uint16(begin[3])
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
	return hits, uint32(s3)
}

// report appends the hits of an accepting state.
func (a *Automaton) report(hits []Hit, row uint32, end int) []Hit {
	for _, p := range a.ends[(row-a.accept)/a.classes] {
		hits = append(hits, Hit{Pattern: p, End: int32(end)})
	}
	return hits
}

// scan reads b, which is at offset of a buffer, from a state on.
func (a *Automaton) scan(state uint32, b []byte, offset int, hits []Hit) []Hit {
	if a.narrow == nil {
		for i, c := range b {
			state = a.wide[state+uint32(a.class[c])]
			if state >= a.accept {
				hits = a.report(hits, state, offset+i+1)
			}
		}
		return hits
	}
	row, accept, next := uint16(state), a.accept, a.narrow
	for i, c := range b {
		row = next[row+uint16(a.class[c])]
		if uint32(row) >= accept {
			hits = a.report(hits, uint32(row), offset+i+1)
		}
	}
	return hits
}

// walk is the state after b.
func (a *Automaton) walk(b []byte) uint32 {
	var row uint16
	for _, c := range b {
		row = a.narrow[row+uint16(a.class[c])]
	}
	return uint32(row)
}
