//go:build amd64 || arm64

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// escapesByPath are those by what Landlock does not look at, and by calls whose
// target is a group, an account or a terminal.
func escapesByPath() []escape {
	console := func(request uintptr) func(victims) error {
		return func(victims) error {
			if err := call(unix.SYS_IOCTL, 0, request, 0); !errors.Is(err, unix.ENOTTY) {
				return err
			}
			return nil
		}
	}
	list := []escape{
		{name: "watch a directory of others", layer: Seccomp, blocked: byFilter, try: func(v victims) error {
			fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
			if err != nil {
				return err
			}
			_, err = unix.InotifyAddWatch(fd, v.dir, unix.IN_ALL_EVENTS)
			return err
		}},
		{name: "read an extended attribute of others", layer: Seccomp, blocked: []error{unix.EOPNOTSUPP}, try: func(v victims) error {
			if _, err := unix.Getxattr(v.file, "user.x", nil); !errors.Is(err, unix.ENODATA) {
				return err
			}
			return nil
		}},
		{name: "slow its process group down", layer: Seccomp, blocked: byFilter, try: func(victims) error { return unix.Setpriority(unix.PRIO_PGRP, 0, 19) }},
		{name: "slow the disk down for its process group", layer: Seccomp, blocked: byFilter, try: func(victims) error { return call(unix.SYS_IOPRIO_SET, 2, 0, 2<<13|7) }},
		{name: "wait for a semaphore of others", layer: Seccomp, blocked: byFilter, try: func(victims) error {
			if err := call(unix.SYS_SEMTIMEDOP, 1<<30, cstring("      "), 1, 0); !errors.Is(err, unix.EINVAL) {
				return err
			}
			return nil
		}},
		{name: "take a lease of a file", layer: Seccomp, blocked: byFilter, try: func(victims) error {
			if err := open("leased", unix.O_CREAT|unix.O_WRONLY, 0o600); err != nil {
				return err
			}
			fd, err := unix.Open("leased", unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
			return err
		}},
		{name: "reserve more than a file may have", layer: Seccomp, blocked: []error{unix.EOPNOTSUPP}, try: func(victims) error {
			f, err := os.Create("reserved")
			if err != nil {
				return err
			}
			return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 8<<20)
		}},
		{name: "give its parent a child", layer: Seccomp, blocked: byFilter, try: func(victims) error {
			pid, _, errno := unix.RawSyscall(unix.SYS_CLONE, unix.CLONE_PARENT|uintptr(unix.SIGCHLD), 0, 0)
			if errno != 0 {
				return errno
			} else if pid == 0 {
				unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
			return nil
		}},
		{name: "have others signalled by a socket", layer: Seccomp, blocked: byFilter, try: func(v victims) error {
			_, err := unix.FcntlInt(uintptr(v.passed), unix.F_SETOWN, v.pid)
			return err
		}},
		{name: "ask for signals of a socket", layer: Seccomp, blocked: byFilter, try: func(v victims) error {
			_, err := unix.FcntlInt(uintptr(v.passed), unix.F_SETFL, unix.O_RDWR|unix.O_ASYNC)
			return err
		}},
		{name: "take all asynchronous requests of the host", layer: Seccomp, blocked: hiddenCall, try: func(victims) error {
			var context uint64
			return call(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&context)))
		}},
		{name: "have others signalled by an ioctl", layer: Seccomp, blocked: byFilter, try: func(v victims) error {
			pid := int32(v.pid)
			return call(unix.SYS_IOCTL, uintptr(v.passed), fioSetOwn, uintptr(unsafe.Pointer(&pid)))
		}},
		{name: "put another group before the terminal", layer: Seccomp, blocked: byFilter, try: console(unix.TIOCSPGRP)},
		{name: "take the terminal", layer: Seccomp, blocked: byFilter, try: console(unix.TIOCSCTTY)},
		{name: "change the size of the terminal", layer: Seccomp, blocked: byFilter, try: console(unix.TIOCSWINSZ)},
		{name: "stop what the terminal shows", layer: Seccomp, blocked: byFilter, try: console(unix.TCXONC)},
		{name: "keep others from the terminal", layer: Seccomp, blocked: byFilter, try: console(unix.TIOCEXCL)},
		{name: "turn the console black", layer: Seccomp, blocked: byFilter, try: console(0x4B3A)}, // KDSETMODE
		{name: "go to another console", layer: Seccomp, blocked: byFilter, try: console(0x5606)},  // VT_ACTIVATE
	}
	return list
}

// escapesOfMemory are those from a limit that no cgroup counts.
func escapesOfMemory() []escape {
	return []escape{
		{name: "map a stack", layer: Seccomp, blocked: byFilter, try: func(victims) error {
			_, err := unix.Mmap(-1, 0, 512<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_GROWSDOWN)
			return err
		}},
		{name: "map memory that is shared", layer: Seccomp, blocked: byFilter, try: func(victims) error {
			_, err := unix.Mmap(-1, 0, 512<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
			return err
		}},
		{name: "map zeros", layer: Landlock, blocked: byLandlock, try: func(victims) error {
			fd, err := unix.Open("/dev/zero", unix.O_RDWR, 0)
			if err != nil {
				return err
			}
			_, err = unix.Mmap(fd, 0, 512<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			return err
		}},
		{name: "let its stack grow", layer: Rlimits, blocked: byFilter, try: func(victims) error {
			return unix.Setrlimit(unix.RLIMIT_STACK, &unix.Rlimit{Cur: 512 << 20, Max: 512 << 20})
		}},
		{name: "map data", layer: Rlimits, blocked: []error{unix.ENOMEM}, try: func(victims) error {
			_, err := unix.Mmap(-1, 0, 512<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
			return err
		}},
	}
}

// TestMemoryWithoutGroups tries to get at more memory than the limit on a host
// where no cgroup can be made.
func TestMemoryWithoutGroups(t *testing.T) {
	if raceDetector {
		t.Skip("NOT RUN: the race detector takes more memory than the limit that is tried")
	}
	needsLayers(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(openDir(t), "hostile")
	if data, err := os.ReadFile(self); err != nil || os.WriteFile(program, data, 0o755) != nil {
		t.Fatal("copy the test", err)
	}
	s := Detect()
	s.Memory, s.Tasks, s.groups = false, false, hierarchies{}
	for _, e := range escapesOfMemory() {
		t.Run(e.name, func(t *testing.T) {
			p := Policy{Data: openDir(t), Account: own(), Limits: Limits{Memory: 256 << 20}}
			env := []string{"SANDBOX_ESCAPE=" + e.name, fmt.Sprintf("SANDBOX_VICTIMS=%s|||0|0|0", p.Data)}
			c := Command{Program: program, Args: []string{"-test.run=^$"}, Env: env, Group: true}
			_, out := runWith(t, s, c, p)
			if errno, known := outcome(out); !known || !slices.Contains(e.blocked, error(errno)) {
				t.Errorf("%q, want %v", out, e.blocked)
			}
			if free := freely(t, program, env, nil, false, e); free != "0 done" {
				t.Errorf("outside of a sandbox: %q: the attempt shows nothing", free)
			}
		})
	}
}
