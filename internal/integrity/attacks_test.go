package integrity

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMappedPage: a page that was dirty before the baseline was taken is
// written once more through a shared mapping. The kernel notes only the first
// write to it, so that nothing in the inode moves. A check cannot see that,
// which its documentation says; a verify does.
func TestMappedPage(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.put("f", "the content as it was")
	f, err := os.OpenFile(b.path("f"), os.O_RDWR, 0)
	b.must(err)
	defer f.Close()
	page, err := unix.Mmap(int(f.Fd()), 0, 21, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	b.must(err)
	defer unix.Munmap(page)
	page[0] = 't' // dirty from here on
	b.take()
	b.age()
	before := stat(t, b.path("f"))
	copy(page, "THE")
	if after := stat(t, b.path("f")); after != before {
		t.Skipf("NOT RUN: this filesystem notes each write through a mapping (%+v, then %+v)", before, after)
	}
	b.expect(b.compare(CompareOptions{}))
	b.expect(b.compare(CompareOptions{Verify: true}), "changed /f content")
	b.expect(b.compare(CompareOptions{Sample: 1}), "changed /f content")
}

// times are what a check goes by.
type times struct {
	ino          uint64
	size         int64
	mtime, ctime unix.Timespec
}

func stat(t *testing.T, path string) times {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return times{st.Ino, st.Size, st.Mtim, st.Ctim}
}

// TestInodeReuse: another file gets the name, the inode number, the size and
// the modification time of one that was removed. ctime gives it away.
func TestInodeReuse(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.put("f", "innocent")
	b.take()
	b.age()
	before := stat(t, b.path("f"))
	b.must(os.Remove(b.path("f")))
	reused := false
	for i := 0; i < 200 && !reused; i++ {
		b.put("f", "maliciou")
		if reused = stat(t, b.path("f")).ino == before.ino; !reused {
			b.must(os.Remove(b.path("f")))
		}
	}
	if !reused {
		t.Skip("NOT RUN: this filesystem does not give an inode number again so soon")
	}
	mtime := time.Unix(before.mtime.Unix())
	b.must(os.Chtimes(b.path("f"), mtime, mtime))
	b.expect(b.compare(CompareOptions{}), "changed /f ctime,content")
}
