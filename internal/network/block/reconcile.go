package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/network/addresses"
	"github.com/mobileops/mobileops/internal/network/nft"
	"github.com/mobileops/mobileops/internal/threat"
	"golang.org/x/sys/unix"
)

// Reconcile makes what is in force what the catalogue says: after a reboot, after
// somebody flushed or changed the tables, after a process died halfway, when
// interfaces or the host's own addresses have changed. Containers and control
// groups that were started anew are found again, processes that ended are
// forgotten. It returns what it changed, in words; nothing when all was well.
// An error beside that is about single blocks or feeds.
func (e *Engine) Reconcile(ctx context.Context) (changed []string, err error) {
	l, err := e.lock(ctx, "network reconcile")
	if err != nil {
		return nil, err
	}
	defer l.Release()
	before, err := e.load(ctx)
	if err != nil {
		return nil, err
	}
	clock, err := e.clock()
	if err != nil {
		return nil, err
	}
	after := before.clone()
	for _, name := range after.prune(clock) {
		changed = append(changed, name+" has lapsed")
	}
	words, troubles := after.refound(clock)
	changed = append(changed, words...)
	for _, f := range after.feeds {
		f.renew(clock)
	}
	// A feed whose file cannot be read must not keep the rest from being blocked.
	lists := map[string]*list{}
	usable := after.clone()
	for _, name := range after.feedNames() {
		if after.feeds[name].over(clock) {
			continue
		}
		if lists[name], err = e.readFeed(after.feeds[name]); err != nil {
			troubles = append(troubles, err)
			delete(usable.feeds, name)
		}
	}
	get := func(f *Feed) (*list, error) { return lists[f.Name], nil }
	w := usable.wantedOf(clock, e.protect(), links())
	w.revision = after.revision()
	found, err := w.differences(get)
	if err != nil {
		return changed, err
	}
	if len(found) > 0 {
		if err := put(nil, w, get); err != nil {
			return changed, err
		}
		changed = append(changed, found...)
	}
	if !reflect.DeepEqual(before, after) { // otherwise a cron job would write every time
		if err := e.save(ctx, before, after); err != nil {
			return changed, err
		}
	}
	for name, b := range before.blocks {
		if after.blocks[name] == nil {
			releaseAll(b, after)
		}
	}
	e.sweep(after)
	if len(found) > 0 {
		var blocks []Block
		for _, name := range after.targets() {
			blocks = append(blocks, *after.blocks[name])
		}
		if _, _, err := cuttingOf(blocks, nil, w.never).cut(); err != nil {
			troubles = append(troubles, err)
		}
	}
	return changed, errors.Join(troubles...)
}

// refound finds again what blocks are about, after restarts.
func (c *catalogue) refound(clock Clock) (changed []string, troubles []error) {
	for _, name := range c.targets() {
		b := c.blocks[name]
		b.renew(clock)
		switch b.Target.Type {
		case threat.PID:
			pid, start, _ := threat.SplitPID(b.Target.Value)
			now, err := threat.ProcessStart(pid)
			// Its children may live on in its control group.
			if (err != nil || now != start) && !slices.ContainsFunc(b.Parts.Cgroups, Cgroup.occupied) {
				delete(c.blocks, name)
				changed = append(changed, name+" has ended")
			}
			continue
		case threat.Cgroup, threat.Container:
		default:
			continue
		}
		parts, err := resolve(b.Target)
		if err != nil {
			lost := strings.TrimPrefix(name, string(b.Target.Type)+":") + " is not there: nothing of it is blocked until it is back and mobileops network reconcile has run"
			if len(b.Parts.Uncovered) == 0 || b.Parts.Uncovered[0] != lost {
				changed = append(changed, name+" is gone")
			}
			b.Parts = Parts{Uncovered: []string{lost}}
			continue
		}
		if !slices.Equal(parts.Cgroups, b.Parts.Cgroups) || !slices.Equal(parts.Interfaces, b.Parts.Interfaces) || !slices.Equal(parts.Addresses, b.Parts.Addresses) {
			changed = append(changed, name+" was found anew")
		}
		b.Parts = parts
	}
	return changed, troubles
}

// differences compares what is in force with what is wanted.
func (w *wanted) differences(get lister) (out []string, err error) {
	r, err := nft.OpenReader()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, t := range []nft.Table{inet, bridge, frames} {
		expected := !w.empty() && (t != frames || len(w.devices) > 0 && len(w.macs)+len(w.interfaces) > 0)
		info, there, err := r.Table(t)
		switch {
		case err != nil:
			return nil, denied(err)
		case there && !expected:
			say("table %s was not wanted", t)
			continue
		case !expected:
			continue
		case !there:
			say("table %s was gone", t)
			continue
		case info.Comment != layout || info.Flags&nft.Dormant != 0:
			say("table %s was another one", t)
			continue
		}
		if err := w.compareRules(r, t, say); err != nil {
			return nil, err
		}
		for _, s := range w.small(t) {
			held, err := r.Elements(s.set)
			if !there || errors.Is(err, unix.ENOENT) || err == nil && begins(held) != len(s.elements) {
				say("set %s was not as it should be", s.set.String())
			} else if err != nil {
				return nil, err
			}
		}
		if t == frames {
			continue
		}
		if t == inet {
			if now, err := readRevision(r); err != nil || now != w.revision {
				say("table %s was of another catalogue", t)
			}
		}
		if err := w.compareAddresses(r, t, get, say); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// compareRules compares the number of rules in each chain, and their counters'
// names, with what would be made.
func (w *wanted) compareRules(r *nft.Reader, t nft.Table, say func(string, ...any)) error {
	have, err := r.Rules(t)
	if err != nil {
		return err
	}
	devices, err := r.Chains(t)
	if err != nil {
		return err
	}
	b := nft.NewTextBatch()
	if t == frames {
		w.frameRules(b, nil)
	} else {
		w.rules(b, t, nil)
	}
	want := map[string]int{}
	for line := range strings.Lines(b.Text()) {
		if rest, ok := strings.CutPrefix(line, "add rule "+t.String()+" "); ok {
			chain, _, _ := strings.Cut(rest, " ")
			want[chain]++
		}
	}
	names := sortedKeys(want)
	for _, chain := range names {
		if have[chain] != want[chain] {
			say("chain %s %s had %d rules, not %d", t, chain, have[chain], want[chain])
		}
	}
	if t == frames {
		var seen []string
		for chain, list := range devices {
			if strings.HasPrefix(chain, "arriving") {
				seen = append(seen, list...)
			}
		}
		slices.Sort(seen)
		if !slices.Equal(seen, w.devices) {
			say("table %s looked at other interfaces", t)
		}
	}
	return nil
}

// compareAddresses compares the sets of addresses with what should be in them.
func (w *wanted) compareAddresses(r *nft.Reader, t nft.Table, get lister, say func(string, ...any)) error {
	check := func(s nft.Set, want []addresses.Range) error {
		held, err := r.Elements(s)
		if errors.Is(err, unix.ENOENT) {
			say("set %s was gone", s.String())
			return nil
		}
		if err != nil {
			return err
		}
		if have := heldRanges(held, s.Flags&nft.Interval != 0); !slices.Equal(have, want) {
			say("set %s had %d entries of %d that are wanted, and others", s.String(), len(have), len(want))
		}
		return nil
	}
	for _, four := range []bool{true, false} {
		suffix, key := "4", nft.IPv4Addr
		if !four {
			suffix, key = "6", nft.IPv6Addr
		}
		never4, never6 := addresses.Split(w.never)
		never := never4
		if !four {
			never = never6
		}
		if err := errors.Join(
			check(nft.Set{Table: t, Name: "never" + suffix, Key: []nft.Type{key}, Flags: nft.Interval}, never),
			check(nft.Set{Table: t, Name: "blocked" + suffix, Key: []nft.Type{key}, Flags: nft.Interval}, untimed(w.plain, four)),
			check(nft.Set{Table: t, Name: "forced" + suffix, Key: []nft.Type{key}, Flags: nft.Interval}, untimed(w.forced, four)),
		); err != nil {
			return err
		}
	}
	for _, f := range w.feedsIn(t) {
		l, err := get(f.Feed)
		if err != nil {
			return err
		}
		for _, s := range f.sets(t) {
			want := l.ranges(s.four)
			if s.single {
				want = nil
				for a := range l.singles(s.four) {
					want = append(want, addresses.Range{First: a, Last: a})
				}
			}
			if err := check(s.Set, want); err != nil {
				return err
			}
		}
	}
	return nil
}

func untimed(list []timed, four bool) (out []addresses.Range) {
	for _, t := range list {
		if t.First.Is4() == four {
			out = append(out, t.Range)
		}
	}
	return out
}

// begins counts elements, of which each range is two.
func begins(held []nft.Held) (n int) {
	for _, h := range held {
		if !h.Last {
			n++
		}
	}
	return n
}

// heldRanges are the addresses of a set in force, in order.
func heldRanges(held []nft.Held, interval bool) (out []addresses.Range) {
	slices.SortFunc(held, func(a, b nft.Held) int {
		if c := bytes.Compare(a.Key, b.Key); c != 0 {
			return c
		}
		if a.Last == b.Last {
			return 0
		} else if a.Last {
			return -1
		}
		return 1
	})
	for _, h := range held {
		a, _ := netip.AddrFromSlice(h.Key)
		n := len(out)
		switch {
		case !interval:
			out = append(out, addresses.Range{First: a, Last: a})
		case !h.Last:
			last := addresses.Range{First: a, Last: a}
			for i := range h.Key { // until an end says otherwise, it goes as far as addresses do
				h.Key[i] = 0xff
			}
			last.Last, _ = netip.AddrFromSlice(h.Key)
			out = append(out, last)
		case n > 0:
			out[n-1].Last = a.Prev()
		}
	}
	return out
}

// occupied tells whether processes are in a control group that is still the same.
func (c Cgroup) occupied() bool {
	mount, err := cgroupMount()
	if err != nil || c.gone() {
		return false
	}
	return len(readSmall(mount+c.Path+"/cgroup.procs")) > 0
}
