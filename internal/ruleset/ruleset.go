// Package ruleset reads the rules of the firewall of the network namespace of
// the process and makes digests of what an administrator wrote: of each table,
// chain, set and so on by itself, for a report that says where a change is, and
// of everything together, for a promise that nothing was touched.
//
// The ruleset of nft(8) is also that of an iptables since 1.8. Attributes are
// taken as the kernel gives them, so an expression that this program has never
// heard of is in the digest, too. Left out is what comes and goes by itself:
// counters, used quotas, handles, elements of dynamic sets, and those that
// expire. Sets and chains without names of their own are part of the rule that
// uses them. What is read belongs to one generation of the ruleset.
//
// The tables of iptables-legacy are read, too; see Legacy. Digests are the
// first 128 bits of BLAKE3 in hexadecimal digits.
//
// Sources: linux/netfilter/nf_tables.h, nft(8), linux/netfilter_ipv4/ip_tables.h.
package ruleset

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/netlink"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// Object is a table, chain, set, stateful object or flowtable that has a name
// of its own.
type Object struct {
	Kind   string // "table", "chain", "set", "flowtable", or what a stateful object does: "counter", "quota"
	Type   uint32 // number of the kind of a stateful object (NFT_OBJECT_*); otherwise 0
	Family uint8  // unix.NFPROTO_INET, …; see FamilyName
	Table  string // as the kernel told it: any bytes
	Name   string // of the object; of a table the same as Table
	Hook   string // of a chain that packets enter: "filter input priority 0"; otherwise empty
	Policy string // of such a chain: "accept" or "drop"
	Rules  int    // of a chain

	Elements int  // of a set: how many stay until somebody takes them out
	Dynamic  bool // of a set: rules put elements in, which are not counted
	Digest   string
}

// Except says of a table whether it is left out: its family, such as
// unix.NFPROTO_INET, and its name.
type Except func(family uint8, table string) bool

// Objects reads the ruleset of nftables, without the tables that except names;
// nil excepts none. Without the right to see it the error wraps unix.EPERM, and
// unix.EPROTONOSUPPORT where the kernel has no nftables. It wraps
// netlink.ErrChanging when the ruleset changed during every attempt to read it.
func Objects(ctx context.Context, except Except) ([]Object, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for range attempts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var before, after uint32
		if before, err = generation(c); err != nil {
			break
		}
		var r *ruleset
		if r, err = readRuleset(c, except); err == nil {
			if after, err = generation(c); err == nil && before == after {
				return r.list(), nil
			}
		}
		if err == nil || errors.Is(err, unix.ENOENT) { // a set went between the list and its elements
			err = netlink.ErrChanging
			continue
		}
		break
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		err = fmt.Errorf("nftables: %w", unix.EPROTONOSUPPORT) // no such subsystem
	}
	return nil, err
}

const attempts = 10

// Digest is one digest of all rules, those of iptables-legacy included, without
// the tables of nftables that except names; nil excepts none. It does not depend
// on the order in which tables, chains and sets were made; that of rules counts.
// A kernel without nftables is as one without rules. Errors are those of Objects
// and Legacy.
func Digest(ctx context.Context, except Except) (string, error) {
	objects, err := Objects(ctx, except)
	if err != nil && !errors.Is(err, unix.EPROTONOSUPPORT) {
		return "", fmt.Errorf("digest of the ruleset: %w", err)
	}
	legacy, err := Legacy("/proc")
	if err != nil {
		return "", fmt.Errorf("digest of the ruleset: %w", err)
	}
	var lines []string
	for _, o := range objects {
		lines = append(lines, fmt.Sprintf("%d %q %q %s %d %s", o.Family, o.Table, o.Name, o.Kind, o.Type, o.Digest))
	}
	for _, t := range legacy {
		lines = append(lines, fmt.Sprintf("%s-legacy %q %s", t.Program, t.Table, t.Digest))
	}
	slices.Sort(lines)
	return digest([]byte(strings.Join(lines, "\n"))), nil
}

// FamilyName is the word that nft(8) has for a family: "inet", "ip6".
func FamilyName(family uint8) string {
	switch family {
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
	return fmt.Sprintf("family%d", family)
}

// digest is how content that is too long to be shown is compared.
func digest(b []byte) string {
	sum := blake3.Sum256(b)
	return fmt.Sprintf("%x", sum[:16])
}
