// Package scan finds vulnerable packages, secrets, licences and misconfiguration
// in hosts, trees, images and SBOMs, and remembers what it found.
//
// An Engine asks mobileops-scan (package worker), which has Trivy in it, for what
// is in a target, in words of package protocol. What it answers becomes sightings
// of package ledger, with what package vulndb knows of exploits and what package
// license says of licences; the ledger compares them with the scans before, and
// package export writes them for other tools.
//
// Invariants:
//   - Without a vulnerability database that is whole and not too old there is no
//     answer about vulnerabilities, so never a clean one.
//   - What could not be looked at is a problem of the report, and makes it
//     incomplete. Nothing that a scan could not see is taken for gone.
//   - The ledger is told everything that was seen. What a user does not want to
//     see is left out when it is shown.
package scan

import (
	"context"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/scan/license"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/scan/vex"
	"github.com/mobileops/mobileops/internal/scan/vulndb"
	"github.com/mobileops/mobileops/internal/scan/worker"
	"github.com/mobileops/mobileops/internal/state"
)

// Engine scans.
type Engine struct{ o Options }

// Options are what an Engine works with.
type Options struct {
	Dir      string // of scans, in the state directory
	State    *state.Store
	Database *vulndb.Store
	MaxAge   time.Duration // of the database; one that is older is stale
	Ledger   ledger.Ledger
	Worker   func() (*worker.Worker, error)
	Limits   worker.Limits
	// Memo is how much is remembered of files by their content, in bytes; 0: nothing.
	Memo        int64
	SecretRules string
	Licenses    *license.Policy
	Now         func() time.Time
}

// New returns an engine. It opens nothing.
func New(o Options) *Engine {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Engine{o: o}
}

// Request is one target.
type Request struct {
	Kind     protocol.Kind
	Target   string
	Host     bool // a Rootfs that stands for this host
	Remote   bool // an Image that is a reference
	Insecure bool
	Platform string

	Scanners            []protocol.Scanner
	SkipDirs, SkipFiles []string
	Document            protocol.Document
	Packages            bool            // list packages without vulnerabilities too
	Asset               string          // "": made from kind and target
	VEX                 []*vex.Document // believed for this scan
	Forget              bool            // leave no trace in the ledger
}

// Report is what a scan found.
type Report struct {
	Asset    ledger.Asset
	Scanners []protocol.Scanner
	Scanned  *protocol.Report
	Started  time.Time
	Took     time.Duration
	// Database is what vulnerabilities were looked up in, nil where none were.
	Database *vulndb.Generation
	MaxAge   time.Duration
	Stale    bool // it is older than MaxAge
	Older    bool // there was a newer one: what it does not know is not gone
	Intel    *vulndb.Intel
	// Items is all that is known of the asset, in order of urgency, what is gone
	// included, and Deadlines how each stands to its deadline.
	Items     []ledger.Item
	Deadlines []ledger.Deadline
	// Changes is the difference to the scan before; nil with Forget.
	Changes  *ledger.Changes
	Licenses *license.Verdicts
}

// Complete reports whether all of the target was looked at.
func (r *Report) Complete() bool { return len(r.Scanned.Problems) == 0 && !r.Stale }

// Scan looks at one target. An error means that there is no answer; what could
// not be looked at otherwise is in the report.
func (e *Engine) Scan(ctx context.Context, r Request, progress func(protocol.Progress)) (*Report, error) {
	w, err := e.o.Worker()
	if err != nil {
		return nil, err
	}
	// The ledger keeps microseconds: what is first seen now is seen at this moment.
	out := &Report{Scanners: r.Scanners, Started: e.o.Now().Truncate(time.Microsecond)}
	request := protocol.Scan{
		Kind: r.Kind, Target: r.Target, Remote: r.Remote, Insecure: r.Insecure, Platform: r.Platform,
		Scanners: r.Scanners, SkipDirs: r.SkipDirs, SkipFiles: r.SkipFiles, SecretRules: e.o.SecretRules,
		Packages: r.Packages || slices.Contains(r.Scanners, protocol.Licenses) || slices.Contains(r.Scanners, protocol.Vulnerabilities), Document: r.Document,
	}
	if own, ok := within(absolute(r.Target), filepath.Dir(e.o.Dir)); ok && !r.Remote {
		// The keys that mobileops signs with are where they belong.
		request.SkipDirs = append(slices.Clone(r.SkipDirs), own)
	}
	if !r.Remote {
		request.Target = absolute(r.Target)
	}
	if slices.Contains(r.Scanners, protocol.Vulnerabilities) {
		lease, err := e.o.Database.Open(ctx)
		if err != nil {
			return nil, err
		}
		defer lease.Release()
		request.Database, request.JavaDatabase = lease.Dir, lease.JavaDir
		out.Database = lease.Generation
		if out.Older, err = e.older(ctx, lease.Generation); err != nil {
			return nil, err
		}
		out.MaxAge = e.o.MaxAge
		age := lease.Generation.Age(out.Started)
		out.Stale = out.MaxAge > 0 && age > out.MaxAge || age < -24*time.Hour // of the future, as the clock has it
		if out.Intel, err = e.o.Database.Intel(); err != nil {
			return nil, err
		}
	}
	if e.o.Memo > 0 && !r.Forget {
		request.Memo, request.MemoLimit = filepath.Join(e.o.Dir, "memo", "results"), e.o.Memo
		if err := durable.MkdirAll(filepath.Dir(request.Memo), 0o700); err != nil {
			return nil, failure.Wrap(failure.Failed, err)
		}
	}
	if out.Scanned, err = w.Scan(ctx, &request, e.o.Limits, progress); err != nil {
		return nil, wording(&r, err)
	}
	out.Scanned.Notes = notes(out.Scanned.Notes)
	out.Took = e.o.Now().Sub(out.Started)
	if p := nothing(&r, out.Scanned); p != nil {
		out.Scanned.Problems = append(out.Scanned.Problems, *p)
	} else if p := unknown(&r, out.Scanned); p != nil {
		out.Scanned.Problems = append(out.Scanned.Problems, *p)
	}
	out.Asset = asset(&r)
	if slices.Contains(r.Scanners, protocol.Licenses) {
		out.Licenses = e.o.Licenses.Judge(out.Scanned, out.Started)
	}
	if out.Database != nil && !out.Older { // another one may have come, and have been used, meanwhile
		if out.Older, err = e.older(ctx, out.Database); err != nil {
			return nil, err
		}
	}
	return out, e.remember(ctx, &r, out)
}

// older reports whether a database is older than another one that scans may have
// used: somebody went back, or took in an older one.
func (e *Engine) older(ctx context.Context, current *vulndb.Generation) (bool, error) {
	list, err := e.o.Database.List(ctx, vulndb.Vulnerabilities)
	return slices.ContainsFunc(list, func(g *vulndb.Generation) bool { return g.UpdatedAt.After(current.UpdatedAt) }), err
}

// within returns a directory relative to another one that it is in, as a pattern.
func within(root, dir string) (string, bool) {
	rel, err := filepath.Rel(root, dir)
	if err != nil || rel == "." || !filepath.IsLocal(rel) || strings.ContainsAny(rel, `*?[]{}\`) {
		return "", false
	}
	return rel, true
}

// nothing is the problem of a directory without a file, such as one that nothing is
// mounted at: that all of what was there is mended is not known.
func nothing(r *Request, report *protocol.Report) *protocol.Problem {
	if r.Kind != protocol.Filesystem && r.Kind != protocol.Rootfs && r.Kind != protocol.Repository || report.Stats.Files > 0 {
		return nil
	}
	return &protocol.Problem{Kind: protocol.Unknown, Detail: "there is no file to look at (see that it is mounted, and that no --skip-dirs leaves out all of it)"}
}

// unknown is the problem of a target in which there is nothing to look up: that no
// vulnerability was found there says nothing.
func unknown(r *Request, report *protocol.Report) *protocol.Problem {
	if !slices.Contains(r.Scanners, protocol.Vulnerabilities) || report.OS != nil {
		return nil
	}
	detail := "no system is there whose packages are known here, so none of them was looked up"
	switch packages := slices.ContainsFunc(report.Results, func(r protocol.Result) bool { return len(r.Packages) > 0 }); {
	case r.Kind == protocol.Rootfs:
	case packages, r.Kind != protocol.Image && r.Kind != protocol.SBOM:
		return nil
	default:
		detail = "no packages are there that are known here, so nothing was looked up"
	}
	return &protocol.Problem{Kind: protocol.Unknown, Detail: detail}
}

// remember tells the ledger, and takes from it how what was seen stands.
func (e *Engine) remember(ctx context.Context, r *Request, out *Report) (err error) {
	seen := ledger.Observation{
		Asset: out.Asset, At: out.Started, Scanners: r.Scanners, Complete: out.Complete(),
		Unseen: ledger.UnseenOf(r.SkipDirs, r.SkipFiles, out.Scanned.Problems), Products: products(r, out.Scanned),
		Items: sightings(out.Scanned, out.Licenses, out.Intel),
	}
	seen.Unseen.Older = out.Older
	if r.Host {
		if err := expect(r.Target, 0, seen.Items); err != nil {
			return failure.Wrap(failure.Failed, err)
		}
	}
	switch {
	case len(r.Scanners) == 0:
		return nil
	case r.Forget:
		if out.Items, err = ledger.Look(seen); err != nil {
			return err
		}
		e.judge(r, out, &seen)
		return nil
	}
	// What takes long is done while nobody waits for the state.
	if err := seen.Prepare(); err != nil {
		return err
	}
	if err := e.o.State.Update(ctx, func(tx *state.Tx) error {
		out.Changes, err = e.o.Ledger.Observe(tx, seen)
		return err
	}); err != nil {
		return err
	}
	if err := e.o.State.View(ctx, func(tx *state.Tx) error {
		out.Items, err = e.o.Ledger.List(tx, ledger.Filter{Asset: out.Asset.ID}, out.Started)
		return err
	}); err != nil {
		return err
	}
	remembered := e.o.Ledger.Policy.Deadlines(out.Items, e.o.Now())
	e.judge(r, out, &seen)
	return e.o.State.Update(ctx, func(tx *state.Tx) error {
		if _, err := e.o.Ledger.ReportDeadlines(tx, out.Asset.ID, remembered, e.o.Now()); err != nil {
			return err
		}
		_, err := e.o.Ledger.ReportWaivers(tx, e.o.Now())
		return err
	})
}

// judge says how items stand, with what this scan was told to believe.
func (e *Engine) judge(r *Request, out *Report, seen *ledger.Observation) {
	ledger.Believe(out.Items, seen.Products, r.VEX)
	out.Deadlines = e.o.Ledger.Policy.Deadlines(out.Items, e.o.Now())
}

// products are the names by which VEX documents speak of an image. What an archive
// calls itself is none: it could be any.
func products(r *Request, report *protocol.Report) (names []string) {
	if i := report.Image; i != nil {
		names = append(names, i.ID)
		if r.Remote {
			names = slices.Concat(names, i.Tags, i.Digests, packageURLs(i))
		}
	}
	return names
}

// packageURLs are names of an image in the manner of package URLs
// (https://github.com/package-url/purl-spec, type oci): with each tag that it has in
// a repository, or none. Those who write them differ in whether repository_url has
// the name of the image at its end, so there is one of each.
func packageURLs(i *protocol.ImageID) (urls []string) {
	for _, d := range i.Digests {
		repository, digest, ok := strings.Cut(d, "@")
		if !ok {
			continue
		}
		tags := []string{""}
		for _, t := range i.Tags {
			if tag, ok := strings.CutPrefix(t, repository+":"); ok {
				tags = append(tags, tag)
			}
		}
		for _, url := range []string{repository, path.Dir(repository)} {
			for _, tag := range tags {
				q := "repository_url=" + url
				if i.Architecture != "" {
					q = "arch=" + i.Architecture + "&" + q
				}
				if tag != "" {
					q += "&tag=" + tag
				}
				urls = append(urls, "pkg:oci/"+path.Base(repository)+"@"+strings.Replace(digest, ":", "%3A", 1)+"?"+q)
			}
		}
	}
	return urls
}
