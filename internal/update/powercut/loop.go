package powercut

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// place is a directory where one disk at a time is mounted.
type place struct {
	dir string
	who any // what is mounted there: a Device or an Image, or nil
}

// mount mounts the filesystem in a file, for who.
func (p *place) mount(who any, file *os.File, o Options) error {
	if p.who != nil {
		return fmt.Errorf("%s: a disk, or what is left of one, is still mounted there", p.dir)
	}
	loop, err := loopDevice(file, o.Sector)
	if err != nil {
		return err
	}
	defer loop.Close() // from then on the mount alone holds it
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	if o.Filesystem == "btrfs" {
		forgetBtrfs(loop.Name())
	}
	options := o.Mount
	if o.Filesystem == "xfs" { // it might still know the UUID from the image before
		options = strings.TrimPrefix(options+",nouuid", ",")
	}
	if err := unix.Mount(loop.Name(), p.dir, o.Filesystem, 0, options); err != nil {
		return fmt.Errorf("mount -t %s -o %q: %w", o.Filesystem, options, err)
	}
	p.who = who
	return nil
}

// unmount unmounts what is mounted there, if that is for who.
func (p *place) unmount(who any) error {
	if p.who != who {
		return nil
	}
	p.who = nil
	var err error
	// A process that was killed closes its files a moment later.
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = unix.Unmount(p.dir, 0); !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	if err != nil {
		_ = unix.Unmount(p.dir, unix.MNT_DETACH)
		return fmt.Errorf("unmount %s: %w", p.dir, err)
	}
	return nil
}

// loopDevice attaches a file to a loop device that lets go of it when it is no
// longer used by anybody.
func loopDevice(file *os.File, sector int) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(file.Fd()), Size: uint32(sector), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
	copy(config.Info.File_name[:63], filepath.Base(file.Name()))
	// Somebody else may take the device that is free now.
	for end := time.Now().Add(time.Minute); ; {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("a free loop device: %w", err)
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err == nil {
			if err = unix.IoctlLoopConfigure(int(loop.Fd()), &config); err == nil {
				return loop, nil
			}
			loop.Close()
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return nil, fmt.Errorf("attach %s to /dev/loop%d: %w", file.Name(), n, err)
		}
		time.Sleep(time.Millisecond)
	}
}

// forgetBtrfs makes btrfs forget what it knows about disks that are not
// mounted: it refuses an older state of a disk that it has seen under another
// name. Sources: BTRFS_IOC_FORGET_DEV in include/uapi/linux/btrfs.h.
func forgetBtrfs(device string) {
	control, err := os.OpenFile("/dev/btrfs-control", os.O_RDWR, 0)
	if err != nil {
		return // the mount says what is wrong
	}
	defer control.Close()
	var args [4096]byte // btrfs_ioctl_vol_args: descriptor, name
	copy(args[8:], device)
	forgetDevice(int(control.Fd()), &args)
}
