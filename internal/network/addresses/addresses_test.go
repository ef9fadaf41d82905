package addresses_test

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/network/addresses"
)

func parse(t *testing.T, words string) (list []addresses.Range) {
	t.Helper()
	for w := range strings.FieldsSeq(words) {
		first, last, ok := strings.Cut(w, "-")
		if ok {
			list = append(list, addresses.Range{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last)})
			continue
		}
		p, err := addresses.ParsePrefix(w)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, addresses.Of(p))
	}
	return list
}

func text(list []addresses.Range) string {
	var words []string
	for _, r := range list {
		words = append(words, r.String())
	}
	return strings.Join(words, " ")
}

func TestMerge(t *testing.T) {
	for _, c := range [][2]string{
		{"10.0.0.0/8 10.1.0.0/16 10.255.255.255", "10.0.0.0/8"},
		{"10.0.0.1 10.0.0.2 10.0.0.3", "10.0.0.1-10.0.0.3"},
		{"::/0 fd00::1 0.0.0.0/0 255.255.255.255", "0.0.0.0/0 ::/0"},
		{"255.255.255.255 ::", "255.255.255.255 ::"},
		{"10.0.0.7/24", "10.0.0.0/24"},
		{"", ""},
	} {
		if got := text(addresses.Merge(parse(t, c[0]))); got != c[1] {
			t.Errorf("%s: %s, want %s", c[0], got, c[1])
		}
	}
}

func TestWithout(t *testing.T) {
	for _, c := range [][3]string{
		{"10.0.0.0/24", "10.0.0.5", "10.0.0.0-10.0.0.4 10.0.0.6-10.0.0.255"},
		{"10.0.0.0/24", "10.0.0.0/25 10.0.0.255", "10.0.0.128-10.0.0.254"},
		{"0.0.0.0/0 ::/0", "128.0.0.0/1", "0.0.0.0/1 ::/0"},
		{"255.255.255.255", "255.255.255.255", ""},
		{"10.0.0.1 10.0.0.3", "::/0", "10.0.0.1 10.0.0.3"},
	} {
		if got := text(addresses.Without(parse(t, c[0]), parse(t, c[1]))); got != c[2] {
			t.Errorf("%s without %s: %s, want %s", c[0], c[1], got, c[2])
		}
	}
}

// TestAgainstEachAddress compares with sets of single addresses.
func TestAgainstEachAddress(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	some := func() ([]addresses.Range, map[byte]bool) {
		var list []addresses.Range
		in := map[byte]bool{}
		for range random.IntN(12) {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{9, 9, 9, byte(random.IntN(256))}), 24+random.IntN(9)).Masked()
			list = append(list, addresses.Of(p))
			for i := range 256 {
				if p.Contains(netip.AddrFrom4([4]byte{9, 9, 9, byte(i)})) {
					in[byte(i)] = true
				}
			}
		}
		return addresses.Merge(list), in
	}
	for range 2000 {
		a, inA := some()
		b, inB := some()
		if !slices.IsSortedFunc(a, func(x, y addresses.Range) int { return x.First.Compare(y.First) }) {
			t.Fatal("not sorted")
		}
		rest := addresses.Without(a, b)
		for i := range 256 {
			addr := netip.AddrFrom4([4]byte{9, 9, 9, byte(i)})
			if addresses.Find(a, addr) != inA[byte(i)] {
				t.Fatalf("%v in %s", addr, text(a))
			}
			if want := inA[byte(i)] && !inB[byte(i)]; addresses.Find(rest, addr) != want {
				t.Fatalf("%v in %s without %s = %s: want %v", addr, text(a), text(b), text(rest), want)
			}
		}
	}
}

func TestBadAddresses(t *testing.T) {
	for _, s := range []string{"", "x", "10.0.0", "10.0.0.0/33", "fe80::1%eth0", "::ffff:1.2.3.4", "1.2.3.4/", "01.2.3.4", "::ffff:0:0/96"} {
		if p, err := addresses.ParsePrefix(s); err == nil {
			t.Errorf("%q: %v", s, p)
		}
	}
}

func TestPartsOfASplitStandAlone(t *testing.T) {
	v4, v6 := addresses.Split(addresses.Merge(parse(t, "192.0.2.1 2001:db8::1")))
	_ = append(v4, parse(t, "192.0.2.9")...)
	if got := text(v6); got != text(parse(t, "2001:db8::1")) {
		t.Errorf("what was appended to IPv4 is in IPv6: %s", got)
	}
}

func TestNameServers(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	for path, text := range map[string]string{
		first:  "# nameserver 10.0.0.9\nsearch example.org\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver\n",
		second: "nameserver 10.0.0.1\nnameserver ::ffff:10.0.0.2\nnameserver nowhere\noptions edns0",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, a := range addresses.NameServers([]string{first, filepath.Join(dir, "none"), second}) {
		got = append(got, a.String())
	}
	if want := "10.0.0.1 fe80::1 10.0.0.2"; strings.Join(got, " ") != want {
		t.Errorf("%q, want %s", got, want)
	}
}
