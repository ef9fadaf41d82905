package match

import "golang.org/x/sys/cpu"

// hasTeddy reports whether indexWindow is fast here.
func hasTeddy() bool { return cpu.X86.HasAVX2 }

// indexWindowAVX2 is indexWindowSlow for n >= 32, by 32 places at a time.
//
//go:noescape
func indexWindowAVX2(p *byte, n int, masks *windowMasks) int

// indexWindow returns the first i below n at which some window of the masks may
// stand, or -1. text has at least n+2 bytes.
func indexWindow(text []byte, n int, masks *windowMasks) int {
	if n >= 32 && cpu.X86.HasAVX2 {
		_ = text[n+1]
		return indexWindowAVX2(&text[0], n, masks)
	}
	return indexWindowSlow(text, n, masks)
}
