package update

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/cli/signing"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update/pack"
	"github.com/mobileops/mobileops/internal/update/repo"
	"github.com/spf13/cobra"
)

type repoAddOptions struct {
	severity   string
	published  string
	advisories []string
	rollout    share
	salt       string
	partly     func() bool // whether --rollout was given

	name, version, channel, expires string
	sequence                        uint64
}

func newRepoAdd(a *app.App) *cobra.Command {
	var opts repoAddOptions
	cmd := a.Command(app.Spec{
		Use:   "add DIR PACKAGE... [--severity SEVERITY] [--published DATE] [--advisory ID]... [--rollout PERCENT] [flags]",
		Short: "Stage packages, which the next publication offers",
		Long: `Stage packages, which the next publication offers. What a package is stands in
its signature PACKAGE.minisig, which comes along. When keys are trusted on this
host (mobileops update key list), one of them has to vouch for it.

A package without a signature needs --name, --version and --sequence; hosts
install it only if they get a signature elsewhere.

Which holes a package closes, and how bad they are, is taken from its manifest
when neither --advisory nor --severity says it.

With --rollout only that part of the hosts is offered it at first; raise it with
mobileops update repo rollout. Which hosts come first differs for each release.`,
		Example: `
mobileops update repo add /srv/updates platform-2.4.1.tar.zst
mobileops update repo add /srv/updates platform-2.4.1.tar.zst --severity critical --published 2026-11-01 --advisory CVE-2026-1234 --rollout 10
mobileops update repo add /srv/updates plain.tar.gz --name plain --version 1.0 --sequence 1
`,
		Args: cobra.MinimumNArgs(2),
		Statuses: []app.Status{
			{Code: 0, Text: "the packages are staged"},
			{Code: 5, Text: "a signature does not hold, hosts would refuse the package, or the repository was altered"},
			{Code: 7, Text: "there is no such package, or no repository"},
			{Code: 8, Text: "there is such a release already, or another process changes the repository"},
		},
		Files:    []string{repoPrivate, keysDir, "state.db in the state directory: who did it"},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runRepoAdd(ctx, a, &opts, args[0], args[1:]) },
		Complete: func(_ context.Context, args []string, _ string) []string { return dirThenFiles(args) },
	})
	fs := cmd.Flags()
	fs.StringVar(&opts.severity, "severity", "", "the worst hole that it closes is of `SEVERITY`: low, medium, high or critical")
	fs.StringVar(&opts.published, "published", "", "the holes became known at `WHEN`: a date, or a span back from now")
	fs.StringArrayVar(&opts.advisories, "advisory", nil, "it closes `ID`, such as CVE-2026-1234; may be repeated")
	opts.rollout = 100
	fs.Var(&opts.rollout, "rollout", "offer it to `PERCENT` of the hosts, with at most two decimals")
	fs.StringVar(&opts.salt, "salt", "", "choose the hosts by `TEXT` instead of by name and version")
	fs.StringVar(&opts.name, "name", "", "`NAME` of a package without a signature")
	fs.StringVar(&opts.version, "version", "", "its `VERSION`")
	fs.Uint64Var(&opts.sequence, "sequence", 0, "its `NUMBER`, greater than that of every earlier one")
	fs.StringVar(&opts.channel, "channel", "stable", "its `CHANNEL`")
	fs.StringVar(&opts.expires, "expires", "365d", "it cannot be installed any more after `WHEN`")
	opts.partly = func() bool { return fs.Changed("rollout") }
	app.CompleteValues(cmd, "severity", repo.Severities()...)
	app.CompleteValues(cmd, "rollout", "1", "10", "25", "50", "100")
	app.CompleteValues(cmd, "channel", "stable")
	app.CompleteValues(cmd, "expires", "30d", "90d", "365d")
	for _, f := range []string{"published", "advisory", "salt", "name", "version", "sequence"} {
		app.CompleteValues(cmd, f)
	}
	return cmd
}

func dirThenFiles(args []string) []string {
	if len(args) == 0 {
		return app.Dirs()
	}
	return app.Files()
}

func (o *repoAddOptions) options(now time.Time) (repo.AddOptions, error) {
	add := repo.AddOptions{Severity: o.severity, Advisories: o.advisories, Salt: o.salt}
	if o.partly() {
		percent := float64(o.rollout)
		add.Percent = &percent
	}
	if o.published != "" {
		t, ok := moment.Past(o.published, now, false)
		if !ok {
			return add, app.UsageError("bad value %q for --published: a date such as 2026-11-01", o.published)
		}
		add.Published = t
	}
	if o.name == "" && o.version == "" && o.sequence == 0 {
		return add, nil
	}
	t, ok := moment.Future(o.expires, now)
	if !ok || !t.After(now) {
		return add, app.UsageError("bad value %q for --expires: a span such as 90d, or a date to come such as 2027-06-30", o.expires)
	}
	add.Release = &trust.Release{Name: o.name, Version: o.version, Sequence: o.sequence, Channel: o.channel, Expires: t.UTC().Truncate(time.Second)}
	if err := add.Release.Check(); err != nil {
		return add, failure.Wrap(failure.Usage, err)
	}
	return add, nil
}

func runRepoAdd(ctx context.Context, a *app.App, o *repoAddOptions, dir string, packages []string) error {
	add, err := o.options(time.Now())
	if err != nil {
		return err
	}
	if add.Release != nil && len(packages) > 1 {
		return app.UsageError("--name, --version and --sequence are of one package, and %d were named", len(packages))
	}
	if add.Keys, err = openKeys(a); err != nil {
		return err
	}
	p := repo.OpenPublisher(dir, nil)
	doc := newRepoDocument("add", dir)
	for _, path := range packages {
		one := add
		if err := describe(path, &one); err != nil {
			return err
		}
		s, err := p.Add(ctx, path, one)
		if err != nil {
			if n := len(doc.Packages); n > 0 {
				a.Streams.Notice("%d of %d packages are staged", n, len(packages))
			}
			return explainUnsigned(repoError(err))
		}
		doc.Packages = append(doc.Packages, newOfferRecord(s.Target, repo.StateAdded))
		if a.Streams.Format == ui.Text && !a.Streams.Quiet {
			if _, err := fmt.Fprintf(a.Streams.Out, "%s %s is staged for %s of the hosts\n", s.Release.Name, s.Release.Version, percent(s.Rollout.Percent)); err != nil {
				return err
			}
		}
		switch {
		case !s.Signed:
			a.Streams.Notice("%s has no signature; hosts will not install it (sign it: mobileops update sign)", ui.Escape(path))
		case !s.Verified:
			a.Streams.Notice("the signature of %s was not verified: no key is trusted here (mobileops update key add)", ui.Escape(path))
		}
	}
	a.SetResult("staged %d packages in %s", len(packages), dir)
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(doc)
	}
	if !a.Streams.Quiet {
		a.Streams.Notice("next: mobileops update repo publish %s", ui.Escape(dir))
	}
	return nil
}

// maxListed is how many advisories of a manifest are told in the repository; the
// others stand in the package.
const maxListed = 256

// describe fills in what no flag said from the manifest of a package: which
// holes it closes, the worst first, and how bad that one is. A file that hosts
// would not take for a package is refused.
func describe(path string, o *repo.AddOptions) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return signing.Named(err)
	}
	defer f.Close()
	r, err := pack.NewReader(f, archive.Limits{})
	if err != nil {
		return fmt.Errorf("%s is not staged, for hosts would refuse it: %w", path, err)
	}
	defer r.Close()
	list := slices.Clone(r.Manifest().Advisories)
	if len(list) == 0 || len(o.Advisories) > 0 {
		return nil
	}
	rank := func(a pack.Advisory) int { return slices.Index(repo.Severities(), a.Severity) }
	slices.SortStableFunc(list, func(a, b pack.Advisory) int { return rank(b) - rank(a) })
	for _, a := range list[:min(len(list), maxListed)] {
		o.Advisories = append(o.Advisories, a.ID)
	}
	if o.Severity == "" && rank(list[0]) >= 0 {
		o.Severity = list[0].Severity
	}
	if !o.Published.IsZero() {
		return nil
	}
	for _, a := range list {
		if o.Severity == a.Severity && !a.Published.IsZero() && (o.Published.IsZero() || a.Published.Before(o.Published)) {
			o.Published = a.Published
		}
	}
	return nil
}

// explainUnsigned adds the other way to say what a package is.
func explainUnsigned(err error) error {
	var e *trust.Error
	if errors.As(err, &e) && e.Code == trust.CodeUnsigned {
		return failure.Wrap(failure.NotReady, fmt.Errorf("%w, or say what it is: --name NAME --version VERSION --sequence NUMBER", err))
	}
	return err
}
