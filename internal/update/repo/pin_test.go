package repo

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
)

func TestWhoCanReplaceThePinnedRoot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etc")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path, link := filepath.Join(dir, "root.json"), filepath.Join(dir, "link.json")
	mustWrite(t, path, []byte("{}"))
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	chmod := func(name string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{path, link} {
		if data, err := ReadRoot(p); err != nil || string(data) != "{}" {
			t.Fatalf("%q, %v", data, err)
		}
		chmod(path, 0o666)
		_, err := ReadRoot(p)
		refused(t, err, CodeRoot, failure.Untrustworthy)
		chmod(path, 0o644)
		chmod(dir, 0o777)
		_, err = ReadRoot(p)
		refused(t, err, CodeRoot, failure.Untrustworthy)
		chmod(dir, 0o777|os.ModeSticky)
		if _, err := ReadRoot(p); err != nil {
			t.Error(err)
		}
		chmod(dir, 0o755)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 1000, 1000); err != nil {
			t.Fatal(err)
		}
		_, err := ReadRoot(path)
		refused(t, err, CodeRoot, failure.Untrustworthy)
		if err := os.Chown(path, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	_, err := ReadRoot(path)
	refused(t, err, CodeTooLarge, failure.Untrustworthy)
	_, err = ReadRoot(dir)
	refused(t, err, CodeRoot, failure.Untrustworthy)
	if _, err = ReadRoot(filepath.Join(dir, "none")); failure.KindOf(err) != failure.NotReady {
		t.Error(err)
	}
}
