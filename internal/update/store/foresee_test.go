package store_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/update/pack"
	"github.com/mobileops/mobileops/internal/update/store"
)

func (h *host) foresee(data []byte) (*store.Foreseen, error) {
	h.Helper()
	r, err := pack.NewReader(bytes.NewReader(data), archive.DefaultLimits())
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return h.Foresee(context.Background(), store.Request{
		Package: r, Now: time.Now(), By: "root",
		Prove: func() (store.Origin, error) { return store.Origin{Name: "platform", Version: "1", Sequence: 1}, nil },
	})
}

// What is foreseen is what is staged, or the same refusal, and nothing is there
// afterwards that was not before.
func TestForeseeIsStage(t *testing.T) {
	h := newHost(t)
	const rules = "config: [etc/**]\ndata: [var]\n"
	edited := false // since the last activation
	for n, step := range []struct {
		manifest string
		tree     files
		edit     func()
	}{
		{rules, files{"a": "1", "b 755": "2", "etc/x": "x = 1\n", "var/seed": "s", "deep/er/c": "3"}, nil},
		{rules, files{"a": "two", "etc/x": "x = 2\n", "new/c": "3"}, nil},
		{rules, files{"a": "three", "etc/x": "x = 3\n"}, func() { h.write("etc/x", "x = mine\n"); h.write("own", "mine"); h.write("b", "edited") }},
		{rules, files{"new": "a file"}, nil}, // over a directory: refused
		{rules + "remove: [new]\n", files{"new": "a file"}, nil},
		{rules, files{"etc/x": "4", "etc/x.mobileops-new": "clash"}, func() { h.write("etc/x", "x = mine again\n") }},
		{rules + "kind: full\n", files{"d": "4", "etc/y": "y\n"}, nil},
		{rules, files{"var2/x": "5"}, func() { _ = os.Remove(h.Target() + "/d") }},
	} {
		if step.edit != nil {
			step.edit()
			edited = true
		}
		data := pkg(t, step.manifest, step.tree)
		before := tree(t, h.Dir())
		seen, err := h.foresee(data)
		if after := tree(t, h.Dir()); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("step %d: before\n%q, after\n%q", n, before, after)
		}
		g, failed := h.stage(data)
		if fmt.Sprint(err) != fmt.Sprint(failed) {
			t.Errorf("step %d: foreseen %v, and it was %v", n, err, failed)
		}
		if err != nil || failed != nil {
			continue
		}
		f := seen.Generation
		if f.Number != g.Number || f.Base != g.Base || !slices.Equal(f.Edited, g.Edited) || !slices.Equal(f.Left, g.Left) || fmt.Sprint(f.Settled) != fmt.Sprint(g.Settled) {
			t.Errorf("step %d: foreseen\n%+v, and it was\n%+v", n, f, g)
		}
		if !edited && g.Base > 0 { // a diff compares with what was, and not with what is there
			list, err := h.Diff(g.Base, g.Number)
			if err != nil {
				t.Fatal(err)
			}
			var want, got []string
			for _, d := range list {
				want = append(want, d.Kind+" "+d.Path)
			}
			for _, d := range seen.Differences {
				got = append(got, d.Kind+" "+d.Path)
			}
			if !slices.Equal(got, want) {
				t.Errorf("step %d: foreseen %q, and it was %q", n, got, want)
			}
		}
		if _, err := h.activate(g.Number); err != nil {
			t.Fatal(err)
		}
		edited = false
	}
}
