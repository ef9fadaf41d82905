package block

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// Import says which feed is to be imported, and how.
type Import struct {
	Source string // a file or an http(s) URL
	Name   string // "": made of the source
	Format Format
	TTL    time.Duration // how long this version blocks; 0: for ever
	Reason string
	By     string
	DryRun bool
}

// Imported is what came of an import.
type Imported struct {
	Feed      Feed
	Unchanged bool      // the server has no newer version
	Entries   int       // addresses, networks and ranges that were read
	BadLines  []BadLine // the first of those that could not be read
	// BadBefore is how many lines of the version before could not be read; -1
	// when there was none.
	BadBefore int
	// Changes is whether anything is, or after a dry run would be, other than it
	// was: addresses, how long they are blocked, or what is said of the feed.
	Changes bool
	Text    string // what would be in force, after a dry run
	Sockets int    // connections that were ended
	Tracked int
	// Uncovered are other feeds, which cannot be in force.
	Uncovered []string
}

// Import makes a feed, or a new version of one, and blocks what is in it. Feeds
// never block private addresses nor what must never be blocked. The kernel gets
// the new version in one transaction: at no moment less is blocked than both
// versions have in common. An error beside a result is about connections only.
func (e *Engine) Import(ctx context.Context, in Import) (Imported, error) {
	if in.Name == "" {
		in.Name = NameOf(in.Source)
	}
	if err := ValidName(in.Name); err != nil {
		return Imported{}, failure.Hint(err, "choose one: --name")
	}
	if !IsURL(in.Source) {
		if strings.Contains(in.Source, "://") {
			return Imported{}, failure.Errorf(failure.Usage, "%q is neither a file nor a URL that begins with https:// or http://", in.Source)
		}
		abs, err := filepath.Abs(in.Source)
		if err != nil {
			return Imported{}, err
		}
		in.Source = abs
	}
	return e.bring(ctx, in, nil)
}

// Refresh gets feeds again from where they came from; all that came from a
// server, when no names are given. It goes on after one that fails.
func (e *Engine) Refresh(ctx context.Context, names []string) ([]Imported, error) {
	c, err := e.load(ctx)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		for _, name := range c.feedNames() {
			if IsURL(c.feeds[name].Source) {
				names = append(names, name)
			}
		}
		if len(names) == 0 {
			return nil, failure.Hint(failure.New(failure.No, "no feed came from a URL"), "name one to read its file again")
		}
	}
	for _, name := range names {
		if c.feeds[name] == nil {
			return nil, failure.Hint(fmt.Errorf("%w: there is no feed %q", ErrNotFound, name), "see them: mobileops network block list")
		}
	}
	var out []Imported
	var failed []error
	for _, name := range names {
		f := c.feeds[name]
		i, err := e.bring(ctx, Import{Source: f.Source, Name: name, Format: f.Format, TTL: f.TTL, Reason: f.Reason, By: f.By}, f)
		if err != nil {
			if ctx.Err() != nil {
				return out, ctx.Err()
			}
			failed = append(failed, fmt.Errorf("feed %s: %w", name, err))
		}
		if i.Feed.Name != "" {
			out = append(out, i)
		}
	}
	return out, errors.Join(failed...)
}

// bring gets a feed and puts it in force. known is the version at hand, when it
// is to be refreshed. Reading and parsing hold no lock.
func (e *Engine) bring(ctx context.Context, in Import, known *Feed) (out Imported, err error) {
	tags := known
	if known != nil {
		if _, err := e.readFeed(known); err != nil {
			tags = nil // its file is damaged: it has to come anew
		}
	}
	body, etag, modified, err := openSource(ctx, in.Source, tags)
	var p *parsed
	switch {
	case errors.Is(err, errUnmodified):
		out.Unchanged = true
	case err != nil:
		return Imported{}, failure.Hint(fmt.Errorf("get %s: %w", in.Name, err), "nothing was changed")
	default:
		p, err = parseFeed(body, in.Format)
		body.Close()
		if err != nil {
			return Imported{}, failure.Hint(fmt.Errorf("read %s: %w", in.Name, err), "nothing was changed")
		}
		out.Entries, out.BadLines = p.entries, p.first
	}
	var hold *list
	out.BadBefore, out.Changes = -1, true
	done, err := e.change(ctx, "network block import", in.DryRun, func(c *catalogue, clock Clock, never []protected) (map[string]*list, error) {
		old := c.feeds[in.Name]
		f := &Feed{Name: in.Name, Since: clock.Now}
		switch {
		case old != nil:
			*f = *old
			out.BadBefore = old.Bad
		case known != nil:
			return nil, fmt.Errorf("%w: it was removed meanwhile", ErrNotFound)
		case len(c.feeds) >= MaxFeeds:
			return nil, failure.Errorf(failure.Failed, "there are %d feeds already", MaxFeeds)
		}
		f.Source, f.Format, f.Reason, f.By, f.Checked = in.Source, in.Format, in.Reason, in.By, clock.Now
		f.Lapse = lapseAfter(in.TTL, clock)
		c.feeds[in.Name] = f
		if p == nil {
			return nil, nil
		}
		f.LeftOut, f.Bad, f.Imported, f.ETag, f.Modified = p.spare(never), p.bad, clock.Now, etag, modified
		f.Counts = p.list.counts()
		if f.Total() == 0 {
			return nil, failure.Hint(fmt.Errorf("%w: all addresses in it are private or protected", ErrNoFeed), "nothing was changed")
		}
		if p.list.excessive() {
			return nil, failure.Hint(fmt.Errorf("%w: it has more than half of all addresses", ErrNoFeed), "nothing was changed; cut the whole host off: mobileops network isolate")
		}
		hold = &p.list
		_, sum := p.list.encode()
		if old != nil && old.Sum == sum {
			if _, err := e.readFeed(old); err == nil {
				return nil, nil // the same addresses: what is in force stays
			}
		}
		f.Sum = sum
		f.Generation++
		return map[string]*list{in.Name: hold}, nil
	})
	if err != nil {
		return Imported{}, err
	}
	out.Uncovered = done.unreadable
	out.Text, out.Feed = done.text, *done.after.feeds[in.Name]
	if old := done.before.feeds[in.Name]; old != nil {
		now := out.Feed
		out.Changes = old.Generation != now.Generation || old.Lapse != now.Lapse || old.Source != now.Source || old.Format != now.Format || old.Reason != now.Reason
	}
	if in.DryRun || hold == nil {
		return out, nil
	}
	out.Sockets, out.Tracked, err = cuttingOf(nil, hold, nil).cut()
	return out, err
}

// Feeds returns the feeds, by name.
func (e *Engine) Feeds(ctx context.Context) ([]Feed, error) {
	c, err := e.load(ctx)
	if err != nil {
		return nil, err
	}
	var out []Feed
	for _, n := range c.feedNames() {
		out = append(out, *c.feeds[n])
	}
	return out, nil
}

// Entries returns the addresses, networks and ranges of a feed, in order.
func (e *Engine) Entries(f *Feed) ([]string, error) {
	l, err := e.readFeed(f)
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, f.Total())
	for _, s := range l.v4 {
		out = append(out, s.rng().String())
	}
	for _, r := range l.v6 {
		out = append(out, r.String())
	}
	return slices.Clip(out), nil
}

// Blocks returns what people and threats named, by target.
func (e *Engine) Blocks(ctx context.Context) ([]Block, error) {
	c, err := e.load(ctx)
	if err != nil {
		return nil, err
	}
	var out []Block
	for _, n := range c.targets() {
		out = append(out, *c.blocks[n])
	}
	return out, nil
}
