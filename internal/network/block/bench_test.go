package block

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/nft"
)

// BenchmarkImport is what an import does beside the kernel's part.
func BenchmarkImport(b *testing.B) {
	var text []byte
	r := rand.New(rand.NewPCG(1, 1))
	for range 100_000 {
		text = fmt.Appendln(text, addr4(r.Uint32N(0x5e000000)+0x0b000000))
	}
	b.Run("parse", func(b *testing.B) {
		for b.Loop() {
			if _, err := parseFeed(bytes.NewReader(text), Auto); err != nil {
				b.Fatal(err)
			}
		}
	})
	p, err := parseFeed(bytes.NewReader(text), Auto)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("spare", func(b *testing.B) {
		for b.Loop() {
			p.spare(nil)
		}
	})
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			p.list.encode()
		}
	})
	b.Run("batch", func(b *testing.B) {
		f := wantedFeed{&Feed{Name: "x", Counts: p.list.counts()}, time.Hour}
		for b.Loop() {
			batch := nft.NewBatch()
			f.fill(batch, inet, &p.list)
		}
	})
}
