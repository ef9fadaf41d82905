package state

import (
	"fmt"
	"strings"
	"testing"
)

// What a lease costs, beside small and larger databases: Update includes two
// fsyncs of the disk that holds the temporary directory.
func BenchmarkLease(b *testing.B) {
	for _, mib := range []int{0, 2, 32} {
		s := New(b.TempDir(), Options{})
		err := s.Update(ctx, func(tx *Tx) error {
			for i := range 1 + mib*100 {
				if err := putter(fmt.Sprint("k", i), strings.Repeat("x", 10_000))(tx); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("View/%dMiB", mib), func(b *testing.B) {
			for b.Loop() {
				if err := s.View(ctx, func(*Tx) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("Update/%dMiB", mib), func(b *testing.B) {
			for b.Loop() {
				if err := s.Update(ctx, putter("a", "1")); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("Check/%dMiB", mib), func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Check(ctx); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
