package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// echo listens and sends back what comes.
func echo(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // not spliced: Go keeps the pipes of that open
				io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
				c.Close()
			}()
		}
	}()
	return l
}

// names resolves without a network.
type names map[string][]string

func (n names) LookupNetIP(_ context.Context, _, host string) (list []netip.Addr, err error) {
	for _, a := range n[host] {
		list = append(list, netip.MustParseAddr(a))
	}
	if list == nil {
		err = errors.New("no such host")
	}
	return list, err
}

// connection returns the connection that came with the last answer.
func (c *client) connection() *os.File {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.fds) != 1 {
		c.t.Fatalf("%d descriptors came", len(c.fds))
	}
	fd := c.fds[0]
	c.fds = nil
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		c.t.Errorf("flags %x of the descriptor, %v", flags, err)
	}
	return os.NewFile(uintptr(fd), "connection")
}

func (c *client) works(network, address string) {
	c.t.Helper()
	c.granted("dial", fmt.Sprintf(`{"network":%q,"address":%q}`, network, address), nil)
	f := c.connection()
	defer f.Close()
	got := make([]byte, 5)
	if _, err := f.Write([]byte("hello")); err != nil {
		c.t.Fatal(err)
	}
	if _, err := io.ReadFull(f, got); err != nil || string(got) != "hello" {
		c.t.Errorf("%s %s answers %q, %v", network, address, got, err)
	}
	if err := f.Close(); err != nil {
		c.t.Error(err)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("no /proc: %v", err)
	}
	return len(list)
}

func TestDialTCP(t *testing.T) {
	port := echo(t, "tcp4", "127.0.0.1:0").Addr().(*net.TCPAddr).Port
	at := func(host string) string { return fmt.Sprintf("%s:%d", host, port) }
	s := serve(t, Options{Store: newStore(t),
		Permissions: Permissions{Network: []string{
			at("Logs.localhost"), at("127.0.0.1"), at("two.localhost"), at("metadata.example"), at("here.example"), at("rebound.example"), at("gone.example"), "[::1]:" + fmt.Sprint(port), "localhost:1",
		}},
		Resolver: names{
			"logs.localhost": {"127.0.0.1"}, "two.localhost": {"169.254.169.254", "::ffff:127.0.0.1"}, "rebound.example": {"127.0.0.1", "::1", "::ffff:127.0.0.1", "127.9.9.9"},
			"metadata.example": {"169.254.169.254", "fe80::1", "fd00:ec2::254", "224.0.0.1", "168.63.129.16"}, "here.example": {"0.0.0.0", "::"}, "localhost": {"127.0.0.1"},
		}})
	s.hello()
	files := openFiles(t)
	s.works("tcp", at("logs.localhost"))
	s.works("tcp", at("LOGS.LocalHost."))
	s.works("tcp", at("127.0.0.1"))
	s.works("tcp", at("two.localhost")) // what is allowed of it
	for _, address := range []string{"logs.localhost:1", at("localhost"), at("127.0.0.2"), at("0.0.0.0"), at("x.logs.localhost"), at("[::]"), at("metadata.example"), at("here.example"), at("rebound.example")} {
		s.refused(Denied, "dial", fmt.Sprintf(`{"network":"tcp","address":%q}`, address))
	}
	for _, address := range []string{"", "logs.example.org", ":80", at("0x7f.1"), at("127.1"), at("::1"), at("[127.0.0.1]"), "127.0.0.1:http", "127.0.0.1:+80", "127.0.0.1:0", "127.0.0.1:70000", at("a b"), at("a\x00b"), at("[fe80::1%25lo]")} {
		s.refused(Invalid, "dial", fmt.Sprintf(`{"network":"tcp","address":%s}`, jsonText(address)))
	}
	s.refused(TooLarge, "dial", fmt.Sprintf(`{"network":"tcp","address":%q}`, strings.Repeat("x", 600)+":1"))
	s.refused(Failed, "dial", fmt.Sprintf(`{"network":"tcp","address":%q}`, at("gone.example")))
	s.refused(Failed, "dial", `{"network":"tcp","address":"localhost:1"}`) // nobody listens
	s.refused(Invalid, "dial", `{"network":"udp","address":"127.0.0.1:53"}`)
	s.refused(Denied, "dial", `{"network":"unix","address":"/run/docker.sock"}`)
	// The echo server's ends close a little later. Go may keep two or three
	// descriptors of its own from the first connection on.
	for deadline := time.Now().Add(patience); openFiles(t) > files+3; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d descriptors are open, %d were", openFiles(t), files)
		}
	}
	s.close()

	// An address that is listed as such can be dialled whatever it is.
	lax := session{opts: &Options{}}
	if a := netip.MustParseAddr("169.254.169.254"); !lax.forbidden("x.example", a) {
		t.Error("a name may lead to the metadata of a cloud")
	} else if lax.opts.AllowLinkLocal = true; lax.forbidden("x.example", a) {
		t.Error("AllowLinkLocal does not")
	}
}

func jsonText(s string) string {
	return `"` + strings.NewReplacer("\x00", `\u0000`).Replace(s) + `"`
}

func TestManyDialsAreRefusedInsteadOfQueued(t *testing.T) {
	port := echo(t, "tcp4", "127.0.0.1:0").Addr().(*net.TCPAddr).Port
	address := fmt.Sprintf("127.0.0.1:%d", port)
	s := serve(t, Options{Store: newStore(t), Permissions: Permissions{Network: []string{address}}, now: still()})
	s.hello()
	const n = dialBurst + 20
	go func() {
		for i := range n {
			fmt.Fprintf(s.conn, `{"id":%d,"method":"dial","params":{"network":"tcp","address":%q}}`+"\n", i+1, address)
		}
	}()
	granted, busy := 0, 0
	for range n {
		switch l := s.next(); {
		case l.Error == nil:
			granted++
		case l.Error.Code == Busy:
			busy++
		default:
			t.Fatal(l.Error)
		}
	}
	if busy == 0 || granted == 0 || len(s.fds) != granted {
		t.Errorf("%d granted, %d busy, %d descriptors", granted, busy, len(s.fds))
	}
}

func TestDialUnix(t *testing.T) {
	dir, err := os.MkdirTemp("", "host") // a short path: a socket's has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	echo(t, "unix", in("real"))
	mkdir := func(name string, mode os.FileMode) {
		if err := errors.Join(os.Mkdir(in(name), 0o700), os.Chmod(in(name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	mkdir("ours", 0o755)
	mkdir("open", 0o777)
	mkdir("sticky", 0o777|os.ModeSticky)
	link := func(to, name string) {
		if err := os.Symlink(to, in(name)); err != nil {
			t.Fatal(err)
		}
	}
	link("../real", "ours/relative")
	link(in("real"), "ours/absolute")
	link(dir, "ours/dir")
	link("loop", "ours/loop")
	link(in("real"), "open/link")
	link(dir, "open/dir")
	link(in("real"), "sticky/link")
	if err := os.WriteFile(in("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	listed := []string{in("real"), in("ours/relative"), in("ours/absolute"), in("ours/dir/real"), in("sticky/link"),
		in("open/link"), in("open/dir/real"), in("ours/loop"), in("file"), in("ours"), in("none"), in("ours") + "/../real", "real", "/"}
	s := serve(t, Options{Store: newStore(t), Permissions: Permissions{Unix: listed}})
	s.hello()
	for i, path := range listed {
		if i < 5 {
			s.works("unix", path)
		} else {
			s.refused(Failed, "dial", fmt.Sprintf(`{"network":"unix","address":%q}`, path))
		}
	}
	s.refused(Denied, "dial", fmt.Sprintf(`{"network":"unix","address":%q}`, in("ours/../real2")))
	s.refused(Denied, "dial", fmt.Sprintf(`{"network":"unix","address":%q}`, dir+"//real"))
}

func FuzzEndpoint(f *testing.F) {
	for _, seed := range []string{"logs.example.org:6514", "[2001:db8::1]:443", "127.0.0.1:80", "[::ffff:1.2.3.4]:1", "127.1:80", ":1", "[x]:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := parseEndpoint(text)
		if err != nil {
			return
		}
		if e.port == 0 || (e.host == "") != e.addr.IsValid() {
			t.Errorf("%q is %+v", text, e)
		}
		if e.host != "" {
			if _, err := netip.ParseAddr(e.host); err == nil || strings.ContainsAny(e.host, "\x00 /%[]:") {
				t.Errorf("%q has the host %q", text, e.host)
			}
			if again, err := parseEndpoint(fmt.Sprintf("%s:%d", strings.ToUpper(e.host), e.port)); err != nil || again != e {
				t.Errorf("%q: %+v again is %+v, %v", text, e, again, err)
			}
		}
	})
}
