package memo

import (
	"maps"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOnlySteadyFilesystemsAreRemembered(t *testing.T) {
	got := steadyIn("29 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n" +
		"30 29 7:0 / /mnt/a\\040b ro shared:1 - ext4 /dev/loop0 ro\n" +
		"31 29 7:1 / /snap ro - squashfs /dev/loop1 ro\n" +
		"32 29 0:41 / /tmp rw master:2 - tmpfs tmpfs rw\n" +
		"33 29 0:42 / /mnt/f rw - fuse.sshfs host:/ rw\n" +
		"34 29 8:1 / /boot/efi rw - vfat /dev/sda1 rw\n" +
		"no line\n")
	want := map[uint64]bool{unix.Mkdev(254, 0): true, unix.Mkdev(0, 41): true}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
