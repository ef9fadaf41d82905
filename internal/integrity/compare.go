package integrity

import (
	"bytes"
	"context"
	"math/rand/v2"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/integrity/history/anchor"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/pkg/filehash"
	"golang.org/x/sys/unix"
)

// CompareOptions say what to compare and how deeply.
type CompareOptions struct {
	Name   string        // of the baseline, or NAME@ID
	Verify bool          // read every byte
	Sample float64       // of the files a check would skip, read this share, from 0 to 1, drawn anew each time
	MaxAge time.Duration // read a file again when it was last read longer ago; 0: no limit
	// PackageArchive is a directory of package files to compare with; empty:
	// what the package databases say is all that is known.
	PackageArchive string
	Only           []string       // aspects to compare, such as facts.Files; nil: all that the baseline has
	Anchors        []anchor.Place // to compare with, beside those of the engine
	Scan                          // an empty Tree means the one the baseline was taken of
}

// racyWindow: a file whose inode changed less than this before it was read may
// have changed once more within the same tick of the filesystem's clock, so
// its times prove nothing. Network and FAT filesystems tick every 2 seconds.
const racyWindow = 2

// Compare walks the paths of a baseline and reports every difference. The
// findings of the baseline's name are brought up to date with it. On an error,
// and when ctx is cancelled, nothing is stored. An error with a report means
// that the report is whole and could not be stored: a full disk must not keep
// anybody from seeing what has changed.
func (e *Engine) Compare(ctx context.Context, o CompareOptions) (*Report, error) {
	c, err := e.Find(ctx, o.Name)
	if err != nil {
		return nil, err
	}
	doing := "integrity check"
	if o.Verify {
		doing = "integrity verify"
	}
	lock, err := e.lock(ctx, c.Name, doing)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	// Before there was a lock, another one may have become the current one.
	if c, err = e.Find(ctx, o.Name); err != nil {
		return nil, err
	}
	trust, err := e.trust(ctx, !o.Verify, o.Anchors...)
	if err != nil {
		return nil, err
	}
	r, err := e.open(c)
	if err != nil {
		return nil, trust.explain(err)
	}
	defer r.Close()
	if p := c.restore(&r.Header); p != nil {
		trust.Problems = append(trust.Problems, *p)
	}
	pol, err := policy.Parse(c.PolicyName, r.Policy)
	if err != nil {
		return nil, failure.Errorf(failure.Untrustworthy, "the policy in baseline %q: %w", c.Name, err)
	}
	opts, err := o.options()
	if err != nil {
		return nil, err
	}
	aspects, err := c.wanted(o.Only)
	if err != nil {
		return nil, err
	}
	snapshot, err := e.loadFacts(c)
	if err != nil {
		return nil, err
	}
	tree := c.Tree
	if o.Tree != "" {
		if tree, err = filepath.Abs(o.Tree); err != nil {
			return nil, err
		}
	}

	started := time.Now()
	matcher := pol.Compile()
	cmp := &comparison{
		cur: r.Cursor(), matcher: matcher, blind: map[string]bool{}, reads: e.loadReads(c), now: started,
		report: &Report{Verify: o.Verify, Baseline: c, Tree: tree, Started: seconds(started), Trust: trust, Aspects: aspects},
	}
	for _, d := range c.Unread {
		cmp.blind[string(d)] = false
	}
	cover := &coverage{state: matcher.Root(), root: matcher.RootRule()}
	if !o.Verify {
		cover.extra = filehash.WantPrior
	}
	opts.Select, opts.CrossDevice = cover, pol.CrossFilesystems
	if opts.Counters == nil {
		opts.Counters = new(filehash.Counters)
	}
	var failed atomic.Pointer[error]
	opts.NewPrior = func() filehash.Prior {
		return &prior{cur: r.Cursor(), reads: cmp.reads, verify: o.Verify, sample: o.Sample, oldest: oldestAllowed(started, o.MaxAge), failed: &failed}
	}
	if cmp.report.looked(facts.Files) {
		err = filehash.Walk(ctx, tree, opts, cmp.batch)
		if p := failed.Load(); p != nil {
			err = *p
		}
		if err == nil {
			err = cmp.finish()
		}
	}
	if err == nil {
		err = e.classify(ctx, cmp.report, o.PackageArchive, r)
	}
	if err == nil {
		err = e.compareFacts(ctx, cmp.report, snapshot)
	}
	if err != nil {
		return nil, interrupted(err, "nothing was recorded")
	}
	rep := cmp.report
	s := &rep.Summary
	s.Bytes, s.Rehashed, s.Skipped = opts.Counters.Bytes.Load(), opts.Counters.Hashed.Load(), opts.Counters.Known.Load()
	rep.Elapsed = time.Since(started)
	if err := e.saveReads(c, cmp.reads); err != nil {
		return rep, failure.Errorf(failure.Failed, "note when files were read: %w", err)
	}
	if err := e.store(ctx, rep); err != nil {
		if ctx.Err() != nil {
			return nil, interrupted(err, "nothing was recorded")
		}
		return rep, err
	}
	rep.Stored = true
	return rep, nil
}

func oldestAllowed(now time.Time, maxAge time.Duration) uint32 {
	if maxAge <= 0 {
		return 0
	}
	return uint32(max(0, now.Add(-maxAge).Unix()))
}

// prior answers for files that are as they were when they were last read.
type prior struct {
	cur    *baseline.Cursor
	reads  *reads
	verify bool
	sample float64
	oldest uint32
	failed *atomic.Pointer[error]
}

func (p *prior) Lookup(dir, name []byte, info *filehash.Info) filehash.PriorAnswer {
	rec, n, err := p.cur.Find(dir, name)
	if err != nil {
		p.failed.CompareAndSwap(nil, &err)
	}
	if rec == nil {
		return filehash.PriorAnswer{}
	}
	regular := info.Type() == unix.S_IFREG
	if regular && rec.Content != filehash.Hashed {
		return filehash.PriorAnswer{}
	}
	old := &rec.Info
	if p.verify || old.Mode != info.Mode || old.Dev != info.Dev || old.Ino != info.Ino ||
		old.Size != info.Size || old.Mtime != info.Mtime || old.Ctime != info.Ctime {
		return filehash.PriorAnswer{Prefix: old.Size}
	}
	read := p.reads.at[n]
	if info.Ctime.Sec+racyWindow >= int64(read) || read < p.oldest ||
		regular && p.sample > 0 && rand.Float64() < p.sample { // seeded by the kernel: nobody can tell which
		return filehash.PriorAnswer{Prefix: old.Size}
	}
	return filehash.PriorAnswer{Known: true, Sum: rec.Sum}
}

// comparison joins the stream of a walk with that of a baseline.
type comparison struct {
	matcher *policy.Matcher
	reads   *reads
	now     time.Time
	report  *Report

	cur     *baseline.Cursor
	rec     *baseline.Record // the next one of the baseline; nil: not yet known
	n       int              // its number
	blind   map[string]bool  // directories that the baseline does not know the content of; true: reported
	unknown [][]byte         // directories that could not be read, one in the other: what is missing below them is not removed
	gone    []lost
	fresh   []fresh
}

// record returns the next record of the baseline, nil at its end. It stays the
// next one until take.
func (c *comparison) record() (*baseline.Record, int, error) {
	if c.rec == nil {
		var err error
		if c.rec, c.n, err = c.cur.Next(); err != nil {
			return nil, 0, err
		}
	}
	return c.rec, c.n, nil
}

// take moves on to the record behind the next one.
func (c *comparison) take() { c.rec = nil }

func (c *comparison) batch(b *filehash.Batch) error {
	if b.Err != nil {
		c.report.Problems = append(c.report.Problems, dirProblem(b))
		if err := c.unread(b.Dir); err != nil {
			return err
		}
	}
	for i := range b.Entries {
		e := &b.Entries[i]
		for {
			rec, n, err := c.record()
			if err != nil {
				return err
			}
			order := 1
			if rec != nil {
				order = compareKeys(rec, b.Dir, e.Name)
			}
			if order < 0 {
				c.take()
				c.removed(rec)
				continue
			}
			if order == 0 {
				c.take()
				c.both(rec, n, e)
			} else {
				c.added(b.Dir, e)
			}
			break
		}
	}
	return nil
}

// unread notes a directory that could not be read. First it settles what is
// before it, which the directories noted earlier may explain.
func (c *comparison) unread(dir []byte) error {
	for {
		rec, _, err := c.record()
		if err != nil {
			return err
		}
		if rec == nil || filehash.CompareDirs(rec.Dir, dir) >= 0 {
			break
		}
		c.take()
		c.removed(rec)
	}
	for n := len(c.unknown); n > 0 && !within(dir, c.unknown[n-1]); n-- {
		c.unknown = c.unknown[:n-1]
	}
	c.unknown = append(c.unknown, bytes.Clone(dir))
	return nil
}

// compareKeys is filehash.CompareKeys, quick to see that both are the same.
func compareKeys(rec *baseline.Record, dir, name []byte) int {
	if bytes.Equal(rec.Name, name) && bytes.Equal(rec.Dir, dir) {
		return 0
	}
	return filehash.CompareKeys(rec.Dir, rec.Name, dir, name)
}

// finish reports what the baseline has beyond the end of the walk.
func (c *comparison) finish() error {
	for {
		rec, _, err := c.record()
		if err != nil {
			return err
		}
		if rec == nil {
			break
		}
		c.take()
		c.removed(rec)
	}
	c.pairMoves()
	sortChanges(c.report.Changes)
	s := &c.report.Summary
	for i := range c.report.Changes {
		switch c.report.Changes[i].Kind {
		case Added:
			s.Added++
		case Removed:
			s.Removed++
		case Changed:
			s.Changed++
		case Moved:
			s.Moved++
		}
	}
	for i := range c.report.Problems {
		switch c.report.Problems[i].Kind {
		case Unreadable:
			s.Unreadable++
		case Unstable:
			s.Unstable++
		}
	}
	return nil
}

// both compares an entry with its record.
func (c *comparison) both(rec *baseline.Record, n int, e *filehash.Entry) {
	c.report.Summary.Files++
	rule := e.Tag.(*policy.Rule)
	path := rec.Path
	if p, bad := problem(rec.Dir, e); bad {
		c.report.Problems = append(c.report.Problems, p)
	} else if rec.Content != e.Content && (rec.Content == filehash.Unreadable || rec.Content == filehash.Unstable) {
		c.report.Problems = append(c.report.Problems, Problem{Path: path(), Kind: Unreadable,
			Reason: "its content is not in the baseline, which could not read it when it was taken", Before: true})
	}
	if e.Info == (filehash.Info{}) || rec.Info == (filehash.Info{}) {
		return // not even statted, now or then
	}
	if e.Mountpoint {
		c.mount(path())
	}
	switch e.Content {
	case filehash.Hashed:
		if rec.Content == filehash.Hashed && rec.Sum == e.Sum {
			c.reads.set(n, c.now)
		}
	case filehash.Known:
		if at := time.Unix(int64(c.reads.at[n]), 0).UTC(); e.Info.Type() == unix.S_IFREG {
			if s := &c.report.Summary; s.OldestRead.IsZero() || at.Before(s.OldestRead) {
				s.OldestRead = at
			}
		}
	}
	if attrs := compare(rec, e, rule); attrs != nil {
		c.report.Changes = append(c.report.Changes, Change{Path: path(), Kind: Changed, Severity: rule.Severity, Attributes: attrs, Now: recordOf(rec.Dir, e, rec)})
	}
}

func (c *comparison) added(dir []byte, e *filehash.Entry) {
	c.report.Summary.Files++
	if c.inBlind(dir) {
		return
	}
	path := baseline.JoinPath(dir, e.Name)
	if p, bad := problem(dir, e); bad {
		c.report.Problems = append(c.report.Problems, p)
	}
	if e.Mountpoint {
		c.mount(path)
	}
	rule := e.Tag.(*policy.Rule)
	if e.Content == filehash.Hashed && e.Info.Size > 0 {
		c.fresh = append(c.fresh, freshOf(len(c.report.Changes), e, rule))
	}
	c.report.Changes = append(c.report.Changes, Change{Path: path, Kind: Added, Severity: rule.Severity, Now: recordOf(dir, e, nil)})
}

// recordOf keeps an entry beyond its batch, as it would be in a baseline. What
// the walk did not read of it, because nothing had changed there, is in rec.
func recordOf(dir []byte, e *filehash.Entry, rec *baseline.Record) *baseline.Record {
	r := baseline.Record{Dir: dir, Name: e.Name, Info: e.Info, Content: e.Content, Sum: e.Sum, Target: e.Target, Xattrs: e.Xattrs}
	if e.Content == filehash.Known && rec != nil {
		r.Content, r.Sum, r.Xattrs = rec.Content, rec.Sum, rec.Xattrs
	}
	r = r.Clone()
	return &r
}

// inBlind tells whether a directory lies in one that could not be read when the
// baseline was taken: what is in it now may have been there then. It is
// reported as a problem, once.
func (c *comparison) inBlind(dir []byte) bool {
	if len(c.blind) == 0 {
		return false
	}
	for d := dir; len(d) > 0; d = d[:max(0, bytes.LastIndexByte(d, '/'))] {
		reported, blind := c.blind[string(d)]
		if !blind {
			continue
		}
		if !reported {
			c.blind[string(d)] = true
			c.report.Problems = append(c.report.Problems, Problem{Path: bytes.Clone(d), Kind: Unreadable, Dir: true,
				Reason: "what was in it is not in the baseline, which could not read it when it was taken", Before: true})
		}
		return true
	}
	return false
}

// mount notes a directory that was not entered.
func (c *comparison) mount(path []byte) {
	c.report.Summary.Mounts = append(c.report.Summary.Mounts, path)
}

// removed reports a record whose entry is not there, unless nobody can know.
func (c *comparison) removed(rec *baseline.Record) {
	for _, dir := range c.unknown {
		if within(rec.Dir, dir) {
			return
		}
	}
	path := rec.Path()
	severity := finding.Medium
	if rule := c.rule(rec); rule != nil {
		severity = rule.Severity
	}
	if rec.Content == filehash.Hashed && rec.Info.Size > 0 {
		c.gone = append(c.gone, lost{len(c.report.Changes), rec.Clone()})
	}
	c.report.Changes = append(c.report.Changes, Change{Path: path, Kind: Removed, Severity: severity})
}

// within tells whether a directory is base or below it.
func within(dir, base []byte) bool {
	return bytes.HasPrefix(dir, base) && (len(dir) == len(base) || len(base) == 1 || dir[len(base)] == '/')
}

// rule returns the policy's rule for a record.
func (c *comparison) rule(rec *baseline.Record) *policy.Rule {
	if len(rec.Dir) == 0 {
		return c.matcher.RootRule()
	}
	s := c.matcher.Root()
	for _, name := range bytes.Split(rec.Dir, []byte("/")) {
		if len(name) > 0 {
			s = s.Enter(name)
		}
	}
	return s.Rule(rec.Name)
}
