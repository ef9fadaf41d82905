package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func temps(t *testing.T, dir string) (n int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), ".tmp-") {
			n++
		}
	}
	return n
}

func TestWriteFileReplacesAndKeepsPermissions(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	path := filepath.Join(t.TempDir(), "f")
	for _, tc := range []struct {
		data string
		perm fs.FileMode
	}{{"one", 0o644}, {"two", 0o600}, {"", 0o666}} {
		if err := WriteFile(path, []byte(tc.data), tc.perm); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != tc.data {
			t.Fatalf("read %q, %v; want %q", got, err, tc.data)
		}
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != tc.perm {
			t.Fatalf("mode %v, %v; want %v", st.Mode(), err, tc.perm)
		}
	}
	if n := temps(t, filepath.Dir(path)); n != 0 {
		t.Errorf("%d temporary files are left", n)
	}
}

func TestWriteFileReplacesALinkInsteadOfFollowing(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.WriteFile(target, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(link, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(target); string(got) != "precious" {
		t.Errorf("the target of the link became %q", got)
	}
}

func TestAbortLeavesTheOldFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Create(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("new"); err != nil {
		t.Fatal(err)
	}
	if err := f.Abort(); err != nil {
		t.Fatal(err)
	}
	if err := f.Abort(); err != nil {
		t.Errorf("a second Abort: %v", err)
	}
	if err := f.Commit(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Commit after Abort: %v; want fs.ErrClosed", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "old" {
		t.Errorf("content is %q; want old", got)
	}
	if n := temps(t, filepath.Dir(path)); n != 0 {
		t.Errorf("%d temporary files are left", n)
	}
}

func TestCommitNewRefusesATakenName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	var wg sync.WaitGroup
	won := make(chan int, 8)
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			f, err := Create(path, 0o600)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Abort()
			f.Write([]byte{byte('0' + i)})
			switch err := f.CommitNew(); {
			case err == nil:
				won <- i
			case !errors.Is(err, fs.ErrExist):
				t.Errorf("CommitNew: %v; want fs.ErrExist", err)
			}
		}()
	}
	wg.Wait()
	close(won)
	if len(won) != 1 {
		t.Fatalf("%d writers won; want 1", len(won))
	}
	if got, _ := os.ReadFile(path); string(got) != string(rune('0'+<-won)) {
		t.Errorf("content %q is not the winner's", got)
	}
	if n := temps(t, filepath.Dir(path)); n != 0 {
		t.Errorf("%d temporary files are left", n)
	}
}

func TestCleanRemovesOnlyWhatNobodyWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	stale := Temp(path)
	if err := os.WriteFile(stale, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Create(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Abort()
	other := Temp(filepath.Join(filepath.Dir(path), "g"))
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Clean(path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the stale file is still there: %v", err)
	}
	for _, name := range []string{f.Name(), other} {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("%s was removed: %v", name, err)
		}
	}
	if err := f.Commit(); err != nil {
		t.Error(err)
	}
}

func TestWriteFileRemovesWhatAKilledOneLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(Temp(path), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("whole"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := temps(t, filepath.Dir(path)); n != 0 {
		t.Errorf("%d temporary files are left", n)
	}
}

func TestSpecialFilesAreNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("x"), 0o600); err == nil || !strings.Contains(err.Error(), path+": not a regular file") {
		t.Errorf("WriteFile over a FIFO: %v", err)
	}
	tmp := Temp(path)
	if err := os.WriteFile(tmp, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Publish(tmp, path); err == nil {
		t.Error("Publish replaced a FIFO")
	}
	if st, err := os.Lstat(path); err != nil || st.Mode().Type() != fs.ModeNamedPipe {
		t.Errorf("it became %v, %v", st.Mode(), err)
	}
	if os.Remove(tmp); temps(t, filepath.Dir(path)) != 0 {
		t.Error("temporary files are left")
	}
}

func TestPublish(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, data := range []string{"one", "two"} {
		tmp := Temp(path)
		if err := os.WriteFile(tmp, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Publish(tmp, path); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); string(got) != data {
			t.Errorf("content %q; want %q", got, data)
		}
	}
	tmp := Temp(path)
	if err := os.WriteFile(tmp, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := PublishNew(tmp, path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("PublishNew over a file: %v; want fs.ErrExist", err)
	}
}

func TestMkdirAll(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	root := t.TempDir()
	dir := filepath.Join(root, "a", "b")
	for range 2 {
		if err := MkdirAll(dir, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if st, err := os.Stat(d); err != nil || st.Mode().Perm() != 0o750 {
			t.Errorf("%s: %v, %v; want mode 0750", d, st.Mode(), err)
		}
	}
	file := filepath.Join(root, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := MkdirAll(filepath.Join(file, "x"), 0o700); err == nil {
		t.Error("a directory beneath a file was made")
	}
}
