package dns

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// screen takes from the answer of an upstream server what answers the question:
// the chain of aliases from its name and the records at the end, without
// addresses that lie inside. It returns for how long that may be remembered, and
// how many addresses were left out.
func (s *Server) screen(in *dns.Msg, q *question, name string) (out *dns.Msg, life time.Duration, dropped int) {
	out = new(dns.Msg)
	out.Response, out.RecursionAvailable, out.Compress, out.Rcode = true, true, true, in.Rcode
	out.Question = []dns.Question{{Name: name, Qtype: q.typ, Qclass: dns.ClassINET}}
	chain := chainOf(in.Answer, name)
	inside := withinAny(name, s.cfg.AllowPrivate)
	found := false
	for _, rr := range in.Answer {
		h := rr.Header()
		owner := strings.ToLower(h.Name)
		if h.Class != dns.ClassINET || !slices.Contains(chain, owner) && !(h.Rrtype == dns.TypeDNAME && slices.ContainsFunc(chain, func(n string) bool { return dns.IsSubDomain(owner, n) })) {
			continue
		}
		switch {
		case h.Rrtype == q.typ, h.Rrtype == dns.TypeCNAME, h.Rrtype == dns.TypeDNAME:
		case q.do && h.Rrtype == dns.TypeRRSIG:
		default:
			continue
		}
		if !inside && pointsInside(rr) {
			dropped++
			continue
		}
		found = found || h.Rrtype == q.typ
		out.Answer = append(out.Answer, rr)
	}
	negative := !found || in.Rcode == dns.RcodeNameError
	for _, rr := range in.Ns {
		switch h := rr.Header(); {
		case h.Class != dns.ClassINET || !slices.ContainsFunc(chain, func(n string) bool { return dns.IsSubDomain(h.Name, n) }) && h.Rrtype == dns.TypeSOA:
		case negative && h.Rrtype == dns.TypeSOA, q.do && (h.Rrtype == dns.TypeNSEC || h.Rrtype == dns.TypeNSEC3 || h.Rrtype == dns.TypeRRSIG):
			out.Ns = append(out.Ns, rr)
		}
	}
	if dropped > 0 {
		out.Ns = nil // what it says about a name that has no records is not about this
	}
	return out, s.bound(out, negative), dropped
}

// bound puts the times of all records between the bounds, and returns for how
// long the answer may be remembered.
func (s *Server) bound(m *dns.Msg, negative bool) time.Duration {
	high := s.cfg.MaxTTL
	if negative {
		high = min(high, maxNegative)
	}
	life := high
	records := 0
	for _, list := range [][]dns.RR{m.Answer, m.Ns} {
		for _, rr := range list {
			h := rr.Header()
			ttl := time.Duration(h.Ttl) * time.Second
			if h.Ttl > 1<<31-1 {
				ttl = 0 // RFC 2181, 8
			}
			if soa, ok := rr.(*dns.SOA); ok && negative {
				ttl = min(ttl, time.Duration(soa.Minttl)*time.Second) // RFC 2308, 5
			}
			ttl = min(max(ttl, s.cfg.MinTTL), high)
			h.Ttl = uint32(ttl / time.Second)
			life = min(life, ttl)
			records++
		}
	}
	if records == 0 || negative && len(m.Ns) == 0 {
		return s.cfg.MinTTL // it says nothing about time
	}
	return life
}

// chainOf returns the names that a name stands for by the aliases of an answer,
// with the name first.
func chainOf(answer []dns.RR, name string) []string {
	chain := []string{strings.ToLower(name)}
	for len(chain) < 16 {
		last, next := chain[len(chain)-1], ""
		for _, rr := range answer {
			if c, ok := rr.(*dns.CNAME); ok && strings.EqualFold(c.Hdr.Name, last) {
				next = strings.ToLower(c.Target)
			}
		}
		if next == "" || slices.Contains(chain, next) {
			break
		}
		chain = append(chain, next)
	}
	return chain
}

// pointsInside reports whether a record has an address in a private network.
func pointsInside(rr dns.RR) bool {
	is := func(ip []byte) bool {
		a, ok := netip.AddrFromSlice(ip)
		return ok && private(a)
	}
	switch r := rr.(type) {
	case *dns.A:
		return is(r.A.To4())
	case *dns.AAAA:
		return is(r.AAAA)
	case *dns.HTTPS:
		return hints(&r.SVCB, is)
	case *dns.SVCB:
		return hints(r, is)
	}
	return false
}

func hints(r *dns.SVCB, is func([]byte) bool) bool {
	for _, kv := range r.Value {
		switch v := kv.(type) {
		case *dns.SVCBIPv4Hint:
			for _, ip := range v.Hint {
				if is(ip.To4()) {
					return true
				}
			}
		case *dns.SVCBIPv6Hint:
			for _, ip := range v.Hint {
				if is(ip) {
					return true
				}
			}
		}
	}
	return false
}
