package sockets

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process is one that has a socket open.
type Process struct {
	PID       int    `json:"pid"`
	Name      string `json:"name"`          // what it calls itself (comm), 15 bytes at most; any program can choose it
	Exe       string `json:"exe,omitempty"` // path of its program; empty when it may not be read
	UID       uint32 `json:"uid"`
	Unit      string `json:"unit,omitempty"`      // systemd unit, such as "ssh.service"
	Container string `json:"container,omitempty"` // id of its container, 64 hexadecimal digits
	Cgroup    string `json:"cgroup,omitempty"`    // path of its control group
}

// Owners finds the processes that have sockets open, by the inode of the
// socket; one socket can be open in several. Processes that end meanwhile, and
// those that this process may not look at, are left out; see OwnersIn.
func Owners() map[uint64][]Process {
	found, _ := OwnersIn("/proc")
	return found
}

// OwnersIn is Owners with another place for /proc. It is whole when every
// process could be looked at: without root, those of other users cannot.
func OwnersIn(proc string) (found map[uint64][]Process, whole bool) {
	found, whole = map[uint64][]Process{}, true
	pids, err := names(proc)
	if err != nil {
		return found, false
	}
	for _, name := range pids {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		dir := filepath.Join(proc, name)
		var p *Process
		seen := map[uint64]bool{}
		for _, open := range descriptors(dir, pid) {
			fds, err := names(open)
			if err != nil {
				whole = whole && !errors.Is(err, fs.ErrPermission)
				continue // or it has ended
			}
			for _, fd := range fds {
				link, err := os.Readlink(filepath.Join(open, fd))
				inode, ok := socketInode(link)
				if err != nil || !ok || seen[inode] {
					continue
				}
				seen[inode] = true
				if p == nil {
					p = process(dir, pid)
				}
				found[inode] = append(found[inode], *p)
			}
		}
	}
	return found, whole
}

// descriptors are the directories in proc that list what a process has open.
// There are several when its threads share less than usual: what is in
// /proc/PID/fd is only what the first thread has, which is nothing once it has
// ended before the others, as any program can arrange.
func descriptors(dir string, pid int) []string {
	list, last := []string{filepath.Join(dir, "fd")}, pid
	threads, _ := names(filepath.Join(dir, "task"))
	for _, name := range threads {
		thread, err := strconv.Atoi(name)
		if err != nil || thread == pid || shareDescriptors(thread, pid) || last != pid && shareDescriptors(thread, last) {
			continue
		}
		list, last = append(list, filepath.Join(dir, "task", name, "fd")), thread
	}
	return list
}

// shareDescriptors tells whether two threads have one table of descriptors.
// Where the kernel does not tell, each is taken to have its own.
func shareDescriptors(a, b int) bool {
	const kcmpFiles = 2
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), kcmpFiles, 0, 0, 0)
	return errno == 0 && order == 0
}

// names lists a directory without the cost of a stat for each entry.
func names(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// socketInode reads "socket:[12345]".
func socketInode(link string) (uint64, bool) {
	n, ok := strings.CutPrefix(link, "socket:[")
	n, closed := strings.CutSuffix(n, "]")
	inode, err := strconv.ParseUint(n, 10, 64)
	return inode, ok && closed && err == nil
}

// Look reads what proc, "/proc", says about a process, as far as it does.
func Look(proc string, pid int) Process {
	return *process(filepath.Join(proc, strconv.Itoa(pid)), pid)
}

func process(dir string, pid int) *Process {
	p := &Process{PID: pid}
	b, _ := os.ReadFile(filepath.Join(dir, "comm"))
	p.Name = strings.TrimSuffix(string(b), "\n")
	p.Exe, _ = os.Readlink(filepath.Join(dir, "exe"))
	b, _ = os.ReadFile(filepath.Join(dir, "status"))
	p.UID = statusUID(string(b))
	b, _ = os.ReadFile(filepath.Join(dir, "cgroup"))
	p.Cgroup, p.Unit, p.Container = parseCgroup(string(b))
	return p
}

// statusUID is the effective user id in /proc/PID/status.
func statusUID(text string) uint32 {
	for line := range strings.Lines(text) {
		if ids, ok := strings.CutPrefix(line, "Uid:"); ok {
			if f := strings.Fields(ids); len(f) > 1 {
				uid, _ := strconv.ParseUint(f[1], 10, 32)
				return uint32(uid)
			}
		}
	}
	return 0
}

// parseCgroup reads /proc/PID/cgroup, see cgroups(7): the group of version 2,
// or else that of systemd, with the innermost service and container in it.
func parseCgroup(text string) (path, unit, container string) {
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimRight(line, "\n"), ":", 3)
		if len(f) < 3 || f[1] != "" && f[1] != "name=systemd" {
			continue
		}
		if path == "" || f[1] == "" && f[2] != "/" {
			path = f[2]
		}
	}
	for part := range strings.SplitSeq(path, "/") {
		if strings.HasSuffix(part, ".service") && !strings.HasPrefix(part, "user@") {
			unit = part
		}
		if id := containerID(part); id != "" {
			container = id
		}
	}
	return path, unit, container
}

// containerID finds the id in the name of a control group: "docker-ID.scope",
// "cri-containerd-ID.scope", "libpod-ID", or the id alone.
func containerID(part string) string {
	part = strings.TrimSuffix(part, ".scope")
	id := part[strings.LastIndexByte(part, '-')+1:]
	if len(id) != 64 {
		return ""
	}
	if _, err := hex.DecodeString(id); err != nil {
		return ""
	}
	return id
}
