package integrity

import (
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"golang.org/x/sys/unix"
)

// TestManyUnreadDirectories: their paths are in the catalogue, so they must not
// make it grow without bound. All are reported nevertheless.
func TestManyUnreadDirectories(t *testing.T) {
	b := newBench(t, plainPolicy)
	const children = 30
	name := strings.Repeat("x", 255)
	fd, err := unix.Open(b.tree, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	b.must(err)
	for range 64 { // as far as a walk goes
		b.must(unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		b.must(err)
		fd = next
	}
	defer unix.Close(fd)
	for i := range children {
		b.must(unix.Mkdirat(fd, string(rune('a'+i))+name[1:], 0o755))
	}
	taken := b.take()
	total := 0
	for _, d := range taken.Entry.Unread {
		total += len(d)
	}
	if len(taken.Problems) != children || total > baseline.MaxUnreadBytes || total < baseline.MaxUnreadBytes/2 {
		t.Errorf("%d problems, %d bytes of unread directories", len(taken.Problems), total)
	}
	if r := b.compare(CompareOptions{}); len(r.Problems) != children || len(r.Changes) > 0 {
		t.Errorf("%d problems, %d changes", len(r.Problems), len(r.Changes))
	}
}
