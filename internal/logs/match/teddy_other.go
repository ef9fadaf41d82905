//go:build !amd64

package match

// hasTeddy reports whether indexWindow is fast here.
func hasTeddy() bool { return false }

// indexWindow returns the first i below n at which some window of the masks may
// stand, or -1. text has at least n+2 bytes.
func indexWindow(text []byte, n int, masks *windowMasks) int {
	return indexWindowSlow(text, n, masks)
}
