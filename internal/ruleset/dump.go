package ruleset

import (
	"errors"
	"fmt"

	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

func nftMessage(message int) uint16 {
	return uint16(unix.NFNL_SUBSYS_NFTABLES<<8 | message)
}

// generation is the number of the ruleset: each transaction makes a new one.
func generation(c *netlink.Conn) (uint32, error) {
	m, err := c.Get(nftMessage(unix.NFT_MSG_GETGEN), make([]byte, 4))
	if err != nil {
		return 0, fmt.Errorf("generation of the ruleset: %w", err)
	}
	_, attrs, err := netlink.After(m, 4)
	for _, a := range attrs {
		if a.Type == 1 { // NFTA_GEN_ID
			return a.Big32(), err
		}
	}
	return 0, err
}

// nftObject is a table, chain, set and so on as the kernel told it.
type nftObject struct {
	family uint8
	table  string
	name   string
	attrs  []netlink.Attr
}

func (o *nftObject) attr(typ uint16) *netlink.Attr {
	for i := range o.attrs {
		if o.attrs[i].Type == typ {
			return &o.attrs[i]
		}
	}
	return &netlink.Attr{}
}

// ruleset is everything that nftables holds. Rules are in their order.
type ruleset struct {
	tables, chains, rules, sets, objects, flowtables []nftObject

	elements map[string][][]byte     // lists of elements, by id of the set
	rulesOf  map[string][]*nftObject // by id of the chain
	braces   map[string]*nftObject   // sets and chains without names of their own, by id
	within   map[string]string       // digests of such chains, by id
}

// id tells objects of one sort apart.
func (o *nftObject) id() string { return o.named(o.name) }

// named is the id of the object of that name in the same table.
func (o *nftObject) named(name string) string {
	return string([]byte{o.family}) + o.table + "\x00" + name
}

// index makes what others refer to quick to find.
func (r *ruleset) index() {
	r.rulesOf, r.braces, r.within = map[string][]*nftObject{}, map[string]*nftObject{}, map[string]string{}
	for i := range r.rules {
		r.rulesOf[r.rules[i].id()] = append(r.rulesOf[r.rules[i].id()], &r.rules[i])
	}
	for i := range r.chains {
		if c := &r.chains[i]; c.attr(attrChainFlags).Big32()&chainBinding != 0 {
			r.braces["chain "+c.id()] = c
		}
	}
	for i := range r.sets {
		if s := &r.sets[i]; s.attr(unix.NFTA_SET_FLAGS).Big32()&setAnonymous != 0 {
			r.braces["set "+s.id()] = s
		}
	}
}

// readRuleset reads everything but the tables that except names: their sets
// can have very many elements.
func readRuleset(c *netlink.Conn, except Except) (*ruleset, error) {
	r := &ruleset{elements: map[string][][]byte{}}
	for _, p := range []struct {
		message     int
		to          *[]nftObject
		table, name uint16 // attributes
		optional    bool
	}{
		{unix.NFT_MSG_GETTABLE, &r.tables, unix.NFTA_TABLE_NAME, unix.NFTA_TABLE_NAME, false},
		{unix.NFT_MSG_GETCHAIN, &r.chains, unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_NAME, false},
		{unix.NFT_MSG_GETRULE, &r.rules, unix.NFTA_RULE_TABLE, unix.NFTA_RULE_CHAIN, false},
		{unix.NFT_MSG_GETSET, &r.sets, unix.NFTA_SET_TABLE, unix.NFTA_SET_NAME, false},
		{unix.NFT_MSG_GETOBJ, &r.objects, unix.NFTA_OBJ_TABLE, unix.NFTA_OBJ_NAME, true},
		{unix.NFT_MSG_GETFLOWTABLE, &r.flowtables, attrFlowTable, attrFlowName, true},
	} {
		list, err := c.Dump(nftMessage(p.message), make([]byte, 4)) // struct nfgenmsg: any family
		if p.optional && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)) {
			continue // older than the kernel that brought it
		}
		if err != nil {
			return nil, fmt.Errorf("ruleset: %w", err)
		}
		for _, m := range list {
			head, attrs, err := netlink.After(m, 4)
			if err != nil {
				return nil, fmt.Errorf("ruleset: %w", err)
			}
			o := nftObject{family: head[0], attrs: attrs}
			o.table, o.name = o.attr(p.table).Text(), o.attr(p.name).Text()
			if except != nil && except(o.family, o.table) {
				continue
			}
			*p.to = append(*p.to, o)
		}
	}
	for i := range r.sets {
		s := &r.sets[i]
		if s.attr(unix.NFTA_SET_FLAGS).Big32()&setDynamic != 0 {
			continue
		}
		body := append([]byte{s.family, 0, 0, 0}, netlink.Put(nil, attrElemTable, zeroEnded(s.table))...)
		body = netlink.Put(body, attrElemSet, zeroEnded(s.name))
		list, err := c.Dump(nftMessage(unix.NFT_MSG_GETSETELEM), body)
		if err != nil {
			return nil, fmt.Errorf("elements of set %s: %w", s.name, err)
		}
		r.elements[s.id()] = list
	}
	r.index()
	return r, nil
}

func zeroEnded(s string) []byte { return append([]byte(s), 0) }

// Flags of sets and chains, and kinds of objects, from nf_tables.h.
const (
	setAnonymous   = 0x1
	setDynamic     = 0x20 // NFT_SET_EVAL: rules put elements in
	chainBinding   = 0x4
	objectCounter  = 1
	objectQuota    = 2
	attrChainFlags = 10 // NFTA_CHAIN_FLAGS
	attrChainData  = 12 // NFTA_CHAIN_USERDATA
	attrTableData  = 6  // NFTA_TABLE_USERDATA
	attrSetExpr    = 0x11
	attrSetExprs   = 0x12
	attrElemExpr   = 0x7
	attrElemExprs  = 0xb
	attrObjData    = 8 // NFTA_OBJ_USERDATA
	attrElemKeyEnd = 0xa
	attrFlowTable  = 1
	attrFlowName   = 2
	attrFlowHook   = 3
	attrFlowFlags  = 7 // NFTA_FLOWTABLE_FLAGS
	attrElemTable  = 1 // NFTA_SET_ELEM_LIST_TABLE
	attrElemSet    = 2
	attrElemList   = 3
)
