package update

import (
	"context"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/update/sla"
	"github.com/spf13/cobra"
)

// slaState is what help says of where deadlines are kept.
const slaState = "/var/lib/mobileops/state.db: security updates, since when they are known, waivers, findings"

// aptFiles are what is read of apt and dpkg.
const aptFiles = "/var/lib/dpkg/, /var/lib/apt/lists/, /etc/apt/: what is installed and what security archives offer; they are only read"

type slaOptions struct {
	within string
	source string
	stored bool
}

func newSLA(a *app.App) *cobra.Command {
	var opts slaOptions
	cmd := a.Command(app.Spec{
		Use:   "sla [flags]",
		Short: "Show which security updates are missing, and until when they are due",
		Long: `Show which security updates are missing, and until when they are due.

It looks at what is installed, at the package lists that apt has and at what
mobileops update check verified of the repository, and stores what it sees; no
network is used. An update is due some time after it was first
known on this host: critical and high ones after 30 days, medium ones after 90,
low ones never (update.sla_critical and so on in the configuration). A newer
update does not start the time of an older one again. What is overdue is a
finding, until it is installed or waived.

Of apt it counts every version that a security archive offers and that is newer
than what is installed, also of packages that are held, pinned or kept back and
that an upgrade would leave as they are. Their severity is update.sla_debian.
Package lists that are missing, or older than update.sla_lists_age, make the
answer incomplete: run apt-get update, or leave it to a timer. With --root, apt
reads the package lists of that tree, but not its apt.conf.`,
		Example: `
mobileops update sla
mobileops update sla --within 7d                          # only what is overdue or due within a week
0 6 * * * root mobileops update sla --quiet --within 7d   # cron: mails only what needs attention
mobileops update sla waive apt/openssl/3.0.15-1~deb12u1 --owner carol --reason 'modem driver breaks, vendor case 17' --until 30d
mobileops update sla report --since 90d --output csv > patches.csv # runbook: for the auditor, each quarter
`,
		Statuses: []app.Status{
			{Code: 0, Text: "nothing is overdue"},
			{Code: 1, Text: "something is overdue or, with --within, due soon"},
			{Code: 4, Text: "the configuration file sets a deadline, and a flag or the environment says otherwise; or the state belongs to another user"},
			{Code: 6, Text: "a source could not be read completely: more may be missing"},
			{Code: 7, Text: "there was nothing to look at, such as on a host without apt; or, with --stored, nobody has looked yet"},
		},
		Files:   []string{slaState, aptFiles, repositoryFiles, storeFiles},
		Audited: true,
		Run:     func(ctx context.Context, _ []string) error { return runSLA(ctx, a, &opts) },
	})
	opts.addFlags(cmd)
	cmd.AddCommand(newSLAShow(a), newSLAWaive(a), newSLAApprove(a), newSLAUnwaive(a), newSLAReport(a))
	return cmd
}

func (o *slaOptions) addFlags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&o.within, "within", "", "only what is overdue or due within `SPAN`, such as 7d; status 1 when there is any")
	app.Choice(cmd, fs, &o.source, "source", "", []string{sla.SourceApt, sla.SourcePackage}, "look at one `SOURCE` alone")
	fs.BoolVar(&o.stored, "stored", false, "do not look, show what the latest look stored")
	app.CompleteValues(cmd, "within", "1d", "7d", "14d")
}

func runSLA(ctx context.Context, a *app.App, o *slaOptions) error {
	var within time.Duration
	if o.within != "" {
		var ok bool
		if within, ok = moment.Span(o.within); !ok || within == 0 {
			return app.UsageError("bad value %q for --within: a span such as 24h or 7d", o.within)
		}
	}
	v, c, err := newSLAView(a)
	if err != nil {
		return err
	}
	store, err := a.State()
	if err != nil {
		return err
	}
	v.within, v.source = within, o.source
	now := v.now
	read := func(tx *state.Tx) error { return v.read(tx) }
	if o.stored {
		a.OnlyLooked()
		err = store.View(ctx, read)
		v.tooOld(c.Update.SLA.ListsAge)
	} else {
		surveys, lookErr := slaSurveys(ctx, a, c, o.source, now)
		if lookErr != nil {
			return lookErr
		}
		err = store.Update(ctx, func(tx *state.Tx) error {
			for _, s := range surveys {
				changes, err := v.ledger.Observe(tx, s, now)
				if err != nil {
					return err
				}
				v.changes.New += changes.New
				v.changes.Fixed += changes.Fixed
				v.changes.Again += changes.Again
			}
			if _, err := v.ledger.Report(tx, now); err != nil {
				return err
			}
			return read(tx)
		})
	}
	if err != nil {
		return err
	}
	a.SetResult("%s", v.summary())
	if err := v.print(a); err != nil {
		return err
	}
	return failure.Silent(v.verdict())
}

// slaLedger is what is kept of the tree that is looked at, with the policy that
// the configuration gives.
func slaLedger(c *config.Config) sla.Ledger {
	s := c.Update.SLA
	return sla.Ledger{Root: c.Root, Policy: sla.Policy{Critical: s.Critical, High: s.High, Medium: s.Medium, Low: s.Low}}
}

// slaSurveys looks at every source of security updates, or at only one.
func slaSurveys(ctx context.Context, a *app.App, c *config.Config, only string, now time.Time) (list []sla.Survey, err error) {
	for _, source := range []struct {
		name string
		look func(context.Context, *app.App, *config.Config, time.Time) sla.Survey
	}{{sla.SourceApt, surveyApt}, {sla.SourcePackage, surveyPackages}} {
		if only != "" && only != source.name {
			continue
		}
		s := source.look(ctx, a, c, now)
		if ctx.Err() != nil {
			return nil, ctx.Err() // what it did not reach is no problem of the host
		}
		list = append(list, s)
	}
	return list, nil
}

func surveyApt(ctx context.Context, _ *app.App, c *config.Config, now time.Time) sla.Survey {
	apt := sla.Apt{Root: c.Root, MaxAge: c.Update.SLA.ListsAge, Severity: sla.ParseSeverity(c.Update.SLA.Debian)}
	return apt.Survey(ctx, now)
}

// completeSLA completes what can be decided about.
func completeSLA(a *app.App, wanted func(*sla.Entry) bool) func(context.Context, []string, string) []string {
	return func(ctx context.Context, args []string, _ string) (words []string) {
		if len(args) > 0 {
			return nil
		}
		c, err := a.Config()
		if err != nil {
			return nil
		}
		store, err := a.State()
		if err != nil {
			return nil
		}
		var list []sla.Entry
		if err := store.View(ctx, func(tx *state.Tx) error {
			list, err = slaLedger(c).List(tx, sla.Filter{}, time.Now())
			return err
		}); err != nil {
			return nil
		}
		for i := range list {
			if e := &list[i]; wanted(e) && len(words) < 200 {
				words = append(words, e.ID()+"\t"+string(e.Severity)+", "+string(e.State))
			}
		}
		return words
	}
}
