package baseline

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mobileops/mobileops/pkg/filehash"
)

// TestRewrite: a rewritten baseline is what one written anew would be, and says
// where each record came from.
func TestRewrite(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	for _, c := range []struct{ records, edits int }{{0, 0}, {0, 5}, {1, 1}, {300, 30}, {20000, 0}, {20000, 3}, {20000, 400}, {9000, 9000}} {
		t.Run(fmt.Sprint(c.records, " ", c.edits), func(t *testing.T) {
			old := generate(rnd, c.records)
			path, root := write(t, old)
			var edits []Edit
			for _, r := range generate(rnd, c.edits) {
				edits = append(edits, Edit{r.Dir, r.Name, &r}) // additions
			}
			for i := range old {
				if len(old) > 0 && rnd.IntN(len(old)) < c.edits/2 {
					if rnd.IntN(2) == 0 {
						edits = append(edits, Edit{old[i].Dir, old[i].Name, nil})
						continue
					}
					r := old[i].Clone()
					r.Info.Size, r.Info.Ino = 77, 78
					edits = append(edits, Edit{r.Dir, r.Name, &r})
				}
			}
			edits = append(edits, Edit{[]byte("/no/such"), []byte("file"), nil})
			slices.SortFunc(edits, func(a, b Edit) int { return filehash.CompareKeys(a.Dir, a.Name, b.Dir, b.Name) })
			edits = slices.CompactFunc(edits, func(a, b Edit) bool { return filehash.CompareKeys(a.Dir, a.Name, b.Dir, b.Name) == 0 })

			// The model: delete and insert in a list.
			var want []Record
			var number []int
			e := 0
			for i := 0; i <= len(old); i++ {
				for e < len(edits) && (i == len(old) || filehash.CompareKeys(edits[e].Dir, edits[e].Name, old[i].Dir, old[i].Name) <= 0) {
					if edits[e].Record != nil {
						want, number = append(want, *edits[e].Record), append(number, -1)
					}
					e++
					if i < len(old) && filehash.CompareKeys(edits[e-1].Dir, edits[e-1].Name, old[i].Dir, old[i].Name) == 0 {
						i++
					}
				}
				if i < len(old) {
					want, number = append(want, old[i]), append(number, i)
				}
			}

			r, err := Open(path, root)
			if err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(t.TempDir(), "new"+Ext)
			w, err := Create(out+".tmp", out)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Abort()
			var got []int
			err = r.Rewrite(w, edits, func(old, n int) {
				for i := range n {
					if old < 0 {
						got = append(got, -1)
					} else {
						got = append(got, old+i)
					}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			blocks := r.Header.Blocks
			r.Close()
			h := &Header{ID: "fedcba9876543210", Name: "test", Parent: "0123456789abcdef"}
			newRoot, err := w.Commit(h, []byte("policy"))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, number) {
				t.Errorf("numbers differ: %d and %d", len(got), len(number))
			}
			var fresh Writer
			for i := range want {
				fresh.count(&want[i], 1)
			}
			fresh.counts.Blocks = h.Counts.Blocks
			if h.Counts != fresh.counts {
				t.Errorf("counts %+v, want %+v", h.Counts, fresh.counts)
			}
			if h.Blocks > blocks+int64(len(edits)/1000)+3 {
				t.Errorf("%d blocks became %d", blocks, h.Blocks)
			}
			r, err = Open(out, newRoot)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			i := 0
			if err := r.All(func(rec *Record) error {
				if i >= len(want) || !same(rec, &want[i]) {
					return fmt.Errorf("record %d is %s", i, rec.Path())
				}
				i++
				return nil
			}); err != nil || i != len(want) {
				t.Errorf("%d of %d records: %v", i, len(want), err)
			}
		})
	}
}
