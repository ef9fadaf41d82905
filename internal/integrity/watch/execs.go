package watch

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/audit"
	"golang.org/x/sys/unix"
)

// execs remembers the programs that were started last. A program
// such as touch(1) has ended before an event of it can be read; when it was
// started, which the kernel's process connector tells (CN_PROC,
// Documentation/driver-api/connector.rst), it still has its libraries to load.
//
// Where the connector cannot be had (in a container, without CAP_NET_ADMIN),
// nothing is known here, and such processes are told by their number alone.
type execs struct {
	group *group
	procs *processes // of the goroutine that listens
	later *processes // of the judge

	mu     sync.Mutex
	recent map[int32]started
	order  []int32 // as they were started, to forget the oldest
}

type started struct {
	p     *Process // its Args as they are, without Parents
	ppid  int
	at    time.Time
	forks uint64   // how many processes had been started then
	whole *Process // with both; nil: nobody has asked
}

const (
	maxExecs   = 4096
	cnIdxProc  = 1
	cnValProc  = 1
	cnListen   = 1 // PROC_CN_MCAST_LISTEN
	cnExec     = 2 // PROC_EVENT_EXEC
	cnHead     = 20
	cnMessage  = unix.NLMSG_HDRLEN + cnHead
	cnExecSize = cnMessage + 24
)

// newExecs listens; nil: that is not possible here.
func newExecs() *execs {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil
	}
	if unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: cnIdxProc}) != nil {
		unix.Close(fd)
		return nil
	}
	// Since Linux 6.6 starts alone can be asked for; before, everything comes.
	if listen(fd, cnListen, cnExec) != nil && listen(fd, cnListen) != nil {
		unix.Close(fd)
		return nil
	}
	g, err := newGroup(fd)
	if err != nil {
		return nil
	}
	return &execs{group: g, procs: newProcesses(), later: newProcesses(), recent: map[int32]started{}}
}

func listen(fd int, words ...uint32) error {
	b := make([]byte, 0, cnMessage+4*len(words))
	n := binary.NativeEndian
	b = n.AppendUint32(b, uint32(cnMessage+4*len(words)))
	b = n.AppendUint16(b, unix.NLMSG_DONE)
	b = n.AppendUint16(b, 0)
	b = n.AppendUint32(b, 0)
	b = n.AppendUint32(b, uint32(os.Getpid()))
	b = n.AppendUint32(b, cnIdxProc)
	b = n.AppendUint32(b, cnValProc)
	b = n.AppendUint32(b, 0)
	b = n.AppendUint32(b, 0)
	b = n.AppendUint16(b, uint16(4*len(words)))
	b = n.AppendUint16(b, 0)
	for _, w := range words {
		b = n.AppendUint32(b, w)
	}
	return unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// run reads until close.
func (x *execs) run() {
	runtime.LockOSThread()
	hurry()
	// What is read for each start takes some ten microseconds, and is worth
	// nothing a millisecond later: where it is allowed, it comes before all
	// that is not real-time.
	unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}, 0)
	buf := make([]byte, 4096)
	for {
		n, err := x.group.read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			continue // ENOBUFS: some were missed
		}
		parseStarts(buf[:n], x.started)
	}
}

func (x *execs) close() {
	if x != nil {
		x.group.close()
	}
}

// parseStarts calls fn with the process of each start in a message of the
// connector. Anything else is passed over.
func parseStarts(b []byte, fn func(pid int32)) {
	n := binary.NativeEndian
	for len(b) >= cnExecSize {
		size := int(n.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return
		}
		if m := b[:size]; size >= cnExecSize && n.Uint32(m[16:]) == cnIdxProc && n.Uint32(m[cnMessage:]) == cnExec {
			fn(int32(n.Uint32(m[cnMessage+20:])))
		}
		b = b[min(len(b), (size+3)&^3):]
	}
}

// started reads what would be gone later; who is above it is found out when
// somebody asks.
func (x *execs) started(pid int32) {
	now := time.Now()
	p, ppid := x.procs.itself(pid)
	if p.Exe == "" {
		return
	}
	p.Exited = true // whoever asks here found that it is gone
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.order) >= maxExecs {
		delete(x.recent, x.order[0])
		x.order = x.order[1:]
	}
	if _, again := x.recent[pid]; !again {
		x.order = append(x.order, pid)
	}
	x.recent[pid] = started{p: p, ppid: ppid, at: now, forks: x.procs.forks.count(forksAge)}
}

// complete returns what was read when a process started the program that it ran
// last, if it had ended when its event was read; p itself where nothing was. The
// judge alone calls it.
func (x *execs) complete(p *Process, at time.Time) *Process {
	if x == nil || p == nil || !p.Exited || p.PID <= 0 {
		return p
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	s, ok := x.recent[int32(p.PID)]
	if !ok || s.at.After(at.Add(forksAge)) || p.Known() && !s.at.After(p.asOf) || !x.later.forks.unused(s.forks) {
		return p
	}
	if s.whole == nil {
		whole := *s.p
		whole.Args = audit.Redact(whole.Args, nil)
		for ppid := s.ppid; ppid > 0 && len(whole.Parents) < maxAncestors; {
			// A parent that is gone may have been started recently itself.
			if up, ok := x.recent[int32(ppid)]; ok && up.at.Before(s.at) {
				whole.Parents = append(whole.Parents, Ancestor{ppid, up.p.Name, up.p.Exe})
				ppid = up.ppid
				continue
			}
			x.later.above(&whole, ppid)
			break
		}
		s.whole = &whole
		x.recent[int32(p.PID)] = s
	}
	return s.whole
}
