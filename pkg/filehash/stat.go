package filehash

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls below go to the kernel without the string conversions of package
// unix: at a few hundred thousand files these allocations would cost as much
// as the calls. A name is given with its terminating NUL.

const statxMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

var emptyName = [1]byte{0}

func statx(fd int, name *byte, flags int, st *unix.Statx_t) unix.Errno {
	for {
		_, _, e := unix.Syscall6(unix.SYS_STATX, uintptr(fd), uintptr(unsafe.Pointer(name)), uintptr(flags|unix.AT_NO_AUTOMOUNT), statxMask, uintptr(unsafe.Pointer(st)), 0)
		if e != unix.EINTR {
			return e
		}
	}
}

// lstatAt stats a name in a directory without following it.
func lstatAt(dir int, name *byte, info *Info) unix.Errno {
	var st unix.Statx_t
	if e := statx(dir, name, unix.AT_SYMLINK_NOFOLLOW, &st); e != 0 {
		return e
	}
	fillInfo(info, &st)
	return 0
}

// fstat stats an open file.
func fstat(fd int, info *Info) unix.Errno {
	var st unix.Statx_t
	if e := statx(fd, &emptyName[0], unix.AT_EMPTY_PATH, &st); e != 0 {
		return e
	}
	fillInfo(info, &st)
	return 0
}

func fillInfo(i *Info, st *unix.Statx_t) {
	i.Mode, i.UID, i.GID, i.Links = uint32(st.Mode), st.Uid, st.Gid, st.Nlink
	i.Dev = unix.Mkdev(st.Dev_major, st.Dev_minor)
	i.Rdev = unix.Mkdev(st.Rdev_major, st.Rdev_minor)
	i.Ino, i.Size = st.Ino, int64(st.Size)
	i.Mtime = Time{st.Mtime.Sec, st.Mtime.Nsec}
	i.Ctime = Time{st.Ctime.Sec, st.Ctime.Nsec}
	i.Btime = Time{}
	if st.Mask&unix.STATX_BTIME != 0 {
		i.Btime = Time{st.Btime.Sec, st.Btime.Nsec}
	}
	i.Flags = uint32(st.Attributes & st.Attributes_mask & (unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND))
}

// openAt opens a name in a directory. It asks not to touch the access time,
// which the kernel grants only to the owner and to root.
func (w *worker) openAt(dir int, name *byte, flags int) (int, unix.Errno) {
	flags |= unix.O_NOFOLLOW | unix.O_CLOEXEC
	for {
		try := flags
		if !w.noatimeRefused {
			try |= unix.O_NOATIME
		}
		r, _, e := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(name)), uintptr(try), 0, 0, 0)
		switch {
		case e == unix.EINTR:
		case e == unix.EPERM && !w.noatimeRefused:
			w.noatimeRefused = true // until the next directory: owners go by directory
		case e != 0:
			return -1, e
		default:
			return int(r), 0
		}
	}
}

// readFull reads from fd at its offset until buf is full or the file ends.
func readFull(fd int, buf []byte) (int, error) {
	n := 0
	for n < len(buf) {
		k, err := unix.Read(fd, buf[n:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, err
		}
		if k == 0 {
			break
		}
		n += k
	}
	return n, nil
}

// preadFull reads from fd at off until buf is full or the file ends.
func preadFull(fd int, buf []byte, off int64) (int, error) {
	n := 0
	for n < len(buf) {
		k, err := unix.Pread(fd, buf[n:], off+int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, err
		}
		if k == 0 {
			break
		}
		n += k
	}
	return n, nil
}

// readlinkAt reads the target of a symbolic link into w.scratch.
func (w *worker) readlinkAt(dir int, name *byte) ([]byte, unix.Errno) {
	for {
		r, _, e := unix.Syscall6(unix.SYS_READLINKAT, uintptr(dir), uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&w.scratch[0])), uintptr(len(w.scratch)), 0, 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return nil, e
		}
		return w.scratch[:r], 0
	}
}
