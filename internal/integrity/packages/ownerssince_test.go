package packages

import (
	"os"
	"path/filepath"
	"testing"
)

// TestOwnersSince: of two packages that were updated one is brought up to date.
func TestOwnersSince(t *testing.T) {
	root := t.TempDir()
	info := filepath.Join(root, "var/lib/dpkg/info")
	if err := os.MkdirAll(info, 0o755); err != nil {
		t.Fatal(err)
	}
	install := func(version, aFile, bFile string) *Set {
		t.Helper()
		status := ""
		for name, file := range map[string]string{"a": aFile, "b": bFile} {
			if file == "" {
				continue
			}
			status += "Package: " + name + "\nStatus: install ok installed\nVersion: " + version + "\nArchitecture: all\n\n"
			if err := os.WriteFile(filepath.Join(info, name+".list"), []byte("/.\n"+file+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), []byte(status), 0o644); err != nil {
			t.Fatal(err)
		}
		s, err := Open(root)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	then, err := install("1", "/a/one", "/b/one").Owners(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	check := func(o *Owners, want map[string]string) {
		t.Helper()
		for path, version := range want {
			if p, _ := o.Lookup([]byte(path)); p.Version != version {
				t.Errorf("%s is of %q, want version %q", path, p, version)
			}
		}
	}
	check(then, map[string]string{"/a/one": "1", "/b/one": "1", "/a/two": "", "/b/two": ""})
	o, err := install("2", "/a/two", "/b/two").OwnersSince(t.Context(), then, func(p Package) bool { return p.Name == "a" })
	if err != nil {
		t.Fatal(err)
	}
	if o, err = DecodeOwners(o.Encode()); err != nil {
		t.Fatal(err)
	}
	check(o, map[string]string{"/a/one": "", "/a/two": "2", "/b/one": "1", "/b/two": ""})
	// b was removed, and that is brought up to date, too.
	if o, err = install("2", "/a/two", "").OwnersSince(t.Context(), o, func(p Package) bool { return p.Name == "b" }); err != nil {
		t.Fatal(err)
	}
	check(o, map[string]string{"/a/two": "2", "/b/one": ""})
}
