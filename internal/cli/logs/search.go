package logs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	engine "github.com/mobileops/mobileops/internal/logs"
	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/format"
	"github.com/mobileops/mobileops/internal/logs/query"
	"github.com/mobileops/mobileops/internal/logs/store"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// Formats that search has beside the usual ones.
const (
	formatCSV    ui.Format = "csv"
	formatExport ui.Format = "export"
)

// severities are the names that --severity completes, the worst first.
const severities = "emerg alert crit err warning notice info debug"

type searchOptions struct {
	since, until         string
	sources, units       []string
	fields               []string
	severity             string
	count                bool
	top                  string
	histogram            string
	after, before, both  int
	fold, word, regex    bool
	limit                int
	follow               bool
	files, text, hidden  bool
	journal              []string
	withSource, noSource bool

	given func(flag string) bool // on the command line
}

func newSearch(a *app.App) *cobra.Command {
	var opts searchOptions
	cmd := a.Command(app.Spec{
		Use:   "search [EXPR] [flags] | search --files EXPR PATH...",
		Short: "Find records in collected logs, a journal or plain files",
		Long: `Find records in collected logs, a journal or plain files, the oldest first.

EXPR is plain text, as for grep -F; several words must all occur. Fields are
compared by field=value, field:text, ranges and networks, and and, or, not and
parentheses combine them; a pipeline such as "| stats count() by user" makes a
table. docs/query.md has the whole language. With -e EXPR is one regular
expression (RE2) instead.

What was collected is searched, see mobileops logs collect. --journal reads
files of the systemd journal instead, --files plain and compressed files, as
they are.

Records are in the order of their times, those with -A, -B and -C too, which are
of the same source.

Text output has the records as they were written, so that it can be piped as
those of grep; those of the journal are shown in short form. On a terminal each
line is headed by its source, but for a journal or when one source is asked for.`,
		Example: `
mobileops logs search 203.0.113.77                       # an address, everywhere
mobileops logs search 'Failed password' --since 24h --count
mobileops logs search 'unit=ssh.service severity>=warning' --since 2026-11-20
mobileops logs search 'addr in 10.0.0.0/8 | stats count() by user | sort -count' --since 7d
mobileops logs search -e 'uid=\d+ .*sudo' -C 3            # a regular expression, with context
mobileops logs search --histogram 1h error --since 2d
mobileops logs search --journal /mnt/image/var/log/journal sshd --output export | systemd-journal-remote -o found.journal -
mobileops logs search --files -i 'out of memory' /var/log
15 * * * * root mobileops logs search --quiet --since 1h 'POSSIBLE BREAK-IN'  # cron: mails what was found
mobileops logs search 203.0.113.77 --output jsonl > /media/usb/evidence.jsonl  # runbook: keep what was found
`,
		Args: cobra.ArbitraryArgs,
		Statuses: []app.Status{
			{Code: 0, Text: "there is a match"},
			{Code: 1, Text: "there is none"},
			{Code: 5, Text: "the store was altered: a segment is missing or not the one that was written"},
			{Code: 6, Text: "something could not be read, and is named: the result is partial"},
			{Code: 7, Text: "nothing was collected yet, or the key to read it is missing"},
		},
		Files:    []string{storeFiles, stateFile},
		Run:      func(ctx context.Context, args []string) error { return runSearch(ctx, a, &opts, args) },
		Complete: func(_ context.Context, args []string, word string) []string { return opts.complete(args, word) },
	})
	opts.addFlags(a, cmd)
	return cmd
}

func (o *searchOptions) addFlags(a *app.App, cmd *cobra.Command) {
	fs := cmd.Flags()
	o.given = fs.Changed
	fs.StringVar(&o.since, "since", "", "only records of `WHEN` or later: a span such as 90m, 24h or 7d, a date, a time of today, today or yesterday")
	fs.StringVar(&o.until, "until", "", "only records before `WHEN`; a date includes its day")
	fs.StringArrayVar(&o.sources, "source", nil, "only records of `SOURCE`, as mobileops logs status lists it; * stands for anything; may be repeated")
	fs.StringArrayVar(&o.units, "unit", nil, "only records of the unit or container `UNIT`; * stands for anything; may be repeated")
	fs.StringArrayVar(&o.fields, "field", nil, "only records whose field has a value, `NAME=VALUE`; may be repeated")
	fs.StringVar(&o.severity, "severity", "", "only records of `SEVERITY` or worse: "+severities)
	app.CompleteValues(cmd, "severity", strings.Split(severities, " ")...)
	fs.BoolVarP(&o.fold, "ignore-case", "i", false, "letters match in either case")
	fs.BoolVarP(&o.word, "word", "w", false, "match whole words only")
	fs.BoolVarP(&o.regex, "regex", "e", false, "EXPR is one regular expression")
	fs.IntVarP(&o.after, "after", "A", 0, "also `N` records of the source after each match")
	fs.IntVarP(&o.before, "before", "B", 0, "also `N` records of the source before each match")
	fs.IntVarP(&o.both, "context", "C", 0, "also `N` records of the source around each match")
	fs.BoolVarP(&o.count, "count", "c", false, "print only how many records match")
	fs.StringVar(&o.top, "top", "", "print how often each value of `FIELD` occurs, the most frequent first")
	fs.StringVar(&o.histogram, "histogram", "", "print how many records match in each `SPAN` of time, such as 1h")
	fs.IntVarP(&o.limit, "limit", "n", 0, "end after `N` matches (0: none); with --top, print N values")
	fs.BoolVarP(&o.follow, "follow", "f", false, "go on with what is collected from now on, until interrupted")
	fs.BoolVar(&o.files, "files", false, "search the files and directories that follow EXPR, not the store")
	fs.BoolVar(&o.text, "text", false, "with --files: search binary files as text")
	fs.BoolVar(&o.hidden, "hidden", false, "with --files: also files whose name begins with a dot")
	fs.StringArrayVar(&o.journal, "journal", nil, "search the systemd journal in `DIR`, or one of its files; may be repeated")
	fs.BoolVarP(&o.withSource, "with-source", "H", false, "head each line with its source")
	fs.BoolVar(&o.noSource, "no-source", false, "never head lines with their source, on a terminal either")
	app.Choice(cmd, fs, (*string)(&a.Streams.Format), "output", string(ui.Text),
		[]string{string(ui.Text), string(ui.JSON), string(ui.JSONL), string(formatCSV), string(formatExport)}, "print records as `FORMAT`")
	app.CompleteDirs(cmd, "journal")
	app.CompleteValues(cmd, "since", "15m", "1h", "24h", "7d", "today", "yesterday")
	app.CompleteValues(cmd, "until", "15m", "1h", "24h", "7d", "today", "yesterday")
	app.CompleteValues(cmd, "histogram", "1m", "10m", "1h", "1d")
	a.CompleteFlag(cmd, "top", func(context.Context, []string, string) []string { return query.FieldNames() })
	a.CompleteFlag(cmd, "source", func(ctx context.Context, _ []string, _ string) []string { return knownSources(ctx, a) })
}

func (o *searchOptions) complete(args []string, word string) []string {
	if o.files && len(args) > 0 {
		return app.Files()
	}
	if len(args) > 0 {
		return nil
	}
	return query.Complete(word)
}

func runSearch(ctx context.Context, a *app.App, o *searchOptions, args []string) error {
	c, err := a.Config()
	if err != nil {
		return err
	}
	expr, paths, err := o.arguments(args)
	if err != nil {
		return err
	}
	now := time.Now()
	q, err := o.query(expr, now, time.Local) // as times are shown, and --since is read
	if err != nil {
		return o.pointed(a, expr, err)
	}
	opts := engine.Options{Query: q, Before: max(o.before, o.both), After: max(o.after, o.both), Limit: o.limit, CountOnly: o.count && q.Pipeline() == nil}
	if opts.Since, opts.Until, err = o.times(now); err != nil {
		return err
	}
	since, until := q.TimeRange()
	opts.Since, opts.Until = max(opts.Since, since), min(opts.Until, until)
	opts.Fill = func(name string) func(*event.Event) { return engine.Fields(format.Builtin, name) }
	if err := o.fits(a.Streams.Format, q); err != nil {
		return err
	}
	if o.top != "" {
		opts.Limit = 0 // it is of the values
	}
	p := newPrinter(a, o, q)
	opts.Parse = p.parses()
	report, err := o.search(ctx, a, opts, paths, zoneOf(c), p)
	if err != nil && report.Matches == 0 {
		return err // before there was anything to say
	}
	if err == nil && report.Matches == 0 && locked(report) == len(report.Problems) && len(report.Problems) > 0 && report.Units == 0 {
		return verdict(a, q, report) // no count of 0 for what nobody could look at
	}
	if perr := p.end(report); perr != nil {
		return perr
	}
	if err != nil {
		return err
	}
	outcome := verdict(a, q, report)
	if o.follow && ctx.Err() != nil && !report.Limited {
		return failure.Silent(failure.Interrupted)
	}
	return outcome
}

// fits refuses what cannot be printed or followed.
func (o *searchOptions) fits(f ui.Format, q *query.Query) error {
	pipe := q.Pipeline()
	switch {
	case o.follow && o.files:
		return failure.Hint(app.UsageError("--follow does not go with --files"), "collect them, or use tail -F FILE | grep")
	case o.follow && (pipe != nil || o.count):
		return app.UsageError("--follow does not go with --count, --top, --histogram or a pipeline")
	case o.limit > 0 && pipe != nil && o.top == "":
		return failure.Hint(app.UsageError("--limit does not go with --histogram or a pipeline"), fmt.Sprintf("end it with | head %d", o.limit))
	case o.count && pipe != nil:
		return failure.Hint(app.UsageError("--count does not go with a pipeline"), "end it with | count")
	case f == formatExport && (o.count || pipe != nil && pipe.Tabular()):
		return app.UsageError("--output export has records, no counts or tables: choose json, jsonl or csv")
	}
	return nil
}

// sound refuses values that nobody can mean. An empty one comes of a variable of
// a script that is not set: to leave it out would quietly ask for more.
func (o *searchOptions) sound() error {
	for _, f := range []struct{ name, value string }{{"since", o.since}, {"until", o.until}, {"severity", o.severity}, {"top", o.top}, {"histogram", o.histogram}} {
		if f.value == "" && o.given(f.name) {
			return app.UsageError("the value of --%s is empty", f.name)
		}
	}
	if slices.Contains(o.sources, "") || slices.Contains(o.units, "") {
		return app.UsageError("the value of --source or --unit is empty")
	}
	for _, n := range []int{o.after, o.before, o.both, o.limit} {
		if n < 0 {
			return app.UsageError("a number of records cannot be negative")
		}
	}
	return nil
}

// arguments takes the expression and the paths from what was typed.
func (o *searchOptions) arguments(args []string) (expr string, paths []string, err error) {
	if err := o.sound(); err != nil {
		return "", nil, err
	}
	switch {
	case o.files && len(o.journal) > 0:
		return "", nil, app.UsageError("--files and --journal: search one of them")
	case o.files && len(args) == 0:
		return "", nil, app.UsageError("--files needs EXPR and the files: mobileops logs search --files EXPR PATH...")
	case o.files && len(args) == 1:
		return args[0], []string{"."}, nil
	case o.files:
		return args[0], args[1:], nil
	case len(args) > 1:
		return "", nil, failure.Hint(app.UsageError("%d expressions: write them as one", len(args)),
			fmt.Sprintf("mobileops logs search '%s', or with files: --files EXPR PATH", strings.Join(args, " ")))
	case len(args) == 1:
		expr = args[0]
	}
	return expr, nil, nil
}

// query reads the expression and adds what flags ask for.
func (o *searchOptions) query(expr string, now time.Time, zone *time.Location) (*query.Query, error) {
	opts := query.Options{Fold: o.fold, Word: o.word, Regex: o.regex, Now: now, Zone: zone}
	q, err := query.Parse(expr, opts)
	if err != nil {
		return nil, err
	}
	var filters []query.Filter
	add := func(name string, values ...string) error {
		f, err := query.Field(name, query.Options{Now: now, Zone: zone}, values...)
		if err != nil {
			return failure.Errorf(failure.Usage, "--field %s=%s: %w", name, strings.Join(values, ","), err)
		}
		filters = append(filters, f)
		return nil
	}
	if len(o.sources) > 0 {
		if err := add("source", o.sources...); err != nil {
			return nil, err
		}
	}
	if len(o.units) > 0 {
		if err := add("unit", o.units...); err != nil {
			return nil, err
		}
	}
	for _, f := range o.fields {
		name, value, ok := strings.Cut(f, "=")
		if !ok {
			return nil, app.UsageError("--field %q is not NAME=VALUE", f)
		}
		if err := add(name, value); err != nil {
			return nil, err
		}
	}
	if o.severity != "" {
		s, ok := query.SeverityNamed(o.severity)
		if !ok {
			return nil, app.UsageError("bad value %q for --severity: one of %s", o.severity, severities)
		}
		filters = append(filters, query.SeverityAtLeast(s))
	}
	q = q.And(filters...)
	if o.top != "" && o.histogram != "" || (o.top != "" || o.histogram != "") && o.count {
		return nil, app.UsageError("--count, --top and --histogram: ask for one of them")
	}
	if o.histogram != "" {
		return then(q, "histogram", o.histogram, "histogram "+o.histogram)
	}
	if o.top != "" {
		n := 20
		if o.limit > 0 {
			n = o.limit
		}
		return then(q, "top", o.top, fmt.Sprintf("top %d %s", n, o.top))
	}
	return q, nil
}

// then adds the stage that a flag stands for.
func then(q *query.Query, flag, value, stage string) (*query.Query, error) {
	more, err := q.Then(stage)
	var wrong *query.Error
	if errors.As(err, &wrong) { // its column is none of what was typed
		err = failure.New(failure.Usage, wrong.Message)
		if wrong.Hint != "" {
			err = failure.Hint(err, wrong.Hint)
		}
		return nil, fmt.Errorf("--%s %s: %w", flag, value, err)
	}
	return more, err
}

// pointed adds a line under the expression that points at what is wrong.
func (o *searchOptions) pointed(a *app.App, expr string, err error) error {
	var wrong *query.Error
	if errors.As(err, &wrong) && a.Streams.Format == ui.Text && !strings.Contains(err.Error(), "--field") {
		fmt.Fprintln(a.Streams.Err, wrong.Pointer(expr))
	}
	return err
}

// times reads --since and --until, as nanoseconds.
func (o *searchOptions) times(now time.Time) (since, until int64, err error) {
	since, until = math.MinInt64, math.MaxInt64
	if o.since != "" {
		t, ok := past(o.since, now, false)
		if !ok {
			return 0, 0, app.UsageError("bad value %q for --since: %s", o.since, whens)
		}
		since = nanoseconds(t)
	}
	if o.until != "" {
		t, ok := past(o.until, now, true)
		if !ok {
			return 0, 0, app.UsageError("bad value %q for --until: %s", o.until, whens)
		}
		if until = nanoseconds(t); t.Nanosecond() == 999_999_999 { // the last moment of a day
			until = nanoseconds(t.Add(1))
		}
	}
	if since >= until {
		return 0, 0, app.UsageError("--since %s is not before --until %s", o.since, o.until)
	}
	return since, until, nil
}

// nanoseconds returns a time since 1970-01-01 UTC. What is too far away for
// that is the end of time: no record is beyond it.
func nanoseconds(t time.Time) int64 {
	switch {
	case t.Before(time.Unix(0, math.MinInt64)):
		return math.MinInt64
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return t.UnixNano()
}

// search searches where it is asked to.
func (o *searchOptions) search(ctx context.Context, a *app.App, opts engine.Options, paths []string, zone *time.Location, p printer) (engine.Report, error) {
	switch {
	case len(o.journal) > 0:
		return engine.SearchJournal(ctx, engine.JournalOptions{Paths: o.journal, Follow: o.follow, KeepAll: a.Streams.Format != formatExport}, opts, p.match)
	case o.files:
		return engine.SearchFiles(ctx, engine.FileOptions{Paths: paths, Stdin: a.Streams.In, Text: o.text, Hidden: o.hidden, Zone: zone, Formats: format.Builtin}, opts, p.match)
	}
	s, _, err := openStore(a)
	if err != nil {
		return engine.Report{}, err
	}
	snap, err := s.Snapshot(ctx, wanted(&opts))
	if err != nil {
		return engine.Report{}, err
	}
	defer snap.Close()
	corpus, err := engine.Stored(ctx, snap)
	if err != nil && corpus == nil {
		return engine.Report{}, err
	}
	if len(corpus.Segments) == 0 && len(corpus.Loose) == 0 && len(snap.Problems) == 0 && err == nil {
		if empty, eerr := s.Empty(ctx); eerr != nil || empty {
			return engine.Report{}, errors.Join(eerr, failure.Hint(failure.New(failure.NotReady, "nothing was collected yet"),
				"collect the logs of this host: mobileops logs collect --once; or search files as they are: --files, --journal"))
		}
	}
	if o.follow {
		return engine.Follow(ctx, snap, corpus, opts, p.match)
	}
	report, serr := engine.Search(ctx, corpus, opts, p.match)
	if report.Matches == 0 && serr == nil && len(o.sources) > 0 {
		o.noticeSources(ctx, a, s)
	}
	if err != nil {
		report.Problems = append(report.Problems, engine.Problem{Name: "the write-ahead log", Err: err})
	}
	for _, e := range snap.Problems {
		report.Problems = append(report.Problems, engine.Problem{Name: "the store", Err: e})
	}
	return report, serr
}

// wanted is what a search needs of the store.
func wanted(o *engine.Options) store.Range {
	r := store.Range{Since: o.Since, Until: o.Until, Sources: o.Query.Sources()}
	if r.Until != math.MaxInt64 {
		r.Until-- // inclusive there
	}
	return r
}
