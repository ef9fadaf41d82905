package source

import (
	"encoding/binary"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// notifier is told by inotify(7) when files change. Where that is not so, on
// file systems of other machines or beyond the limit of watches, sources are
// looked at more often.
type notifier struct {
	c     *Collector
	f     *os.File // nil: there is no inotify
	byDir map[string]int32
	names chan map[int32]string // holds the directories by their watches
	done  func()
}

const notifyMask = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ATTRIB | unix.IN_ONLYDIR

func newNotifier(c *Collector) *notifier {
	n := &notifier{c: c, byDir: map[string]int32{}, names: make(chan map[int32]string, 1), done: func() {}}
	n.names <- map[int32]string{}
	if c.deaf {
		return n
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return n
	}
	n.f = os.NewFile(uintptr(fd), "inotify")
	n.done = goWait(n.run)
	return n
}

func (n *notifier) close() {
	if n.f != nil {
		n.f.Close()
	}
	n.done()
}

// watch watches exactly these directories, and reports whether all changes
// below them will be told.
func (n *notifier) watch(dirs map[string]bool) (announced bool) {
	if n.f == nil {
		return false
	}
	raw, err := n.f.SyscallConn()
	if err != nil {
		return false
	}
	announced = true
	names := <-n.names
	defer func() { n.names <- names }()
	err = raw.Control(func(fd uintptr) {
		for dir, wd := range n.byDir {
			if !dirs[dir] {
				unix.InotifyRmWatch(int(fd), uint32(wd))
				delete(n.byDir, dir)
				delete(names, wd)
			}
		}
		for dir := range dirs {
			// Adding a watch again is no error, and finds a directory that took
			// the place of another one.
			wd, err := unix.InotifyAddWatch(int(fd), n.c.tree.outside(dir), notifyMask)
			if err != nil {
				announced = false
				continue
			}
			n.byDir[dir] = int32(wd)
			names[int32(wd)] = dir
			if remote(n.c.tree.outside(dir)) {
				announced = false
			}
		}
	})
	return announced && err == nil
}

// remote reports whether other machines, or programs that the kernel does not
// see, may write to a directory. statfs(2) lists the numbers.
func remote(dir string) bool {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return true
	}
	switch uint32(st.Type) {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC,
		unix.FUSE_SUPER_MAGIC, unix.V9FS_MAGIC, unix.CEPH_SUPER_MAGIC, unix.AFS_SUPER_MAGIC, unix.CODA_SUPER_MAGIC,
		unix.OVERLAYFS_SUPER_MAGIC, // changes of its lower directories are not told
		0x47504653,                 // GPFS
		0x0bd00bd0:                 // Lustre
		return true
	}
	return false
}

// run hands on what inotify tells, until it is closed.
func (n *notifier) run() {
	buf := make([]byte, 64<<10)
	for {
		got, err := n.f.Read(buf)
		if err != nil {
			return
		}
		names := <-n.names
		paths := map[string]bool{}
		look := false
		eachNotice(buf[:got], func(wd int32, mask uint32, name string) {
			switch dir, ok := names[wd]; {
			case mask&unix.IN_MODIFY != 0 && ok:
				paths[join(dir, name)] = true
			default:
				look = true
			}
		})
		n.names <- names
		if look {
			n.c.lookAgain()
		}
		for p := range paths {
			n.c.changed(path.Clean(p))
		}
		// A busy writer makes a notice for every line; the next ones are read
		// together.
		time.Sleep(50 * time.Millisecond)
	}
}

// eachNotice calls fn with every notice in what inotify told.
func eachNotice(b []byte, fn func(wd int32, mask uint32, name string)) {
	for len(b) >= unix.SizeofInotifyEvent {
		size := int(binary.NativeEndian.Uint32(b[12:]))
		if size > len(b)-unix.SizeofInotifyEvent {
			return
		}
		name := string(b[unix.SizeofInotifyEvent : unix.SizeofInotifyEvent+size])
		fn(int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:]), strings.TrimRight(name, "\x00"))
		b = b[unix.SizeofInotifyEvent+size:]
	}
}
