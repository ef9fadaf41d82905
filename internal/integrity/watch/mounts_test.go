package watch

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const table = `24 1 254:0 / / rw,relatime - ext4 /dev/vda rw
25 24 0:5 / /proc rw - proc proc rw
30 24 0:30 / /srv rw - tmpfs none rw
31 30 0:31 / /srv/data rw - tmpfs none rw
32 24 254:0 /home/shared /mnt/with\040blank rw - ext4 /dev/vda rw
40 24 0:40 / /over rw - tmpfs none rw
41 40 0:41 / /over rw - tmpfs none rw
50 24 0:50 / /hidden/deep rw - tmpfs none rw
51 24 0:51 / /hidden rw - tmpfs none rw
`

func TestMountTable(t *testing.T) {
	m, err := parseMounts([]byte(table))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/": 24, "/etc/passwd": 24, "/proc/1": 25, "/srvx": 24, "/srv": 30, "/srv/a": 30, "/srv/data/a": 31, "/mnt/with blank/x": 32,
		"/over/a": 41, "/hidden/deep/x": 51, "/hidden": 51,
	} {
		if got := m.owner([]byte(path)).id; got != want {
			t.Errorf("%s lies on %d, want %d", path, got, want)
		}
	}
	for text, line := range map[string]int{"": 0, "1 2 3\n": 1, table + "x 24 0:5 / /proc rw - proc proc rw\n": 10, "24 1 254:0 / etc rw - ext4 /dev/vda rw\n": 1} {
		_, err := parseMounts([]byte(text))
		if e, ok := err.(*MountError); !ok || e.Line != line {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzMounts(f *testing.F) {
	f.Add([]byte(table))
	f.Add([]byte("1 1 0:1 / / rw - x y z\n2 1 0:1 / \\040 rw - x y z\n"))
	f.Add([]byte("1 2 0:1 / /a rw - x y z\n2 1 0:1 / /a rw - x y z\n3 3 0:1 / / rw - x y z\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseMounts(data)
		if err != nil {
			return
		}
		for _, x := range m.list {
			m.owner(x.point) // comes back
		}
	})
}

func TestFilesystemsComeAndGo(t *testing.T) {
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("NOT RUN: a filesystem that is unmounted and mounted again needs mkfs.ext4 (apt-get install e2fsprogs)")
	}
	h := newHost(t)
	point := filepath.Join(h.dir, "vol")
	h.sh(`truncate -s 20M other/img; mkfs.ext4 -q other/img; mkdir etc/vol; mount -o loop other/img etc/vol; rmdir etc/vol/lost+found; echo first >etc/vol/f`)
	t.Cleanup(func() { unix.Unmount(point, unix.MNT_DETACH) })
	h.take()
	w := h.watch()

	h.sh(`echo changed >etc/vol/f; sleep 0.1`)
	w.file("vol/f", Changed)
	h.sh(`mount -o remount,ro etc/vol; mount -o remount,rw etc/vol; echo still >etc/vol/g; sleep 0.1`)
	w.file("vol/g", Added)

	// The watch does not keep it busy.
	h.sh(`for i in $(seq 600); do umount etc/vol && exit; sleep 0.1; done; exit 1`) // it may read a file of it just then
	r := w.await("the unmounting", func(r *Record) bool { return r.Kind == MountRecord && strings.Contains(r.Text, "unmounted") })
	if string(r.Path) != point {
		t.Errorf("%+v", r)
	}
	w.file("vol/f", Removed)
	h.sh(`echo below >etc/vol/below; sleep 0.1`)
	w.file("vol/below", Added)
	h.sh(`rm etc/vol/below; sleep 0.3; mount -o loop other/img etc/vol; sleep 0.3`)
	w.await("the mounting", func(r *Record) bool { return r.Kind == MountRecord && r.Text == "ext4 mounted" })
	h.sh(`echo again >etc/vol/h; sleep 0.1`)
	w.file("vol/h", Added)
	h.awaitFindings("watch-changed vol/f", "watch-added vol/g", "watch-added vol/h")
	if sum := w.end(); len(sum.Incomplete) > 0 {
		t.Errorf("%q", sum.Incomplete)
	}
}

func TestBindMountsAreSeenAtBothPaths(t *testing.T) {
	h := newHost(t)
	h.sh(`mkdir etc/bound; mount --bind other etc/bound`)
	t.Cleanup(func() { unix.Unmount(h.dir+"/bound", unix.MNT_DETACH) })
	h.take()
	w := h.watch()
	h.sh(`echo x >other/through; sleep 0.1`)
	w.file("bound/through", Added)
	h.sh(`echo x >etc/bound/direct; sleep 0.1`)
	w.file("bound/direct", Added)
}

func TestAnotherFilesystemBelowIsCoveredWhenThePolicyCrosses(t *testing.T) {
	h := newHost(t)
	w := h.watch()
	if err := os.Mkdir(h.dir+"/new", 0o755); err != nil { // by this process: not told
		t.Fatal(err)
	}
	mountTmpfs(t, h.dir+"/new")
	w.await("the mounting", func(r *Record) bool { return r.Kind == MountRecord })
	h.sh(`echo x >etc/new/x; sleep 0.1`)
	w.file("new/x", Added)
}
