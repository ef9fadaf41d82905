package match

// teddy looks for several literals at once, as Hyperscan's algorithm of that
// name does: three bytes in a row of each literal, the rarest ones, are its
// window. Windows are put into eight buckets, and masks tell by the nibbles of
// three bytes of the text which buckets may have one there. What may be there is
// then compared. It does not change.
type teddy struct {
	masks windowMasks
	lits  []*finder // only what they compare is of use
	at    []int     // where the window of each literal begins
}

// windowMasks has for each byte of a window the buckets in which it may have a
// lower, and an upper, nibble.
type windowMasks [3][2][16]uint8

const windowBytes = 3

// maxWindows is how many literals may be compared where one may be.
const maxWindows = 32

// newTeddy returns nil for literals that it is not good at.
func newTeddy(c Clause) *teddy {
	if len(c) == 0 || len(c) > maxWindows || !hasTeddy() {
		return nil
	}
	t := &teddy{}
	expected := 0.0
	for i, l := range c {
		if len(l.Text) < windowBytes {
			return nil
		}
		best, bestRare := 0, -1
		for at := range len(l.Text) - windowBytes + 1 {
			rare := 0
			for _, b := range l.Text[at : at+windowBytes] {
				rare += 255 - int(commonness[b])
			}
			if rare > bestRare {
				best, bestRare = at, rare
			}
		}
		t.at = append(t.at, best)
		t.lits = append(t.lits, newFinder(l))
		expected += odds(bestRare)
		bucket := uint8(1) << (i % 8)
		for k, b := range l.Text[best : best+windowBytes] {
			t.masks[k][0][b&15] |= bucket
			t.masks[k][1][b>>4] |= bucket
			if l.Fold && caseBit(b) != 0 {
				t.masks[k][1][(b&^0x20)>>4] |= bucket
			}
		}
	}
	// Comparing takes as long as the automaton takes for some dozens of bytes.
	if expected > 1.0/64 {
		return nil
	}
	return t
}

// odds is how often a place has bytes of that rarity: commonness 255 is one in
// eight, and each step 4 % less.
func odds(rare int) float64 {
	p := 1.0 / (8 * 8 * 8)
	for range rare {
		p *= 0.96
	}
	return p
}

// next returns where an occurrence of one of the literals begins, at or after
// from, or -1; not always the first one, but one in the line of the first, if
// from begins a line.
func (t *teddy) next(buf []byte, from int) int {
	for i := from; ; i++ {
		places := len(buf) - (windowBytes - 1) - i
		if places <= 0 {
			return -1
		}
		k := indexWindow(buf[i:], places, &t.masks)
		if k < 0 {
			return -1
		}
		i += k
		for j, f := range t.lits {
			start := i - t.at[j]
			if start >= from && start+len(f.lit.Text) <= len(buf) && f.here(buf, start) {
				return start
			}
		}
	}
}

// indexWindowSlow is indexWindow in portable code.
func indexWindowSlow(text []byte, n int, masks *windowMasks) int {
	for i := range n {
		w := text[i : i+windowBytes]
		if masks[0][0][w[0]&15]&masks[0][1][w[0]>>4]&
			masks[1][0][w[1]&15]&masks[1][1][w[1]>>4]&
			masks[2][0][w[2]&15]&masks[2][1][w[2]>>4] != 0 {
			return i
		}
	}
	return -1
}
