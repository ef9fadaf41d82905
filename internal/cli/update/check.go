package update

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update"
	"github.com/mobileops/mobileops/internal/update/repo"
	"github.com/spf13/cobra"
)

// repositoryFiles is what help says of what a host keeps of its repository.
const repositoryFiles = "/var/lib/mobileops/update/repository/: what was verified of the repository"

// The verdicts about a package of the repository.
const (
	verdictAvailable = "available" // newer than what was accepted here
	verdictHeld      = "held"      // newer, and not rolled out to this host yet
	verdictExpired   = "expired"   // newer, and may not be installed any more
	verdictAccepted  = "accepted"  // what was accepted here last
	verdictOlder     = "older"     // superseded by what was accepted or is available
	verdictChannel   = "channel"   // of a channel that this host does not follow
)

type checkOptions struct {
	all  bool
	bind func() // see repositoryFlag
}

func newCheck(a *app.App) *cobra.Command {
	var opts checkOptions
	cmd := a.Command(app.Spec{
		Use:   "check [--all] [--repository PLACE]",
		Short: "See whether the repository has newer packages for this host",
		Long: `See whether the repository has newer packages for this host. The repository is
verified: old publications, mixtures of two, and everything that its keys did not
sign are refused, and so is one that nobody signed anew in time.

Updates that are rolled out step by step and not for this host yet are listed as
held, with this host's position. Who cannot wait names the version:
mobileops update apply NAME@VERSION.

When the repository is out of reach, it shows what was verified last, says how
old that is, and ends with status 3.`,
		Example: `
mobileops update check
mobileops update check --repository /media/stick/updates
23 5 * * * mobileops update check --quiet                        # cron: mails only news
mobileops update check --all --output json | jq -r '.packages[] | [.name, .version, .verdict] | @tsv'
`,
		Statuses: []app.Status{
			{Code: 0, Text: "this host is up to date"},
			{Code: 1, Text: "there are updates"},
			{Code: 3, Text: "the repository is out of reach; what was known is shown"},
			{Code: 5, Text: "the repository is not to be trusted, or has expired"},
			{Code: 7, Text: "no repository is configured (update.repository, update.repository_root)"},
		},
		Files: []string{repositoryFiles, stateFile},
		Run:   func(ctx context.Context, _ []string) error { return runCheck(ctx, a, &opts) },
	})
	cmd.Flags().BoolVar(&opts.all, "all", false, "list every package of the repository, also older ones and those of other channels")
	opts.bind = repositoryFlag(a, cmd)
	return cmd
}

// repositoryFlag lets a command look at another place than the configured one,
// such as a USB stick. The root that is trusted stays the same.
//
// Two commands have it, and only that of the one that runs counts: what it
// returns binds it.
func repositoryFlag(a *app.App, cmd *cobra.Command) (bind func()) {
	cmd.Flags().String("repository", "", "look at `PLACE` instead of update.repository: a URL, or the directory of a repository")
	app.CompleteDirs(cmd, "repository")
	return func() { a.BindFlag("update.repository", cmd.Flags().Lookup("repository")) }
}

// checked is what a host can say about its repository.
type checked struct {
	client    *repo.Client
	freshness repo.Freshness
	packages  []judged
	problem   error // why the source could not be asked; nil when it was
}

// judged is a package with what it means for this host.
type judged struct {
	repo.Target
	verdict  string
	position int              // of this host in the rollout
	accepted *update.Accepted // what was accepted here of the package; nil: nothing
}

// lookAt asks the repository, or when that is out of reach, what is known of it,
// and judges its packages. accepted are the releases that this host has had.
func lookAt(ctx context.Context, a *app.App, c *config.Config, accepted func(context.Context) ([]update.Accepted, error)) (*checked, error) {
	client, err := openRepository(a, c)
	if err != nil {
		return nil, err
	}
	r := &checked{client: client}
	if _, err := client.Refresh(ctx); err != nil {
		if failure.KindOf(err) != failure.Failed || repo.CodeOf(err) == repo.CodeDisk {
			return nil, err
		}
		r.problem = err
	}
	list, err := client.Available(ctx)
	if err != nil {
		if r.problem != nil && repo.CodeOf(err) == repo.CodeNever {
			return nil, r.problem
		}
		return nil, err
	}
	r.freshness, _ = client.Freshness()
	had, err := accepted(ctx)
	if err != nil {
		return nil, err
	}
	r.packages = judge(list, had, c.Update.Channel, audit.HostID(), time.Now())
	return r, nil
}

// judge says of each package what it means for a host.
func judge(list []repo.Target, had []update.Accepted, channel, host string, now time.Time) []judged {
	out := make([]judged, len(list))
	best := map[string]uint64{} // of each name, the newest that is available
	for i, t := range list {
		j := judged{Target: t}
		for k := range had {
			if had[k].Name == t.Release.Name && had[k].Channel == t.Release.Channel {
				j.accepted = &had[k]
			}
		}
		in, position := t.Rollout.Includes(host)
		j.position = position
		switch {
		case t.Release.Channel != channel:
			j.verdict = verdictChannel
		case j.accepted != nil && t.Release.Sequence == j.accepted.Sequence:
			j.verdict = verdictAccepted
		case j.accepted != nil && t.Release.Sequence < j.accepted.Sequence:
			j.verdict = verdictOlder
		case !now.Before(t.Release.Expires):
			j.verdict = verdictExpired
		case !in:
			j.verdict = verdictHeld
		default:
			j.verdict = verdictAvailable
			best[t.Release.Name] = max(best[t.Release.Name], t.Release.Sequence)
		}
		out[i] = j
	}
	for i := range out {
		r := out[i].Release
		if (out[i].verdict == verdictAvailable || out[i].verdict == verdictHeld || out[i].verdict == verdictExpired) && r.Sequence < best[r.Name] {
			out[i].verdict = verdictOlder
		}
	}
	return out
}

// why explains a verdict.
func (j *judged) why(channel string) string {
	switch j.verdict {
	case verdictHeld:
		return fmt.Sprintf("rolled out to %s of the hosts so far, and this one comes at %s", percent(j.Rollout.Percent), percent(float64(j.position+1)/100))
	case verdictExpired:
		return "may not be installed since " + j.Release.Expires.Format(time.RFC3339)
	case verdictChannel:
		return fmt.Sprintf("of channel %s; this host follows %s", j.Release.Channel, channel)
	}
	return ""
}

// checkDocument is the document of mobileops update check.
type checkDocument struct {
	Schema     string          `json:"schema"`
	Repository string          `json:"repository"`
	Channel    string          `json:"channel"`
	Online     bool            `json:"online"` // the repository was asked; else this is from the last time
	Problem    string          `json:"problem,omitempty"`
	Code       string          `json:"code,omitempty"`    // of the problem
	Checked    time.Time       `json:"checked"`           // when the repository last offered this
	Expired    string          `json:"expired,omitempty"` // the first role that has expired
	Roles      []roleRecord    `json:"roles"`
	Updates    int             `json:"updates"` // how many are available
	Packages   []checkedRecord `json:"packages"`
	Unusable   []badRecord     `json:"unusable,omitempty"`
}

type checkedRecord struct {
	offerRecord
	Verdict  string          `json:"verdict"`
	Reason   string          `json:"reason,omitempty"`
	Position float64         `json:"position"` // of this host: it is included above this percentage
	Accepted *acceptedRecord `json:"accepted,omitempty"`
}

type acceptedRecord struct {
	Version  string `json:"version"`
	Sequence uint64 `json:"sequence"`
}

func (j *judged) record(channel string) checkedRecord {
	r := checkedRecord{offerRecord: newOfferRecord(j.Target, ""), Verdict: j.verdict, Reason: j.why(channel), Position: float64(j.position) / 100}
	if j.accepted != nil {
		r.Accepted = &acceptedRecord{j.accepted.Version, j.accepted.Sequence}
	}
	return r
}

func runCheck(ctx context.Context, a *app.App, o *checkOptions) error {
	o.bind()
	e, c, err := newEngine(a, "update check")
	if err != nil {
		return err
	}
	r, err := lookAt(ctx, a, c, e.Accepted)
	if err != nil {
		return err
	}
	doc := r.document(c.Update.Channel, o.all)
	kind := failure.None
	if doc.Updates > 0 {
		kind = failure.No
	}
	if r.problem != nil {
		kind = failure.Worse(kind, failure.KindOf(r.problem))
		a.Streams.Notice("mobileops: update check: %s", ui.Escape(r.problem.Error()))
		a.Streams.Notice("this is what was verified %s, on %s", ui.Ago(r.freshness.Checked, time.Now()), r.freshness.Checked.Local().Format("2006-01-02 15:04"))
	}
	if r.freshness.Expired != nil {
		kind = failure.Worse(kind, failure.Untrustworthy)
		a.Streams.Notice("mobileops: update check: %s", ui.Escape(r.freshness.Expired.Error()))
	}
	for _, u := range r.freshness.Unusable {
		a.Streams.Notice("%s cannot be used: %s", ui.Escape(u.Path), ui.Escape(u.Reason))
	}
	switch a.Streams.Format {
	case ui.JSON:
		err = a.Streams.Document(doc)
	case ui.JSONL:
		lines := a.Streams.Lines()
		for _, p := range doc.Packages {
			if err := lines.Print(p); err != nil {
				return err
			}
		}
		err = lines.Flush()
	default:
		err = printChecked(a, doc)
		for i := range r.packages {
			if j := &r.packages[i]; j.verdict == verdictAccepted && !a.Streams.Quiet {
				if back := goneBack(e, j); back != nil {
					a.Streams.Notice("%s (make it current again: %s)", ui.Escape(back.what), back.how)
				}
			}
		}
	}
	if err != nil {
		return err
	}
	return failure.Silent(kind)
}

func (r *checked) document(channel string, all bool) *checkDocument {
	doc := &checkDocument{
		Schema: "mobileops.update.check/v1", Repository: r.client.Source(), Channel: channel, Online: r.problem == nil, Checked: r.freshness.Checked.UTC(),
		Roles: newRoleRecords(r.freshness.Roles), Packages: []checkedRecord{}, Unusable: newBadRecords(r.freshness.Unusable),
	}
	if r.problem != nil {
		doc.Problem, doc.Code = r.problem.Error(), string(repo.CodeOf(r.problem))
	}
	if r.freshness.Expired != nil {
		doc.Expired = r.freshness.Expired.Role
	}
	for i := range r.packages {
		j := &r.packages[i]
		if j.verdict == verdictAvailable {
			doc.Updates++
		}
		if all || j.verdict == verdictAvailable || j.verdict == verdictHeld || j.verdict == verdictExpired {
			doc.Packages = append(doc.Packages, j.record(channel))
		}
	}
	return doc
}

func printChecked(a *app.App, doc *checkDocument) error {
	if a.Streams.Quiet && doc.Updates == 0 {
		return nil
	}
	table := a.Streams.NewTable(ui.Column{Title: "NAME"}, ui.Column{Title: "VERSION"}, ui.Column{Title: "HERE"}, ui.Column{Title: "SEVERITY"},
		ui.Column{Title: "VERDICT"}, ui.Column{Title: "SIZE", Right: true, Drop: 2}, ui.Column{Title: "ADVISORIES", Min: 14, Drop: 1}, ui.Column{Title: "WHY", Min: 20})
	for _, p := range doc.Packages {
		if a.Streams.Quiet && p.Verdict != verdictAvailable {
			continue
		}
		here := "none"
		if p.Accepted != nil {
			here = p.Accepted.Version
		}
		table.Row(p.Name, p.Version, here, p.Severity, p.Verdict, ui.Bytes(p.Length), strings.Join(p.Advisories, " "), p.Reason)
	}
	if table.Len() > 0 {
		if err := table.Print(); err != nil {
			return err
		}
	}
	if a.Streams.Quiet {
		return nil
	}
	switch doc.Updates {
	case 0:
		a.Streams.Notice("nothing newer for this host in channel %s of %s", doc.Channel, ui.Escape(doc.Repository))
	case 1:
		i := slices.IndexFunc(doc.Packages, func(p checkedRecord) bool { return p.Verdict == verdictAvailable })
		a.Streams.Notice("1 update (mobileops update apply %s)", ui.Escape(doc.Packages[i].Name))
	default:
		a.Streams.Notice("%s updates (mobileops update apply NAME)", strconv.Itoa(doc.Updates))
	}
	return nil
}
