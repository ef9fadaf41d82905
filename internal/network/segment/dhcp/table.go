package dhcp

import (
	"cmp"
	"container/heap"
	"errors"
	"hash/fnv"
	"math/bits"
	"net/netip"
	"slices"
	"time"
)

// Reasons for which there is no address.
var (
	errExhausted = errors.New("the pool is exhausted")
	errLimit     = errors.New("this client or its port has as many addresses as it may have")
)

// table is the addresses of one family. It does no I/O, and knows the time as
// it is told.
type table struct {
	pool     Range
	lease    time.Duration
	reserved map[MAC]netip.Addr
	excluded map[netip.Addr]bool // never given out of the pool: reserved, the gateway, network and broadcast
	perMAC   int
	perPort  int

	byAddr   map[netip.Addr]*Lease
	byClient map[string]*Lease
	used     []uint64 // a bit for each address of the pool that is excluded or has a Lease
	running  running  // active leases by their end
	first    *Lease   // those that ended, the oldest first
	last     *Lease
	macs     map[MAC]int // active leases
	ports    map[string]int
	changed  []*Lease // what is to be written to the disk
}

func newTable(c *Config, pool Range, is4 bool) *table {
	t := &table{
		pool: pool, lease: c.Lease, perMAC: c.PerMAC, perPort: c.PerPort,
		reserved: map[MAC]netip.Addr{}, excluded: map[netip.Addr]bool{},
		byAddr: map[netip.Addr]*Lease{}, byClient: map[string]*Lease{},
		macs: map[MAC]int{}, ports: map[string]int{},
		used: make([]uint64, (min(pool.size(), maxPool)+63)/64),
	}
	if t.perPort == 0 { // a share of this pool, whatever the size of that of the other family
		t.perPort = max(1, min(pool.size(), maxPool)/4)
	}
	exclude := func(a netip.Addr) {
		t.excluded[a] = true
		t.mark(a, true)
	}
	for _, r := range c.Reservations {
		for _, a := range r.Addresses {
			if a.Is4() == is4 {
				t.reserved[r.MAC] = a
				exclude(a)
			}
		}
	}
	for _, a := range c.Exclude {
		exclude(a)
	}
	if is4 && c.Gateway.IsValid() {
		exclude(c.Gateway.Addr())
		if c.Gateway.Bits() < 31 {
			net := c.Gateway.Masked().Addr()
			exclude(net)
			exclude(broadcast(c.Gateway))
		}
	}
	for _, p := range c.Gateway6 {
		exclude(p.Addr())
		exclude(p.Masked().Addr()) // the anycast address of the routers, RFC 4291
	}
	// What does not exist behind the end of the pool is never free.
	for i := pool.size(); i < len(t.used)*64; i++ {
		t.used[i/64] |= 1 << (i % 64)
	}
	return t
}

func broadcast(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

func (t *table) mark(a netip.Addr, used bool) {
	if !t.pool.Contains(a) {
		return
	}
	i := t.pool.index(a)
	if used {
		t.used[i/64] |= 1 << (i % 64)
	} else if !t.excluded[a] {
		t.used[i/64] &^= 1 << (i % 64)
	}
}

// request is who asks for an address.
type request struct {
	client string
	mac    MAC
	port   string
	name   string
	wish   netip.Addr // an address it had, or invalid
}

// expire ends the leases that have run out, and forgets offers that were not
// taken.
func (t *table) expire(now time.Time) {
	for len(t.running) > 0 && !now.Before(t.running[0].Until) {
		l := t.running[0]
		if l.State == Bound {
			t.end(l, l.Until)
		} else {
			t.forget(l)
		}
	}
}

// choose returns an address that the client could have, and whether it has been
// this client's before: then nobody needs to be asked whether it is free.
func (t *table) choose(r *request, now time.Time) (addr netip.Addr, own bool, err error) {
	t.expire(now)
	if a, ok := t.reserved[r.mac]; ok && t.available(a, r) {
		l := t.byAddr[a]
		return a, l != nil && l.MAC == r.mac && l.active(now), nil
	}
	mine := t.byClient[r.client]
	if mine != nil && t.available(mine.Address, r) {
		if !mine.active(now) && !t.within(r) {
			return addr, false, errLimit
		}
		return mine.Address, mine.active(now), nil
	}
	if !t.within(r) {
		return addr, false, errLimit
	}
	if l := t.byAddr[r.wish]; r.wish.IsValid() && (l == nil || l.Client == r.client) && t.available(r.wish, r) {
		return r.wish, false, nil
	}
	if a, ok := t.fresh(r); ok {
		return a, false, nil
	}
	for l := t.first; l != nil; l = l.later {
		if t.available(l.Address, r) {
			return l.Address, false, nil
		}
	}
	return addr, false, errExhausted
}

// available reports whether the client may have the address: it is the one
// reserved for it, or in the pool, and no other client has it.
func (t *table) available(a netip.Addr, r *request) bool {
	reserved, ok := t.reserved[r.mac]
	if ok = ok && reserved == a; !ok && (t.excluded[a] || !t.pool.Contains(a)) {
		return false
	}
	l := t.byAddr[a]
	switch {
	case l == nil, l.State == Ended:
		return true
	case l.State == Declined:
		return false
	}
	// What is reserved for a machine it has under every identifier: firmware,
	// installer and system are different clients.
	return l.Client == r.client || ok && l.MAC == r.mac
}

// within reports whether the client may hold one address more.
func (t *table) within(r *request) bool {
	return t.macs[r.mac] < t.perMAC && (r.port == "" || t.ports[r.port] < t.perPort)
}

// fresh looks for an address that no client ever had, from a place that depends
// on the client: it mostly gets the same one, even when its lease was forgotten.
func (t *table) fresh(r *request) (netip.Addr, bool) {
	if len(t.used) == 0 {
		return netip.Addr{}, false
	}
	h := fnv.New64a()
	h.Write(r.mac[:])
	start := int(h.Sum64() % uint64(min(t.pool.size(), maxPool)))
	word := ^t.used[start/64] &^ (1<<(start%64) - 1)
	for i := start / 64; ; {
		if word != 0 {
			return t.pool.at(i*64 + bits.TrailingZeros64(word)), true
		}
		if i = (i + 1) % len(t.used); i == start/64 {
			word = ^t.used[i] // and what is before the start
			if word == 0 {
				return netip.Addr{}, false
			}
			continue
		}
		word = ^t.used[i]
	}
}

// hold gives the address to the client until a time, as an offer or bound. It
// must be available. The address that the client had before ends.
func (t *table) hold(a netip.Addr, r *request, state State, now, until time.Time) *Lease {
	l := t.byAddr[a]
	switch {
	case l == nil:
		l = &Lease{Address: a, place: -1}
		t.byAddr[a] = l
		t.mark(a, true)
	default:
		t.detach(l)
	}
	if l.Client != r.client || l.Since.IsZero() || l.State == Ended && state == Bound {
		l.Since = now
	}
	if l.Client != r.client && t.byClient[l.Client] == l {
		delete(t.byClient, l.Client)
	}
	if old := t.byClient[r.client]; old != nil && old != l {
		if old.State == Offered {
			t.forget(old)
		} else if old.State == Bound {
			t.end(old, now)
			t.changed = append(t.changed, old)
		}
	}
	l.Client, l.MAC, l.Port, l.State, l.Until = r.client, r.mac, r.port, state, until
	if state == Bound || l.Name == "" {
		l.Name = r.name
	}
	t.byClient[r.client] = l
	t.count(l, 1)
	heap.Push(&t.running, l)
	if state == Bound {
		t.changed = append(t.changed, l)
	}
	return l
}

// decline takes an address out of use for a while: somebody has it who should
// not. It counts for the port of who said so.
func (t *table) decline(a netip.Addr, mac MAC, port string, now time.Time) *Lease {
	l := t.byAddr[a]
	if l == nil {
		l = &Lease{Address: a, place: -1}
		t.byAddr[a] = l
		t.mark(a, true)
	} else {
		t.detach(l)
		if t.byClient[l.Client] == l {
			delete(t.byClient, l.Client)
		}
	}
	*l = Lease{Address: a, State: Declined, MAC: mac, Port: port, Since: now, Until: now.Add(declineTime), place: -1}
	t.count(l, 1)
	heap.Push(&t.running, l)
	t.changed = append(t.changed, l)
	return l
}

// release ends a lease before its time.
func (t *table) release(l *Lease, now time.Time) {
	if l.State == Offered {
		t.forget(l)
		return
	}
	t.end(l, now)
	t.changed = append(t.changed, l)
}

// end remembers an address for its client, and gives it to others when needed.
func (t *table) end(l *Lease, at time.Time) {
	t.detach(l)
	l.State, l.Until = Ended, at
	l.prior, l.later = t.last, nil
	if t.last != nil {
		t.last.later = l
	} else {
		t.first = l
	}
	t.last = l
}

// forget makes an address fresh again.
func (t *table) forget(l *Lease) {
	t.detach(l)
	delete(t.byAddr, l.Address)
	if t.byClient[l.Client] == l {
		delete(t.byClient, l.Client)
	}
	t.mark(l.Address, false)
}

// detach takes a lease out of the heap or the list, and its counts back.
func (t *table) detach(l *Lease) {
	if l.place >= 0 {
		heap.Remove(&t.running, l.place)
		t.count(l, -1)
		return
	}
	if l.State != Ended {
		return
	}
	if l.prior != nil {
		l.prior.later = l.later
	} else {
		t.first = l.later
	}
	if l.later != nil {
		l.later.prior = l.prior
	} else {
		t.last = l.prior
	}
	l.prior, l.later = nil, nil
}

func (t *table) count(l *Lease, n int) {
	if t.macs[l.MAC] += n; t.macs[l.MAC] == 0 {
		delete(t.macs, l.MAC)
	}
	if t.ports[l.Port] += n; t.ports[l.Port] == 0 {
		delete(t.ports, l.Port)
	}
}

// load takes what was on the disk. Addresses that are no longer in the pool stay
// those of their clients until their leases end, and are not renewed.
func (t *table) load(list []Lease, now time.Time) {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b Lease) int { return cmp.Compare(a.Until.UnixNano(), b.Until.UnixNano()) })
	for i := range list {
		l := &list[i]
		l.place, l.prior, l.later = -1, nil, nil
		t.byAddr[l.Address] = l
		t.mark(l.Address, true)
		if l.State != Declined {
			if old := t.byClient[l.Client]; old == nil || old.State == Ended || old.Until.Before(l.Until) {
				t.byClient[l.Client] = l
			}
		}
		if l.State == Ended {
			l.State = Bound // it is in no list yet
			t.end(l, l.Until)
			continue
		}
		t.count(l, 1)
		heap.Push(&t.running, l)
	}
	t.expire(now)
}

// running is a heap of leases by their end.
type running []*Lease

func (h running) Len() int           { return len(h) }
func (h running) Less(i, j int) bool { return h[i].Until.Before(h[j].Until) }
func (h running) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push implements heap.Interface.
func (h *running) Push(x any) {
	l := x.(*Lease)
	l.place = len(*h)
	*h = append(*h, l)
}

// Pop implements heap.Interface.
func (h *running) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	l.place = -1
	return l
}
