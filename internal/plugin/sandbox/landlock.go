package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rights of Landlock that are given out. Those that are handled and never given
// are to make links, devices, sockets and FIFOs: a link in a directory of the
// program could lead root, who reads there, to a file of somebody else.
const (
	readFiles = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	runFiles  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_EXECUTE
	// To write is also to make, to move and to remove.
	writeFiles = readFiles | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_DIR |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REFER
	// What a rule for a file, not a directory, can have.
	ofFiles = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_EXECUTE
)

// handled are all rights that a version of the interface knows: what is not
// handled is allowed to everybody.
func handled(abi int) (a unix.LandlockRulesetAttr) {
	a.Handled_access_fs = unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1 // version 1: the first thirteen
	if abi >= 2 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 4 {
		a.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if abi >= 5 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if abi >= 6 {
		a.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	return a
}

// restrictFiles lets the thread, and what it starts, do with files what the
// policy says, and nothing else with any other. It cannot be taken back.
func restrictFiles(s Support, p *Policy, needs *needs) error {
	attr := handled(s.Landlock)
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return os.NewSyscallError("landlock_create_ruleset", errno)
	}
	defer unix.Close(int(fd))
	r := ruleset{fd: int(fd), handled: attr.Handled_access_fs}
	r.allow(runFiles, needs.program)
	r.allowNamed(needs.named, anyRuns) // the kernel runs them, or the program does not start
	r.allow(readFiles, needs.read...)
	r.allow(readFiles|unix.LANDLOCK_ACCESS_FS_WRITE_FILE, "/dev/null", "/dev/full", "/dev/random", "/dev/urandom")
	if s.Memory { // mapped, it is memory that no other limit counts
		r.allow(readFiles|unix.LANDLOCK_ACCESS_FS_WRITE_FILE, "/dev/zero")
	}
	r.allow(readFiles, "/etc/localtime", "/usr/share/zoneinfo")
	r.allow(readFiles, p.Read...)
	r.allow(writeFiles, p.Write...)
	if p.Data != "" {
		r.allow(writeFiles, p.Data)
	}
	for _, program := range p.Exec {
		n, err := inspect(program)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		r.allow(runFiles, n.program)
		r.allowNamed(n.named, allRun)
		r.allow(readFiles, n.read...)
	}
	if r.err != nil {
		return r.err
	}
	_, _, errno = unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("landlock_restrict_self", errno)
	}
	return nil
}

// ruleset is one that is being made; err is the first error.
type ruleset struct {
	fd      int
	handled uint64
	err     error
}

// allow gives rights to files and all that is beneath directories. What is not
// there is passed over.
func (r *ruleset) allow(rights uint64, paths ...string) {
	for _, path := range paths {
		if r.err != nil {
			return
		}
		r.err = r.allowOne(rights, path, nil)
	}
}

// allowNamed lets programs be run that others name in their first line or in
// their headers. Who wrote those may be the one who is to be confined: he could
// name "/", or a file that he wants to read. So they must be files whose mode
// fits: one that everybody may read and run gives nothing away.
func (r *ruleset) allowNamed(paths []string, fit func(mode uint32) bool) {
	for _, path := range paths {
		if r.err == nil && path != "" {
			r.err = r.allowOne(runFiles, path, func(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFREG && fit(st.Mode) })
		}
	}
}

func anyRuns(mode uint32) bool { return mode&0o111 != 0 }
func allRun(mode uint32) bool  { return mode&0o005 == 0o005 }

// allowOne passes over what is refused by fits; nil refuses nothing.
func (r *ruleset) allowOne(rights uint64, path string, fits func(*unix.Stat_t) bool) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EACCES) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if fits != nil && !fits(&st) {
		return nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= ofFiles
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: rights & r.handled, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(r.fd), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if errno != 0 {
		return &fs.PathError{Op: "landlock_add_rule", Path: path, Err: errno}
	}
	return nil
}
