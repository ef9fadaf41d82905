package history

import (
	"fmt"
	"testing"

	"github.com/mobileops/mobileops/internal/state"
)

// BenchmarkVerify measures what a check pays for a history of some length:
// reading it and verifying every digest and the last signature.
func BenchmarkVerify(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			log := New(state.New(b.TempDir(), state.Options{}), Options{Host: thisHost})
			pen, err := log.Pen(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			err = log.store.Update(b.Context(), func(tx *state.Tx) error {
				for range n {
					if _, err := pen.Append(tx, act("default", "aaaa")); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				v, err := log.quickly(b)
				if err != nil || v.Signed+v.Covered != n || len(v.Problems) > 0 {
					b.Fatal(v, err)
				}
			}
		})
	}
}

// quickly verifies as a check does.
func (l *Log) quickly(b *testing.B) (*Verification, error) {
	c, err := l.Chain(b.Context())
	if err != nil {
		return nil, err
	}
	return l.VerifyChain(c, true)
}
