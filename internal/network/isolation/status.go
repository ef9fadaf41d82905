package isolation

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/network/addresses"
	"github.com/mobileops/mobileops/internal/network/nft"
	"golang.org/x/sys/unix"
)

// Status is what the kernel says of isolation.
type Status struct {
	Present bool // there are tables, whether anything is cut or not
	InForce bool // something is cut
	Pending bool // until the time for confirmation is over
	Left    time.Duration
	Comment string // who, and when
	Owner   bool   // a guard owns the tables
	// Gaps say what is not as isolation is to be, and would be if it was put in
	// force again.
	Gaps []string
	// Bypass names processes that no rule can stop.
	Bypass   []string
	Sealed   []string // names of interfaces with chains of their own
	Counters []nft.Counted

	found []nft.Table
}

// Read asks the kernel whether isolation is in force.
func Read() (s Status, err error) {
	r, err := nft.OpenReader()
	if err != nil {
		return s, err
	}
	defer r.Close()
	return s, s.read(r)
}

func (s *Status) read(r *nft.Reader) error {
	var gone, off []string
	for _, t := range tables() {
		info, ok, err := r.Table(t)
		if err != nil {
			if errors.Is(err, unix.EPERM) {
				return notAllowed("read")
			}
			return err
		}
		if !ok {
			gone = append(gone, t.String())
			continue
		}
		s.Present, s.Comment, s.Owner = true, info.Comment, s.Owner || info.Owner != 0
		s.found = append(s.found, t)
		elements, err := r.Elements(armedSet(t))
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		armed := slices.IndexFunc(elements, func(h nft.Held) bool { return !h.Last })
		if armed < 0 {
			off = append(off, t.String())
			continue
		}
		s.InForce = true
		if h := elements[armed]; h.Timeout > 0 {
			s.Pending, s.Left = true, h.Expires
		}
	}
	if s.InForce {
		for _, t := range gone {
			s.Gaps = append(s.Gaps, "table "+t+" is gone")
		}
		for _, t := range off {
			s.Gaps = append(s.Gaps, "table "+t+" cuts nothing")
		}
	}
	return nil
}

// ReadAll is Read, and looks at each interface and what was cut, too.
func ReadAll() (s Status, err error) {
	r, err := nft.OpenReader()
	if err != nil {
		return s, err
	}
	defer r.Close()
	if err := s.read(r); err != nil || !s.InForce {
		return s, err
	}
	for _, t := range s.found {
		list, err := r.Counters(t)
		if err != nil {
			return s, err
		}
		for _, c := range list {
			if strings.HasPrefix(c.Comment, "cut: ") {
				c.Comment = strings.TrimPrefix(c.Comment, "cut: ")
				s.Counters = append(s.Counters, c)
			}
		}
	}
	open, err := unsealed(r)
	if err != nil {
		return s, err
	}
	for _, i := range open.missing {
		s.Gaps = append(s.Gaps, fmt.Sprintf("interface %s is not sealed: raw frames pass it", i.Name))
	}
	s.Sealed = open.sealed
	s.Bypass = bypassing()
	return s, s.newGateways(r, open.around)
}

// coverage says which interfaces have chains.
type coverage struct {
	sealed  []string
	missing []Interface
	// chains are all that interfaces of now have, or are to have; present are
	// those that are there, with the names of their interfaces.
	chains  map[string]bool
	present map[string][]string
	around  *surroundings
}

func unsealed(r *nft.Reader) (c coverage, err error) {
	if c.around, err = look(); err != nil {
		return c, err
	}
	if c.present, err = r.Chains(netdev); err != nil && !errors.Is(err, unix.ENOENT) {
		return c, err
	}
	c.chains = map[string]bool{}
	for _, i := range c.around.sealed() {
		ingress, egress := chainOf("ingress", i.Index), chainOf("egress", i.Index)
		c.chains[ingress], c.chains[egress] = true, true
		if slices.Contains(c.present[ingress], i.Name) && slices.Contains(c.present[egress], i.Name) {
			c.sealed = append(c.sealed, i.Name)
			continue
		}
		c.missing = append(c.missing, i)
	}
	return c, nil
}

// newGateways finds gateways that this host got since it was isolated: they are
// not resolved, so whoever is behind them is cut off.
func (s *Status) newGateways(r *nft.Reader, around *surroundings) error {
	known := map[bool][]addresses.Range{}
	for v4, name := range map[bool]string{true: "neighbor4", false: "neighbor6"} {
		held, err := r.Elements(nft.Set{Table: netdev, Name: name})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		known[v4] = rangesOf(held)
	}
	for _, g := range around.Gateways {
		if !addresses.Find(known[g.Is4()], g) {
			s.Gaps = append(s.Gaps, fmt.Sprintf("gateway %s is new and cut off: let it in: mobileops network isolate --replace, or reconcile", g))
		}
	}
	return nil
}

// rangesOf puts the elements of a set of ranges together, sorted: each begins at
// one element, and ends before the next that is an end.
func rangesOf(held []nft.Held) (list []addresses.Range) {
	slices.SortFunc(held, func(a, b nft.Held) int { return bytes.Compare(a.Key, b.Key) })
	for i, h := range held {
		first, ok := netip.AddrFromSlice(h.Key)
		if h.Last || !ok {
			continue
		}
		last := addresses.Of(netip.PrefixFrom(first, 0)).Last
		if i+1 < len(held) {
			if end, ok := netip.AddrFromSlice(held[i+1].Key); ok {
				last = end.Prev()
			}
		}
		list = append(list, addresses.Range{First: first, Last: last})
	}
	return list
}
