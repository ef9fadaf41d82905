package change

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"aead.dev/minisign"
	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type requestOptions struct {
	file, digest, name, version string
	kind, risk, reason, back    string
	from, until                 string
	emergency                   bool
}

func newRequest(a *app.App) *cobra.Command {
	var opts requestOptions
	cmd := a.Command(app.Spec{
		Use:   "request (--package FILE | --digest HEX | --kind other --name WHAT) --reason TEXT [flags]",
		Short: "Ask for a change, which somebody else is to approve",
		Long: `Ask for a change, which somebody else is to approve.

A change is about one package, byte for byte: it names the BLAKE2b-512 digest of
its file, as b2sum writes it. Name and version are read from FILE.minisig when it
is there. It authorises nothing before --from, and nothing after --until.

With --emergency it may be applied within 24 hours before anybody approved it,
and must be approved within 24 hours after that: otherwise there is a finding of
high severity.

Who asked cannot approve. People are told apart by the login uid that the kernel
keeps for a session, also after su and sudo. Where nobody logged in under an
account of their own, as in cron and for root's own login, one more approval is
needed, since who asked may be among those who approve.`,
		Example: `
mobileops change request --package platform-2.4.1.tar.zst --reason 'CVE-2026-1234' --risk high
mobileops change request --package platform-2.4.1.tar.zst --reason 'release 2.4.1' --from '2026-12-01 22:00' --until 4h --rollback-plan 'mobileops rollback'
mobileops change request --kind downgrade --package platform-2.3.9.tar.zst --reason '2.4.0 drops calls, incident 42'
id=$(mobileops change request --quiet --emergency --package fix.tar.zst --reason 'incident 43' --risk critical) && mobileops update apply fix.tar.zst --change "$id"  # runbook: 3 a.m.
`,
		Statuses: []app.Status{
			{Code: 0, Text: "it is stored, and its ID printed"},
			{Code: 4, Text: "a rule of the configuration file is overridden, or the state belongs to another user"},
			{Code: 7, Text: "the file of people that the configuration names is missing"},
		},
		Files:   []string{stateFile, peopleFile},
		Audited: true,
		Run:     func(ctx context.Context, _ []string) error { return runRequest(ctx, a, &opts) },
	})
	fs := cmd.Flags()
	fs.StringVar(&opts.file, "package", "", "about the package in `FILE`, whose digest is computed")
	fs.StringVar(&opts.digest, "digest", "", "about the package with the BLAKE2b-512 digest `HEX`, which is not here")
	fs.StringVar(&opts.name, "name", "", "the package, or what else it is about, is called `NAME`")
	fs.StringVar(&opts.version, "version", "", "of the package, `VERSION`")
	app.Choice(cmd, fs, &opts.kind, "kind", string(change.Update), words(change.Kinds()), "what it permits, `KIND`")
	app.Choice(cmd, fs, &opts.risk, "risk", string(change.Medium), words(change.Risks()), "how bad it is when it goes wrong, `RISK`")
	fs.StringVar(&opts.reason, "reason", "", "why, in `TEXT`, or the number of a case (required; asked for at a terminal)")
	fs.StringVar(&opts.back, "rollback-plan", "", "how to go back, in `TEXT`")
	fs.StringVar(&opts.from, "from", "", "not before `WHEN`: a date, or a span from now such as 2h (default now)")
	fs.StringVar(&opts.until, "until", "", "not after `WHEN`: a date, or a span from its beginning (default 7d, in an emergency 24h)")
	fs.BoolVar(&opts.emergency, "emergency", false, "it may be applied first, and is approved within 24 hours")
	cmd.MarkFlagsMutuallyExclusive("package", "digest")
	app.CompleteFiles(cmd, "package")
	app.CompleteValues(cmd, "from", "1h", "12h", "1d")
	app.CompleteValues(cmd, "until", "4h", "1d", "7d")
	return cmd
}

// window reads --from and --until.
func (o *requestOptions) window(now time.Time) (from, until time.Time, err error) {
	from = now
	if o.from != "" {
		ok := false
		if d, span := moment.Span(o.from); span {
			from, ok = now.Add(d), true
		} else {
			from, ok = moment.Past(o.from, now, false)
		}
		if !ok {
			return from, until, app.UsageError("bad value %q for --from: a span such as 2h, or a date such as '2026-12-01 22:00'", o.from)
		}
	}
	span := o.until
	if span == "" && o.emergency {
		span = "24h"
	} else if span == "" {
		span = "7d"
	}
	until, ok := moment.Future(span, from)
	if !ok || !until.After(from) || !until.After(now) {
		return from, until, app.UsageError("bad value %q for --until: a span such as 4h, or a date to come, after --from", o.until)
	}
	return from, until, nil
}

func runRequest(ctx context.Context, a *app.App, o *requestOptions) error {
	now := time.Now()
	cfg, err := a.Config()
	if err != nil {
		return err
	}
	c := change.Change{
		Kind: change.Kind(o.kind), Name: o.name, Version: o.version, Risk: change.Risk(o.risk), Reason: strings.TrimSpace(o.reason),
		Rollback: o.back, Emergency: o.emergency, Requester: Who(a), Required: cfg.Change.Approvals,
	}
	if c.From, c.Until, err = o.window(now); err != nil {
		return err
	}
	switch {
	case c.Kind == change.Other && c.Name == "":
		return app.UsageError("say what it is about: --name WHAT")
	case c.Kind != change.Other && o.file == "" && o.digest == "":
		return app.UsageError("say which package: --package FILE, or --digest HEX (b2sum FILE writes it)")
	}
	if o.digest != "" {
		if c.Digest, err = change.ParseDigest(o.digest); err != nil {
			return err
		}
	}
	if c.Host, err = os.Hostname(); err != nil {
		return err
	}
	folk, err := People(a)
	if err != nil {
		return err
	}
	if o.file != "" {
		if err := fromPackage(ctx, &c, o.file); err != nil {
			return err
		}
	}
	if c.Reason == "" {
		if c.Reason, err = a.Streams.Ask(ctx, "Why is this change needed?", "--reason TEXT"); err != nil {
			return err
		}
		if c.Reason == "" {
			return app.UsageError("--reason is needed: why, or the number of a case")
		}
	}
	now = time.Now()
	stored, err := write(ctx, a, now, func(tx *state.Tx) (*change.Change, error) { return change.Request(tx, c, folk, now) })
	if err != nil {
		return err
	}
	a.SetResult("%s: %s %s, digest %s, risk %s, emergency %t", stored.ID, stored.Kind, stored.Subject(), stored.Digest, stored.Risk, stored.Emergency)
	if stored.Untold {
		a.Streams.Notice("mobileops: it cannot be told who asks, since nobody logged in under an account of their own: one more approval is needed")
	}
	if done, err := printRecords(a, "request", []*change.Change{stored}, now); done {
		return err
	}
	if a.Streams.Quiet { // for scripts
		_, err = fmt.Fprintln(a.Streams.Out, stored.ID)
		return err
	}
	_, err = fmt.Fprintf(a.Streams.Out, "%s: %s, risk %s, needs %s\n  next: %s\n", stored.ID, ui.Escape(string(stored.Kind)+" "+stored.Subject()), stored.Risk,
		ui.Plural(int64(stored.Required), "approval", "approvals"), ui.Escape(next(stored, now)))
	return err
}

// fromPackage computes the digest of a package, and takes from the signature
// beside it what the change does not say. That signature is not verified here:
// update apply does, and then name and version must be those.
func fromPackage(ctx context.Context, c *change.Change, path string) error {
	// Without O_NONBLOCK, opening a FIFO waits for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return app.UsageError("there is no package %s", path)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return err
	} else if !info.Mode().IsRegular() {
		return app.UsageError("%s is not a regular file", path)
	}
	if c.Digest, err = change.Digest(ctx, f); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	text, err := trust.ReadSignature(path)
	if err != nil {
		return nil
	}
	var s minisign.Signature
	if s.UnmarshalText(text) != nil {
		return nil
	}
	r, err := trust.ParseComment(s.TrustedComment)
	if err != nil {
		return nil
	}
	if c.Name == "" {
		c.Name = r.Name
	}
	if c.Version == "" {
		c.Version = r.Version
	}
	return nil
}
