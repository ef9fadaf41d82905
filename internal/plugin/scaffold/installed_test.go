package scaffold

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/mobileops/mobileops/internal/plugin/host"
	"github.com/mobileops/mobileops/internal/plugin/pack"
	"github.com/mobileops/mobileops/internal/plugin/sandbox"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/trust"
)

// installed is the plugin disk-watch on a host, where it is confined as
// everywhere: nothing that its plugin.yaml does not permit works.
type installed struct {
	*testing.T
	engine *plugin.Engine
}

// install installs a package. Where the kernel cannot confine it, the test ends
// here: all that comes before has been seen by then.
func install(t *testing.T, archive []byte, key trust.PublicKey) *installed {
	t.Helper()
	if s := sandbox.Detect(); s.Landlock < 3 || !s.Seccomp || !s.Held {
		t.Skipf("NOT RUN to its end: this host cannot confine plugins: %+v", s)
	}
	dir, err := os.MkdirTemp("", "scaffold") // which accounts of plugins can go through, unlike t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		// Data of its own has it keep an account that plugins of other tests do
		// not have: the kernel counts the processes of all of them together.
		const account = 60990
		data := filepath.Join(dir, "plugins", "data", "disk-watch")
		kept := filepath.Join(data, "kept") // without anything in it, it would be swept away
		if err := errors.Join(os.MkdirAll(data, 0o700), os.WriteFile(kept, nil, 0o600), os.Chown(data, account, account), os.Chown(kept, account, account)); err != nil {
			t.Fatal(err)
		}
	}
	e := plugin.New(plugin.Options{
		State: state.New(filepath.Join(dir, "state"), state.Options{}), Dir: filepath.Join(dir, "plugins"), ConfigDir: filepath.Join(dir, "config"),
		KeysDir: filepath.Join(dir, "keys"), Product: "devel", HostID: "test", Now: time.Now,
	})
	pkg, err := pack.OpenReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := e.Inspect(t.Context(), pkg, plugin.Source{Text: "a test", Pinned: &key})
	if err != nil {
		t.Fatal(err)
	}
	defer plan.Close()
	if _, err := e.Install(t.Context(), plan, plugin.Consent{Permissions: true, Unenforced: true, By: "test"}); err != nil {
		t.Fatal(err)
	}
	return &installed{t, e}
}

// call runs the plugin, which has to end with status 0, and returns what it
// printed.
func (h *installed) call(c plugin.Call) string {
	h.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		h.Fatal(err)
	}
	defer r.Close()
	c.Stdout, c.Stderr = w, w
	c.OnError = func(err error) { h.Errorf("%v: %v", c.Args, err) }
	run, err := h.engine.Start(h.Context(), "disk-watch", c)
	w.Close()
	if err != nil {
		h.Fatal(err)
	}
	guard := time.AfterFunc(time.Minute, func() { run.End(0) })
	defer guard.Stop()
	out, _ := io.ReadAll(r)
	if status, err := run.Wait(); err != nil || status != 0 {
		h.Fatalf("%v: status %d, %v\n%s", c.Args, status, err, out)
	}
	return string(out)
}

// serve starts the service, waits until it is ready, and stops it.
func (h *installed) serve(args ...string) {
	h.Helper()
	ready := make(chan struct{})
	run, err := h.engine.Start(h.Context(), "disk-watch", plugin.Call{
		Role: host.RoleService, Args: args, Group: true, OnReady: func() { close(ready) },
		OnError: func(err error) { h.Errorf("%v: %v", args, err) },
	})
	if err != nil {
		h.Fatal(err)
	}
	select {
	case <-ready:
	case <-time.After(time.Minute):
		h.Errorf("%v is not ready after a minute", args)
	}
	run.End(time.Minute)
	if status, err := run.Wait(); err != nil || status != 0 {
		h.Errorf("%v: status %d, %v", args, status, err)
	}
}
