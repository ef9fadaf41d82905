package powercut

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Raw opens the bare disk, past the page cache.
func (d *Device) Raw(t *testing.T) int {
	t.Helper()
	backing, err := os.OpenFile(d.file, os.O_RDWR, 0)
	must(t, err)
	defer backing.Close()
	loop, err := loopDevice(backing, d.options.Sector)
	must(t, err)
	defer loop.Close()
	fd, err := unix.Open(loop.Name(), unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// Bytes reads a part of what is left.
func (im *Image) Bytes(t *testing.T, offset int64, length int) []byte {
	t.Helper()
	b := make([]byte, length)
	_, err := im.disk.ReadAt(b, offset)
	must(t, err)
	return b
}
