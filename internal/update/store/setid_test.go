package store_test

import (
	"os"
	"testing"
)

// TestSetIDProgramsOfOldGenerations: what an update has mended is not run any
// more by whoever knows where it was.
func TestSetIDProgramsOfOldGenerations(t *testing.T) {
	h := newHost(t)
	mode := func(n int) os.FileMode {
		t.Helper()
		st, err := os.Stat(h.Tree(n) + "/..")
		if err != nil {
			t.Fatal(err)
		}
		return st.Mode().Perm()
	}
	h.apply(pkg(t, "", files{"a": "1"}))
	const manifest = "setuid: [{path: bin/ping, mode: \"4755\"}]\n"
	h.apply(pkg(t, manifest, files{"bin/ping 4755": "bad"}))
	h.apply(pkg(t, manifest, files{"bin/ping 4755": "good"}))
	g, err := h.stage(pkg(t, manifest, files{"bin/ping 4755": "next"}))
	if err != nil {
		t.Fatal(err)
	}
	if g.Stats.SetID != 1 {
		t.Errorf("%+v", g.Stats)
	}
	check := func(want ...os.FileMode) {
		t.Helper()
		for i, w := range want {
			if got := mode(i + 1); got != w {
				t.Errorf("generation %d has mode %o, not %o", i+1, got, w)
			}
		}
	}
	check(0o755, 0o700, 0o755, 0o700)
	if _, err := h.activate(2); err != nil {
		t.Fatal(err)
	}
	check(0o755, 0o755, 0o700, 0o700)
	if err := os.Chmod(h.Tree(3)+"/..", 0o755); err != nil { // as a crash could leave it
		t.Fatal(err)
	}
	if _, err := h.activate(1); err != nil {
		t.Fatal(err)
	}
	check(0o755, 0o700, 0o700, 0o700)
	h.is(files{"a": "1"})
}
