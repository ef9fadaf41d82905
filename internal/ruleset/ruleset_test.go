package ruleset

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/netlink"
	"github.com/mobileops/mobileops/internal/network/lab"
	"golang.org/x/sys/unix"
)

// foreign is what others wrote.
const foreign = `
table inet filter {
	set admins { type ipv4_addr; flags interval; elements = { 10.0.0.0/24, 192.0.2.1 }; }
	set banned { type ipv4_addr; flags dynamic,timeout; timeout 1h; }
	chain input {
		type filter hook input priority 0; policy accept;
		ip saddr @admins tcp dport { 22, 2222 } counter accept
		icmp type echo-request counter accept
		tcp dport 7 add @banned { ip saddr } drop
	}
}
`

// second is a table of others, too.
const second = `
table ip nat { chain post { type nat hook postrouting priority 100; ip saddr 10.0.0.0/8 masquerade; }; }
`

// ours is what a digest of foreign rules leaves out.
const ours = `
table inet ours { set many { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2 }; }; chain in { type filter hook input priority -5; ip saddr @many drop; }; }
table netdev ours { chain in { type filter hook ingress device lo priority 0; }; }
`

type host struct {
	*lab.Host
	t *testing.T
}

func newHost(t *testing.T) *host {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil && os.Geteuid() == 0 {
		t.Skip("NOT RUN: nft is not installed (see .ci/test-tools)")
	}
	return &host{lab.New(t).Host("host"), t}
}

func (h *host) nft(rules string) {
	h.t.Helper()
	file := h.Dir() + "/rules"
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		h.t.Fatal(err)
	}
	h.Run("nft", "-f", file).Is(h.t, 0)
}

// digest is that of foreign rules.
func (h *host) digest() (sum string) {
	h.t.Helper()
	err := h.Do(func() (err error) {
		sum, err = Digest(context.Background(), func(_ uint8, table string) bool { return table == "ours" })
		return err
	})
	if err != nil || len(sum) != 32 {
		h.t.Fatalf("digest %q: %v", sum, err)
	}
	return sum
}

// TestDigestStays: what is ours, what counts, and how rules came to be there
// does not matter.
func TestDigestStays(t *testing.T) {
	h := newHost(t)
	empty := h.digest()
	h.nft(ours)
	if h.digest() != empty {
		t.Error("tables that are left out are in the digest")
	}
	h.nft("flush ruleset\n" + foreign + second)
	before := h.digest()
	if before == empty {
		t.Fatal("rules do not matter: the test shows nothing")
	}
	same := func(why string) {
		t.Helper()
		if h.digest() != before {
			t.Errorf("%s: the digest is another", why)
		}
	}
	same("read again")
	h.nft(ours)
	same("with tables of ours")
	h.nft("add element inet ours many { 10.0.0.3 }")
	same("with an element in a set of ours")
	h.nft("delete table inet ours\ndelete table netdev ours")
	same("without tables of ours")
	h.Run("ping", "-c1", "-W5", "127.0.0.1").Is(t, 0)
	if !strings.Contains(h.Run("nft", "list", "ruleset").Stdout, "counter packets 1 ") {
		t.Error("no counter moved: the test shows nothing")
	}
	same("after packets were counted")
	h.nft("add element inet filter banned { 203.0.113.9 }")
	same("with an element that expires")
	h.nft("flush ruleset\n" + second + foreign)
	same("loaded in another order")
}

// TestDigestChanges with everything that an administrator can see.
func TestDigestChanges(t *testing.T) {
	h := newHost(t)
	h.nft(foreign + second)
	before := h.digest()
	for _, change := range []string{
		"add table inet other",
		"add table bridge filter",
		"add chain inet filter new",
		"add rule inet filter input tcp dport 1 accept",
		"insert rule inet filter input tcp dport 1 accept",
		"add element inet filter admins { 192.0.2.2 }",
		"delete element inet filter admins { 192.0.2.1 }",
		"chain inet filter input { policy drop; }",
		"delete table ip nat",
		"add counter inet filter seen",
	} {
		h.nft(change)
		if h.digest() == before {
			t.Errorf("%s: the digest is the same", change)
		}
		h.nft("flush ruleset\n" + foreign + second)
		if h.digest() != before {
			t.Fatalf("%s: undone, the digest is another", change)
		}
	}
	swapped := strings.Replace(foreign, "\t\ticmp type echo-request counter accept\n\t\ttcp dport 7 add @banned { ip saddr } drop\n",
		"\t\ttcp dport 7 add @banned { ip saddr } drop\n\t\ticmp type echo-request counter accept\n", 1)
	if swapped == foreign {
		t.Fatal("no rules to swap")
	}
	h.nft("flush ruleset\n" + swapped + second)
	if h.digest() == before {
		t.Error("the order of rules does not matter")
	}
}

// TestDigestWithLegacy: rules of iptables-legacy count.
func TestDigestWithLegacy(t *testing.T) {
	h := newHost(t)
	if _, err := exec.LookPath("iptables-legacy"); err != nil {
		t.Skip("NOT RUN: iptables-legacy is not installed (see .ci/test-tools)")
	}
	if r := h.Run("iptables-legacy", "-A", "INPUT", "-p", "icmp", "-j", "ACCEPT"); r.Status != 0 {
		t.Skipf("NOT RUN: this kernel has no iptables-legacy: %s", r.Stderr)
	}
	before := h.digest()
	h.Run("iptables-legacy", "-A", "INPUT", "-p", "tcp", "-j", "DROP").Is(t, 0)
	if h.digest() == before {
		t.Error("a new rule does not matter")
	}
	h.Run("iptables-legacy", "-D", "INPUT", "-p", "tcp", "-j", "DROP").Is(t, 0)
	h.Run("ping", "-c1", "-W5", "127.0.0.1").Is(t, 0)
	if h.digest() != before {
		t.Error("the same rules, and another digest")
	}
}

// TestConsistent: while rules are replaced all the time, one of the two
// rulesets is read, and never a mixture.
func TestConsistent(t *testing.T) {
	h := newHost(t)
	load := func(table string) string {
		return fmt.Sprintf("flush ruleset\ntable inet %[1]s { set s { type ipv4_addr; elements = { 10.0.0.1 }; }; chain c { ip saddr @s drop; }; }\n", table)
	}
	known, files := map[string]bool{}, [2]string{}
	for i, table := range []string{"a", "b"} {
		h.nft(load(table))
		known[h.digest()] = true
		files[i] = h.Dir() + "/" + table
		if err := os.WriteFile(files[i], []byte(load(table)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stop, done := make(chan struct{}), make(chan struct{})
	defer func() {
		close(stop)
		<-done
	}()
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			h.Run("nft", "-f", files[i%2])
		}
	}()
	var sum string
	for read, end := 0, time.Now().Add(5*time.Minute); read < 50; {
		err := h.Do(func() (err error) {
			sum, err = Digest(context.Background(), nil)
			return err
		})
		switch {
		case errors.Is(err, netlink.ErrChanging) && time.Now().Before(end): // a busy machine reads slowly
		case err != nil:
			t.Fatalf("after %d digests: %v", read, err)
		case !known[sum]:
			t.Fatal("a digest of neither")
		default:
			read++
		}
	}
}

// TestDigestNeedsRoot: what may not be seen is an error, not an empty ruleset.
func TestDigestNeedsRoot(t *testing.T) {
	h := newHost(t)
	err := h.Do(func() error {
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		if err := unix.Capget(&hdr, &caps[0]); err != nil {
			return err
		}
		less := caps
		less[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := unix.Capset(&hdr, &less[0]); err != nil { // of this thread
			return err
		}
		_, err := Digest(context.Background(), nil)
		return errors.Join(unix.Capset(&hdr, &caps[0]), err)
	})
	if !errors.Is(err, unix.EPERM) {
		t.Errorf("%v", err)
	}
}
