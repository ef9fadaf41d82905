package block

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/nft"
	"golang.org/x/sys/unix"
)

// lister finds the addresses of a feed.
type lister func(*Feed) (*list, error)

// readCounts returns what the tables have counted, and whether they are there, in
// today's layout, and of the given revision.
func readCounts(revision uint32) (c counts, whole bool, err error) {
	r, err := nft.OpenReader()
	if err != nil {
		return nil, false, err
	}
	defer r.Close()
	c, whole = counts{}, true
	for _, t := range []nft.Table{inet, bridge, frames} {
		info, there, err := r.Table(t)
		if err != nil {
			return nil, false, denied(err)
		}
		if t != frames {
			whole = whole && there && info.Comment == layout
		}
		if !there {
			continue
		}
		list, err := r.Counters(t)
		if err != nil {
			return nil, false, err
		}
		for _, n := range list {
			c[countKey(t, n.Chain, n.Comment)] = [2]uint64{n.Packets, n.Bytes}
		}
	}
	if whole {
		now, err := readRevision(r)
		whole = err == nil && now == revision
	}
	return c, whole, nil
}

// readRevision returns the revision of the catalogue that is in force.
func readRevision(r *nft.Reader) (uint32, error) {
	held, err := r.Elements(nft.Set{Table: inet, Name: "revision"})
	if err != nil || len(held) != 1 || len(held[0].Key) != 4 {
		return 0, err
	}
	return binary.NativeEndian.Uint32(held[0].Key), nil
}

// denied says of an error of the kernel what it means here.
func denied(err error) error {
	var refused *nft.Error
	switch {
	case err == nil:
	case errors.Is(err, unix.EPERM):
		return failure.Hint(failure.Wrap(failure.NotAllowed, err), "rules can be read and changed by root alone: run it as root")
	case errors.As(err, &refused) && (refused.Errno == unix.EAFNOSUPPORT || refused.Errno == unix.EOPNOTSUPP || refused.Errno == unix.EPROTONOSUPPORT):
		return failure.Hint(failure.Wrap(failure.NotReady, err), "this kernel lacks a part of nf_tables")
	}
	return err
}

// put brings the wanted state into force, in one transaction. old is what should
// be in force so far; with nil everything is made anew.
func put(old, now *wanted, get lister) error {
	var revision uint32
	if old != nil {
		revision = old.revision
	}
	c, whole, err := readCounts(revision)
	if err != nil {
		return err
	}
	if old != nil && whole && !now.empty() && !old.empty() && old.bridged == now.bridged && slices.Equal(old.levels(), now.levels()) {
		b := nft.NewBatch()
		if err := now.change(b, old, c, get); err != nil {
			return err
		}
		err := commit(b)
		if !mismatch(err) {
			return denied(err)
		}
		// Somebody else changed our tables: they are made anew.
	}
	for attempt := 0; ; attempt++ {
		b := nft.NewBatch()
		if err := now.build(b, c, get); err != nil {
			return err
		}
		err := commit(b)
		if attempt == 3 || len(now.devices) == 0 || !errors.Is(err, unix.ENOENT) {
			return denied(err)
		}
		// An interface went away meanwhile.
		now.look(links())
	}
}

func commit(b *nft.Batch) error {
	conn, err := nft.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Commit(b)
}

// mismatch tells whether a change was refused since something else is in force
// than was thought.
func mismatch(err error) bool {
	return slices.ContainsFunc([]unix.Errno{unix.ENOENT, unix.EEXIST, unix.EBUSY, unix.ENFILE, unix.ENOTEMPTY, unix.EINVAL}, func(e unix.Errno) bool { return errors.Is(err, e) })
}

// build makes all tables anew; none, when nothing is wanted.
func (w *wanted) build(b *nft.Batch, c counts, get lister) error {
	for _, t := range []nft.Table{inet, bridge, frames} {
		b.DestroyTable(t)
	}
	if w.empty() {
		return nil
	}
	lists := map[string]*list{}
	var usable []wantedFeed
	for _, f := range w.feeds {
		l, err := get(f.Feed)
		if err != nil {
			w.unreadable = append(w.unreadable, err.Error())
			continue
		}
		lists[f.Name] = l
		usable = append(usable, f)
	}
	w.feeds = usable
	for _, t := range []nft.Table{inet, bridge} {
		b.AddTable(t, 0, layout)
		for _, s := range w.small(t) {
			b.AddSet(s.set)
			b.AddElements(s.set, len(s.elements), func(i int) nft.Element { return s.elements[i] })
		}
		for _, f := range w.feedsIn(t) {
			f.fill(b, t, lists[f.Name])
		}
		chains(b, t)
		w.rules(b, t, c)
	}
	w.frameRules(b, c)
	return nil
}

// feedsIn are the feeds that a table has.
func (w *wanted) feedsIn(t nft.Table) []wantedFeed {
	if t.Family == nft.Bridge && !w.bridged {
		return nil
	}
	return w.feeds
}

// change turns the tables of one state into those of another: feeds that stay are
// left alone.
func (w *wanted) change(b *nft.Batch, old *wanted, c counts, get lister) error {
	for _, t := range []nft.Table{inet, bridge} {
		for _, chain := range chainNames(t) {
			b.FlushChain(t, chain)
		}
		for _, s := range w.small(t) {
			b.FlushSet(s.set)
			b.AddElements(s.set, len(s.elements), func(i int) nft.Element { return s.elements[i] })
		}
		for _, f := range old.feedsIn(t) {
			if !slices.ContainsFunc(w.feeds, func(g wantedFeed) bool { return g.Name == f.Name }) {
				f.drop(b, t)
			}
		}
		for _, f := range w.feedsIn(t) {
			i := slices.IndexFunc(old.feeds, func(g wantedFeed) bool { return g.Name == f.Name })
			if i >= 0 && old.feeds[i].Generation == f.Generation && old.feeds[i].Lapse == f.Lapse {
				continue
			}
			l, err := get(f.Feed)
			if err != nil {
				return err
			}
			if i < 0 {
				f.fill(b, t, l)
				continue
			}
			before, err := get(old.feeds[i].Feed)
			if err != nil || f.left != 0 || old.feeds[i].left != 0 {
				before = nil
			}
			f.update(b, t, old.feeds[i], before, l)
		}
		w.rules(b, t, c)
	}
	b.DestroyTable(frames)
	w.frameRules(b, c)
	return nil
}

// drop removes the sets of a feed.
func (f wantedFeed) drop(b *nft.Batch, t nft.Table) {
	for _, s := range f.sets(t) {
		b.DeleteSet(s.Set)
	}
}

// update turns the sets of one version of a feed into those of another. The sets
// themselves stay: the kernel puts new rules in force a moment before it does new
// elements, so a rule that looks into a set made anew would find nothing. What is
// in both versions stays, too, unless before is nil, since time-outs are renewed;
// networks, which are few, are always filled in anew.
func (f wantedFeed) update(b *nft.Batch, t nft.Table, old wantedFeed, before, now *list) {
	had := map[string]bool{}
	for _, s := range old.sets(t) {
		had[s.Name] = true
	}
	timeout := f.left
	if timeout == 0 { // the set may have one
		timeout = nft.Never
	}
	for _, s := range f.sets(t) {
		switch {
		case !had[s.Name]:
			b.AddSet(s.Set)
			fillSet(b, s, now, 0)
		case s.single && before != nil:
			gone, added := difference(slices.Collect(before.singles(s.four)), slices.Collect(now.singles(s.four)))
			b.DeleteAddresses(s.Set, slices.Values(gone))
			b.AddAddresses(s.Set, slices.Values(added), timeout)
		default:
			b.FlushSet(s.Set)
			fillSet(b, s, now, timeout)
		}
		delete(had, s.Name)
	}
	for _, s := range old.sets(t) {
		if had[s.Name] {
			b.DeleteSet(s.Set)
		}
	}
}

// difference compares two sorted lists.
func difference(before, now []netip.Addr) (gone, added []netip.Addr) {
	for len(before) > 0 && len(now) > 0 {
		switch c := before[0].Compare(now[0]); {
		case c < 0:
			gone, before = append(gone, before[0]), before[1:]
		case c > 0:
			added, now = append(added, now[0]), now[1:]
		default:
			before, now = before[1:], now[1:]
		}
	}
	return append(gone, before...), append(added, now...)
}

// edit changes a catalogue. lists are the addresses of feeds whose files are not
// written yet, by name.
type edit func(c *catalogue, clock Clock, never []protected) (lists map[string]*list, err error)

// changed is what came of an edit.
type changed struct {
	before, after *catalogue
	text          string   // what would be in force, after a dry run
	unreadable    []string // feeds that are not in force
}

// change edits the catalogue, brings it into force and stores it, in this order:
// an emergency does not wait for a disk. What cannot be stored is taken back.
func (e *Engine) change(ctx context.Context, doing string, dry bool, apply edit) (done changed, err error) {
	l, err := e.lock(ctx, doing)
	if err != nil {
		return changed{}, err
	}
	defer l.Release()
	before, err := e.load(ctx)
	if err != nil {
		return changed{}, err
	}
	clock, err := e.clock()
	if err != nil {
		return changed{}, err
	}
	never, devices := e.protect(), links()
	after := before.clone()
	lists, err := apply(after, clock, never)
	if err != nil {
		return changed{}, err
	}
	after.prune(clock)
	get := func(f *Feed) (*list, error) {
		if l := lists[f.Name]; l != nil && after.feeds[f.Name] != nil && after.feeds[f.Name].Generation == f.Generation {
			return l, nil
		}
		return e.readFeed(f)
	}
	old, now := before.wantedOf(clock, never, devices), after.wantedOf(clock, never, devices)
	if dry {
		b := nft.NewTextBatch()
		err := now.build(b, nil, get)
		return changed{before, after, b.Text(), now.unreadable}, err
	}
	if err := put(old, now, get); err != nil {
		return changed{}, err
	}
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		if f := after.feeds[name]; f != nil && err == nil {
			data, _ := lists[name].encode()
			err = e.writeFeed(f, data)
		}
	}
	if err == nil {
		err = e.save(ctx, before, after)
	}
	if err != nil {
		err = fmt.Errorf("what was to be blocked could not be stored, and is not: %w", err)
		if back := put(nil, old, e.readFeed); back != nil {
			err = fmt.Errorf("%w (and it is in force until mobileops network reconcile: %w)", err, back)
		}
		return changed{}, err
	}
	for name, b := range before.blocks {
		if after.blocks[name] == nil {
			releaseAll(b, after)
		}
	}
	e.sweep(after)
	return changed{before, after, "", now.unreadable}, nil
}

// prune takes out blocks that have lapsed. Feeds stay: they are refreshed.
func (c *catalogue) prune(clock Clock) (gone []string) {
	for name, b := range c.blocks {
		if b.over(clock) {
			delete(c.blocks, name)
			gone = append(gone, name)
		}
	}
	slices.Sort(gone)
	return gone
}

// uses tells whether a block needs a control group.
func (c *catalogue) uses(path string) bool {
	for _, b := range c.blocks {
		if slices.ContainsFunc(b.Parts.Cgroups, func(g Cgroup) bool { return g.Path == path }) {
			return true
		}
	}
	return false
}

// releaseAll undoes what was done to the host for a block, unless another one
// needs it, too. A control group that waited for one inside of it goes as well.
func releaseAll(b *Block, c *catalogue) {
	for _, g := range slices.Backward(b.Parts.Cgroups) {
		for g.Made && !c.uses(g.Path) {
			release(g)
			if g.Path = filepath.Dir(g.Path); !isMade(g.Path) {
				break
			}
		}
	}
}
