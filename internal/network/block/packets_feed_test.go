package block_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/lab"
)

// public gives the hosts of a scene addresses that a feed may block.
func (s *scene) public() (peer, friend netip.Addr) {
	s.host.IP("addr add 198.51.100.1/24 dev eth0", "addr add 2001:db8::1/64 dev eth0 nodad")
	s.peer.IP("addr add 198.51.100.2/24 dev eth0", "addr add 2001:db8::2/64 dev eth0 nodad")
	s.friend.IP("addr add 198.51.100.3/24 dev eth0")
	return netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("198.51.100.3")
}

// many makes n lines of addresses, and some networks, that nobody here has.
func many(n int, seed uint64) (lines []string) {
	r := rand.New(rand.NewPCG(seed, 1))
	for len(lines) < n {
		v := r.Uint32()
		if v>>24 == 0 || v>>24 == 10 || v>>24 == 127 || v>>24 >= 169 {
			continue
		}
		if a := netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}); v%97 == 0 {
			lines = append(lines, netip.PrefixFrom(a, 24).Masked().String())
		} else {
			lines = append(lines, a.String())
		}
	}
	return lines
}

func TestFeedsOfAHundredThousand(t *testing.T) {
	t.Parallel()
	s := stage(t)
	peer, friend := s.public()
	six := netip.MustParseAddr("2001:db8::2")
	foe, back, foe6, fine := s.host.TCP(s.peer, peer, 80), s.peer.UDP(s.host, netip.MustParseAddr("198.51.100.1"), 81), s.host.Ping(six), s.host.TCP(s.friend, friend, 80)
	lab.Open(t, foe, back, foe6, fine)
	before := ruleset(t, s.host)
	stream := s.host.Stream(s.peer, peer, 9000)
	stream.Flows(t)
	lines := append(many(100_000, 1), peer.String(), "2001:db8::2/127")
	r := s.host.Mobileops("network", "block", "import", feed(t, s.host, "big.txt", lines...), "--ttl", "1h").Is(t, 0)
	stream.Client.Dies(t)
	lab.Blocked(t, foe, back, foe6)
	lab.Open(t, fine)
	if !strings.Contains(r.Stdout, "of this host ended") {
		t.Error(r.Stdout)
	}
	if changed := reconcile(t, s.host); len(changed) > 0 {
		t.Errorf("changed: %v", changed)
	}
	// Somebody else's flush, and less than that.
	for _, harm := range []string{"flush ruleset", "flush chain inet mobileops_blocks to4", "flush set inet mobileops_blocks feed_big_4", "delete element inet mobileops_blocks feed_big_4 { 198.51.100.2 }", "delete table bridge mobileops_blocks", "add table inet mobileops_blocks { flags dormant; }"} {
		s.host.Run("nft", harm).Is(t, 0)
		if changed := reconcile(t, s.host); len(changed) == 0 {
			t.Errorf("%s: nothing was changed", harm)
		}
		lab.Blocked(t, foe)
		if changed := reconcile(t, s.host); len(changed) > 0 {
			t.Errorf("%s: changed again: %v", harm, changed)
		}
	}
	// A new version without the peer.
	s.host.Mobileops("network", "block", "import", feed(t, s.host, "big.txt", many(100_000, 2)...)).Is(t, 0)
	lab.Open(t, foe, back, foe6)
	// And one after it, of which only the difference is sent.
	s.host.Mobileops("network", "block", "import", feed(t, s.host, "big.txt", append(many(100_000, 2)[50:], peer.String())...)).Is(t, 0)
	lab.Blocked(t, foe)
	if changed := reconcile(t, s.host); len(changed) > 0 {
		t.Errorf("changed: %v", changed)
	}
	s.lift(t, "big")
	lab.Open(t, foe)
	if after := ruleset(t, s.host); after != before {
		t.Errorf("left behind:\n%.2000s", after)
	}
	if files, _ := filepath.Glob(filepath.Join(s.host.Dir(), "state", "network", "feeds", "*")); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
}

// TestFeedsAreExchangedWithoutAWindow: an address that both versions have is never
// reachable while they change.
func TestFeedsAreExchangedWithoutAWindow(t *testing.T) {
	t.Parallel()
	s := stage(t)
	peer, _ := s.public()
	foe := s.host.UDP(s.peer, peer, 80)
	lab.Open(t, foe)
	s.host.IP("route add 203.0.113.0/24 via " + peer.String())
	one := feed(t, s.host, "one", append(many(20_000, 1), peer.String(), "203.0.113.0/24")...)
	two := feed(t, s.host, "two", append(many(20_000, 2), peer.String(), "203.0.113.0/28", "203.0.113.128/25")...)
	load := func(path string, ttl ...string) {
		s.host.Mobileops(append([]string{"network", "block", "import", path, "--name", "f"}, ttl...)...).Is(t, 0)
	}
	load(one)
	ctx, cancel := context.WithCancel(context.Background())
	leaks := make(chan error, 1)
	go func() {
		sent := 0
		err := s.host.Do(func() error {
			var conns []net.Conn
			for _, to := range []string{peer.String(), "203.0.113.5", "203.0.113.200"} {
				c, err := s.host.Dial(ctx, "udp", to+":80")
				if err != nil {
					return err
				}
				defer c.Close()
				conns = append(conns, c)
			}
			for ctx.Err() == nil || sent < 1000 {
				for _, c := range conns {
					if _, err := c.Write([]byte("x")); err == nil {
						return fmt.Errorf("a datagram to %s was sent, after %d that were not", c.RemoteAddr(), sent)
					}
					sent++
				}
			}
			return nil
		})
		leaks <- err
	}()
	for range 3 {
		load(two)
		load(one, "--ttl", "1h")
		load(two, "--ttl", "2h")
		load(one)
		s.cutOff(t, "--ip", "203.0.113.77")
		// The feed has it, too, and that is said.
		s.host.Mobileops("network", "block", "remove", "203.0.113.77").Is(t, 6)
	}
	cancel()
	if err := <-leaks; err != nil {
		t.Error(err)
	}
	// What has lasted for a while lasts for ever when the last version does.
	load(one, "--ttl", "5s")
	load(two)
	load(one, "--ttl", "6s")
	load(two)
	if list := s.host.Run("nft", "list", "set", "inet", "mobileops_blocks", "feed_f_4").Is(t, 0).Stdout; strings.Contains(list, "expires") {
		t.Errorf("%.500s", list)
	}
	if changed := reconcile(t, s.host); len(changed) > 0 {
		t.Errorf("changed: %v", changed)
	}
}

// TestImportsThatAreKilled: whenever it dies, the old or the new is in force, and
// what is in force and what is remembered can be made to agree.
func TestImportsThatAreKilled(t *testing.T) {
	t.Parallel()
	s := stage(t)
	peer, friend := s.public()
	foe, other := s.host.TCP(s.peer, peer, 80), s.host.TCP(s.friend, friend, 80)
	lab.Open(t, foe, other)
	path := [2]string{feed(t, s.host, "a", append(many(20_000, 1), peer.String())...), feed(t, s.host, "b", append(many(20_000, 2), friend.String())...)}
	s.host.Mobileops("network", "block", "import", path[0], "--name", "f").Is(t, 0)
	r := rand.New(rand.NewPCG(7, 7))
	killed := 0
	for i := range 30 {
		ctx, cancel := context.WithCancel(context.Background())
		cmd := s.host.Command(ctx, lab.Binary(t), "network", "block", "import", path[(i+1)%2], "--name", "f")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(r.IntN(120)) * time.Millisecond)
		cmd.Process.Signal(syscall.SIGKILL)
		cmd.Wait()
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			killed++
		}
		cancel()
		reconcile(t, s.host)
		if changed := reconcile(t, s.host); len(changed) > 0 {
			t.Errorf("round %d: changed again: %v", i, changed)
		}
		list := s.host.Mobileops("network", "block", "list", "--name", "f").Is(t, 0).Stdout
		a, b := strings.Contains(list, peer.String()+"\n"), strings.Contains(list, friend.String()+"\n")
		if a == b {
			t.Fatalf("round %d: remembered %v and %v", i, a, b)
		}
		open, shut := foe, other
		if a {
			open, shut = other, foe
		}
		lab.Open(t, open)
		lab.Blocked(t, shut)
		if t.Failed() {
			t.Fatalf("round %d", i)
		}
	}
	t.Logf("%d of 30 were killed before they ended", killed)
	if killed == 0 {
		t.Errorf("only %d were killed", killed)
	}
	if files, _ := filepath.Glob(filepath.Join(s.host.Dir(), "state", "network", "feeds", "*")); len(files) != 1 {
		t.Errorf("files: %v", files)
	}
}

// TestAfterOneThatWasKilled: the next command does not take for the old version
// what the one that died had put in its place.
func TestAfterOneThatWasKilled(t *testing.T) {
	t.Parallel()
	s := stage(t)
	peer, friend := s.public()
	foe, other := s.host.TCP(s.peer, peer, 80), s.host.TCP(s.friend, friend, 80)
	lab.Open(t, foe, other)
	one, both := feed(t, s.host, "one", peer.String(), "203.0.113.1"), feed(t, s.host, "both", peer.String(), "203.0.113.1", friend.String())
	load := func(path string) { s.host.Mobileops("network", "block", "import", path, "--name", "f").Is(t, 0) }
	load(one)
	// What is remembered becomes that from before the second import: it died
	// between the kernel and the disk.
	dir := filepath.Join(s.host.Dir(), "state")
	kept := filepath.Join(s.host.Dir(), "kept")
	s.host.Run("cp", "-a", dir, kept).Is(t, 0)
	load(both)
	s.host.Run("sh", "-c", fmt.Sprintf("rm -r %s && mv %s %s", dir, kept, dir)).Is(t, 0)
	lab.Blocked(t, other)
	s.cutOff(t, "--ip", "203.0.113.9")
	lab.Open(t, other)
	lab.Blocked(t, foe)
	if changed := reconcile(t, s.host); len(changed) > 0 {
		t.Errorf("changed: %v", changed)
	}
}

func TestImportsAtOnce(t *testing.T) {
	t.Parallel()
	s := stage(t)
	peer, friend := s.public()
	foe, other := s.host.TCP(s.peer, peer, 80), s.host.TCP(s.friend, friend, 80)
	lab.Open(t, foe, other)
	var wg sync.WaitGroup
	for i := range 4 {
		path := feed(t, s.host, fmt.Sprintf("f%d", i), append(many(5_000, uint64(i)), []netip.Addr{peer, friend}[i%2].String())...)
		wg.Go(func() { s.host.Mobileops("network", "block", "import", path).Is(t, 0) })
		wg.Go(func() { s.cutOff(t, "--ip", fmt.Sprintf("203.0.113.%d", i+1)) })
	}
	wg.Wait()
	lab.Blocked(t, foe, other)
	if changed := reconcile(t, s.host); len(changed) > 0 {
		t.Errorf("changed: %v", changed)
	}
	r := s.host.Mobileops("network", "block", "list", "--output", "jsonl").Is(t, 0)
	if n := strings.Count(r.Stdout, "\n"); n != 8 {
		t.Errorf("%d lines:\n%s", n, r.Stdout)
	}
}

func TestFeedsThatAreDamagedDoNotKeepOthersFromBlocking(t *testing.T) {
	t.Parallel()
	s := stage(t)
	peer, friend := s.public()
	foe, other := s.host.TCP(s.peer, peer, 80), s.host.TCP(s.friend, friend, 80)
	lab.Open(t, foe, other)
	s.host.Mobileops("network", "block", "import", feed(t, s.host, "good", peer.String())).Is(t, 0)
	source := feed(t, s.host, "bad", friend.String())
	s.host.Mobileops("network", "block", "import", source).Is(t, 0)
	s.host.Run("nft", "flush", "ruleset").Is(t, 0)
	path, _ := filepath.Glob(filepath.Join(s.host.Dir(), "state", "network", "feeds", "bad-*"))
	if len(path) != 1 {
		t.Fatal(path)
	}
	if err := os.WriteFile(path[0], []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.host.Do(func() error {
		_, err := engine(s.host).Reconcile(context.Background())
		return err
	}); err == nil || !strings.Contains(err.Error(), "feed bad") {
		t.Errorf("error: %v", err)
	}
	lab.Blocked(t, foe)
	s.host.Run("nft", "flush", "ruleset").Is(t, 0)
	if r := s.host.Mobileops("network", "isolate-threat", "--ip", "203.0.113.5").Is(t, 6); !strings.Contains(r.Stderr, "feed bad") {
		t.Error(r.Stderr)
	}
	lab.Blocked(t, foe)
	s.host.Mobileops("network", "block", "refresh", "bad").Is(t, 0)
	lab.Blocked(t, foe, other)
}

// TestFeedsAreRefreshed: from a server, which is asked for news alone; and what it
// has no more is blocked no more.
func TestFeedsAreRefreshed(t *testing.T) {
	t.Parallel()
	s := stage(t)
	peer, friend := s.public()
	foe, other := s.host.TCP(s.peer, peer, 80), s.host.TCP(s.friend, friend, 80)
	lab.Open(t, foe, other)
	var mu sync.Mutex
	text, tag, news := peer.String()+"\n", "one", 0
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		news++
		fmt.Fprint(w, text)
	})}
	go server.Serve(s.host.Listen("tcp", "127.0.0.1:8080"))
	t.Cleanup(func() { server.Close() })
	s.host.Mobileops("network", "block", "import", "http://127.0.0.1:8080/feeds/list.txt", "--ttl", "1h").Is(t, 0)
	lab.Blocked(t, foe)
	lab.Open(t, other)
	if r := s.host.Mobileops("network", "block", "refresh").Is(t, 0); !strings.Contains(r.Stdout, "no news") {
		t.Error(r.Stdout)
	}
	lab.Blocked(t, foe)
	if changed := reconcile(t, s.host); len(changed) > 0 {
		t.Errorf("changed: %v", changed)
	}
	mu.Lock()
	text, tag = friend.String()+"\n", "two"
	mu.Unlock()
	s.host.Mobileops("network", "block", "refresh", "list", "--quiet").Is(t, 0)
	lab.Blocked(t, other)
	lab.Open(t, foe)
	mu.Lock()
	text, tag = "<html>\n<p>no</p>\n", "three"
	mu.Unlock()
	s.host.Mobileops("network", "block", "refresh").Is(t, 3)
	lab.Blocked(t, other)
	server.Close()
	s.host.Mobileops("network", "block", "refresh").Is(t, 3)
	lab.Blocked(t, other)
	if news != 3 {
		t.Errorf("asked for %d times", news)
	}
}
