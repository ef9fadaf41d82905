package plugin

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A process is held at every system call that leaves something on the disk, by a
// filter of seccomp(2) that asks another one (seccomp_unotify(2)). That one lets
// it go on, or kills it.

// lasting are these system calls.
func lasting() map[uint32]string {
	return map[uint32]string{
		unix.SYS_OPENAT: "openat with O_CREAT", unix.SYS_MKDIRAT: "mkdirat", unix.SYS_UNLINKAT: "unlinkat", unix.SYS_RENAMEAT: "renameat",
		unix.SYS_RENAMEAT2: "renameat2", unix.SYS_FSYNC: "fsync", unix.SYS_FDATASYNC: "fdatasync", unix.SYS_FCHMOD: "fchmod",
		unix.SYS_FCHMODAT: "fchmodat", unix.SYS_FCHOWN: "fchown", unix.SYS_FTRUNCATE: "ftruncate", unix.SYS_PWRITE64: "pwrite64",
	}
}

// notification and answer are struct seccomp_notif and seccomp_notif_resp.
type notification struct {
	id         uint64
	pid, flags uint32
	nr, arch   uint32
	ip         uint64
	args       [6]uint64
}

type answer struct {
	id           uint64
	val          int64
	error, flags uint32
}

// Numbers of linux/seccomp.h.
const (
	newListener   = 1 << 3
	notifContinue = 1
	notifRecv     = 0xc0502100
	notifSend     = 0xc0182101
)

// hold puts the filter on this process, sends its descriptor to who started it,
// and begins anew, so that all threads have it.
func hold(t *testing.T) {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	const number, args2 = 0, 32 // in struct seccomp_data, little-endian
	stmt := func(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }
	jump := func(code uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: code, Jt: yes, Jf: no, K: k}
	}
	prog := []unix.SockFilter{stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, number)}
	for nr := range lasting() {
		if nr != unix.SYS_OPENAT {
			prog = append(prog, jump(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, nr, 0, 1), stmt(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_USER_NOTIF))
		}
	}
	prog = append(prog,
		jump(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, unix.SYS_OPENAT, 0, 3),
		stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, args2),
		jump(unix.BPF_JMP|unix.BPF_JSET|unix.BPF_K, unix.O_CREAT, 0, 1),
		stmt(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_USER_NOTIF),
		stmt(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW))
	filter := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, newListener, uintptr(unsafe.Pointer(&filter)))
	if errno != 0 {
		unix.Sendmsg(3, []byte("no"), nil, nil, 0)
		t.Fatal(errno)
	}
	if err := unix.Sendmsg(3, []byte("ok"), unix.UnixRights(int(fd)), nil, 0); err != nil {
		t.Fatal(err)
	}
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, crashHold+"=") {
			env = append(env, e)
		}
	}
	unix.CloseOnExec(3)
	t.Fatal(unix.Exec("/proc/self/exe", os.Args, env))
}

// killAt makes a change in a process that is killed before its step n, from 1,
// and returns how many it made and what the next one was.
func (c *crash) killAt(change string, n int) (made int, call string) {
	c.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		c.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "held")
	cmd := c.child(change, crashHold+"=3")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = &out, &out, []*os.File{theirs}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		c.Fatal(err)
	}
	end := func() error {
		cmd.Process.Kill()
		return cmd.Wait()
	}
	listener, err := receive(pair[0])
	unix.Close(pair[0])
	if err != nil {
		c.Skipf("NOT RUN: this kernel, or who confines this process, has no seccomp_unotify: %v, %v: %s", err, end(), &out)
	}
	defer unix.Close(listener)
	for step := 1; ; {
		poll := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, 60_000); err == unix.EINTR {
			continue
		} else if err != nil || poll[0].Revents == 0 {
			c.Fatalf("it hangs: %v, %v: %s", err, end(), &out)
		}
		if poll[0].Revents&unix.POLLIN == 0 { // it ended
			if err := cmd.Wait(); err != nil {
				c.Fatalf("%s: %v: %s", change, err, &out)
			}
			return step - 1, ""
		}
		var note notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), notifRecv, uintptr(unsafe.Pointer(&note))); errno != 0 {
			continue // it was killed, or its call interrupted
		}
		if step == n {
			call = lasting()[note.nr]
			if err := end(); err == nil {
				c.Fatal("it was killed, and ended well")
			}
			return step - 1, call
		}
		reply := answer{id: note.id, flags: notifContinue}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), notifSend, uintptr(unsafe.Pointer(&reply))); errno == 0 {
			step++ // an interrupted call comes again
		}
	}
}

// receive takes a descriptor from a socket.
func receive(socket int) (int, error) {
	data, rights := make([]byte, 2), make([]byte, unix.CmsgSpace(4))
	n, oob, _, _, err := unix.Recvmsg(socket, data, rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil || string(data[:n]) != "ok" {
		return -1, fmt.Errorf("%q, %w", data[:n], err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:oob])
	if err != nil || len(messages) != 1 {
		return -1, fmt.Errorf("%d messages, %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("%d descriptors, %w", len(fds), err)
	}
	return fds[0], nil
}
