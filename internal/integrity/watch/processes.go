package watch

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/audit"
	"golang.org/x/sys/unix"
)

// Process is who did something, as far as it could be found out.
type Process struct {
	PID      int
	Started  time.Time // zero: unknown
	Name     string    // of the program, at most 15 bytes (comm)
	Exe      string    // path of the program; empty: a thread of the kernel, or it had ended
	Args     []string  // the command line, without what looks like a secret
	UID      int       // effective; -1: unknown
	LoginUID int       // who logged in, whatever su and sudo did since; -1: nobody, or unknown
	Cgroup   string
	Parents  []Ancestor // the parent first, up to four
	Exited   bool       // it had ended when its event was read; what is known nevertheless was read before

	origin *Process  // of one that has ended: the same while it lived
	asOf   time.Time // and until when it certainly ran this program
}

// same is what all values for one process have in common.
func (p *Process) same() *Process {
	if p != nil && p.origin != nil {
		return p.origin
	}
	return p
}

// Ancestor is a process above another one.
type Ancestor struct {
	PID  int
	Name string
	Exe  string
}

// Known tells whether anything but the number is known.
func (p *Process) Known() bool { return p != nil && (p.Name != "" || p.Exe != "") }

// Program is the best name there is: the path of the program, its short name,
// or nothing.
func (p *Process) Program() string {
	switch {
	case p == nil:
		return ""
	case p.Exe != "":
		return p.Exe
	}
	return p.Name
}

const (
	maxProcesses = 512     // kept, each with a pidfd
	maxCommand   = 4 << 10 // bytes of a command line
	maxAncestors = 4
)

// processes finds out about processes. Short-lived ones vanish, so it is asked
// as soon as an event is read. It belongs to one goroutine.
//
// A number alone is no identity: what is read under it belongs to the process
// of the event when that process, which the event's pidfd stands for, is still
// there afterwards. Of a process that is gone, what is known from earlier
// events, or from its start (execs.go), stands as long as the kernel cannot have
// given its number to another one (forks.go).
type processes struct {
	known map[int32]*seen
	boot  time.Time
	batch int
	fresh int // processes that the batch at hand brought
	forks *forks
	buf   []byte
}

// seen is a process that is known from an event.
type seen struct {
	p     *Process
	pidfd int
	stat  int       // its /proc/PID/stat, open: it can be read as long as the process is there
	image string    // where the kernel put its program, anew with each execve(2)
	batch int       // of its latest event
	alive uint64    // how many processes had been started when it was last seen alive
	read  time.Time // when everything was read
	sure  time.Time // when it certainly ran what p says
}

// gone returns the process as one that has ended. What it executed since it was
// last looked at, the judge finds out.
func (s *seen) gone() *Process {
	if !s.p.Exited {
		p := *s.p
		p.Exited, p.origin, p.asOf = true, s.p, s.sure
		s.p = &p
	}
	return s.p
}

// again is how long what a process can change without executing another program
// (its user, its control group) may be older than an event.
const again = time.Second

func newProcesses() *processes {
	return &processes{known: map[int32]*seen{}, boot: bootTime(), forks: newForks(), buf: make([]byte, maxCommand)}
}

// bootTime is when the clock of start times began.
func bootTime() time.Time {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return time.Now()
	}
	return time.Now().Add(-time.Duration(ts.Nano()))
}

// next begins another batch of events that were read together.
func (c *processes) next() { c.batch, c.fresh = c.batch+1, 0 }

// close gives all descriptors back.
func (c *processes) close() {
	for pid, s := range c.known {
		c.drop(pid, s)
	}
}

func (c *processes) drop(pid int32, s *seen) {
	for _, fd := range [...]int{s.pidfd, s.stat} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	delete(c.known, pid)
}

// alive tells whether the process of a pidfd exists.
func alive(pidfd int) bool { return pidfd >= 0 && unix.PidfdSendSignal(pidfd, 0, nil, 0) == nil }

// look returns the process of an event, and takes its pidfd over.
func (c *processes) look(pid int32, pidfd int) *Process {
	s := c.known[pid]
	if pid > 0 && (s == nil || s.batch != c.batch) {
		return c.check(pid, pidfd, s)
	}
	if pidfd >= 0 {
		unix.Close(pidfd)
	}
	if pid <= 0 {
		return &Process{PID: int(pid), UID: -1, LoginUID: -1} // in another namespace, or the kernel itself
	}
	return s.p
}

// check makes sure that a process is the one that is known under its number,
// and still runs the same program; otherwise it reads what is to be known.
func (c *processes) check(pid int32, pidfd int, s *seen) *Process {
	now := time.Now()
	if s != nil {
		if image, _, ok := image(c.pread(s.stat)); ok {
			s.alive = c.forks.count(forksAge)
			if image == s.image && now.Sub(s.read) < again {
				s.batch, s.sure = c.batch, now
				if pidfd >= 0 {
					unix.Close(pidfd)
				}
				return s.p
			}
		} else if pidfd < 0 && c.forks.unused(s.alive) {
			s.batch = c.batch
			return s.gone()
		}
	}
	c.fresh++
	if pidfd < 0 {
		if s != nil {
			c.drop(pid, s)
		}
		return c.ended(pid)
	}
	next := &seen{pidfd: pidfd, batch: c.batch, alive: c.forks.count(forksAge), read: now, sure: now}
	next.stat, _ = unix.Open("/proc/"+strconv.Itoa(int(pid))+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	next.image, _, _ = image(c.pread(next.stat))
	next.p = c.read(pid)
	if !alive(pidfd) {
		// What was read may be of another process by now.
		c.drop(pid, next)
		if s != nil && c.forks.unused(s.alive) {
			c.known[pid], s.batch = s, c.batch
			return s.gone()
		}
		if s != nil {
			c.drop(pid, s)
		}
		return c.ended(pid)
	}
	if s != nil {
		if sameProgram(s.p, next.p) {
			next.p = s.p // one burst, one process
		}
		c.drop(pid, s)
	}
	c.room()
	c.known[pid] = next
	return next.p
}

// image returns what in /proc/PID/stat changes with each execve(2): where code
// and stack begin and where the arguments are, which the kernel chooses at
// random.
func image(stat []byte) (place string, state byte, ok bool) {
	f := statFields(stat)
	if f == nil {
		return "", 0, false
	}
	code, stack, args := statField(f, 23), statField(f, 25), statField(f, 45)
	return string(code) + " " + string(stack) + " " + string(args), f[0], f[0] != 'Z' && f[0] != 'X'
}

// statFields cuts the number and the name from a line of /proc/PID/stat.
func statFields(b []byte) []byte {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 || i+2 >= len(b) {
		return nil
	}
	return b[i+2:]
}

// statField returns the n-th field behind the name, the state being 0.
func statField(f []byte, n int) []byte {
	for ; n > 0; n-- {
		i := bytes.IndexByte(f, ' ')
		if i < 0 {
			return nil
		}
		f = f[i+1:]
	}
	if i := bytes.IndexByte(f, ' '); i >= 0 {
		f = f[:i]
	}
	return f
}

// pread reads a file of /proc again from its beginning.
func (c *processes) pread(fd int) []byte {
	if fd < 0 {
		return nil
	}
	n, err := unix.Pread(fd, c.buf, 0)
	if err != nil {
		return nil
	}
	return c.buf[:n]
}

// ended returns a process that is gone and made no event before, of which the
// judge may learn more: see complete.
func (c *processes) ended(pid int32) *Process {
	p := &Process{PID: int(pid), UID: -1, LoginUID: -1, Exited: true}
	c.room()
	c.known[pid] = &seen{p: p, pidfd: -1, stat: -1, batch: c.batch, alive: c.forks.count(forksAge)}
	return p
}

// room makes room for one more.
func (c *processes) room() {
	if len(c.known) < maxProcesses {
		return
	}
	for pid, s := range c.known {
		if s.batch+64 < c.batch || !alive(s.pidfd) {
			c.drop(pid, s)
		}
	}
	for pid, s := range c.known {
		if len(c.known) < maxProcesses {
			break
		}
		c.drop(pid, s)
	}
}

// sameProgram tells whether a process still runs what it ran.
func sameProgram(a, b *Process) bool {
	return a.Exe == b.Exe && a.Started.Equal(b.Started) && a.UID == b.UID && slices.Equal(a.Args, b.Args)
}

// read reads what /proc says of a process and those above it.
func (c *processes) read(pid int32) *Process {
	p, ppid := c.itself(pid)
	p.Args = audit.Redact(p.Args, nil)
	c.above(p, ppid)
	return p
}

// itself reads what /proc says of a process alone, see proc(5). Secrets are
// still in its Args.
func (c *processes) itself(pid int32) (p *Process, ppid int) {
	p = &Process{PID: int(pid), UID: -1, LoginUID: -1}
	dir := "/proc/" + strconv.Itoa(int(pid)) + "/"
	p.Exe = readLink(dir + "exe")
	if b := c.file(dir + "cmdline"); len(b) > 0 {
		p.Args = strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	}
	name, ppid, started, state, ok := c.stat(dir)
	if !ok {
		p.Exited = true
		return p, 0
	}
	p.Name, p.Started = name, c.boot.Add(started).Truncate(time.Millisecond)
	p.Exited = state == 'Z' || state == 'X'
	for line := range bytes.Lines(c.file(dir + "status")) {
		if f := bytes.Fields(line); len(f) > 2 && string(f[0]) == "Uid:" {
			p.UID = atoi(f[2])
			break
		}
	}
	if b := c.file(dir + "loginuid"); len(b) > 0 {
		if id, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 32); err == nil && id != 1<<32-1 {
			p.LoginUID = int(id)
		}
	}
	p.Cgroup = cgroup(c.file(dir + "cgroup"))
	return p, ppid
}

// above reads who started a process.
func (c *processes) above(p *Process, ppid int) {
	for ppid > 0 && len(p.Parents) < maxAncestors {
		dir := "/proc/" + strconv.Itoa(ppid) + "/"
		name, next, _, _, ok := c.stat(dir)
		if !ok {
			break
		}
		p.Parents = append(p.Parents, Ancestor{ppid, name, readLink(dir + "exe")})
		ppid = next
	}
}

// stat reads the name, the parent, the start since boot and the state.
func (c *processes) stat(dir string) (name string, ppid int, started time.Duration, state byte, ok bool) {
	b := c.file(dir + "stat")
	open, f := bytes.IndexByte(b, '('), statFields(b)
	if open < 0 || f == nil || statField(f, 19) == nil {
		return
	}
	const tick = time.Second / 100 // USER_HZ, which is 100 on every architecture but alpha and ia64
	name = string(b[open+1 : bytes.LastIndexByte(b, ')')])
	return name, atoi(statField(f, 1)), time.Duration(atoi(statField(f, 19))) * tick, f[0], true
}

// cgroup returns the path of the unified hierarchy, or of systemd's own.
func cgroup(b []byte) string {
	named := ""
	for line := range bytes.Lines(b) {
		f := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		if f[1] == "" && (f[2] != "/" || named == "") {
			named = f[2]
		} else if f[1] == "name=systemd" && (named == "" || named == "/") {
			named = f[2]
		}
	}
	return named
}

func atoi(b []byte) int {
	n, err := strconv.Atoi(string(b))
	if err != nil {
		return -1
	}
	return n
}

// file reads a small file into a buffer that the next call uses again.
func (c *processes) file(path string) []byte {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, c.buf)
	if err != nil || n < 0 {
		return nil
	}
	return c.buf[:n]
}

func readLink(path string) string {
	buf := make([]byte, 1024)
	n, err := unix.Readlink(path, buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

// bootID identifies this boot of the kernel.
func bootID() string {
	fd, err := unix.Open("/proc/sys/kernel/random/boot_id", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var b [36]byte
	n, err := unix.Read(fd, b[:])
	if err != nil {
		return ""
	}
	return string(b[:n])
}
