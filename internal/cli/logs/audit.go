package logs

import (
	"context"
	"os/user"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newAudit(a *app.App) *cobra.Command {
	var opts auditOptions
	cmd := a.Command(app.Spec{
		Use:   "audit [--since WHEN] [--until WHEN] [--user NAME] [--command WORDS] [--limit N]",
		Short: "Show who did what with mobileops, the newest last",
		Long: `Show who did what with mobileops, the newest last.

Every command that changes something leaves a record, whether it succeeded or
not. mobileops audit verify proves that none was changed or removed. WHEN is a
span before now, such as 24h or 7d, or a date of the local time zone.`,
		Example: `
mobileops logs audit --limit 20
mobileops logs audit --since 2026-05-01 --until 2026-05-03 --user ada
mobileops logs audit --command "state restore" --output jsonl | jq -r .time
0 6 * * 1 root mobileops logs audit --since 7d | mail -s "acts of the week" ops
`,
		Statuses: []app.Status{
			{Code: 0, Text: "records were found, or none was ever written"},
			{Code: 1, Text: "no record matches"},
			{Code: 4, Text: "the state belongs to another user"},
			{Code: 5, Text: "the state is damaged, or a record cannot be read"},
			{Code: 8, Text: "another process holds the state for longer than --lock-timeout"},
		},
		Files: []string{"/var/lib/mobileops/state.db: the record"},
		Run:   func(ctx context.Context, _ []string) error { return runAudit(ctx, a, opts) },
	})
	opts.addFlags(cmd.Flags())
	return cmd
}

type auditOptions struct {
	since, until, user, command string
	limit                       int
}

func (o *auditOptions) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.since, "since", "", "only what was done at `WHEN` or later")
	fs.StringVar(&o.until, "until", "", "only what was done at `WHEN` or before")
	fs.StringVar(&o.user, "user", "", "only what the user `NAME`, or who logged in as such, did; a number is a uid")
	fs.StringVar(&o.command, "command", "", "only commands that begin with these `WORDS`, such as \"integrity\" or \"state restore\"")
	fs.IntVarP(&o.limit, "limit", "n", 0, "only the newest `N` (0: all)")
}

// auditReport is the document of mobileops logs audit --output json.
type auditReport struct {
	Schema  string        `json:"schema"`
	Total   int           `json:"total"`   // records that match
	Records []auditRecord `json:"records"` // the newest --limit of them
}

// auditRecord is one act, and one line of --output jsonl.
type auditRecord struct {
	Sequence  uint64      `json:"sequence"`
	Time      time.Time   `json:"time"`
	Actor     audit.Actor `json:"actor"`
	Command   string      `json:"command"`
	Args      []string    `json:"args"`
	ArgsB64   [][]byte    `json:"args_b64,omitempty"` // the bytes, when one of Args is not valid UTF-8
	Status    int         `json:"status"`
	Result    string      `json:"result,omitempty"`
	ElapsedMS int64       `json:"elapsed_ms"`
	Hash      string      `json:"hash"`
}

func runAudit(ctx context.Context, a *app.App, opts auditOptions) error {
	matches, err := opts.filter(time.Now())
	if err != nil {
		return err
	}
	chain, err := a.Audit()
	if err != nil {
		return err
	}
	found := newest{limit: opts.limit}
	if err := chain.Records(ctx, func(r audit.Record) error {
		found.seen++
		if matches(r) {
			found.add(r)
		}
		return nil
	}); err != nil {
		return err
	}
	if err := printRecords(a.Streams, &found); err != nil {
		return err
	}
	if found.total > 0 || found.seen == 0 {
		return nil
	}
	return failure.Silent(failure.No)
}

// filter returns whether a record is wanted.
func (o *auditOptions) filter(now time.Time) (func(audit.Record) bool, error) {
	if o.limit < 0 {
		return nil, app.UsageError("bad value %d for --limit: a number of records, or 0 for all", o.limit)
	}
	var since, until time.Time
	for _, f := range []struct {
		name, value string
		at          *time.Time
	}{{"since", o.since, &since}, {"until", o.until, &until}} {
		if f.value == "" {
			continue
		}
		at, ok := moment.Past(f.value, now, f.name == "until")
		if !ok {
			return nil, app.UsageError("bad value %q for --%s: a span such as 24h or 7d, or a date such as 2026-05-01", f.value, f.name)
		}
		*f.at = at
	}
	uid := int64(-1)
	if n, err := strconv.ParseUint(o.user, 10, 32); err == nil {
		uid = int64(n)
	} else if u, err := user.Lookup(o.user); o.user != "" && err == nil {
		if n, err := strconv.ParseUint(u.Uid, 10, 32); err == nil {
			uid = int64(n)
		}
	}
	return func(r audit.Record) bool {
		switch {
		case !since.IsZero() && r.Time.Before(since), !until.IsZero() && r.Time.After(until):
			return false
		case o.command != "" && r.Command != o.command && !strings.HasPrefix(r.Command, o.command+" "):
			return false
		case o.user != "" && r.Actor.User != o.user && (uid < 0 || int64(r.Actor.UID) != uid && r.Actor.LoginUID != uid):
			return false
		}
		return true
	}, nil
}

// newest keeps the last limit records that were added, all with 0.
type newest struct {
	limit, seen, total int
	ring               []audit.Record
}

func (n *newest) add(r audit.Record) {
	if n.limit == 0 || len(n.ring) < n.limit {
		n.ring = append(n.ring, r)
	} else {
		n.ring[n.total%n.limit] = r
	}
	n.total++
}

// records returns what was kept, the newest last.
func (n *newest) records() []audit.Record {
	if n.limit == 0 || n.total <= n.limit {
		return n.ring
	}
	at := n.total % n.limit
	return append(append([]audit.Record(nil), n.ring[at:]...), n.ring[:at]...)
}

func printRecords(s *ui.Streams, found *newest) error {
	switch s.Format {
	case ui.JSON:
		report := auditReport{Schema: "mobileops.logs.audit/v1", Total: found.total, Records: []auditRecord{}}
		for _, r := range found.records() {
			report.Records = append(report.Records, present(r))
		}
		return s.Document(report)
	case ui.JSONL:
		lines := s.Lines()
		for _, r := range found.records() {
			if err := lines.Print(present(r)); err != nil {
				return err
			}
		}
		return lines.Flush()
	}
	table := s.NewTable(
		ui.Column{Title: "RECORD", Right: true, Drop: 4}, ui.Column{Title: "TIME"}, ui.Column{Title: "USER", Min: 6, Drop: 1},
		ui.Column{Title: "FROM", Min: 8, Drop: 3}, ui.Column{Title: "STATUS", Right: true},
		ui.Column{Title: "COMMAND", Min: 11}, ui.Column{Title: "RESULT", Min: 24, Drop: 2})
	theme := s.Theme()
	for _, r := range found.records() {
		status := ui.Cell{Text: strconv.Itoa(r.Status)}
		if r.Status != 0 {
			status.Style = theme.Warn
		}
		table.Row(r.Sequence, r.Time.Local().Format(time.DateTime), who(r.Actor), from(r.Actor), status,
			strings.Join(append([]string{r.Command}, r.Args...), " "), r.Result)
	}
	if err := table.Print(); err != nil || s.Quiet {
		return err
	}
	switch {
	case found.seen == 0:
		s.Notice("nothing was recorded yet")
	case found.total == 0:
		s.Notice("none of %s matches", ui.Plural(int64(found.seen), "record", "records"))
	case len(found.records()) < found.total:
		s.Notice("the newest %s of %s", ui.Count(int64(len(found.records()))), ui.Plural(int64(found.total), "record", "records"))
	}
	return nil
}

func present(r audit.Record) auditRecord {
	out := auditRecord{
		Sequence: r.Sequence, Time: r.Time, Actor: r.Actor, Command: r.Command, Args: r.Args, Status: r.Status,
		Result: r.Result, ElapsedMS: r.Elapsed.Milliseconds(), Hash: r.Hash.String(),
	}
	if out.Args == nil {
		out.Args = []string{}
	}
	for _, arg := range r.Args {
		if !utf8.ValidString(arg) {
			for _, arg := range r.Args {
				out.ArgsB64 = append(out.ArgsB64, []byte(arg))
			}
			break
		}
	}
	return out
}

// who is the user, and who logged in where that is somebody else, as after sudo.
func who(a audit.Actor) string {
	name := a.User
	if name == "" {
		name = "uid " + strconv.Itoa(a.UID)
	}
	if a.LoginUID >= 0 && a.LoginUID != int64(a.UID) {
		login := strconv.FormatInt(a.LoginUID, 10)
		if u, err := user.LookupId(login); err == nil {
			return name + " (" + u.Username + ")"
		}
		return name + " (uid " + login + ")"
	}
	return name
}

// from is where the act came from.
func from(a audit.Actor) string {
	switch {
	case a.Remote != "":
		return a.Remote
	case a.TTY != "":
		return strings.TrimPrefix(a.TTY, "/dev/")
	}
	return "-"
}
