package match

import "bytes"

// finder looks for one literal: for the two rarest of its bytes at their
// distance, and then for the whole. It does not change.
type finder struct {
	lit    Literal
	lo     int  // where the first byte of the pair stands in the literal
	off    int  // how far behind it the second one stands
	b1, b2 byte // the pair
	m1, m2 byte // 0x20 for a letter in either case, otherwise 0
	rare   int  // see rarity
}

// newFinder returns a finder of a literal that is not empty.
func newFinder(lit Literal) *finder {
	f := &finder{lit: lit}
	text := lit.Text
	first := 0
	for i, b := range text {
		if commonness[b] < commonness[text[first]] {
			first = i
		}
	}
	// The second byte is another one where there is one: two equal bytes side
	// by side say hardly more than one. It stands within 255 bytes, so that
	// both are looked up in memory that is at hand.
	second := first
	for i, b := range text {
		if i == first || i-first > 255 || first-i > 255 {
			continue
		}
		if second == first || b != text[first] && (text[second] == text[first] || commonness[b] < commonness[text[second]]) {
			second = i
		}
	}
	f.lo, f.off = min(first, second), max(first, second)-min(first, second)
	f.b1, f.b2 = text[f.lo], text[f.lo+f.off]
	if lit.Fold {
		f.m1, f.m2 = caseBit(f.b1), caseBit(f.b2)
	}
	f.rare = rarity(f.b1, f.b2)
	if f.off == 0 {
		f.rare /= 2
	}
	return f
}

// caseBit is the bit that a letter of ASCII in lower case has and the same
// letter in upper case has not; 0 for other bytes.
func caseBit(b byte) byte {
	if 'a' <= b && b <= 'z' {
		return 0x20
	}
	return 0
}

// next returns where the first occurrence at or after from begins, or -1.
func (f *finder) next(buf []byte, from int) int {
	text := f.lit.Text
	begin := from
	for failed := 0; ; failed++ {
		if failed > 256 && failed > (from-begin)/16 && !f.lit.Fold {
			return f.nextOften(buf, from)
		}
		places := len(buf) - len(text) + 1 - from
		if places <= 0 {
			return -1
		}
		var i int
		if f.off == 0 && f.m1 == 0 {
			i = bytes.IndexByte(buf[from+f.lo:from+f.lo+places], f.b1)
		} else {
			i = indexPair(buf[from+f.lo:], places, f.off, f.b1, f.m1, f.b2, f.m2)
		}
		if i < 0 {
			return -1
		}
		from += i
		if f.here(buf, from) {
			return from
		}
		from++
	}
}

// nextOften is next for texts that have the pair all over but not the literal:
// what package bytes does takes no longer for those.
func (f *finder) nextOften(buf []byte, from int) int {
	for {
		i := bytes.Index(buf[from:], f.lit.Text)
		if i < 0 {
			return -1
		}
		from += i
		if f.here(buf, from) {
			return from
		}
		from++
	}
}

// here reports whether the literal stands at i, where buf has room for it.
func (f *finder) here(buf []byte, i int) bool {
	text := f.lit.Text
	end := i + len(text)
	if f.lit.Fold {
		for k, b := range buf[i:end] {
			if b != text[k] && ('A' > b || b > 'Z' || b|0x20 != text[k]) {
				return false
			}
		}
	} else if string(buf[i:end]) != string(text) {
		return false
	}
	return !f.lit.Word || (i == 0 || !wordByte(buf[i-1])) && (end == len(buf) || !wordByte(buf[end]))
}

// wordByte reports whether b is a word character: [0-9A-Za-z_], as in RE2's \b.
func wordByte(b byte) bool {
	return 'a' <= b|0x20 && b|0x20 <= 'z' || '0' <= b && b <= '9' || b == '_'
}
