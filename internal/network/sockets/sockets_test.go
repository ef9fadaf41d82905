package sockets

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/lab"
	"golang.org/x/sys/unix"
)

// in runs f in a host that is connected to nothing.
func in(t *testing.T, f func()) *lab.Host {
	t.Helper()
	h := lab.New(t).Host("host")
	inside(t, h, f)
	return h
}

func inside(t *testing.T, h *lab.Host, f func()) {
	t.Helper()
	if err := h.Do(func() error { f(); return nil }); err != nil {
		t.Fatal(err)
	}
}

// pair is a TCP connection within the host, seen from both ends.
type pair struct {
	listener       net.Listener
	client, server net.Conn
}

func connect(t *testing.T, network, address string) *pair {
	t.Helper()
	p := new(pair)
	var err error
	if p.listener, err = net.Listen(network, address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.listener.Close() })
	to := p.listener.Addr().(*net.TCPAddr)
	if to.IP.IsUnspecified() {
		to.IP = net.IPv4(127, 0, 0, 1) // of an IPv6 socket: mapped
	}
	if p.client, err = net.Dial("tcp", to.String()); err != nil {
		t.Fatal(err)
	}
	if p.server, err = p.listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.client.Close(); p.server.Close() })
	return p
}

// halfClosed makes a connection of which one end is done: it is in fin-wait-2,
// and the other in close-wait.
func halfClosed(t *testing.T) {
	t.Helper()
	p := connect(t, "tcp4", "127.0.0.1:0")
	p.client.(*net.TCPConn).CloseWrite()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		list, err := List(unix.IPPROTO_TCP)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(list, func(s Socket) bool { return s.State == FinWait2 && s.Local == addr(p.client.LocalAddr()) }) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("not half closed after a minute")
		}
	}
}

func dialUDP(t *testing.T, to string) net.Conn {
	t.Helper()
	c, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func listenUDP(t *testing.T, at string) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func protoName(p uint8) string {
	return map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_RAW: "raw", unix.IPPROTO_UDPLITE: "udplite"}[p]
}

// TestListIsWhatSSPrints compares every socket with what ss(8) prints of it.
func TestListIsWhatSSPrints(t *testing.T) {
	var got []string
	h := in(t, func() {
		p := connect(t, "tcp4", "127.0.0.1:0")
		connect(t, "tcp6", "[::1]:0")
		connect(t, "tcp", ":0") // takes both families
		dialUDP(t, listenUDP(t, "127.0.0.1:0").LocalAddr().String())
		dialUDP(t, listenUDP(t, "[::1]:0").LocalAddr().String())
		halfClosed(t)
		raw, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(raw) })
		p.client.Write(make([]byte, 1000))
		var first [1]byte
		p.server.Read(first[:])

		var list []Socket
		acknowledged := func(s Socket) bool {
			return s.Proto == unix.IPPROTO_TCP && s.Local == addr(p.client.LocalAddr()) && s.SendQueue == 0
		}
		for deadline := time.Now().Add(time.Minute); !slices.ContainsFunc(list, acknowledged); { // a moment after it was read
			if list, err = List(); err != nil {
				t.Fatal(err)
			}
			if time.Now().After(deadline) {
				t.Fatalf("nobody acknowledges what was written: %+v", list)
			}
		}
		for _, s := range list {
			name := protoName(s.Proto)
			state := s.State.String()
			if s.Proto != unix.IPPROTO_TCP && s.State == Close {
				state = "closed"
			}
			port := func(a netip.AddrPort) string {
				if a.Port() == 0 {
					return "*"
				}
				return fmt.Sprint(a.Port())
			}
			line := fmt.Sprintf("%s %s %d/%d %s:%s %s:%s ino:%d uid:%d cookie:%x", name, state, s.ReceiveQueue, s.SendQueue,
				s.Local.Addr(), port(s.Local), s.Remote.Addr(), port(s.Remote), s.Inode, s.UID, s.Cookie)
			if s.Proto == unix.IPPROTO_RAW { // ss names neither the owner nor, without a module, anything else
				line, _, _ = strings.Cut(line, " ino:")
				if s.Inode == 0 || s.Local.Port() != unix.IPPROTO_ICMP {
					t.Errorf("raw socket %+v", s)
				}
			}
			got = append(got, line)
			if s.Local == addr(p.client.LocalAddr()) && s.Proto == unix.IPPROTO_TCP && (!s.Counted || s.Sent != 1000 || s.Received != 0) {
				t.Errorf("counters of the client: %+v", s)
			}
			if s.Local == addr(p.server.LocalAddr()) && s.State == Established && (!s.Counted || s.Received != 1000) {
				t.Errorf("counters of the server: %+v", s)
			}
		}
	})
	var want []string
	out := h.Run("ss", "-Hnatuwe").Is(t, 0).Stdout
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		state := map[string]string{"ESTAB": "established", "LISTEN": "listening", "UNCONN": "closed", "FIN-WAIT-2": "fin-wait-2", "CLOSE-WAIT": "close-wait"}[f[1]]
		ino, uid, sk := "ino:0", "uid:0", ""
		for _, w := range f[6:] {
			switch {
			case strings.HasPrefix(w, "ino:"):
				ino = w
			case strings.HasPrefix(w, "uid:"):
				uid = w
			case strings.HasPrefix(w, "sk:"):
				sk = "cookie:" + w[3:]
			}
		}
		// ss writes any address of an IPv6 socket as "*", and brackets.
		plain := func(s string) string {
			s = strings.NewReplacer("[::ffff:", "", "[", "", "]", "").Replace(s)
			if strings.HasPrefix(s, "*:") {
				s = "::" + s[1:]
			}
			return s
		}
		w := []string{f[0], state, f[2] + "/" + f[3], plain(f[4]), plain(f[5]), ino, uid, sk}
		if f[0] == "???" || f[0] == "raw" {
			w[0], w = "raw", w[:5]
		}
		want = append(want, strings.Join(w, " "))
	}
	slices.Sort(got)
	slices.Sort(want)
	if len(want) < 16 || !slices.Equal(got, want) {
		t.Errorf("listed\n%s\nss\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func addr(a net.Addr) netip.AddrPort {
	p := netip.MustParseAddrPort(a.String())
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// broken waits for the error that ends a read.
func broken(t *testing.T, what string, c net.Conn, want error) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Minute))
	for {
		_, err := c.Read(make([]byte, 100))
		if err == nil {
			continue
		}
		if !errors.Is(err, want) {
			t.Errorf("%s read %v, want %v", what, err, want)
		}
		return
	}
}

func all(*Socket) bool { return true }

// TestDestroy: whatever state a connection is in, its program learns that it is
// over, and what listens goes on.
func TestDestroy(t *testing.T) {
	in(t, func() {
		for _, address := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
			p := connect(t, "tcp", address)
			n, err := Destroy(func(s *Socket) bool { return s.Local == addr(p.client.LocalAddr()) })
			if n != 1 || err != nil {
				t.Errorf("%s: destroyed %d, %v", address, n, err)
			}
			broken(t, "the client", p.client, unix.ECONNABORTED)
			broken(t, "the server", p.server, unix.ECONNRESET) // the other end is told
			again, err := net.Dial("tcp", p.client.RemoteAddr().String())
			if err != nil {
				t.Errorf("%s: nothing listens any more: %v", address, err)
				continue
			}
			again.Close()
		}
		if _, err := Destroy(all); err != nil { // what these left behind
			t.Fatal(err)
		}

		one, other, kept := connect(t, "tcp4", "127.0.0.1:0"), connect(t, "tcp6", "[::1]:0"), connect(t, "tcp4", "127.0.0.1:0")
		halfClosed(t)
		u4, u6 := dialUDP(t, listenUDP(t, "127.0.0.1:0").LocalAddr().String()), dialUDP(t, listenUDP(t, "[::1]:0").LocalAddr().String())
		keptPorts := []uint16{addr(kept.client.LocalAddr()).Port(), addr(kept.server.LocalAddr()).Port()}
		seen := map[State]int{}
		n, err := Destroy(func(s *Socket) bool {
			seen[s.State]++
			if s.State == Listen || s.State == Close {
				t.Errorf("asked about %+v", s)
			}
			return !slices.Contains(keptPorts, s.Local.Port())
		})
		// When one end of a connection within the host is destroyed, the other
		// is over at once.
		if n < 5 || n > 8 || err != nil || seen[FinWait2] == 0 || seen[CloseWait] == 0 {
			t.Errorf("destroyed %d, %v; seen %v", n, err, seen)
		}
		for name, c := range map[string]net.Conn{"UDP over IPv4": u4, "UDP over IPv6": u6} {
			broken(t, name, c, unix.ECONNABORTED)
		}
		for _, p := range []*pair{one, other} {
			p.client.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := p.client.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the client of %s read %v", p.client.RemoteAddr(), err)
			}
		}
		if _, err := kept.client.Write([]byte("x")); err != nil {
			t.Errorf("what did not match is over, too: %v", err)
		}
		if n, err := Destroy(func(*Socket) bool { return false }); n != 0 || err != nil {
			t.Errorf("destroyed %d, %v where nothing matches", n, err)
		}
	})
}

// TestDestroyWhatBegins: a connection that is being asked for.
func TestDestroyWhatBegins(t *testing.T) {
	l := lab.New(t)
	host := l.Host("host")
	host.IP("link add d0 type veth peer name d1", "link set d0 up", "link set d1 up", "addr add 10.1.0.1/24 dev d0",
		"neigh add 10.1.0.2 lladdr 02:00:00:00:00:01 dev d0 nud permanent")
	result := make(chan error, 1)
	go func() {
		result <- host.Do(func() error {
			_, err := net.DialTimeout("tcp", "10.1.0.2:9", 2*time.Minute)
			return err
		})
	}()
	inside(t, host, func() {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			n, err := Destroy(func(s *Socket) bool { return s.State == SynSent })
			if err != nil {
				t.Fatal(err)
			}
			if n == 1 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("no socket in syn-sent within a minute")
			}
		}
	})
	if err := <-result; !errors.Is(err, unix.ECONNABORTED) {
		t.Errorf("the program read %v", err)
	}
}

// TestDestroyWhatNoProgramHas: a handshake that is not over yet, and what is left
// of a connection that is.
func TestDestroyWhatNoProgramHas(t *testing.T) {
	l := lab.New(t)
	lan := l.Switch()
	host, other := lan.Host("host"), lan.Host("other")
	var listener net.Listener
	inside(t, host, func() {
		var err error
		if listener, err = net.Listen("tcp4", netip.AddrPortFrom(host.IPv4(), 0).String()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
		c, err := net.Dial("tcp4", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		s.Close()
	})
	// The answer to the request of the other host never reaches it.
	rules := other.Dir() + "/rules"
	if err := os.WriteFile(rules, []byte("table inet t { chain in { type filter hook input priority 0; tcp flags & ack == ack drop; }; }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	other.Run("nft", "-f", rules).Is(t, 0)
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		done <- other.Do(func() error {
			_, err := (&net.Dialer{}).DialContext(ctx, "tcp4", listener.Addr().String())
			return err
		})
	}()
	inside(t, host, func() {
		for _, state := range []State{TimeWait, SynReceived} {
			for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
				n, err := Destroy(func(s *Socket) bool { return s.State == state })
				if err != nil {
					t.Fatal(err)
				}
				if n == 1 {
					break
				}
				if time.Now().After(end) {
					list, _ := List(unix.IPPROTO_TCP)
					t.Fatalf("no socket in %s was destroyed within a minute: %+v", state, list)
				}
			}
			list, err := List(unix.IPPROTO_TCP)
			if err != nil || slices.ContainsFunc(list, func(s Socket) bool { return s.State == state && state == TimeWait }) {
				t.Errorf("%s is still there: %v", state, err)
			}
		}
	})
	cancel()
	<-done
}

// TestDestroyMultipath: nothing passes any more on any path of MPTCP.
func TestDestroyMultipath(t *testing.T) {
	in(t, func() {
		listen, dial := net.ListenConfig{}, net.Dialer{}
		listen.SetMultipathTCP(true)
		dial.SetMultipathTCP(true)
		l, err := listen.Listen(t.Context(), "tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		c, err := dial.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(); s.Close() })
		if is, err := c.(*net.TCPConn).MultipathTCP(); err != nil || !is {
			t.Skip("NOT RUN: connections of MPTCP: this kernel makes none")
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(make([]byte, 1)); err != nil {
			t.Fatalf("the control failed: %v", err)
		}
		owners := Owners()
		n, err := Destroy(func(x *Socket) bool {
			if len(owners[x.Inode]) != 1 {
				t.Errorf("whose path is it? %+v", x)
			}
			return x.Local == addr(c.LocalAddr())
		})
		if n != 1 || err != nil {
			t.Errorf("destroyed %d, %v", n, err)
		}
		c.Write([]byte("x"))
		s.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if n, err := s.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%d bytes passed, %v", n, err)
		}
	})
}

// TestDestroyIsByCookie: a socket that took the addresses of another over is
// not taken for it.
func TestDestroyIsByCookie(t *testing.T) {
	in(t, func() {
		server := listenUDP(t, "127.0.0.1:0")
		local := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7777}
		dial := func() *net.UDPConn {
			c, err := net.DialUDP("udp", local, server.LocalAddr().(*net.UDPAddr))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		}
		old, replaced := dial(), (*net.UDPConn)(nil)
		n, err := Destroy(func(s *Socket) bool {
			if s.Local.Port() != 7777 || replaced != nil {
				return false
			}
			old.Close() // between the list and the destruction
			replaced = dial()
			return true
		})
		if n != 0 || err != nil || replaced == nil {
			t.Fatalf("destroyed %d, %v", n, err)
		}
		if _, err := replaced.Write([]byte("x")); err != nil {
			t.Errorf("the new socket is over: %v", err)
		}
	})
}

// TestDestroyWhileMoreCome: a program that connects again and again does not
// keep Destroy for ever, and of what was there before nothing is left.
func TestDestroyWhileMoreCome(t *testing.T) {
	host := lab.New(t).Host("host")
	ctx, cancel := context.WithCancel(context.Background())
	var p *pair
	var listener net.Listener
	inside(t, host, func() {
		p = connect(t, "tcp4", "127.0.0.1:0")
		var err error
		if listener, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
	})
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			defer c.Close()
		}
	}()
	done, begun := make(chan error, 1), make(chan bool, 1)
	go func() {
		done <- host.Do(func() error {
			var held []net.Conn
			for ctx.Err() == nil {
				c, err := (&net.Dialer{}).DialContext(ctx, "tcp", listener.Addr().String())
				if err != nil {
					continue // destroyed in the middle
				}
				held = append(held, c)
				if len(held) == 10 {
					select {
					case begun <- true:
					default:
					}
				}
				if len(held) > 50 {
					for _, c := range held {
						c.Close()
					}
					held = held[:0]
				}
			}
			for _, c := range held {
				c.Close()
			}
			return nil
		})
	}()
	<-begun
	inside(t, host, func() {
		n, err := Destroy(all)
		if n < 2 || err != nil {
			t.Errorf("destroyed %d, %v", n, err)
		}
	})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// Either its own end was destroyed first, or the other.
	p.client.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := p.client.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client read %v", err)
	}
}

// TestOnlyRootDestroys: who may not is told so.
func TestOnlyRootDestroys(t *testing.T) {
	in(t, func() {
		p := connect(t, "tcp4", "127.0.0.1:0")
		var hdr unix.CapUserHeader
		var caps [2]unix.CapUserData
		hdr.Version = unix.LINUX_CAPABILITY_VERSION_3
		if err := unix.Capget(&hdr, &caps[0]); err != nil {
			t.Fatal(err)
		}
		less := caps
		less[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := unix.Capset(&hdr, &less[0]); err != nil { // of this thread
			t.Fatal(err)
		}
		n, err := Destroy(all)
		if err := unix.Capset(&hdr, &caps[0]); err != nil {
			t.Fatal(err)
		}
		if n != 0 || failure.KindOf(err) != failure.NotAllowed {
			t.Errorf("destroyed %d, %v", n, err)
		}
		if _, err := p.client.Write([]byte("x")); err != nil {
			t.Error(err)
		}
	})
}

func TestOwners(t *testing.T) {
	in(t, func() {
		p := connect(t, "tcp4", "127.0.0.1:0")
		list, err := List(unix.IPPROTO_TCP)
		if err != nil {
			t.Fatal(err)
		}
		owners := Owners()
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, s := range list {
			for _, o := range owners[s.Inode] {
				if o.PID != os.Getpid() || o.UID != uint32(os.Geteuid()) || o.Exe != self || o.Name == "" || !strings.HasPrefix(self[strings.LastIndexByte(self, '/')+1:], o.Name) {
					t.Errorf("%+v", o)
				}
				found++
			}
		}
		if found != 3 { // what listens, and both ends
			t.Errorf("%d owners of %d sockets", found, len(list))
		}
		// A socket that is open twice has one owner.
		f, err := p.client.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var st syscall.Stat_t
		if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		if n := len(Owners()[st.Ino]); n != 1 {
			t.Errorf("%d owners", n)
		}
	})
}

func TestParseCgroup(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for text, want := range map[string][3]string{
		"0::/system.slice/ssh.service\n":                               {"/system.slice/ssh.service", "ssh.service", ""},
		"12:cpu:/x\n1:name=systemd:/system.slice/cron.service\n0::/\n": {"/system.slice/cron.service", "cron.service", ""},
		"0::/system.slice/docker-" + id + ".scope\n":                   {"/system.slice/docker-" + id + ".scope", "", id},
		"0::/kubepods.slice/pod1/cri-containerd-" + id + ".scope\n":    {"/kubepods.slice/pod1/cri-containerd-" + id + ".scope", "", id},
		"5:name=systemd:/docker/" + id + "\n":                          {"/docker/" + id, "", id},
		"0::/user.slice/user@1000.service/app.slice/emacs.service\n":   {"/user.slice/user@1000.service/app.slice/emacs.service", "emacs.service", ""},
		"0::/machine.slice/libpod-" + id[:63] + "\n":                   {"/machine.slice/libpod-" + id[:63], "", ""},
		"": {"", "", ""},
	} {
		path, unit, container := parseCgroup(text)
		if got := [3]string{path, unit, container}; got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// FuzzParse: whatever is in an answer, reading it ends.
func FuzzParse(f *testing.F) {
	m := make([]byte, messageSize)
	m[0], m[1] = unix.AF_INET, byte(Established)
	f.Add(m, uint8(unix.IPPROTO_TCP))
	f.Add(append(slices.Clone(m), 8, 0, diagMark, 0, 1, 2, 3, 4), uint8(unix.IPPROTO_UDP))
	f.Add(append(slices.Clone(m), 5, 0, diagInfo, 0, 1, 0, 0, 0), uint8(unix.IPPROTO_TCP))
	f.Fuzz(func(t *testing.T, b []byte, protocol uint8) {
		s, err := parse(b, protocol)
		if err == nil && len(destroyRequest(&s)) != requestSize {
			t.Error("a request of another size")
		}
		parseCgroup(string(b))
		statusUID(string(b))
		socketInode(string(b))
		parseProcNet(string(b), protocol, unix.AF_INET6)
	})
}
