package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/mobileops/mobileops/internal/network/segment/rate"
)

// Counters are what a Server has done since it was made.
type Counters struct {
	Queries   int64 `json:"queries"`
	Cached    int64 `json:"cached"`    // answered from the cache
	Local     int64 `json:"local"`     // answered without upstream servers
	Forwarded int64 `json:"forwarded"` // answered by upstream servers
	Failed    int64 `json:"failed"`    // no upstream server answered
	Refused   int64 `json:"refused"`   // from outside of the zone, or what is not served
	Blocked   int64 `json:"blocked"`
	Limited   int64 `json:"limited"`   // dropped, as a client asked too much
	Rebinding int64 `json:"rebinding"` // addresses left out, as they lie inside
	Malformed int64 `json:"malformed"`
}

// Server serves one zone. Its methods are safe for concurrent use.
type Server struct {
	cfg     Config
	now     func() time.Time
	apex    string // the domain with its last dot
	records map[string][]netip.Addr
	aliases map[string]string
	reverse map[netip.Addr]string
	cache   *cache
	rate    *rate.Limiter[netip.Addr]
	up      *upstream

	mu      sync.Mutex
	waiting map[netip.Addr]int
	total   int

	counters struct {
		queries, cached, local, forwarded, failed, refused, blocked, limited, rebinding, malformed atomic.Int64
	}
}

// New checks a configuration.
func New(c Config) (*Server, error) {
	c.defaults()
	if err := c.check(); err != nil {
		return nil, err
	}
	s := &Server{
		cfg: c, now: time.Now, apex: c.Domain + ".",
		records: map[string][]netip.Addr{}, aliases: map[string]string{}, reverse: map[netip.Addr]string{},
		cache: newCache(c.Cache), rate: rate.New[netip.Addr](float64(c.Rate), 2*float64(c.Rate), 4096),
		up:      &upstream{servers: c.Upstream, timeout: c.Timeout, flights: map[string]*flight{}},
		waiting: map[netip.Addr]int{},
	}
	for name, list := range c.Records {
		if !validName(name) {
			return nil, fmt.Errorf("DNS on %s: %q is no name", c.Interface, name)
		}
		full := s.full(name)
		s.records[full] = list
		for _, a := range list {
			if _, ok := s.reverse[a]; !ok || within(full, c.Domain) && full < s.reverse[a] {
				s.reverse[a] = full
			}
		}
	}
	for name, to := range c.Aliases {
		if !validName(name) || !validName(to) {
			return nil, fmt.Errorf("DNS on %s: %q or %q is no name", c.Interface, name, to)
		}
		s.aliases[s.full(name)] = s.full(to)
	}
	return s, nil
}

// full is a name of the configuration as DNS has it.
func (s *Server) full(name string) string {
	if strings.Contains(name, ".") {
		return name + "."
	}
	return name + "." + s.apex
}

// Counters returns what was done so far.
func (s *Server) Counters() Counters {
	c := &s.counters
	return Counters{c.queries.Load(), c.cached.Load(), c.local.Load(), c.forwarded.Load(), c.failed.Load(), c.refused.Load(), c.blocked.Load(),
		c.limited.Load(), c.rebinding.Load(), c.malformed.Load()}
}

// Cached returns how many answers are remembered.
func (s *Server) Cached() int { return s.cache.len() }

// scratch is the memory of one reader: an answer is made without allocating any.
type scratch struct {
	name [256]byte
	key  [272]byte
	out  []byte
}

// answer answers a message. When it takes time, later is set: it waits for
// upstream servers, needs a copy of the request, and returns the answer. No
// answer at all is nil.
func (s *Server) answer(request []byte, client netip.Addr, tcp bool, w *scratch) (reply []byte, later func(request []byte) []byte) {
	now := s.now()
	s.counters.queries.Add(1)
	if !s.rate.Allow(client, now) {
		s.counters.limited.Add(1)
		return nil, nil
	}
	q, err := parseQuestion(request, w.name[:0])
	w.out = w.out[:0]
	fail := func(rcode int) ([]byte, func([]byte) []byte) {
		s.counters.refused.Add(1)
		s.log(client, &q, "", rcode, "refused")
		w.out = appendError(w.out, request, &q, rcode, 0)
		return w.out, nil
	}
	var perr *PacketError
	if errors.As(err, &perr) {
		s.counters.malformed.Add(1)
		if len(request) < headerSize || q.flags&flagResponse != 0 {
			return nil, nil // answering responses makes loops
		}
		q.end, q.edns = 0, false
		w.out = appendError(w.out, request, &q, dns.RcodeFormatError, 0)
		return w.out, nil
	}
	switch {
	case !containsAddr(s.cfg.Clients, client):
		return fail(dns.RcodeRefused)
	case q.opcode() != dns.OpcodeQuery:
		return fail(dns.RcodeNotImplemented)
	case q.version != 0:
		return fail(dns.RcodeBadVers)
	case q.class != dns.ClassINET:
		return fail(dns.RcodeRefused)
	case q.typ == typeOPT || q.typ >= 128 && q.typ < 255: // transfers, and others that ask for no record
		return fail(dns.RcodeRefused)
	}
	limit := 65535
	if !tcp {
		limit = min(q.size, ednsSize)
	}
	key := q.key(w.key[:0])
	if s.cfg.Blocked == nil {
		if got := s.cache.get(key, now); got != nil {
			s.counters.cached.Add(1)
			s.log(client, &q, "", int(got.data[3]&15), "cache")
			w.out = got.appendFor(w.out, request, &q, now, limit)
			return w.out, nil
		}
	}
	name := q.text()
	if name == "" {
		return fail(dns.RcodeRefused)
	}
	m, alias, ok := s.local(&q, name, now)
	if ok {
		got, err := keep(m, "", now, 0)
		if err != nil {
			return fail(dns.RcodeServerFailure)
		}
		s.counters.local.Add(1)
		s.log(client, &q, name, m.Rcode, "local")
		w.out = got.appendFor(w.out, request, &q, now, limit)
		return w.out, nil
	}
	if s.cfg.Blocked != nil {
		if s.cfg.Blocked(strings.TrimSuffix(name, ".")) {
			s.counters.blocked.Add(1)
			s.log(client, &q, name, dns.RcodeNameError, "blocked")
			m.Rcode = dns.RcodeNameError
			if got, err := keep(s.negative(m, name, true), "", now, 0); err == nil {
				w.out = got.appendFor(w.out, request, &q, now, limit)
			}
			return w.out, nil
		}
		if got := s.cache.get(key, now); got != nil {
			s.counters.cached.Add(1)
			s.log(client, &q, name, int(got.data[3]&15), "cache")
			w.out = got.appendFor(w.out, request, &q, now, limit)
			return w.out, nil
		}
	}
	if q.flags&flagRecurse == 0 {
		return fail(dns.RcodeRefused) // it wants to know what others asked
	}
	if !s.enter(client) {
		s.counters.limited.Add(1)
		w.out = appendError(w.out, request, &q, dns.RcodeServerFailure, 0)
		return w.out, nil
	}
	return nil, s.forward(q, string(key), client, name, m, alias, limit)
}

// forward returns the function that answers a question by asking upstream.
func (s *Server) forward(q question, keyText string, client netip.Addr, name string, m *dns.Msg, alias string, limit int) func([]byte) []byte {
	q.name = nil // lies in memory that is used again
	return func(request []byte) []byte {
		defer s.leave(client)
		got := s.up.once(keyText, func() *stored { return s.resolve(keyText, &q, name, m, alias) })
		now := s.now()
		if got == nil {
			s.counters.failed.Add(1)
			s.log(client, &q, name, dns.RcodeServerFailure, "failed")
			return appendError(nil, request, &q, dns.RcodeServerFailure, 0)
		}
		s.counters.forwarded.Add(1)
		s.log(client, &q, name, int(got.data[3]&15), "forwarded")
		return got.appendFor(nil, request, &q, now, limit)
	}
}

// resolve asks upstream and remembers the answer. What is known already, the
// aliases of the zone, stands before.
func (s *Server) resolve(key string, q *question, name string, before *dns.Msg, alias string) *stored {
	target := name
	if alias != "" {
		target = alias
	}
	in, err := s.up.ask(context.Background(), target, q.typ, q.do, q.flags&flagUnchecked != 0)
	if err != nil {
		return nil
	}
	out, life, dropped := s.screen(in, q, target)
	s.counters.rebinding.Add(int64(dropped))
	if out.Rcode != dns.RcodeSuccess && out.Rcode != dns.RcodeNameError {
		out.Rcode, out.Answer, out.Ns = dns.RcodeServerFailure, nil, nil
		life = s.cfg.MinTTL // RFC 9520
	}
	if alias != "" {
		out.Question[0].Name = name
		out.Answer = append(before.Answer, out.Answer...)
		life = min(life, localTTL*time.Second)
	}
	got, err := keep(out, key, s.now(), life)
	if err != nil {
		return nil
	}
	s.cache.put(got)
	return got
}

// enter counts a question that is to wait for upstream servers, and reports
// whether there is room for it.
func (s *Server) enter(client netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= s.cfg.Waiting || s.waiting[client] >= max(1, s.cfg.Waiting/8) {
		return false
	}
	s.total++
	s.waiting[client]++
	return true
}

func (s *Server) leave(client netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.waiting[client]--; s.waiting[client] == 0 {
		delete(s.waiting, client)
	}
}

func (s *Server) log(client netip.Addr, q *question, name string, rcode int, outcome string) {
	if s.cfg.Log == nil {
		return
	}
	if name == "" && q.name != nil {
		name = q.text()
	}
	s.cfg.Log(Query{client, name, q.typ, rcode, outcome})
}
