package plugin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/pack"
	"github.com/mobileops/mobileops/internal/plugin/sandbox"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/trust"
)

// TestAnotherSigner offers an upgrade that another trusted key signed: somebody
// has to agree, though it asks for no more than before.
func TestAnotherSigner(t *testing.T) {
	w := newWorld(t)
	w.install(w.pack("hello", "1.0.0", 1, "", "echo one"))
	if _, plan, err := w.try(w.pack("hello", "1.1.0", 2, "", "echo same"), Consent{}); err != nil || len(plan.Grew) != 0 {
		t.Errorf("of the same key: %v", err)
	}
	secret, public, err := trust.SecretKeyFile(nil)
	if err != nil {
		t.Fatal(err)
	}
	if w.signer, err = trust.OpenSigner(t.Context(), w.write("other.key", string(secret), 0o600), nil); err != nil {
		t.Fatal(err)
	}
	w.trust(public)
	taken := w.pack("hello", "9.0.0", 9, "", "echo taken over")
	_, plan, err := w.try(taken, Consent{})
	w.fails(err, failure.Usage, "is signed by another key")
	if plan == nil || len(plan.Grew) != 1 || plan.Grew[0].Kind != "signer" || plan.Grew[0].What != public.ID() || plan.Grew[0].Before != w.key.ID() {
		t.Errorf("%+v", plan)
	}
	if _, out, err := w.run("hello"); err != nil || out != "same\n" {
		t.Errorf("%q, %v", out, err)
	}
	w.install(taken)

	// As if it came with mobileops.
	bundled := func(path string) (*Plan, error) {
		p, err := pack.Open(path)
		if err != nil {
			return nil, err
		}
		return w.Inspect(t.Context(), p, Source{Text: "mobileops", Pinned: &public})
	}
	for n, want := range []int{1, 0} { // the second time it comes from there, too
		if plan, err = bundled(w.pack("hello", "10.0.0", uint64(10+n), "", "")); err != nil || len(plan.Grew) != want {
			t.Fatalf("%+v, %v", plan, err)
		}
		if _, err := w.Install(t.Context(), plan, Consent{Permissions: true}); err != nil {
			t.Fatal(err)
		}
		plan.Close()
	}
	_, _, err = w.try(w.pack("hello", "20.0.0", 20, "", ""), Consent{})
	w.fails(err, failure.Usage, "does not come with mobileops any more")
}

// TestWithout carries what somebody did without to the next version, unless that
// runs as somebody else.
func TestWithout(t *testing.T) {
	w := newWorld(t)
	w.install(w.pack("hello", "1.0.0", 1, "", ""))
	_, err := w.change(t.Context(), "hello", "test", func(_ *state.Tx, r *Record) error {
		r.Without = []sandbox.Layer{sandbox.Landlock}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := w.install(w.pack("hello", "2.0.0", 2, "", "")); len(r.Without) != 1 {
		t.Errorf("%v", r.Without)
	}
	if r := w.install(w.pack("hello", "3.0.0", 3, "permissions: {run_as: root}\n", "")); len(r.Without) != 0 {
		t.Errorf("as root it does without %v, too", r.Without)
	}
}

// TestOtherPermissions installs again what was accepted with other permissions
// than this mobileops sees in it: it is not started, and says to do that.
func TestOtherPermissions(t *testing.T) {
	w := newWorld(t)
	path := w.pack("hello", "1.0.0", 1, "permissions: {read: [/etc/hostname]}\n", "echo one")
	w.install(path)
	_, err := w.change(t.Context(), "hello", "test", func(_ *state.Tx, r *Record) error {
		r.Accepted = strings.Repeat("0", 64)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = w.run("hello")
	w.fails(err, failure.Untrustworthy, "install it again")
	_, _, err = w.try(path, Consent{})
	w.fails(err, failure.Usage, "/etc/hostname")
	w.install(path)
	if _, out, err := w.run("hello"); err != nil || out != "one\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestOlderProduct starts what was installed with a mobileops that is too old
// for it.
func TestOlderProduct(t *testing.T) {
	w := newWorld(t)
	w.install(w.pack("hello", "1.0.0", 1, "", "echo one"))
	w.install(w.pack("hello", "2.0.0", 2, "min_version: 1.0.0\n", "echo two"))
	w.opts.Product = "0.9.0"
	_, _, err := w.run("hello")
	w.fails(err, failure.NotReady, "1.0.0")
	if _, err := w.Rollback(t.Context(), "hello"); err != nil {
		t.Fatal(err)
	}
	if _, out, err := w.run("hello"); err != nil || out != "one\n" {
		t.Errorf("%q, %v", out, err)
	}
	_, err = w.Rollback(t.Context(), "hello")
	w.fails(err, failure.NotReady, "1.0.0")
}

// TestRecordOfAnother reads a record that a newer mobileops wrote.
func TestRecordOfAnother(t *testing.T) {
	w := newWorld(t)
	w.install(w.pack("hello", "1.0.0", 1, "", ""))
	err := w.opts.State.Update(t.Context(), func(tx *state.Tx) error {
		return tx.Bucket([]byte(bucket)).Put([]byte("hello"), []byte(`{"v":2,"name":"hello","news":true}`))
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Get(t.Context(), "hello")
	w.fails(err, failure.NotReady, "another mobileops")
}

// TestChangedAfterPlan changes a package after somebody agreed to what it was.
func TestChangedAfterPlan(t *testing.T) {
	w := newWorld(t)
	w.install(w.pack("hello", "1.0.0", 1, "", "echo one"))
	packed := readFile(t, w.pack("hello", "2.0.0", 2, "", "echo two"))
	outside := w.write("outside", "#!/bin/sh\necho owned\n", 0o755)
	greedy := "schema: mobileops.plugin/v1\nname: hello\nversion: 2.0.0\nsummary: A\nlicence: MIT\ncommands: [{name: \"\", summary: Do it, args: {}}]\npermissions: {read: [/]}\n"
	for what, change := range map[string]func(dir string) error{
		"the program": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "mobileops-hello"), []byte("#!/bin/sh\necho owned\n"), 0o755)
		},
		"the program by a link": func(dir string) error {
			path := filepath.Join(dir, "mobileops-hello")
			return errors.Join(os.Remove(path), os.Symlink(outside, path))
		},
		"the program by a pipe": func(dir string) error {
			path := filepath.Join(dir, "mobileops-hello")
			return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o755))
		},
		"a file more":  func(dir string) error { return os.WriteFile(filepath.Join(dir, "more"), nil, 0o644) },
		"all of it":    os.RemoveAll,
		"the manifest": func(dir string) error { return os.WriteFile(filepath.Join(dir, "plugin.yaml"), []byte(greedy), 0o644) },
	} {
		t.Run(what, func(t *testing.T) {
			dir := filepath.Join(w.dir, "package")
			archive, err := pack.OpenReader(strings.NewReader(packed))
			if err != nil {
				t.Fatal(err)
			}
			defer archive.Close()
			keys, err := trust.OpenKeys(w.opts.KeysDir)
			if err == nil {
				err = archive.Verify(keys, w.now)
			}
			if err == nil {
				err = archive.Unpack(t.Context(), dir)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			plan := w.plan(dir)
			if err := change(dir); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { _, err := w.Install(t.Context(), plan, Consent{Permissions: true}); done <- err }()
			select {
			case err = <-done:
			case <-time.After(time.Minute):
				t.Fatal("it waits")
			}
			want := "one\n"
			if what == "the manifest" { // which was read, and is written as it was signed
				want = "two\n"
			}
			if (err == nil) != (want == "two\n") {
				t.Errorf("%v", err)
			}
			if _, out, err := w.run("hello"); err != nil || out != want {
				t.Errorf("%q, %v", out, err)
			}
			if r, err := w.Verify(t.Context(), "hello"); err != nil {
				t.Errorf("%+v, %v", r, err)
			} else if left, _ := os.ReadDir(w.installedDir("hello")); len(left) != 1 && r.Previous == nil {
				t.Errorf("left: %v", left)
			} else if r.Previous != nil {
				if _, err := w.Uninstall(t.Context(), "hello", true); err != nil {
					t.Fatal(err)
				}
				r, _, err := w.try(w.write("one.tar.zst", readFile(t, filepath.Join(w.dir, "hello-1.0.0-1.tar.zst")), 0o644), Consent{Permissions: true, Downgrade: true})
				if err != nil {
					t.Fatal(r, err)
				}
			}
		})
	}
}
