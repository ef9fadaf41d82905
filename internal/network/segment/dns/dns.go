// Package dns answers for names on the gateway addresses of a zone: those of
// its workloads and leases by itself, all others by asking upstream servers. A
// Server serves one interface.
//
// Clients and upstreams are both taken for hostile. A client has a rate and a
// share of what waits for upstreams; who is not of the zone is refused. An answer
// from upstream must come from the address that was asked, to the port that asked
// (each question has a socket of its own), with the same number, and with the
// letters of the name in the same random case; what it says beside the question is
// thrown away, and an address of a private network is not let through unless the
// name is allowed to have one, as it would let a web page reach what is inside
// (DNS rebinding). Names that mean something on a local network alone are never
// asked for outside.
//
// The way of a question that is in the cache is short: the header and the name
// are read without the DNS library (question.go), and the stored answer is copied
// with the client's number, the client's letters and the remaining times put in.
// Everything else goes through github.com/miekg/dns.
//
// Sources: RFC 1035; RFC 2308 (negative answers); RFC 4343 (case); RFC 5452
// (forged answers); RFC 6303, 7793, 8375 (local zones); RFC 6761, 6762, 7686
// (special names); RFC 6891 (EDNS), with the size of the DNS flag day 2020; RFC
// 7766 (TCP); RFC 8482 (ANY); draft-vixie-dnsext-dns0x20.
package dns

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// Config is what a Server serves. New checks it.
type Config struct {
	Interface string       // the bridge; "" binds to the addresses alone
	Listen    []netip.Addr // the gateway addresses
	Port      uint16       // 53 when 0

	// Clients are the networks of the zone. Others are refused.
	Clients []netip.Prefix

	// Domain is that of the zone, without the last dot. The names in it are
	// answered from Records, Lookup and Reverse, and never asked for upstream.
	Domain string
	// Foreign are the domains of other zones: they do not exist here.
	Foreign []string

	// Records are names with addresses; a name without a dot is in Domain.
	Records map[string][]netip.Addr
	// Aliases are names that stand for another one.
	Aliases map[string]string
	// Lookup returns the addresses of a lease by the first label of its name in
	// Domain, Reverse the label for an address. Both may be nil.
	Lookup  func(label string) []netip.Addr `json:"-"`
	Reverse func(netip.Addr) string         `json:"-"`

	// Upstream are the servers that are asked for other names, the first one
	// first. None: other names do not exist.
	Upstream []netip.AddrPort
	// AllowPrivate are domains that may have addresses in private networks, in
	// the answers of upstream servers.
	AllowPrivate []string

	// Blocked reports whether a name, in small letters and without the last dot,
	// does not exist by decision of the operator. May be nil.
	Blocked func(name string) bool `json:"-"`
	// Log is told each question with its outcome, when it is not nil. It must
	// not block.
	Log func(Query) `json:"-"`

	Limits
}

// Limits keep clients from taking more than their share. Zero values stand for
// the defaults, negative ones for no limit.
type Limits struct {
	Rate    int           // questions a second from one address, after a burst of twice as many; 500
	Cache   int           // answers that are remembered; 10,000; negative: none
	Waiting int           // questions that wait for upstream at once; 512, of which one client can have an eighth
	Timeout time.Duration // for one upstream server; 2 s
	MinTTL  time.Duration // answers are remembered at least that long; 5 s
	MaxTTL  time.Duration // and at most; 1 day, negative answers an hour
}

// Query is a question and what became of it.
type Query struct {
	Client  netip.Addr
	Name    string // in small letters, with the last dot
	Type    uint16
	Rcode   int
	Outcome string // "cache", "local", "forwarded", "blocked", "refused", "failed"
}

const (
	ednsSize       = 1232 // bytes that pass everywhere without fragments
	localTTL       = 60   // seconds: a lease can go to somebody else
	negativeTTL    = 30   // seconds, for names of the zone that do not exist
	maxNegative    = time.Hour
	attemptsBudget = 5 * time.Second // for all upstream servers of one question
)

func (c *Config) defaults() {
	set := func(p *int, n int) {
		if *p == 0 {
			*p = n
		}
	}
	set(&c.Rate, 500)
	set(&c.Cache, 10_000)
	set(&c.Waiting, 512)
	if c.Waiting < 0 {
		c.Waiting = 1 << 16
	}
	if c.Port == 0 {
		c.Port = 53
	}
	if c.Timeout == 0 {
		c.Timeout = 2 * time.Second
	}
	if c.MinTTL == 0 {
		c.MinTTL = 5 * time.Second
	}
	if c.MaxTTL == 0 {
		c.MaxTTL = 24 * time.Hour
	}
}

func (c *Config) check() error {
	bad := func(format string, args ...any) error {
		return failure.Errorf(failure.Usage, "DNS on "+c.Interface+": "+format, args...)
	}
	if len(c.Listen) == 0 {
		return bad("no address to listen on")
	}
	if !validName(c.Domain) || c.Domain == "" {
		return bad("%q is no domain", c.Domain)
	}
	for _, list := range [][]string{c.Foreign, c.AllowPrivate} {
		for _, name := range list {
			if !validName(name) {
				return bad("%q is no domain", name)
			}
		}
	}
	for _, u := range c.Upstream {
		if !u.IsValid() || u.Port() == 0 || slices.Contains(c.Listen, u.Addr()) && u.Port() == c.Port {
			return bad("%s cannot be asked", u)
		}
	}
	return nil
}

// validName reports whether a name can stand in a configuration: labels of at
// most 63 bytes, in small letters, at most 253 bytes.
func validName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			if ch := label[i]; (ch < 'a' || ch > 'z') && (ch < '0' || ch > '9') && ch != '-' && ch != '_' {
				return false
			}
		}
	}
	return true
}

// within reports whether a name with its last dot is a domain without it, or
// below.
func within(name, domain string) bool {
	n, d := len(name)-1, len(domain)
	return n >= d && name[n-d:n] == domain && (n == d || name[n-d-1] == '.')
}

func withinAny(name string, domains []string) bool {
	return slices.ContainsFunc(domains, func(d string) bool { return within(name, d) })
}
