package ruleset

import (
	"fmt"

	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

// list tells of every object by itself, so that a report says which chain it
// was and an administrator can accept one change and not another.
func (r *ruleset) list() []Object {
	var list []Object
	add := func(o *nftObject, to Object, canonical []byte) {
		to.Family, to.Table, to.Name, to.Digest = o.family, o.table, o.name, digest(canonical)
		list = append(list, to)
	}
	for i := range r.tables {
		o := &r.tables[i]
		add(o, Object{Kind: "table"}, r.object(o, unix.NFTA_TABLE_NAME, unix.NFTA_TABLE_FLAGS, attrTableData))
	}
	for i := range r.chains {
		o := &r.chains[i]
		if o.attr(attrChainFlags).Big32()&chainBinding != 0 {
			continue // part of the rule that jumps there
		}
		to := Object{Kind: "chain"}
		if hook := o.attr(unix.NFTA_CHAIN_HOOK); hook.Value != nil {
			to.Hook, to.Policy = hookText(o, hook.Value), "accept"
			if o.attr(unix.NFTA_CHAIN_POLICY).Big32() == 0 {
				to.Policy = "drop"
			}
		}
		canonical, n := r.chain(o)
		to.Rules = n
		add(o, to, canonical)
	}
	for i := range r.sets {
		o := &r.sets[i]
		flags := o.attr(unix.NFTA_SET_FLAGS).Big32()
		if flags&setAnonymous != 0 {
			continue // part of the rule that looks there
		}
		canonical, n := r.set(o)
		add(o, Object{Kind: "set", Elements: n, Dynamic: flags&setDynamic != 0}, canonical)
	}
	for i := range r.objects {
		o := &r.objects[i]
		kind := o.attr(unix.NFTA_OBJ_TYPE).Big32()
		canonical := r.object(o, unix.NFTA_OBJ_TABLE, unix.NFTA_OBJ_NAME, unix.NFTA_OBJ_TYPE, attrObjData)
		canonical = append(canonical, withoutState(objectName(kind), o.attr(unix.NFTA_OBJ_DATA).Value)...)
		add(o, Object{Kind: objectName(kind), Type: kind}, canonical)
	}
	for i := range r.flowtables {
		o := &r.flowtables[i]
		add(o, Object{Kind: "flowtable"}, r.object(o, attrFlowTable, attrFlowName, attrFlowHook, attrFlowFlags))
	}
	return list
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
		return fmt.Sprintf("%x", b)
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
