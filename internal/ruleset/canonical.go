package ruleset

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

// object writes the named attributes of an object, in the order of the names
// given: what is not named here is a handle, a counter or a number of users.
func (r *ruleset) object(o *nftObject, types ...uint16) []byte {
	out := []byte{o.family}
	for _, t := range types {
		if a := o.attr(t); a.Value != nil {
			out = put(out, t, a.Value)
		}
	}
	return out
}

// chain writes a chain with its rules, and counts them. A chain that a rule
// holds between braces is written where it is called.
func (r *ruleset) chain(o *nftObject) ([]byte, int) {
	types := []uint16{unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_HOOK, unix.NFTA_CHAIN_POLICY, unix.NFTA_CHAIN_TYPE, attrChainFlags, attrChainData}
	if o.attr(attrChainFlags).Big32()&chainBinding == 0 {
		types = append(types, unix.NFTA_CHAIN_NAME)
	}
	out, n := r.object(o, types...), 0
	for _, rule := range r.rulesOf[o.id()] {
		n++
		text := r.object(rule, unix.NFTA_RULE_COMPAT, unix.NFTA_RULE_USERDATA)
		text = append(text, r.expressions(rule, rule.attr(unix.NFTA_RULE_EXPRESSIONS).Value)...)
		out = put(out, 0, text)
	}
	return out, n
}

// expressions writes a list of expressions without what they count.
func (r *ruleset) expressions(o *nftObject, list []byte) []byte {
	attrs, err := netlink.Attributes(list)
	if err != nil {
		return put(nil, 1, list) // as it is: a change is seen
	}
	var out []byte
	for _, e := range attrs {
		out = put(out, e.Type, r.expression(o, e.Value))
	}
	return out
}

func (r *ruleset) expression(o *nftObject, b []byte) []byte {
	attrs, err := netlink.Attributes(b)
	if err != nil {
		return b
	}
	e := nftObject{attrs: attrs}
	name, data := e.attr(unix.NFTA_EXPR_NAME).Text(), e.attr(unix.NFTA_EXPR_DATA).Value
	out := put(nil, 0, []byte(name))
	switch name {
	case "lookup", "dynset", "objref":
		return append(out, r.withSet(o, name, data)...)
	case "immediate":
		return append(out, r.withChain(o, data)...)
	}
	return append(out, withoutState(name, data)...)
}

// withoutState writes the data of an expression or an object of that name. What
// it counts is left out.
func withoutState(name string, data []byte) []byte {
	switch name {
	case "counter", "last":
		return nil
	case "quota":
		return without(data, unix.NFTA_QUOTA_CONSUMED)
	}
	return data
}

func without(b []byte, typ uint16) []byte {
	attrs, err := netlink.Attributes(b)
	if err != nil {
		return b
	}
	var out []byte
	for _, a := range attrs {
		if a.Type != typ {
			out = put(out, a.Type, a.Value)
		}
	}
	return out
}

// withSet writes a lookup. The kernel names sets between braces by number: in
// place of such a name stands what is in it.
func (r *ruleset) withSet(o *nftObject, name string, data []byte) []byte {
	attrs, err := netlink.Attributes(data)
	if err != nil {
		return data
	}
	var out []byte
	for _, a := range attrs {
		switch {
		case name == "lookup" && a.Type == unix.NFTA_LOOKUP_SET, name == "dynset" && a.Type == unix.NFTA_DYNSET_SET_NAME,
			name == "objref" && a.Type == unix.NFTA_OBJREF_SET_NAME:
			out = put(out, a.Type, r.setName(o, a.Text()))
		case name == "lookup" && a.Type == unix.NFTA_LOOKUP_SET_ID, name == "dynset" && a.Type == unix.NFTA_DYNSET_SET_ID,
			name == "objref" && a.Type == unix.NFTA_OBJREF_SET_ID:
		case name == "dynset" && a.Type == unix.NFTA_DYNSET_EXPR:
			out = put(out, a.Type, r.expression(o, a.Value))
		case name == "dynset" && a.Type == 10: // NFTA_DYNSET_EXPRESSIONS
			out = put(out, a.Type, r.expressions(o, a.Value))
		default:
			out = put(out, a.Type, a.Value)
		}
	}
	return out
}

func (r *ruleset) setName(o *nftObject, name string) []byte {
	if s := r.braces["set "+o.named(name)]; s != nil {
		content, _ := r.set(s)
		return []byte("{" + digest(content) + "}")
	}
	return []byte(name)
}

// withChain writes a verdict. In place of the number of a chain that the rule
// holds between braces stands the chain.
func (r *ruleset) withChain(o *nftObject, data []byte) []byte {
	imm := nftObject{}
	var err error
	if imm.attrs, err = netlink.Attributes(data); err != nil {
		return data
	}
	value := nftObject{}
	value.attrs, err = netlink.Attributes(imm.attr(unix.NFTA_IMMEDIATE_DATA).Value)
	verdict := nftObject{}
	if err == nil {
		verdict.attrs, err = netlink.Attributes(value.attr(unix.NFTA_DATA_VERDICT).Value)
	}
	name := verdict.attr(unix.NFTA_VERDICT_CHAIN).Text()
	if err != nil || name == "" {
		return data
	}
	c := r.braces["chain "+o.named(name)]
	if c == nil {
		return data
	}
	sum, done := r.within[c.id()]
	if !done {
		r.within[c.id()] = "it calls itself" // which the kernel refuses
		content, _ := r.chain(c)
		sum = digest(content)
		r.within[c.id()] = sum
	}
	out := put(nil, unix.NFTA_IMMEDIATE_DREG, imm.attr(unix.NFTA_IMMEDIATE_DREG).Value)
	out = put(out, unix.NFTA_VERDICT_CODE, verdict.attr(unix.NFTA_VERDICT_CODE).Value)
	return put(out, unix.NFTA_VERDICT_CHAIN, []byte("{"+sum+"}"))
}

// set writes a set with the elements that stay, and counts them.
func (r *ruleset) set(o *nftObject) ([]byte, int) {
	types := []uint16{unix.NFTA_SET_TABLE, unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_KEY_LEN, unix.NFTA_SET_DATA_TYPE,
		unix.NFTA_SET_DATA_LEN, unix.NFTA_SET_POLICY, unix.NFTA_SET_TIMEOUT, unix.NFTA_SET_GC_INTERVAL, unix.NFTA_SET_USERDATA, unix.NFTA_SET_OBJ_TYPE}
	if o.attr(unix.NFTA_SET_FLAGS).Big32()&setAnonymous == 0 {
		types = append(types, unix.NFTA_SET_NAME, unix.NFTA_SET_DESC)
	}
	out := r.object(o, types...)
	if e := o.attr(attrSetExpr).Value; e != nil {
		out = put(out, attrSetExpr, r.expression(o, e))
	}
	out = put(out, attrSetExprs, r.expressions(o, o.attr(attrSetExprs).Value))
	var sums []string
	n := 0
	for _, m := range r.elements[o.id()] {
		_, attrs, err := netlink.After(m, 4)
		if err != nil {
			return put(out, 1, m), n
		}
		list := nftObject{attrs: attrs}
		elems, _ := netlink.Attributes(list.attr(attrElemList).Value)
		for _, e := range elems {
			if text, stays := r.element(o, e.Value); stays {
				sums = append(sums, digest(text))
				if !endsInterval(e.Value) {
					n++
				}
			}
		}
	}
	slices.Sort(sums) // the kernel lists them in the order of its hash table
	return put(out, 2, []byte(strings.Join(sums, "\n"))), n
}

// endsInterval tells the end of an interval, which is an element of its own,
// from its beginning.
func endsInterval(b []byte) bool {
	attrs, err := netlink.Attributes(b)
	e := nftObject{attrs: attrs}
	return err == nil && e.attr(unix.NFTA_SET_ELEM_FLAGS).Big32()&unix.NFT_SET_ELEM_INTERVAL_END != 0
}

// element writes an element of a set, and tells whether it stays until somebody
// takes it out.
func (r *ruleset) element(o *nftObject, b []byte) ([]byte, bool) {
	attrs, err := netlink.Attributes(b)
	if err != nil {
		return b, true
	}
	e := nftObject{attrs: attrs}
	if e.attr(unix.NFTA_SET_ELEM_EXPIRATION).Value != nil {
		return nil, false
	}
	var out []byte
	for _, t := range []uint16{unix.NFTA_SET_ELEM_KEY, attrElemKeyEnd, unix.NFTA_SET_ELEM_DATA, unix.NFTA_SET_ELEM_FLAGS,
		unix.NFTA_SET_ELEM_USERDATA, unix.NFTA_SET_ELEM_OBJREF} {
		if a := e.attr(t); a.Value != nil {
			out = put(out, t, a.Value)
		}
	}
	if x := e.attr(attrElemExpr).Value; x != nil {
		out = put(out, attrElemExpr, r.expression(o, x))
	}
	return put(out, attrElemExprs, r.expressions(o, e.attr(attrElemExprs).Value)), true
}

// put appends an attribute with its length, so that no two lists are written
// alike. It is not limited to the 64 KiB of a netlink attribute.
func put(b []byte, typ uint16, value []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, typ)
	b = binary.BigEndian.AppendUint32(b, uint32(len(value)))
	return append(b, value...)
}
