package packages

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"testing"
)

// TestOwners: a snapshot knows whose every path was, also by its other name and
// after the package has gone, and what has changed since.
func TestOwners(t *testing.T) {
	root, debs := dpkgRoot(t), t.TempDir()
	install(t, root, buildDeb(t, debs, control("a", "1", "all"), map[string]string{"/bin/a": "a", "/usr/share/a/x": "x"}, nil), buildDeb(t, debs, control("b", "1", "all"), map[string]string{"/lib/b.so": "b"}, nil))
	run(t, "update-alternatives", "--root", root, "--log", "/dev/null", "--install", "/usr/bin/editor", "editor", "/usr/bin/a", "1")
	s := open(t, root)
	taken, err := s.Owners(t.Context())
	must(t, err)
	run(t, "dpkg", "--root="+root, "--force-not-root", "--log=/dev/null", "-r", "b")
	install(t, root, buildDeb(t, debs, control("a", "2", "all"), map[string]string{"/bin/a": "a"}, nil))
	o, err := DecodeOwners(taken.Encode())
	must(t, err)
	for path, want := range map[string]string{"/bin/a": "a", "/usr/bin/a": "a", "/usr/share/a/x": "a", "/usr/share/a": "a", "/usr/lib/b.so": "b", "/lib/b.so": "b", "/usr/bin/editor": "a", "/etc/alternatives/editor": "a", "/usr/bin/other": "", "/": ""} {
		if p, ok := o.Lookup([]byte(path)); p.Name != want || ok != (want != "") || ok && p.Version != "1" {
			t.Errorf("%s: %v", path, p)
		}
	}
	now, err := open(t, root).Packages(t.Context())
	must(t, err)
	came, went := o.Changed(now)
	if len(came) != 1 || came[0] != (Package{Dpkg, "a", "2", "all"}) || len(went) != 2 || went[0].Name != "a" || went[1].Name != "b" {
		t.Errorf("came %v, went %v", came, went)
	}
}

// TestOwnersOfThisMachine: every path of the real database is found again, in
// a snapshot of a bounded size, and what is not in it is not.
func TestOwnersOfThisMachine(t *testing.T) {
	if _, err := os.Stat("/var/lib/dpkg/status"); err != nil {
		t.Skip("NOT RUN: this machine has no dpkg database")
	}
	s := open(t, "/")
	taken, err := s.Owners(t.Context())
	must(t, err)
	b := taken.Encode()
	if max := 12*taken.Paths() + 64*len(taken.Packages()); len(b) > max {
		t.Errorf("%d bytes for %d paths", len(b), taken.Paths())
	}
	o, err := DecodeOwners(b)
	must(t, err)
	n := 0
	must(t, s.Each(t.Context(), func(path []byte, f *File) error {
		if _, ok := o.Lookup(path); !ok {
			t.Errorf("%s has no owner", path)
		}
		if _, ok := o.Lookup(append(path, 'x', '~')); ok {
			t.Errorf("%sx~ has an owner", path)
		}
		n++
		return nil
	}))
	if n < taken.Paths() {
		t.Errorf("%d paths by Each, %d in the snapshot", n, taken.Paths())
	}
}

// TestOwnersDamaged: no damage makes it crash, or read what is not there.
func TestOwnersDamaged(t *testing.T) {
	root := t.TempDir()
	put(t, root, apkInstalled[0], apkInstalledText())
	taken, err := open(t, root).Owners(t.Context())
	must(t, err)
	good := taken.Encode()
	if _, err := DecodeOwners(good); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range good {
		if _, err := DecodeOwners(good[:n]); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
		b := bytes.Clone(good)
		b[n] ^= 1 << rng.IntN(8)
		if _, err := DecodeOwners(b); err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d: %v", n, err)
		}
	}
}
