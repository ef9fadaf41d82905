package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Addresses of the host, of its peer, and of the peer as management station,
// which stays allowed.
const (
	host4, peer4, station4 = "10.254.7.1", "10.254.7.2", "10.254.7.3"
	host6, peer6, station6 = "fd07:254:7::1", "fd07:254:7::2", "fd07:254:7::3"
	port                   = 40007
)

// pair is a host and its peer.
type pair struct {
	host, peer *thread
	out        [2]int // sockets of the host, IPv4 and IPv6
	in         [2]int // sockets of the peer
	readers    sync.WaitGroup

	mu    sync.Mutex
	heard [2]bool
	got   []arrival
}

// arrival is a datagram that reached the peer. Its number is the time at which
// it was sent.
type arrival struct{ sent, at time.Time }

// thread runs functions on a thread of its own, in namespaces of its own. A
// process that one of them starts is in these, too.
type thread struct {
	calls chan func()
	id    int
}

func newThread(flags int) (*thread, error) {
	t := &thread{calls: make(chan func())}
	ready := make(chan error)
	go func() {
		// Never unlocked: the thread ends with its goroutine.
		runtime.LockOSThread()
		t.id = unix.Gettid()
		ready <- unix.Unshare(flags)
		for f := range t.calls {
			f()
		}
	}()
	return t, <-ready
}

func (t *thread) do(f func() error) error {
	done := make(chan error)
	t.calls <- func() { done <- f() }
	return <-done
}

func newPair(dir string) (p *pair, err error) {
	p = &pair{}
	if p.host, err = newThread(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return nil, err
	}
	if p.peer, err = newThread(unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	if err := p.host.do(func() error { return ownFiles(dir) }); err != nil {
		return nil, err
	}
	const hostMAC, peerMAC = "02:00:00:fe:07:01", "02:00:00:fe:07:02"
	if err := p.host.do(func() error {
		return ip("link set lo up",
			fmt.Sprintf("link add eth0 address %s type veth peer name eth0 address %s netns /proc/%d/task/%d/ns/net", hostMAC, peerMAC, os.Getpid(), p.peer.id),
			"link set eth0 up", "addr add "+host4+"/24 dev eth0", "addr add "+host6+"/64 dev eth0 nodad",
			// Neighbours are known, so that only the rules decide.
			"neigh add "+peer4+" lladdr "+peerMAC+" dev eth0 nud permanent", "neigh add "+peer6+" lladdr "+peerMAC+" dev eth0 nud permanent")
	}); err != nil {
		return nil, err
	}
	if err := p.peer.do(func() error {
		return ip("link set lo up", "link set eth0 up",
			"addr add "+peer4+"/24 dev eth0", "addr add "+station4+"/24 dev eth0",
			"addr add "+peer6+"/64 dev eth0 nodad", "addr add "+station6+"/64 dev eth0 nodad",
			"neigh add "+host4+" lladdr "+hostMAC+" dev eth0 nud permanent", "neigh add "+host6+" lladdr "+hostMAC+" dev eth0 nud permanent")
	}); err != nil {
		return nil, err
	}
	for i, family := range []int{unix.AF_INET, unix.AF_INET6} {
		open := func(at *int) func() error {
			return func() (err error) {
				*at, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
				return err
			}
		}
		if err := errors.Join(p.host.do(open(&p.out[i])), p.peer.do(open(&p.in[i]))); err != nil {
			return nil, err
		}
		if err := unix.Bind(p.in[i], address(i)); err != nil {
			return nil, err
		}
		// The kernel notes when a datagram arrives, and keeps it until the reader
		// comes by: nobody is woken for each.
		if err := errors.Join(unix.SetsockoptInt(p.in[i], unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			unix.SetsockoptInt(p.in[i], unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)); err != nil {
			return nil, err
		}
		fd := p.in[i]
		p.readers.Go(func() { p.read(i, fd) })
	}
	return p, nil
}

func address(i int) unix.Sockaddr {
	if i == 0 {
		return &unix.SockaddrInet4{Addr: [4]byte{10, 254, 7, 2}, Port: port}
	}
	return &unix.SockaddrInet6{Addr: [16]byte{0: 0xfd, 1: 7, 2: 2, 3: 0x54, 5: 7, 15: 2}, Port: port}
}

// ip runs lines of ip(8) in the namespaces of the thread it is called on.
func ip(lines ...string) error {
	for _, l := range lines {
		if out, err := exec.Command("ip", strings.Fields(l)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", l, err, out)
		}
	}
	return nil
}

// ownFiles puts copies over what the programs write to.
func ownFiles(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("none", "/sys", "sysfs", 0, ""); err != nil { // with the interfaces of the namespace
		return err
	}
	for _, path := range []string{"/etc/ufw", "/etc/default/ufw", "/etc/firewalld"} {
		own := filepath.Join(dir, "files", path)
		if _, err := os.Stat(path); err != nil {
			continue // not installed
		}
		if err := os.MkdirAll(filepath.Dir(own), 0o755); err != nil {
			return err
		}
		if out, err := exec.Command("cp", "-a", path, own).CombinedOutput(); err != nil {
			return fmt.Errorf("copying %s: %w: %s", path, err, out)
		}
		if err := unix.Mount(own, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting over %s: %w", path, err)
		}
	}
	for _, path := range []string{"/run", "/var/log"} {
		if err := unix.Mount("tmpfs", path, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("mounting over %s: %w", path, err)
		}
	}
	return nil
}

func (p *pair) close() {
	closed := p.in
	p.mu.Lock()
	p.in = [2]int{-1, -1}
	p.mu.Unlock()
	p.readers.Wait()
	for _, fd := range closed {
		unix.Close(fd)
	}
	for _, fd := range p.out {
		unix.Close(fd)
	}
	close(p.host.calls)
	close(p.peer.calls)
}

// run runs a program in the host until it has ended.
func (p *pair) run(what program) (cpu time.Duration, err error) {
	cmd := exec.Command(what.line[0], what.line[1:]...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/root", "LC_ALL=C.UTF-8"}, what.env...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if what.stdin != "" {
		f, err := os.Open(what.stdin)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		cmd.Stdin = f
	}
	if err := p.host.do(cmd.Start); err != nil {
		return 0, err
	}
	if err = cmd.Wait(); err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(what.line, " "), err, out.String())
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), err
}

// pause is what lies between two rounds of datagrams.
const pause = 100 * time.Microsecond

// stream is a host that sends.
type stream struct {
	first  [2]atomic.Pointer[time.Time] // when a datagram was first refused
	ending atomic.Bool
	ended  chan struct{}
}

// flowTime bounds how long it may take until the peer hears the host.
const flowTime = 5 * time.Second

// send begins to send, and returns when the peer hears it by both families.
func (p *pair) send() (*stream, error) {
	p.forget()
	s := &stream{ended: make(chan struct{})}
	flows := make(chan bool, 1)
	go func() {
		defer close(s.ended)
		runtime.LockOSThread()
		// It must not wait for the processor behind what it measures. The thread
		// ends with its goroutine.
		if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0); err != nil {
			log.Printf("times are less exact, without priority: %v", err)
		}
		var datagram [8]byte
		nap := unix.NsecToTimespec(pause.Nanoseconds())
		began, both := time.Now(), false
		for !s.ending.Load() {
			for i, fd := range p.out {
				now := time.Now()
				binary.LittleEndian.PutUint64(datagram[:], uint64(now.Sub(epoch)))
				if err := unix.Sendto(fd, datagram[:], 0, address(i)); refusal(err) && both && s.first[i].Load() == nil {
					now = time.Now()
					s.first[i].Store(&now)
				}
			}
			if !both {
				if both = p.heardBoth(); both {
					flows <- true
				} else if time.Since(began) > flowTime {
					flows <- false
					return
				}
			}
			unix.Nanosleep(&nap, nil)
		}
	}()
	if !<-flows {
		return nil, errors.New("the peer does not hear the host, before it is cut off")
	}
	return s, nil
}

var epoch = time.Now()

// refusal reports whether the kernel refused to send.
func refusal(err error) bool {
	var number syscall.Errno
	return errors.As(err, &number) && (number == unix.EPERM || number == unix.EACCES || number == unix.EHOSTUNREACH || number == unix.ENETUNREACH)
}

// refused reports whether datagrams of both families have been refused.
func (s *stream) refused() bool { return s.first[0].Load() != nil && s.first[1].Load() != nil }

func (s *stream) stop() {
	s.ending.Store(true)
	<-s.ended
}

// readTime is how long datagrams lie before the reader looks for them.
const readTime = 10 * time.Millisecond

func (p *pair) read(family, fd int) {
	for {
		time.Sleep(readTime)
		p.mu.Lock()
		if p.in[0] < 0 {
			p.mu.Unlock()
			return
		}
		for {
			a, ok := receive(fd)
			if !ok {
				break
			}
			p.got = append(p.got, a)
			p.heard[family] = true
		}
		p.mu.Unlock()
	}
}

// receive takes a datagram, if there is one.
func receive(fd int) (a arrival, ok bool) {
	var datagram [8]byte
	var control [64]byte
	n, length, _, _, err := unix.Recvmsg(fd, datagram[:], control[:], unix.MSG_DONTWAIT)
	if err != nil || n != len(datagram) {
		return a, false
	}
	messages, err := unix.ParseSocketControlMessage(control[:length])
	if err != nil || len(messages) != 1 || messages[0].Header.Type != unix.SO_TIMESTAMPNS {
		return a, false
	}
	at := (*unix.Timespec)(unsafe.Pointer(&messages[0].Data[0]))
	a.sent = epoch.Add(time.Duration(binary.LittleEndian.Uint64(datagram[:])))
	a.at = time.Unix(at.Unix())
	return a, true
}

func (p *pair) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard, p.got = [2]bool{}, p.got[:0]
}

func (p *pair) heardBoth() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.heard[0] && p.heard[1]
}

// arrivals returns when the last datagram arrived, and how many did that were
// sent later than cut.
func (p *pair) arrivals(cut time.Time) (last time.Time, leaks int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.got {
		if a.at.After(last) {
			last = a.at
		}
		if a.sent.After(cut) {
			leaks++
		}
	}
	return last, leaks
}
