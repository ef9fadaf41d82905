package filehash

import (
	"context"
	"testing"
)

// vouching knows every file, so that a walk only lists and stats.
type vouching struct{}

func (vouching) Lookup(_, _ []byte, _ *Info) PriorAnswer { return PriorAnswer{Known: true} }

type statOnly struct{}

func (statOnly) Select([]byte) (Want, any) { return WantEntry | WantContent | WantPrior, nil }
func (statOnly) Enter([]byte) Selector     { return statOnly{} }
func (statOnly) Names() ([]string, bool)   { return nil, false }

// BenchmarkWalk walks /usr/share: listing and statting alone, and with all
// content read and hashed.
func BenchmarkWalk(b *testing.B) {
	for _, c := range []struct {
		name string
		opts Options
	}{
		{"stat", Options{Select: statOnly{}, NewPrior: func() Prior { return vouching{} }}},
		{"hash", Options{}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var ctr Counters
			c.opts.Counters = &ctr
			for b.Loop() {
				if err := Walk(context.Background(), "/usr/share", c.opts, func(*Batch) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
			n := float64(b.N)
			b.ReportMetric(float64(ctr.Files.Load())/n, "entries/op")
			b.ReportMetric(float64(ctr.Bytes.Load())/n/1e6, "MB/op")
		})
	}
}
