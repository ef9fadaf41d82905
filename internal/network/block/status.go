package block

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/network/nft"
)

// Dropped is how many packets were dropped for a reason.
type Dropped struct {
	Why     string `json:"why"` // address, named, port, user, cgroup, interface, mac, or feed NAME
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// BlockStatus is a block and how long it still lasts.
type BlockStatus struct {
	Block
	Left   time.Duration `json:"left,omitempty"` // nanoseconds; 0 when it never ends
	Lapsed bool          `json:"lapsed,omitempty"`
}

// FeedStatus is a feed, how long it still lasts and what it has dropped.
type FeedStatus struct {
	Feed
	Left    time.Duration `json:"left,omitempty"` // nanoseconds; 0 when it never ends
	Lapsed  bool          `json:"lapsed,omitempty"`
	Packets uint64        `json:"packets"`
	Bytes   uint64        `json:"bytes"`
}

// Status is what is blocked.
type Status struct {
	Blocks  []BlockStatus `json:"blocks"`
	Feeds   []FeedStatus  `json:"feeds"`
	Dropped []Dropped     `json:"dropped"` // in the order of the rules
	// InForce is whether the kernel has the tables; false, too, when nothing is
	// blocked. Missing is set when it should have them, and has not.
	InForce bool `json:"in_force"`
	Missing bool `json:"missing"`
	// Bridged is whether feeds are looked at in what bridges pass on, too.
	Bridged bool `json:"bridged"`
	// Uncovered is what of the blocks is not covered.
	Uncovered []string `json:"uncovered,omitempty"`
}

// Status says what is blocked, and what was dropped since it is in force. It looks
// at tables and counters, and not at every element: that does Reconcile.
func (e *Engine) Status(ctx context.Context) (Status, error) {
	s := Status{Blocks: []BlockStatus{}, Feeds: []FeedStatus{}, Dropped: []Dropped{}}
	c, err := e.load(ctx)
	if err != nil {
		return s, err
	}
	clock, err := e.clock()
	if err != nil {
		return s, err
	}
	for _, name := range c.targets() {
		b := BlockStatus{Block: *c.blocks[name]}
		left, ends := b.Block.Left(clock)
		b.Lapsed = ends && left <= 0
		b.Left = max(left, 0)
		s.Blocks = append(s.Blocks, b)
		s.Uncovered = append(s.Uncovered, b.Parts.Uncovered...)
	}
	for _, name := range c.feedNames() {
		f := FeedStatus{Feed: *c.feeds[name]}
		left, ends := f.Feed.Left(clock)
		f.Lapsed = ends && left <= 0
		f.Left = max(left, 0)
		s.Feeds = append(s.Feeds, f)
	}
	w := c.wantedOf(clock, nil, nil)
	r, err := nft.OpenReader()
	if err != nil {
		return s, err
	}
	defer r.Close()
	for _, t := range []nft.Table{inet, bridge, frames} {
		_, there, err := r.Table(t)
		if err != nil {
			return s, denied(err)
		}
		if t == inet {
			s.InForce, s.Missing = there, !there && !w.empty()
		}
		if !there {
			continue
		}
		list, err := r.Counters(t)
		if err != nil {
			return s, err
		}
		for _, n := range list {
			s.count(n, t)
		}
	}
	return s, nil
}

// count adds what a rule has counted.
func (s *Status) count(n nft.Counted, t nft.Table) {
	why, _, _ := strings.Cut(n.Comment, " ")
	if set, ok := strings.CutPrefix(n.Comment, "feed_"); ok {
		s.Bridged = s.Bridged || t == bridge
		i := strings.LastIndexByte(set, '_')
		why = "feed " + set[:max(i, 0)]
		for j := range s.Feeds {
			if f := &s.Feeds[j]; "feed "+f.Name == why {
				f.Packets += n.Packets
				f.Bytes += n.Bytes
			}
		}
	}
	for i := range s.Dropped {
		if d := &s.Dropped[i]; d.Why == why {
			d.Packets += n.Packets
			d.Bytes += n.Bytes
			return
		}
	}
	s.Dropped = append(s.Dropped, Dropped{why, n.Packets, n.Bytes})
}

// Why says what blocks an address, and whether it is dropped.
type Why struct {
	Address netip.Addr `json:"address"`
	Blocks  []string   `json:"blocks"` // targets that cover it
	Feeds   []string   `json:"feeds"`  // feeds that have it
	// Never is why it passes nonetheless; "" when it does not.
	Never   string `json:"never,omitempty"`
	Dropped bool   `json:"dropped"`
}

// Explain says what blocks an address.
func (e *Engine) Explain(ctx context.Context, a netip.Addr) (Why, error) {
	why := Why{Address: a, Blocks: []string{}, Feeds: []string{}}
	c, err := e.load(ctx)
	if err != nil {
		return why, err
	}
	clock, err := e.clock()
	if err != nil {
		return why, err
	}
	forced := false
	for _, name := range c.targets() {
		b := c.blocks[name]
		if r, ok := rangeOf(b.Target); ok && !b.over(clock) && r.First.BitLen() == a.BitLen() && r.Contains(a) {
			why.Blocks = append(why.Blocks, name)
			forced = forced || b.Forced
		}
	}
	for _, name := range c.feedNames() {
		f := c.feeds[name]
		if f.over(clock) {
			continue
		}
		l, err := e.readFeed(f)
		if err != nil {
			return why, fmt.Errorf("feed %s: %w", name, err)
		}
		if l.has(a) {
			why.Feeds = append(why.Feeds, name)
		}
	}
	for _, p := range e.protect() {
		if p.Contains(a) && why.Never == "" {
			why.Never = p.why
		}
	}
	why.Dropped = forced || why.Never == "" && len(why.Blocks)+len(why.Feeds) > 0
	return why, nil
}
