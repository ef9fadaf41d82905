package netstate

import (
	"errors"
	"fmt"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/integrity/facts/netlink"
	"golang.org/x/sys/unix"
)

// nftables tells of the ruleset of nft(8), which is also that of an iptables
// since 1.8: a fact for each table, chain, set, flowtable and stateful object,
// with a digest of all that an administrator wrote. The attributes are taken as
// the kernel gives them, so an expression that this program has never heard of
// is in the digest, too. Sources: linux/netfilter/nf_tables.h, nft(8).
func nftables(g *gathering) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		g.told("nftables", err, "")
		return
	}
	defer c.Close()
	for range rulesetAttempts {
		var before, after uint32
		if before, err = generation(c); err != nil {
			break
		}
		var r *ruleset
		if r, err = readRuleset(c); err == nil {
			if after, err = generation(c); err == nil && before == after {
				for _, f := range r.facts() {
					g.add("nftables", "firewall", f.Key, f)
				}
				break
			}
		}
		if err == nil || errors.Is(err, unix.ENOENT) { // a set went between the list and its elements
			err = netlink.ErrChanging
			continue
		}
		break
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		err = unix.EPROTONOSUPPORT // no such subsystem
	}
	g.told("nftables", err, "")
}

const rulesetAttempts = 10

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

// path names the table of an object: "inet/filter".
func (o *nftObject) path() string { return nftFamily(o.family) + "/" + facts.Text(o.table) }

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

func readRuleset(c *netlink.Conn) (*ruleset, error) {
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

// facts tells of every object by itself, so that a report says which chain it
// was and an administrator can accept one change and not another.
func (r *ruleset) facts() []facts.Fact {
	var list []facts.Fact
	managed := managers()
	add := func(o *nftObject, key string, attrs map[string]string, canonical []byte) {
		attrs["digest"] = digest(canonical)
		f := facts.Fact{Key: key, Severity: finding.High, Attributes: attrs}
		attrs["managed"] = managed.of(o, attrs)
		if attrs["managed"] != facts.None {
			f.Severity = finding.Low
		}
		list = append(list, f)
	}
	for i := range r.tables {
		o := &r.tables[i]
		add(o, o.path(), map[string]string{"object": "table"}, r.object(o, unix.NFTA_TABLE_NAME, unix.NFTA_TABLE_FLAGS, attrTableData))
	}
	for i := range r.chains {
		o := &r.chains[i]
		if o.attr(attrChainFlags).Big32()&chainBinding != 0 {
			continue // part of the rule that jumps there
		}
		attrs := map[string]string{"object": "chain", "policy": facts.None, "hook": facts.None}
		if hook := o.attr(unix.NFTA_CHAIN_HOOK); hook.Value != nil {
			attrs["hook"] = hookText(o, hook.Value)
			attrs["policy"] = "accept"
			if o.attr(unix.NFTA_CHAIN_POLICY).Big32() == 0 {
				attrs["policy"] = "drop"
			}
		}
		canonical, n := r.chain(o)
		attrs["rules"] = fmt.Sprint(n)
		add(o, o.path()+"/"+facts.Text(o.name), attrs, canonical)
	}
	for i := range r.sets {
		o := &r.sets[i]
		flags := o.attr(unix.NFTA_SET_FLAGS).Big32()
		if flags&setAnonymous != 0 {
			continue // part of the rule that looks there
		}
		attrs := map[string]string{"object": "set", "elements": "dynamic"}
		canonical, n := r.set(o)
		if flags&setDynamic == 0 {
			attrs["elements"] = fmt.Sprint(n)
		}
		add(o, o.path()+"/@"+facts.Text(o.name), attrs, canonical)
	}
	for i := range r.objects {
		o := &r.objects[i]
		kind := o.attr(unix.NFTA_OBJ_TYPE).Big32()
		canonical := r.object(o, unix.NFTA_OBJ_TABLE, unix.NFTA_OBJ_NAME, unix.NFTA_OBJ_TYPE, attrObjData)
		canonical = append(canonical, withoutState(objectName(kind), o.attr(unix.NFTA_OBJ_DATA).Value)...)
		add(o, fmt.Sprintf("%s/object/%d/%s", o.path(), kind, facts.Text(o.name)), map[string]string{"object": objectName(kind)}, canonical)
	}
	for i := range r.flowtables {
		o := &r.flowtables[i]
		canonical := r.object(o, attrFlowTable, attrFlowName, attrFlowHook, attrFlowFlags)
		add(o, o.path()+"/flowtable/"+facts.Text(o.name), map[string]string{"object": "flowtable"}, canonical)
	}
	return list
}

func nftFamily(f uint8) string {
	switch f {
	case unix.NFPROTO_INET:
		return "inet"
	case unix.NFPROTO_IPV4:
		return "ip"
	case unix.NFPROTO_IPV6:
		return "ip6"
	case unix.NFPROTO_ARP:
		return "arp"
	case unix.NFPROTO_BRIDGE:
		return "bridge"
	case unix.NFPROTO_NETDEV:
		return "netdev"
	}
	return fmt.Sprintf("family%d", f)
}

func objectName(kind uint32) string {
	switch kind {
	case objectCounter:
		return "counter"
	case objectQuota:
		return "quota"
	case 3:
		return "ct helper"
	case 4:
		return "limit"
	case 8:
		return "ct timeout"
	case 9:
		return "secmark"
	case 10:
		return "ct expectation"
	case 11:
		return "synproxy"
	}
	return fmt.Sprintf("object of kind %d", kind)
}

func hookText(o *nftObject, b []byte) string {
	attrs, err := netlink.Attributes(b)
	if err != nil {
		return facts.Text(b)
	}
	h := nftObject{attrs: attrs}
	n := h.attr(unix.NFTA_HOOK_HOOKNUM).Big32()
	names := []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
	if o.family == unix.NFPROTO_NETDEV {
		names = []string{"ingress", "egress"}
	}
	if o.family == unix.NFPROTO_ARP {
		names = []string{"input", "output", "forward"}
	}
	name := fmt.Sprint(n)
	if int(n) < len(names) {
		name = names[n]
	}
	return fmt.Sprintf("%s %s priority %d", o.attr(unix.NFTA_CHAIN_TYPE).Text(), name, int32(h.attr(unix.NFTA_HOOK_PRIORITY).Big32()))
}
