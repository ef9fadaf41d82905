//go:build !amd64

package match

// indexPair returns the first i below n for which text[i]|m1 is b1 and
// text[i+off]|m2 is b2, or -1. text has at least n+off bytes; off is not
// negative.
func indexPair(text []byte, n, off int, b1, m1, b2, m2 byte) int {
	return indexPairSlow(text, n, off, b1, m1, b2, m2)
}
