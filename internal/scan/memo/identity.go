package memo

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// Settled is how long ago a file must have changed to be remembered without its
// content.
const Settled = 2 * time.Second

// Identity is what the kernel says of a file: device, inode, size, and both times of
// change, which no program can set back. It stands for the content of a file that was
// the same before and after it was read, and whose last change was more than Settled
// before that: by then the kernel's clock of file times had moved on, and any later
// change shows.
type Identity struct {
	device, inode, size uint64
	modified, changed   syscall.Timespec
}

// Identify returns the identity of a file. Those in archives, and those of filesystems
// that cannot vouch for them, have none.
func Identify(info fs.FileInfo) (Identity, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() || !steady()[uint64(st.Dev)] {
		return Identity{}, false
	}
	return Identity{uint64(st.Dev), st.Ino, uint64(st.Size), st.Mtim, st.Ctim}, true
}

// Digest stands in the place of the content's.
func (id *Identity) Digest() [32]byte {
	b := make([]byte, 0, 64)
	for _, v := range []uint64{
		id.device, id.inode, id.size,
		uint64(id.modified.Sec), uint64(id.modified.Nsec), uint64(id.changed.Sec), uint64(id.changed.Nsec),
	} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return blake3.Sum256(b)
}

// SettledBefore tells whether the last change was long enough before a moment.
func (id *Identity) SettledBefore(t time.Time) bool {
	limit := t.Add(-Settled)
	return time.Unix(id.changed.Unix()).Before(limit) && time.Unix(id.modified.Unix()).Before(limit)
}

// steady are the devices of filesystems on which the kernel itself sets the time of
// a change. Others, and images that are mounted one after the other on the same loop
// device, can show another file with the same inode and times (proc_pid_mountinfo(5)).
var steady = sync.OnceValue(func() map[uint64]bool {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	return steadyIn(string(data))
})

func steadyIn(mountinfo string) map[uint64]bool {
	devices := map[uint64]bool{}
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		fields, source := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 3 || len(source) < 2 {
			continue
		}
		var major, minor uint32
		if _, err := fmt.Sscanf(fields[2], "%d:%d", &major, &minor); err != nil {
			continue
		}
		image := strings.HasPrefix(source[1], "/dev/loop") || strings.HasPrefix(source[1], "/dev/nbd") || strings.HasPrefix(source[1], "/dev/ram")
		if slices.Contains([]string{"ext2", "ext3", "ext4", "xfs", "tmpfs", "overlay"}, source[0]) && !image {
			devices[unix.Mkdev(major, minor)] = true
		}
	}
	return devices
}
