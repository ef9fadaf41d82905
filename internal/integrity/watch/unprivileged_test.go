package watch

import (
	"os"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/state"
)

// unprivileged is TestUnprivileged in the process without rights.
func unprivileged(t *testing.T, dir string) {
	h := &host{t: t, mnt: dir + "/mnt"}
	h.dir = h.mnt + "/etc"
	if err := os.MkdirAll(h.dir+"/skip", 0o755); err != nil {
		t.Fatal(err)
	}
	h.sh(`echo one >etc/a`)
	h.e = &integrity.Engine{Store: state.New(dir+"/state", state.Options{}), Tool: "test"}
	h.take()
	w := h.watch()
	h.sh(`echo changed >etc/a; sleep 0.1`)
	w.file("a", Changed)
	sum := w.end()
	if w.err != nil || sum.Mode != Inotify {
		t.Fatalf("%+v, %v", sum, w.err)
	}
	if len(w.warned) == 0 || !strings.Contains(w.warned[0], "CANNOT TELL WHICH PROCESS") {
		t.Errorf("%q", w.warned)
	}
}
