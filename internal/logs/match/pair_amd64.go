package match

import "golang.org/x/sys/cpu"

// indexPairAVX2 is indexPairSlow for n >= 32, by 64 places at a time.
//
//go:noescape
func indexPairAVX2(p *byte, n, off int, b1, m1, b2, m2 byte) int

// indexPair returns the first i below n for which text[i]|m1 is b1 and
// text[i+off]|m2 is b2, or -1. text has at least n+off bytes; off is not
// negative.
func indexPair(text []byte, n, off int, b1, m1, b2, m2 byte) int {
	if n >= 32 && cpu.X86.HasAVX2 {
		_ = text[n+off-1]
		return indexPairAVX2(&text[0], n, off, b1, m1, b2, m2)
	}
	return indexPairSlow(text, n, off, b1, m1, b2, m2)
}
