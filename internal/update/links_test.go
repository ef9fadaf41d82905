package update_test

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mobileops/mobileops/internal/update"
)

// inodes counts the inodes of the files in the live tree.
func (s *site) inodes() map[uint64]int {
	s.Helper()
	root, err := filepath.EvalSymlinks(s.target())
	if err != nil {
		s.Fatal(err)
	}
	seen := map[uint64]int{}
	err = filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			seen[info.Sys().(*syscall.Stat_t).Ino]++
		}
		return err
	})
	if err != nil {
		s.Fatal(err)
	}
	return seen
}

// TestLinksRunOut applies packages of 66,000 files with the same content, on a
// filesystem whose inodes have 65,000 links at most.
func TestLinksRunOut(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	const n = 66_000
	s := newSite(t)
	d := newExt4(t, "192M", "-N", "12000", "-O", "^has_journal")
	s.moveTo(d.at)
	tree := files{"version": "1"}
	for i := range n {
		tree[fmt.Sprintf("d%02d/f%05d", i%100, i)] = ""
	}
	s.apply(s.pack(1, "", tree))
	if got := len(s.inodes()); got > 6 {
		t.Errorf("%d files share %d inodes", n, got)
	}
	s.apply(s.pack(2, "", files{"version": "2"}))
	if seen := s.inodes(); len(seen) > 10 {
		t.Errorf("%d files share %d inodes after an overlay", n, len(seen))
	}
	tree["version"] = "3"
	s.apply(s.pack(3, "kind: full\n", tree))
	s.is(tree)
	if got := len(s.inodes()); got > 14 {
		t.Errorf("%d files share %d inodes after a full package", n, got)
	}
	if _, err := s.engine().Rollback(context.Background(), 1, nil); err != nil {
		t.Fatal(err)
	}
	tree["version"] = "1"
	s.is(tree)
	s.verified()
	if _, err := s.engine().Prune(context.Background(), 0, new(update.Notice)); err != nil {
		t.Fatal(err)
	}
	s.verified()
}

// TestPlaces: where a store and an installation cannot be, and what is said.
func TestPlaces(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	refused := func(s *site, what string, want ...string) {
		t.Helper()
		p := s.pack(9, "", files{"a": "9"})
		live := s.tree()
		_, err := s.engine().Apply(context.Background(), update.Request{Path: p}, nil)
		if got := s.tree(); !maps.Equal(got, live) {
			t.Errorf("%s: live is %v, before %v", what, got, live)
		}
		for _, left := range s.store() { // an empty store is no harm
			if strings.Contains(left, "generations/2") || strings.Contains(left, ".partial") || strings.HasPrefix(left, "current") && len(live) == 0 {
				t.Errorf("%s: %s is left behind", what, left)
			}
		}
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, not %q", what, err, w)
			}
		}
	}
	s := newSite(t)
	if err := os.Mkdir(s.target(), 0o755); err != nil {
		t.Fatal(err)
	}
	mount(t, "none", s.dir+"/app.store", "tmpfs", "mode=755", 0)
	refused(s, "the store on another filesystem", "are on different filesystems")

	s = newSite(t)
	mount(t, "none", s.target(), "tmpfs", "", 0)
	refused(s, "the installation is a mount point", "are on different filesystems")

	// Of the same filesystem, so that only the exchange can tell.
	s = newSite(t)
	if err := os.Mkdir(s.dir+"/elsewhere", 0o755); err != nil {
		t.Fatal(err)
	}
	mount(t, s.dir+"/elsewhere", s.target(), "", "", syscall.MS_BIND)
	refused(s, "the installation is bound", "it is a mount point")

	s = newSite(t)
	if err := os.Mkdir(s.target(), 0o755); err != nil {
		t.Fatal(err)
	}
	mount(t, "none", s.target()+"/deep/er", "tmpfs", "", 0)
	refused(s, "a mount inside of it", "deep/er is a mount point, and no update could take it along")

	s = newSite(t)
	s.apply(s.pack(1, "", files{"a": "1", "deep/er/x": "1"}))
	mount(t, "none", s.dir+"/app.store/generations/1/tree/deep/er", "tmpfs", "", 0)
	refused(s, "a mount inside of a generation", "deep/er is a mount point, and no update could take it along")
	if _, err := s.engine().Rollback(context.Background(), 0, nil); err == nil {
		t.Error("went back beyond the first")
	}
}
