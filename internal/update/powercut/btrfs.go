package powercut

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// forgetDevice is _IOW(BTRFS_IOCTL_MAGIC, 5, struct btrfs_ioctl_vol_args). An
// error is no matter: the device was unknown then.
func forgetDevice(control int, args *[4096]byte) {
	const request = 1<<30 | 4096<<16 | 0x94<<8 | 5
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(control), request, uintptr(unsafe.Pointer(args)))
}
