package dns

import (
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// local answers what is known without anybody else. ok is false for a name that
// must be asked for; then alias is the name that stands for it, "" for itself.
func (s *Server) local(q *question, name string, now time.Time) (m *dns.Msg, alias string, ok bool) {
	m = new(dns.Msg)
	m.Response, m.RecursionAvailable, m.Compress = true, true, true
	m.Question = []dns.Question{{Name: name, Qtype: q.typ, Qclass: dns.ClassINET}}
	if q.typ == dns.TypeANY {
		// RFC 8482: one record that says that there is no more.
		m.Answer = []dns.RR{&dns.HINFO{Hdr: header(name, dns.TypeHINFO, 3600), Cpu: "RFC8482"}}
		return m, "", true
	}
	target := name
	for range 8 {
		to, isAlias := s.aliases[target]
		if !isAlias {
			break
		}
		m.Authoritative = true
		m.Answer = append(m.Answer, &dns.CNAME{Hdr: header(target, dns.TypeCNAME, localTTL), Target: to})
		if target = to; q.typ == dns.TypeCNAME {
			return m, "", true
		}
	}
	addrs, known := s.addresses(target)
	switch {
	case known:
		m.Authoritative = true
		for _, a := range addrs {
			switch {
			case a.Is4() && q.typ == dns.TypeA:
				m.Answer = append(m.Answer, &dns.A{Hdr: header(target, dns.TypeA, localTTL), A: a.AsSlice()})
			case a.Is6() && q.typ == dns.TypeAAAA:
				m.Answer = append(m.Answer, &dns.AAAA{Hdr: header(target, dns.TypeAAAA, localTTL), AAAA: a.AsSlice()})
			}
		}
		if target == s.apex {
			s.apexRecords(m, q.typ)
		}
		return s.negative(m, target, false), "", true
	case within(target, s.cfg.Domain):
		m.Authoritative = true
		return s.negative(m, target, len(m.Answer) == 0), "", true
	}
	if target != name {
		alias = target
	}
	if withinAny(target, s.cfg.AllowPrivate) && len(s.cfg.Upstream) > 0 {
		return m, alias, false // somebody upstream knows it, whatever it is called
	}
	if p, reverse := reverseAddr(target); reverse && localPTR(p, s.cfg.Clients) {
		m.Authoritative = true
		if host := s.hostOf(p); host != "" {
			if q.typ == dns.TypePTR {
				m.Answer = append(m.Answer, &dns.PTR{Hdr: header(target, dns.TypePTR, localTTL), Ptr: host})
			}
			return s.negative(m, target, false), "", true
		}
		return s.negative(m, target, p.Addr().BitLen() == p.Bits()), "", true
	}
	if within(target, "localhost") {
		switch q.typ {
		case dns.TypeA:
			m.Answer = append(m.Answer, &dns.A{Hdr: header(target, dns.TypeA, 3600), A: []byte{127, 0, 0, 1}})
		case dns.TypeAAAA:
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: header(target, dns.TypeAAAA, 3600), AAAA: netip.IPv6Loopback().AsSlice()})
		}
		return s.negative(m, target, false), "", true
	}
	switch {
	case withinAny(target, s.cfg.Foreign), withinAny(target, special), len(s.cfg.Upstream) == 0,
		// A name without a dot is nobody's outside; the records of the top
		// level itself are.
		strings.Count(target, ".") == 1 && (q.typ == dns.TypeA || q.typ == dns.TypeAAAA || q.typ == dns.TypeHTTPS || q.typ == dns.TypeSVCB):
		if target == "." {
			return s.negative(m, target, false), "", true
		}
		return s.negative(m, target, true), "", true
	}
	return m, alias, false
}

func header(name string, typ uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: typ, Class: dns.ClassINET, Ttl: ttl}
}

// addresses returns those of a name of the zone, and whether there is such a
// name.
func (s *Server) addresses(name string) ([]netip.Addr, bool) {
	list, known := s.records[name]
	if label, ok := strings.CutSuffix(name, "."+s.apex); ok && s.cfg.Lookup != nil && !strings.Contains(label, ".") && !known {
		if found := s.cfg.Lookup(label); len(found) > 0 {
			return found, true
		}
	}
	return list, known || name == s.apex
}

// hostOf returns the whole name of an address, "" when there is none.
func (s *Server) hostOf(p netip.Prefix) string {
	if p.Bits() != p.Addr().BitLen() {
		return ""
	}
	if name, ok := s.reverse[p.Addr()]; ok {
		return name
	}
	if s.cfg.Reverse != nil {
		if label := s.cfg.Reverse(p.Addr()); label != "" {
			return label + "." + s.apex
		}
	}
	return ""
}

func (s *Server) apexRecords(m *dns.Msg, typ uint16) {
	switch typ {
	case dns.TypeSOA:
		m.Answer = append(m.Answer, s.soa(s.apex))
	case dns.TypeNS:
		m.Answer = append(m.Answer, &dns.NS{Hdr: header(s.apex, dns.TypeNS, localTTL), Ns: "gateway." + s.apex})
	}
}

// soa is what says for how long a name can be taken not to exist.
func (s *Server) soa(zone string) dns.RR {
	return &dns.SOA{Hdr: header(zone, dns.TypeSOA, negativeTTL), Ns: "gateway." + s.apex, Mbox: "nobody.invalid.", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: negativeTTL}
}

// negative completes an answer without records.
func (s *Server) negative(m *dns.Msg, name string, nx bool) *dns.Msg {
	if len(m.Answer) > 0 && m.Answer[len(m.Answer)-1].Header().Rrtype != dns.TypeCNAME {
		return m
	}
	if nx {
		m.Rcode = dns.RcodeNameError
	}
	zone := name
	if within(name, s.cfg.Domain) {
		zone = s.apex
	} else if i := strings.IndexByte(strings.TrimSuffix(name, "."), '.'); i >= 0 {
		zone = name[strings.LastIndexByte(strings.TrimSuffix(name, "."), '.')+1:]
	}
	m.Ns = []dns.RR{s.soa(zone)}
	return m
}

// keep packs an answer so that it can be sent to clients.
func keep(m *dns.Msg, key string, now time.Time, life time.Duration) (*stored, error) {
	data, err := m.Pack()
	if err != nil {
		return nil, err
	}
	end, err := skipName(data, headerSize)
	if err != nil {
		return nil, err
	}
	places, err := ttlPlaces(data, end+4)
	if err != nil {
		return nil, err
	}
	return &stored{key: key, data: data, places: places, end: end + 4, from: now, until: now.Add(life)}, nil
}
