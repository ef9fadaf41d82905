package ruleset

import (
	"fmt"
	"testing"

	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

// FuzzRuleset: whatever an answer of the kernel holds, reading it ends.
func FuzzRuleset(f *testing.F) {
	expr := netlink.Put(nil, unix.NFTA_LIST_ELEM, netlink.Put(netlink.Put(nil, unix.NFTA_EXPR_NAME, []byte("lookup\x00")),
		unix.NFTA_EXPR_DATA, netlink.Put(nil, unix.NFTA_LOOKUP_SET, []byte("__set0\x00"))))
	f.Add(expr, netlink.Put(nil, unix.NFTA_SET_ELEM_KEY, []byte{1}))
	verdict := netlink.Put(nil, unix.NFTA_DATA_VERDICT, netlink.Put(nil, unix.NFTA_VERDICT_CHAIN, []byte("__chain0\x00")))
	f.Add(netlink.Put(nil, unix.NFTA_LIST_ELEM, netlink.Put(netlink.Put(nil, unix.NFTA_EXPR_NAME, []byte("immediate\x00")),
		unix.NFTA_EXPR_DATA, netlink.Put(nil, unix.NFTA_IMMEDIATE_DATA, verdict))), []byte{})
	flag := func(typ uint16, n byte) netlink.Attr { return netlink.Attr{Type: typ, Value: []byte{0, 0, 0, n}} }
	f.Fuzz(func(t *testing.T, expressions, element []byte) {
		rule := []netlink.Attr{{Type: unix.NFTA_RULE_EXPRESSIONS, Value: expressions}}
		r := &ruleset{
			tables: []nftObject{{table: "t", name: "t"}},
			// A chain that calls itself: the kernel refuses it, and so must this.
			chains: []nftObject{{table: "t", name: "__chain0", attrs: []netlink.Attr{flag(attrChainFlags, chainBinding)}}, {table: "t", name: "c"}},
			rules:  []nftObject{{table: "t", name: "c", attrs: rule}, {table: "t", name: "__chain0", attrs: rule}},
			sets:   []nftObject{{table: "t", name: "__set0", attrs: []netlink.Attr{flag(unix.NFTA_SET_FLAGS, setAnonymous)}}},
		}
		body := append(make([]byte, 4), netlink.Put(nil, attrElemList, netlink.Put(nil, 1, element))...)
		r.elements = map[string][][]byte{r.sets[0].id(): {body, element}}
		if len(expressions) > 2000 || len(element) > 2000 {
			return
		}
		r.index()
		a := fmt.Sprint(r.list())
		if b := fmt.Sprint(r.list()); a != b {
			t.Error("read twice it is another")
		}
	})
}

// FuzzLegacy: the same for the tables of iptables-legacy.
func FuzzLegacy(f *testing.F) {
	f.Add(make([]byte, 112))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, fam := range []legacyFamily{{address: 84, counters: 96, head: 112}, {address: 136, counters: 152, head: 168}} {
			fam.parse(b)
		}
	})
}
