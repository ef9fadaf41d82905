package store

import (
	"fmt"
	"testing"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// BenchmarkSnapshot is what a search pays before it reads anything.
func BenchmarkSnapshot(b *testing.B) {
	for _, n := range []int{500, 5000} {
		s, _ := newStore(b, nil)
		w := writer(b, s)
		for i := range n {
			appendTo(b, w, Batch{Key: "k", Origin: event.Origin{Source: fmt.Sprintf("/var/log/source%04d.log", i%50)},
				Records: []event.Record{{Time: day0.AddDate(0, 0, i/50).UnixNano(), Raw: []byte("x")}}, Cursor: []byte("x")})
			if i%1000 == 999 || i == n-1 {
				flushed(b, w)
			}
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				snap, err := s.Snapshot(ctx, Everything())
				if err != nil {
					b.Fatal(err)
				}
				if len(snap.Segments) != n {
					b.Fatalf("%d segments", len(snap.Segments))
				}
				snap.Close()
			}
		})
	}
}

// BenchmarkAppend includes the sync of every call.
func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, _ := newStore(b, nil)
			w := writer(b, s)
			batches := []Batch{batch("a", 0, n)}
			for _, r := range batches[0].Records {
				b.SetBytes(int64(n * len(r.Raw)))
			}
			for b.Loop() {
				if err := w.Append(ctx, batches); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
