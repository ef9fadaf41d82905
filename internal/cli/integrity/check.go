package integrity

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// compareOptions are the flags that check and verify share.
type compareOptions struct {
	name    string
	failOn  string
	anchors []string // verify only
	archive string
	only    string
	scanOptions
}

type checkOptions struct {
	compareOptions
	sample string
	maxAge string
}

// comparedStatuses are those of check and verify.
func comparedStatuses() []app.Status {
	return []app.Status{
		{Code: 0, Text: "clean: everything is as in the baseline"},
		{Code: 1, Text: "there are changes; with --fail-on: of that severity or above"},
		{Code: 5, Text: "the baseline or the state is damaged, or not what the history or an anchor says; the comparison is made all the same where it can be"},
		{Code: 6, Text: "something was unreadable or kept changing, or an anchor could not be reached, whatever else was found"},
		{Code: 7, Text: "there is no such baseline"},
		{Code: 8, Text: "another operation on that baseline is under way; its holder is named"},
		{Code: 130, Text: "interrupted: nothing was recorded"},
	}
}

func newCheck(a *app.App) *cobra.Command {
	var opts checkOptions
	cmd := a.Command(app.Spec{
		Use:   "check [flags]",
		Short: "Report what has changed since the baseline, quickly",
		Long: `Report what has changed since the baseline, quickly.

A file whose device, inode, size, modification and change times are as they
were when it was last read is not read again, unless it had changed within two
seconds of that reading. The kernel moves the change time with every write and
no program can set it back, so this finds what was done through the
filesystem. It does not find what was written to the disk beneath it:
mobileops integrity verify does, and --rehash-sample and --max-age spread that
work over many checks.

What else the baseline has of the host is compared, too, see mobileops integrity
network, containers and binaries; --only chooses. Looking for programs with
rights visits every local filesystem.

Each change is classified: as the package that owns the file records it
(package-update), not as it records it (package-modified), a configuration file
of a package (conffile), no package's (unowned), or what an intruder leaves
(suspicious): a program that matches no known version of its package, a new
setuid file, a stranger among the system's programs. Root can write the package
database, so these are words of order, not of innocence; --package-archive
compares with the packages themselves.

What was found is kept, see mobileops finding list, and the report as a whole,
see mobileops integrity report. mobileops integrity accept makes what was
reported part of the baseline.`,
		Example: `
mobileops integrity check
mobileops integrity check --output json > report.json    # for another tool
mobileops integrity check --rehash-sample 5% --max-age 7d  # and read some files again
*/15 * * * * root mobileops integrity check --quiet      # cron: mails only what differs
mobileops integrity check --only files,network           # leave out what is not wanted
30 6 * * * root mobileops integrity check --quiet --fail-on low  # cron: updates of packages are no news
mobileops integrity check --output json > /media/usb/check.json  # runbook: keep what was found
`,
		Statuses: comparedStatuses(),
		Files:    []string{baselineFile, stateFile, "integrity/ID.reads in the state directory: when each file was last read"},
		Audited:  true,
		Run:      func(ctx context.Context, _ []string) error { return runCheck(ctx, a, &opts) },
	})
	opts.compareOptions.addFlags(a, cmd)
	fs := cmd.Flags()
	fs.StringVar(&opts.sample, "rehash-sample", "", "of the files that need not be read, read this `SHARE`, such as 5%")
	fs.StringVar(&opts.maxAge, "max-age", "", "read a file again when it was last read longer than `AGE` ago, such as 7d")
	app.CompleteValues(cmd, "rehash-sample", "1%", "5%", "10%")
	app.CompleteValues(cmd, "max-age", "1d", "7d", "30d")
	return cmd
}

func (o *compareOptions) addFlags(a *app.App, cmd *cobra.Command) {
	nameFlag(a, cmd, &o.name, "compare with the baseline `NAME[@ID]`")
	words := make([]string, 0, 5)
	for _, s := range finding.Severities() {
		words = append(words, s.String())
	}
	app.Choice(cmd, cmd.Flags(), &o.failOn, "fail-on", finding.Info.String(), words, "status 1 only for changes from `SEVERITY` on; with --quiet, only these are printed")
	cmd.Flags().StringVar(&o.archive, "package-archive", "", "compare what packages brought with the .deb, .rpm and .apk files in `DIR`, and not only with the package database")
	app.CompleteDirs(cmd, "package-archive")
	onlyFlag(a, cmd, &o.only, "compare only these `ASPECTS` of what the baseline has: files,network,containers,binaries")
	o.scanOptions.addFlags(cmd)
}

func runCheck(ctx context.Context, a *app.App, o *checkOptions) error {
	sample, err := parseShare(o.sample)
	if err != nil {
		return err
	}
	age, err := parseAge(o.maxAge)
	if err != nil {
		return err
	}
	return runCompare(ctx, a, &o.compareOptions, engine.CompareOptions{Sample: sample, MaxAge: age})
}

// runCompare compares and prints, for check and verify.
func runCompare(ctx context.Context, a *app.App, o *compareOptions, opts engine.CompareOptions) error {
	o.bind(a)
	e, c, err := newEngine(a)
	if err != nil {
		return err
	}
	failOn, err := finding.ParseSeverity(o.failOn)
	if err != nil {
		return err
	}
	if opts.Only, err = parseOnly(o.only); err != nil {
		return err
	}
	if opts.Anchors, err = parseAnchors(o.anchors, e.History().Host(), anchorOptions(c)); err != nil {
		return err
	}
	b, err := e.Find(ctx, o.name)
	if err != nil {
		return err
	}
	tree := ""
	if c.Root != "/" {
		tree = c.Root
	}
	opts.Name, opts.Scan, opts.PackageArchive = o.name, scan(c, tree), o.archive
	label, bytes := "comparing", int64(0)
	if opts.Verify {
		label, bytes = "reading files", b.Bytes
	}
	bar := progress(a, label, &opts.Scan, b.Entries, bytes)
	r, err := e.Compare(ctx, opts)
	bar.Stop()
	if r == nil {
		return err
	}
	s := &r.Summary
	a.SetResult("%d added, %d removed, %d changed, %d moved, %d unreadable, %d unstable", s.Added, s.Removed, s.Changed, s.Moved, s.Unreadable, s.Unstable)
	if aspects := comparedAspects(r); aspects != "" {
		a.SetResult("%d added, %d removed, %d changed, %d moved, %d unreadable, %d unstable; %d differences of %s",
			s.Added, s.Removed, s.Changed, s.Moved, s.Unreadable, s.Unstable, len(r.Drift), aspects)
	}
	noticeMissed(a, r.Missed)
	print := printReport
	if a.Streams.Quiet && a.Streams.Format == ui.Text {
		print = func(a *app.App, r *engine.Report) error { return printNews(a, r, failOn) }
	}
	if err := errors.Join(print(a, r), err); err != nil {
		return failure.Wrap(failure.Worse(failure.KindOf(err), r.Kind(failOn)), err)
	}
	return failure.Silent(r.Kind(failOn))
}

// parseShare reads "5%" or "0.05".
func parseShare(s string) (float64, error) {
	if s == "" {
		return 0, nil
	}
	number, percent := strings.CutSuffix(strings.TrimSpace(s), "%")
	v, err := strconv.ParseFloat(number, 64)
	if percent {
		v /= 100
	}
	if err != nil || !(v >= 0 && v <= 1) {
		return 0, failure.Errorf(failure.Usage, "--rehash-sample %q: write a share such as 5%%", s)
	}
	return v, nil
}

// parseAge reads --max-age.
func parseAge(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, ok := moment.Span(s)
	if !ok || d <= 0 {
		return 0, failure.Errorf(failure.Usage, "--max-age %q: write an age such as 7d or 12h", s)
	}
	return d, nil
}
