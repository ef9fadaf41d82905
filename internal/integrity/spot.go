package integrity

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/pkg/filehash"
)

// Opened is a baseline that stays open, for comparing single paths with it as
// they change. It takes no lock: checks and new baselines go on beside it, and
// the file of a baseline never changes. It belongs to one goroutine.
type Opened struct {
	Entry   Entry
	Reader  *baseline.Reader
	Policy  *policy.Policy
	Matcher *policy.Matcher
	Tree    string // without symbolic links, so that it can be compared with paths of the kernel
	reads   *reads
}

// OpenCurrent opens the baseline that name stands for and verifies it: that it
// is whole, and that the history says it is the one. Anchors are not asked.
func (e *Engine) OpenCurrent(ctx context.Context, name string) (*Opened, error) {
	c, err := e.Find(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := e.proven(ctx); err != nil {
		return nil, err
	}
	r, err := e.Open(c)
	if err != nil {
		return nil, err
	}
	pol, err := policy.Parse(c.PolicyName, r.Policy)
	if err != nil {
		r.Close()
		return nil, failure.Errorf(failure.Untrustworthy, "the policy in baseline %q: %w", c.Name, err)
	}
	tree, err := filepath.EvalSymlinks(c.Tree)
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("the tree of baseline %q: %w", c.Name, err)
	}
	return &Opened{Entry: c, Reader: r, Policy: pol, Matcher: pol.Compile(), Tree: tree, reads: e.loadReads(c)}, nil
}

// proven fails when the history does not hold, or the catalogue is not as it
// says. A record that waits for a signature is no reason.
func (e *Engine) proven(ctx context.Context) error {
	s, v, err := e.known(ctx, false)
	if err != nil {
		return err
	}
	problems := v.Problems
	if len(problems) == 0 && v.Head != nil {
		problems = s.compare(v)
	}
	if len(problems) == 0 {
		return nil
	}
	return failure.Hint(failure.Errorf(failure.Untrustworthy, "the baselines cannot be trusted: %s", problems[0].What), "see mobileops integrity verify")
}

// Close closes the baseline.
func (o *Opened) Close() error { return o.Reader.Close() }

// Spot is what a comparison of one path found.
type Spot struct {
	Path    []byte
	Exists  bool     // there is an entry
	Known   bool     // there is a record
	Change  *Change  // nil: none
	Problem *Problem // nil: it could be compared
	Gone    bool     // its content is at another of the paths now: the Moved change is there
}

// Spots compares single paths with the baseline, reading their content whatever
// their times say. Paths are those of records, below the tree. Those that the
// policy does not cover are neither there nor known. The result is in the order
// of paths. Of paths that were given together, moves are found.
func (o *Opened) Spots(ctx context.Context, paths [][]byte) ([]Spot, error) {
	return o.spots(ctx, paths, false)
}

// Glances is Spots for somebody who only tells about changes: the content of
// what is not in the baseline is not read when no move can depend on it. Such
// a change must not be accepted, as nobody knows what it consists of.
func (o *Opened) Glances(ctx context.Context, paths [][]byte) ([]Spot, error) {
	return o.spots(ctx, paths, true)
}

func (o *Opened) spots(ctx context.Context, paths [][]byte, glance bool) ([]Spot, error) {
	out := make([]Spot, len(paths))
	index := make(map[string]int, len(paths))
	top := &spotNode{}
	for i, p := range paths {
		out[i].Path = p
		if _, twice := index[string(p)]; twice {
			return nil, fmt.Errorf("the path %q is given twice", p)
		}
		index[string(p)] = i
		top.add(p)
	}
	c := o.comparison(time.Now())
	c.cur = o.Reader.Cursor()
	defer c.cur.Close()
	missing := !glance
	for i, p := range paths {
		dir, name := splitPath(p)
		rec, _, err := c.cur.Find(dir, name)
		if err != nil {
			return nil, err
		}
		if out[i].Known = rec != nil; out[i].Known && !missing {
			_, err := os.Lstat(string(o.Outside(p)))
			missing = err != nil
		}
	}
	if !missing {
		// Nothing that was there can have been moved: the content of what is
		// not in the baseline does not matter.
		for i, p := range paths {
			if !out[i].Known {
				top.add(p).shallow = true
			}
		}
	}
	opts := filehash.Options{Jobs: 2, CrossDevice: o.Policy.CrossFilesystems}
	cover := &coverage{state: o.Matcher.Root(), root: o.Matcher.RootRule()}
	opts.Select = &spotSelector{node: top, coverage: cover}
	err := filehash.Walk(ctx, o.Tree, opts, func(b *filehash.Batch) error {
		if b.Err != nil {
			c.report.Problems = append(c.report.Problems, dirProblem(b))
			c.unknown = append(c.unknown, bytes.Clone(b.Dir))
		}
		for i := range b.Entries {
			e := &b.Entries[i]
			at, ok := index[string(baseline.JoinPath(b.Dir, e.Name))]
			if !ok {
				continue
			}
			out[at].Exists = true
			rec, n, err := c.cur.Find(b.Dir, e.Name)
			if err != nil {
				return err
			}
			if rec != nil {
				c.both(rec, n, e)
			} else {
				c.added(b.Dir, e)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, p := range paths {
		if out[i].Known && !out[i].Exists {
			dir, name := splitPath(p)
			rec, _, err := c.cur.Find(dir, name)
			if err != nil {
				return nil, err
			}
			c.removed(rec)
		}
	}
	c.pairMoves()
	for i := range c.report.Problems {
		p := &c.report.Problems[i]
		if at, ok := index[string(p.Path)]; ok {
			out[at].Problem = p
		} else if p.Dir { // of everything in it that was asked for
			for j := range out {
				if !out[j].Exists && within(out[j].Path, p.Path) {
					out[j].Problem = p
				}
			}
		}
	}
	for i := range c.report.Changes {
		ch := &c.report.Changes[i]
		if at, ok := index[string(ch.Path)]; ok {
			out[at].Change = ch
		}
		if at, ok := index[string(ch.From)]; ok && ch.Kind == Moved {
			out[at].Gone = true
		}
	}
	return out, nil
}

// Below compares everything below a directory with the baseline, in the quick
// way of a check: "/" is all of it. The directory itself is not compared.
// Nothing is stored.
func (o *Opened) Below(ctx context.Context, dir []byte) (*Report, error) {
	started := time.Now()
	c := o.comparison(started)
	c.cur = o.Reader.Cursor()
	defer c.cur.Close()
	whole := string(dir) == "/"
	cover := &coverage{state: o.Matcher.Root(), root: o.Matcher.RootRule(), extra: filehash.WantPrior}
	opts := filehash.Options{Select: cover, CrossDevice: o.Policy.CrossFilesystems, Counters: new(filehash.Counters)}
	if !whole {
		if _, _, err := c.cur.Find(dir, nil); err != nil { // stands before the first record in it
			return nil, err
		}
		top := &spotNode{}
		top.add(dir).below = true
		opts.Select = &spotSelector{node: top, coverage: cover, only: true}
	}
	var failed atomic.Pointer[error]
	opts.NewPrior = func() filehash.Prior {
		return &prior{cur: o.Reader.Cursor(), reads: o.reads, failed: &failed}
	}
	err := filehash.Walk(ctx, o.Tree, opts, func(b *filehash.Batch) error {
		if !whole && !within(b.Dir, dir) {
			return nil
		}
		return c.batch(b)
	})
	if p := failed.Load(); p != nil {
		err = *p
	}
	if err == nil {
		err = c.finishBelow(dir)
	}
	if err != nil {
		return nil, err
	}
	c.report.Elapsed = time.Since(started)
	return c.report, nil
}

// finishBelow is finish for the records below one directory; it does not count.
func (c *comparison) finishBelow(dir []byte) error {
	for {
		rec, _, err := c.record()
		if err != nil {
			return err
		}
		if rec == nil || !within(rec.Dir, dir) && string(dir) != "/" {
			break
		}
		c.take()
		c.removed(rec)
	}
	c.pairMoves()
	sortChanges(c.report.Changes)
	return nil
}

func (o *Opened) comparison(now time.Time) *comparison {
	c := &comparison{
		matcher: o.Matcher, reads: o.reads, now: now, blind: map[string]bool{},
		report: &Report{Baseline: o.Entry, Tree: o.Tree, Started: seconds(now)},
	}
	for _, d := range o.Entry.Unread {
		c.blind[string(d)] = false
	}
	return c
}

// Rule returns the policy's rule for a path below the tree, nil for one that is
// not covered.
func (o *Opened) Rule(path []byte) *policy.Rule {
	if len(path) == 1 {
		return o.Matcher.RootRule()
	}
	dir, name := splitPath(path)
	return o.State(dir).Rule(name)
}

// State returns what the policy says of a directory below the tree.
func (o *Opened) State(dir []byte) *policy.State {
	s := o.Matcher.Root()
	for name := range bytes.SplitSeq(dir, []byte("/")) {
		if len(name) > 0 {
			s = s.Enter(name)
		}
	}
	return s
}

// Inside returns the path below the tree of a path of this host, nil when it is
// not in the tree.
func (o *Opened) Inside(path []byte) []byte {
	if o.Tree == "/" {
		return path
	}
	rest, ok := bytes.CutPrefix(path, []byte(o.Tree))
	switch {
	case !ok, len(rest) > 0 && rest[0] != '/':
		return nil
	case len(rest) == 0:
		return []byte("/")
	}
	return rest
}

// Outside returns the path of this host of a path below the tree.
func (o *Opened) Outside(path []byte) []byte {
	if o.Tree == "/" {
		return path
	}
	return append([]byte(o.Tree), bytes.TrimSuffix(path, []byte("/"))...)
}

// splitPath cuts a path into directory and name as records have them.
func splitPath(p []byte) (dir, name []byte) {
	if len(p) <= 1 {
		return []byte{}, []byte("/")
	}
	i := bytes.LastIndexByte(p, '/')
	return p[:max(i, 1)], p[i+1:]
}

// AsFinding returns what is stored of a change: its title, severity, evidence
// and remedy, under the rule with the given prefix, such as "watch-".
func (c *Change) AsFinding(prefix string, r *Report) finding.Finding {
	f := c.finding(r)
	f.Rule = prefix + strings.TrimPrefix(f.Rule, "file-")
	return f
}

// spotNode is a directory that leads to paths that are to be compared.
type spotNode struct {
	children map[string]*spotNode
	self     bool // compare it
	shallow  bool // without its content
	below    bool // and everything in it
}

func (n *spotNode) add(path []byte) *spotNode {
	for name := range strings.SplitSeq(string(path), "/") {
		if name == "" {
			continue
		}
		child := n.children[name]
		if child == nil {
			if n.children == nil {
				n.children = map[string]*spotNode{}
			}
			child = &spotNode{}
			n.children[name] = child
		}
		n = child
	}
	n.self = true
	return n
}

// spotSelector leads a walk to a few paths and past everything else.
type spotSelector struct {
	node     *spotNode
	coverage *coverage
	only     bool // what is below alone, not the nodes themselves
}

func (s *spotSelector) Select(name []byte) (filehash.Want, any) {
	child := s.node.children[string(name)]
	if child == nil || !child.self || s.only {
		return 0, nil
	}
	want, tag := s.coverage.Select(name)
	if child.shallow {
		want &= filehash.WantEntry
	}
	return want, tag
}

func (s *spotSelector) SelectRoot() (filehash.Want, any) {
	if !s.node.self || s.only {
		return 0, nil
	}
	return s.coverage.SelectRoot()
}

func (s *spotSelector) Enter(name []byte) filehash.Selector {
	child := s.node.children[string(name)]
	if child == nil || child.children == nil && !child.below {
		return nil
	}
	in := s.coverage.Enter(name)
	if in == nil || child.below {
		return in
	}
	return &spotSelector{node: child, coverage: in.(*coverage), only: s.only}
}

func (s *spotSelector) Names() ([]string, bool) {
	names := make([]string, 0, len(s.node.children))
	for n := range s.node.children {
		names = append(names, n)
	}
	slices.Sort(names)
	return names, true
}
