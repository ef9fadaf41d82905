package block

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/addresses"
	"github.com/mobileops/mobileops/internal/threat"
)

// Request is what a person or a threat wants blocked.
type Request struct {
	Targets []threat.Indicator
	TTL     time.Duration // 0: for ever
	Threat  string        // the threat or finding that it is about
	Reason  string
	By      string
	Force   bool // also what would never be blocked otherwise
	DryRun  bool // change nothing, and say in Change.Text what would be in force
}

// Block blocks all targets or none, and ends the connections with them. What is
// blocked already lasts from now for the new time to live, unless it would have
// lasted longer. The error is ErrAlready when that is so of all of them,
// ErrProtected when one must not be blocked, and of kind failure.NotReady when
// the kernel has no means for one. An error beside a Change is about connections:
// they were not ended, but their packets are dropped.
func (e *Engine) Block(ctx context.Context, r Request) (Change, error) {
	if len(r.Targets) == 0 {
		return Change{}, failure.New(failure.Usage, "nothing is to be blocked")
	}
	var targets []threat.Indicator
	for _, t := range r.Targets {
		t, err := canonical(t)
		if err != nil {
			return Change{}, err
		}
		if !slices.Contains(targets, t) {
			targets = append(targets, t)
		}
	}
	var out Change
	var protectedRanges []addresses.Range
	var made []Cgroup
	done, err := e.change(ctx, "network isolate-threat", r.DryRun, func(c *catalogue, clock Clock, never []protected) (map[string]*list, error) {
		lapse := lapseAfter(r.TTL, clock)
		news := false
		for _, t := range targets {
			if !r.Force {
				if err := e.guard(t, never); err != nil {
					return nil, err
				}
			}
			b := &Block{Target: t, Since: clock.Now, Lapse: lapse}
			if old := c.blocks[t.String()]; old != nil && !old.over(clock) {
				*b = *old
				if lapse.longer(&old.Lapse, clock) {
					b.Lapse, news = lapse, true
				}
				news = news || r.Force && !old.Forced
			} else {
				news = true
			}
			b.Threat, b.Reason, b.By = r.Threat, r.Reason, r.By
			b.Forced = b.Forced || r.Force
			if !r.DryRun {
				parts, err := resolve(t)
				for _, g := range parts.Cgroups {
					if g.Made && !c.uses(g.Path) {
						made = append(made, g)
					}
				}
				if err != nil {
					return nil, err
				}
				news = news || !slices.Equal(parts.Cgroups, b.Parts.Cgroups) || !slices.Equal(parts.Interfaces, b.Parts.Interfaces) || !slices.Equal(parts.Addresses, b.Parts.Addresses)
				b.Parts = parts
			}
			c.blocks[t.String()] = b
			out.leaveOut(b.leftOut(never))
		}
		if !news {
			return nil, ErrAlready
		}
		if len(c.blocks) > MaxBlocks {
			return nil, failure.Hint(failure.Errorf(failure.Failed, "more than %d blocks", MaxBlocks), "many addresses belong into a feed: mobileops network block import FILE")
		}
		protectedRanges = rangesOf(never)
		return nil, nil
	})
	if err != nil {
		for _, g := range slices.Backward(made) {
			release(g)
		}
		return Change{}, err
	}
	out.Text, out.Uncovered = done.text, done.unreadable
	for _, t := range targets {
		b := done.after.blocks[t.String()]
		if b == nil {
			continue
		}
		out.Blocks = append(out.Blocks, *b)
		out.Uncovered = append(out.Uncovered, b.Parts.Uncovered...)
	}
	if r.DryRun {
		return out, nil
	}
	out.Sockets, out.Tracked, err = cuttingOf(out.Blocks, nil, protectedRanges).cut()
	return out, err
}

// leaveOut adds what stays open: each address once, with all reasons.
func (c *Change) leaveOut(list []LeftOut) {
	for _, l := range list {
		i := slices.IndexFunc(c.LeftOut, func(o LeftOut) bool { return o.What == l.What })
		switch {
		case i < 0:
			c.LeftOut = append(c.LeftOut, l)
		case !slices.Contains(strings.Split(c.LeftOut[i].Why, ", "), l.Why):
			c.LeftOut[i].Why += ", " + l.Why
		}
	}
}

// leftOut says what of a network stays open.
func (b *Block) leftOut(never []protected) (out []LeftOut) {
	r, ok := rangeOf(b.Target)
	if !ok || b.Forced {
		return nil
	}
	for _, p := range never {
		if p.First.BitLen() == r.First.BitLen() && p.First.Compare(r.Last) <= 0 && r.First.Compare(p.Last) <= 0 {
			out = append(out, LeftOut{p.Range.String(), p.why})
		}
	}
	return out
}

// Remove lifts blocks, by target as it was named or as TYPE:VALUE, by the threat
// that they are about, and feeds by name: all that is named, or nothing. The
// error is ErrNotFound when one names nothing.
func (e *Engine) Remove(ctx context.Context, names []string) (Change, error) {
	var out Change
	done, err := e.change(ctx, "network block remove", false, func(c *catalogue, clock Clock, _ []protected) (map[string]*list, error) {
		for _, name := range names {
			blocks, feed := c.named(name)
			if len(blocks) == 0 && feed == "" {
				hint := "see what is blocked: mobileops network block list"
				if f := e.feedWith(c, name); f != "" {
					hint = fmt.Sprintf("the feed %s blocks it; what must never be blocked: mobileops config set network.never_block", f)
				}
				return nil, failure.Hint(fmt.Errorf("%w: %q", ErrNotFound, name), hint)
			}
			for _, b := range blocks {
				delete(c.blocks, b)
				out.Removed = append(out.Removed, b)
			}
			if feed != "" {
				delete(c.feeds, feed)
				out.Removed = append(out.Removed, "feed:"+feed)
			}
		}
		return nil, nil
	})
	if err != nil {
		return Change{}, err
	}
	out.Uncovered = done.unreadable
	return out, nil
}

// RemoveAll lifts every block and removes every feed; there need not be any.
func (e *Engine) RemoveAll(ctx context.Context) (Change, error) {
	var out Change
	_, err := e.change(ctx, "network block remove", false, func(c *catalogue, _ Clock, _ []protected) (map[string]*list, error) {
		out.Removed = c.targets()
		for _, name := range c.feedNames() {
			out.Removed = append(out.Removed, "feed:"+name)
		}
		clear(c.blocks)
		clear(c.feeds)
		return nil, nil
	})
	if err != nil {
		return Change{}, err
	}
	return out, nil
}

// named finds the blocks and the feed that a person means.
func (c *catalogue) named(name string) (blocks []string, feed string) {
	if c.feeds[name] != nil {
		feed = name
	}
	exact := map[string]bool{name: true}
	if i, err := threat.ParseIndicator(name); err == nil {
		exact[i.String()] = true
		if i, err := canonical(i); err == nil {
			exact[i.String()] = true
		}
	}
	for _, key := range c.targets() {
		b := c.blocks[key]
		if exact[key] || b.Target.Value == name || b.Threat != "" && b.Threat == name {
			blocks = append(blocks, key)
		}
	}
	return blocks, feed
}

// feedWith is the first feed that has an address; "" when there is none.
func (e *Engine) feedWith(c *catalogue, name string) string {
	r, err := parseRange(name)
	if err != nil {
		return ""
	}
	for _, n := range c.feedNames() {
		if l, err := e.readFeed(c.feeds[n]); err == nil && l.has(r.First) {
			return n
		}
	}
	return ""
}
