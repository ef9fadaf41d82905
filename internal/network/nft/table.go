package nft

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Table names a table.
type Table struct {
	Family Family
	Name   string
}

func (t Table) String() string { return t.Family.String() + " " + t.Name }

// TableFlags say how a table lives.
type TableFlags uint32

// Flags of tables. Owner: only the Conn that made the table can change it, and
// it goes when that is closed (Linux 5.12). Persist: it stays then, without an
// owner, and another Conn can own it (Linux 6.9).
const (
	Dormant TableFlags = 1
	Owner   TableFlags = 2
	Persist TableFlags = 4
)

// AddTable makes a table, or does nothing when there is one. With flags, it
// gives them to a table without an owner. The comment can be read back.
func (b *Batch) AddTable(t Table, flags TableFlags, comment string) {
	b.table("add", unix.NLM_F_CREATE, t, flags, comment)
}

// CreateTable makes a table; that there is one is unix.EEXIST.
func (b *Batch) CreateTable(t Table, flags TableFlags, comment string) {
	b.table("create", unix.NLM_F_CREATE|unix.NLM_F_EXCL, t, flags, comment)
}

func (b *Batch) table(verb string, how uint16, t Table, flags TableFlags, comment string) {
	b.name("table", t.Name)
	b.message(unix.NFT_MSG_NEWTABLE, how, t.Family, verb+" table "+t.String())
	b.string(unix.NFTA_TABLE_NAME, t.Name)
	b.u32(unix.NFTA_TABLE_FLAGS, uint32(flags))
	if comment != "" {
		b.bytes(attrTableUserdata, b.comment(0, comment))
	}
	b.end()
	b.say("%s table %s%s", verb, t, block(commentText(comment)))
}

// DestroyTable removes a table with all in it, if it is there.
func (b *Batch) DestroyTable(t Table) {
	// DESTROY came with Linux 6.3: making the table first does the same on all.
	b.message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, t.Family, "add table "+t.String())
	b.string(unix.NFTA_TABLE_NAME, t.Name)
	b.end()
	b.message(unix.NFT_MSG_DELTABLE, 0, t.Family, "delete table "+t.String())
	b.string(unix.NFTA_TABLE_NAME, t.Name)
	b.end()
	b.say("add table %s\ndelete table %s", t, t)
}

// DeleteTable removes a table with all in it; that it is not there is
// unix.ENOENT.
func (b *Batch) DeleteTable(t Table) {
	b.message(unix.NFT_MSG_DELTABLE, 0, t.Family, "delete table "+t.String())
	b.string(unix.NFTA_TABLE_NAME, t.Name)
	b.end()
	b.say("delete table %s", t)
}

// Hook is a place on the way of a packet where a base chain looks at it.
type Hook struct {
	Type     string // "filter", "nat" or "route"; "" is filter
	At       string // prerouting, input, forward, output, postrouting, ingress, egress
	Priority int32
	Drop     bool     // the policy; otherwise accept
	Devices  []string // of netdev chains
}

// number is that of the hook in the kernel.
func (h *Hook) number(f Family) (uint32, bool) {
	names := []string{"prerouting", "input", "forward", "output", "postrouting"}
	if f == NetDev {
		names = []string{"ingress", "egress"}
	}
	for i, n := range names {
		if n == h.At {
			return uint32(i), true
		}
	}
	return 0, false
}

func (h *Hook) kind() string {
	if h.Type == "" {
		return "filter"
	}
	return h.Type
}

func (h *Hook) policy() string {
	if h.Drop {
		return "drop"
	}
	return "accept"
}

// AddChain makes a chain; with a hook, it is a base chain that sees packets.
func (b *Batch) AddChain(t Table, name string, hook *Hook) {
	b.name("chain", name)
	b.message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, t.Family, "add chain "+t.String()+" "+name)
	b.string(unix.NFTA_CHAIN_TABLE, t.Name)
	b.string(unix.NFTA_CHAIN_NAME, name)
	text := ""
	if hook != nil {
		number, ok := hook.number(t.Family)
		if !ok {
			b.fail("chain %s %s: there is no hook %q", t, name, hook.At)
		}
		at := b.nest(unix.NFTA_CHAIN_HOOK)
		b.u32(unix.NFTA_HOOK_HOOKNUM, number)
		b.u32(unix.NFTA_HOOK_PRIORITY, uint32(hook.Priority))
		text = fmt.Sprintf("type %s hook %s", hook.kind(), hook.At)
		if len(hook.Devices) > 0 {
			devs := b.nest(attrHookDevs)
			quoted := make([]string, len(hook.Devices))
			for i, d := range hook.Devices {
				b.string(attrDeviceName, d)
				quoted[i] = strconv.Quote(d)
			}
			b.close(devs)
			text += " devices = { " + strings.Join(quoted, ", ") + " }"
		}
		b.close(at)
		policy := uint32(nfAccept)
		if hook.Drop {
			policy = nfDrop
		}
		b.u32(unix.NFTA_CHAIN_POLICY, policy)
		b.string(unix.NFTA_CHAIN_TYPE, hook.kind())
		text = fmt.Sprintf("%s priority %d; policy %s;", text, hook.Priority, hook.policy())
		text = " { " + text + " }"
	}
	b.end()
	b.say("add chain %s %s%s", t, name, text)
}

// FlushChain removes the rules of a chain.
func (b *Batch) FlushChain(t Table, name string) {
	b.message(unix.NFT_MSG_DELRULE, 0, t.Family, fmt.Sprintf("flush chain %s %s", t, name))
	b.string(unix.NFTA_RULE_TABLE, t.Name)
	b.string(unix.NFTA_RULE_CHAIN, name)
	b.end()
	b.say("flush chain %s %s", t, name)
}

// DeleteChain removes a chain, which must have no rules and no jumps to it;
// that it is not there is unix.ENOENT.
func (b *Batch) DeleteChain(t Table, name string) {
	b.message(unix.NFT_MSG_DELCHAIN, 0, t.Family, fmt.Sprintf("delete chain %s %s", t, name))
	b.string(unix.NFTA_CHAIN_TABLE, t.Name)
	b.string(unix.NFTA_CHAIN_NAME, name)
	b.end()
	b.say("delete chain %s %s", t, name)
}

// AddRule appends a rule to a chain. The comment is optional; it is what Read
// finds counters by.
func (b *Batch) AddRule(t Table, chain, comment string, exprs ...Expr) {
	b.message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, t.Family, "add rule "+t.String()+" "+chain)
	b.deeds[b.seq].rule = exprs
	b.string(unix.NFTA_RULE_TABLE, t.Name)
	b.string(unix.NFTA_RULE_CHAIN, chain)
	list := b.nest(unix.NFTA_RULE_EXPRESSIONS)
	w := &rule{b: b, family: t.Family}
	for _, e := range exprs {
		e.write(w)
	}
	b.close(list)
	suffix := ""
	if comment != "" {
		b.bytes(unix.NFTA_RULE_USERDATA, b.comment(0, comment))
		suffix = " comment " + strconv.Quote(comment)
	}
	b.end()
	if b.keepText {
		b.say("%s%s", b.what(b.seq), suffix)
	}
}

// Attributes and limits that x/sys does not name, from nf_tables.h.
const (
	attrTableUserdata = 6
	attrHookDevs      = 4
	attrDeviceName    = 1
	maxName           = 128 // NFT_NAME_MAXLEN less the zero
	maxComment        = 120 // nft takes 128
)

// comment is user data that nft shows as a comment: type, length, text, zero.
func (b *Batch) comment(typ byte, s string) []byte {
	if len(s) > maxComment {
		s = s[:maxComment]
	}
	if strings.ContainsAny(s, "\"\n\x00\\") {
		b.fail("a comment with a quote or a new line: %q", s)
	}
	return append(append([]byte{typ, byte(len(s) + 1)}, s...), 0)
}

func commentText(s string) string {
	if s == "" {
		return ""
	}
	if len(s) > maxComment {
		s = s[:maxComment]
	}
	return "comment " + strconv.Quote(s) + ";"
}

func block(s string) string {
	if s == "" {
		return ""
	}
	return " { " + s + " }"
}

var identifier = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_.-]*$`) })

// keywords are words that nft would not read back as a name.
var keywords = map[string]bool{
	"accept": true, "add": true, "all": true, "counter": true, "chain": true, "ct": true, "delete": true, "drop": true, "dup": true,
	"ether": true, "exthdr": true, "fib": true, "flow": true, "flush": true, "fwd": true, "hook": true, "icmp": true, "icmpv6": true, "igmp": true,
	"ip": true, "ip6": true, "jump": true, "limit": true, "list": true, "log": true, "map": true, "mark": true, "meta": true, "notrack": true,
	"policy": true, "queue": true, "quota": true, "redirect": true, "reject": true, "reset": true, "return": true, "rule": true, "set": true,
	"snat": true, "dnat": true, "masquerade": true, "socket": true, "state": true, "table": true, "tcp": true, "udp": true, "th": true, "type": true,
	"update": true, "vlan": true, "vmap": true, "continue": true, "goto": true, "hash": true, "numgen": true, "rt": true, "synproxy": true, "tproxy": true,
	"xfrm": true, "ipsec": true, "arp": true, "sctp": true, "dccp": true, "ah": true, "esp": true, "comp": true, "frag": true, "mh": true, "hbh": true, "dst": true,
	"element": true, "in": true, "out": true, "last": true, "size": true, "flags": true, "timeout": true, "elements": true, "device": true, "devices": true,
	"export": true, "import": true, "monitor": true, "describe": true, "include": true, "define": true, "undefine": true, "rename": true, "insert": true, "replace": true, "create": true, "get": true, "destroy": true,
}

func (b *Batch) name(what, name string) {
	if !identifier().MatchString(name) || len(name) >= maxName || keywords[name] {
		b.fail("%q is not a name for a %s", name, what)
	}
}
