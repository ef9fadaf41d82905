package netstate

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/integrity/facts"
)

// holder is the program that has a socket open.
type holder struct {
	pid     int
	program string // its path, or several; empty: not known
	script  string // what an interpreter runs
	unit    string // the systemd unit, "container" or "session"
	command string // its command line, without secrets
}

// describe adds what is known to the attributes of a fact. Sockets without an
// inode are the kernel's own, such as those of WireGuard and NFS.
func (h *holder) describe(attrs map[string]string, kernel bool) {
	switch {
	case kernel:
		attrs["program"], attrs["script"], attrs["unit"] = "kernel", facts.None, facts.None
	case h != nil && h.program != "":
		attrs["program"], attrs["script"], attrs["unit"] = h.program, h.script, h.unit
		if h.command != "" {
			attrs["command"] = h.command
		}
	}
}

// holders finds who has the sockets open, by inode. It is not whole when there
// are processes that may not be looked at.
func (g *gathering) holders(inodes map[uint32]bool) (found map[uint32]*holder, whole bool) {
	found, whole = map[uint32]*holder{}, true
	dirs, err := os.ReadDir(g.Proc)
	if err != nil {
		return found, false
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		fds := filepath.Join(g.Proc, d.Name(), "fd")
		list, err := os.ReadDir(fds)
		if err != nil {
			whole = whole && !errors.Is(err, fs.ErrPermission)
			continue // or it has ended
		}
		var h *holder
		for _, fd := range list {
			link, err := os.Readlink(filepath.Join(fds, fd.Name()))
			inode, ok := socketInode(link)
			if err != nil || !ok || !inodes[inode] {
				continue
			}
			if h == nil {
				h = g.holder(pid)
			}
			found[inode] = shared(found[inode], h)
		}
	}
	return found, whole
}

// shared is who holds a socket that several processes have open. That of a unit
// which systemd listens for is systemd's, whether or not the service runs.
func shared(a, b *holder) *holder {
	switch {
	case a == nil || b.pid == 1:
		return b
	case a.pid == 1 || a.program == b.program && a.script == b.script:
		return a
	}
	both := *a
	both.program = facts.Join(append(strings.Split(a.program, ", "), b.program))
	both.script = facts.Join(append(strings.Split(a.script, ", "), b.script))
	return &both
}

func socketInode(link string) (uint32, bool) {
	n, ok := strings.CutPrefix(link, "socket:[")
	n, closed := strings.CutSuffix(n, "]")
	inode, err := strconv.ParseUint(n, 10, 32)
	return uint32(inode), ok && closed && err == nil
}

func (g *gathering) holder(pid int) *holder {
	dir := filepath.Join(g.Proc, strconv.Itoa(pid))
	h := &holder{pid: pid, script: facts.None, unit: facts.None}
	exe, err := os.Readlink(filepath.Join(dir, "exe"))
	if err != nil {
		return h
	}
	// After an update the old program still runs and its path has another: as
	// long as there is one, that is no news.
	if real, gone := strings.CutSuffix(exe, " (deleted)"); gone {
		if _, err := os.Stat(real); err == nil {
			exe = real
		}
	}
	h.program = facts.Text(exe)
	b, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
	argv := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
	h.script = facts.Text(scriptOf(exe, argv))
	h.command = facts.Text(cutText(strings.Join(audit.Redact(argv, nil), " "), 256))
	b, _ = os.ReadFile(filepath.Join(dir, "cgroup"))
	h.unit = facts.Text(unitOf(string(b)))
	return h
}

// scriptOf says what an interpreter runs: two services in Python are one
// program, and not the same.
func scriptOf(exe string, argv []string) string {
	name := strings.TrimRight(path.Base(exe), "0123456789.-")
	if !slices.Contains([]string{"python", "perl", "ruby", "node", "nodejs", "java", "php", "bash", "dash", "sh", "zsh", "lua", "tclsh", "busybox"}, name) {
		return facts.None
	}
	for i := 1; i < len(argv); i++ {
		switch a := argv[i]; {
		case (a == "-m" || a == "-jar") && i+1 < len(argv):
			return a + " " + cutText(argv[i+1], 4096)
		case a == "-c" || a == "-e":
			return a
		case (a == "-cp" || a == "-classpath" || a == "--class-path" || a == "-p" || a == "--module-path") && name == "java":
			i++
		case a != "" && a[0] != '-':
			return cutText(a, 4096)
		}
	}
	return facts.None
}

// unitOf reads /proc/PID/cgroup, see cgroups(7): the innermost service, and of
// other groups only what sort they are, as their names are new each time.
func unitOf(text string) string {
	unit := facts.None
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimRight(line, "\n"), ":", 3)
		if len(f) < 3 || f[1] != "" && f[1] != "name=systemd" {
			continue
		}
		for part := range strings.SplitSeq(f[2], "/") {
			switch {
			case strings.HasPrefix(part, "docker-") || strings.HasPrefix(part, "libpod-") || strings.HasPrefix(part, "cri-containerd-") ||
				part == "docker" || strings.HasPrefix(part, "kubepods"):
				return "container"
			case strings.HasPrefix(part, "session-") && strings.HasSuffix(part, ".scope"):
				unit = "session"
			case strings.HasPrefix(part, "user@") && strings.HasSuffix(part, ".service"):
			case strings.HasSuffix(part, ".service"):
				unit = cutText(part, 512)
			}
		}
	}
	return unit
}

func cutText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n]
}
