package logs

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	engine "github.com/mobileops/mobileops/internal/logs"
	"github.com/mobileops/mobileops/internal/logs/source"
	"github.com/mobileops/mobileops/internal/logs/store"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newStatus(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "status",
		Short: "Show what was collected, and how far behind collecting is",
		Long: `Show what was collected, and how far behind collecting is.

For each source: records and bytes in the store, the last record, how many bytes
wait to be read, records a second, and gaps, that is records that were lost
before they could be read. What a collector that runs tells is at most a few
seconds old.`,
		Example: `
mobileops logs status
mobileops logs status --output json | jq '.sources[] | select(.gaps > 0)'
*/10 * * * * root mobileops logs status --quiet          # cron: mails gaps and sources that cannot be read
`,
		Statuses: []app.Status{
			{Code: 0, Text: "nothing is missing"},
			{Code: 6, Text: "there are gaps, or a source cannot be read"},
			{Code: 7, Text: "nothing was collected yet"},
		},
		Files: []string{storeFiles, stateFile},
		Run:   func(ctx context.Context, _ []string) error { return runStatus(ctx, a) },
	})
}

// statusReport is the document of mobileops logs status --output json.
type statusReport struct {
	Schema    string           `json:"schema"`
	Running   bool             `json:"running"` // a process collects now
	Collector *collectorInfo   `json:"collector,omitempty"`
	Sources   []sourceStatus   `json:"sources"`
	Problems  []source.Problem `json:"problems"` // what is to be read and is not
	Records   int64            `json:"records"`
	RawBytes  int64            `json:"raw_bytes"`
	Bytes     int64            `json:"bytes"` // on the disk
}

type collectorInfo struct {
	PID     int       `json:"pid"`
	Follow  bool      `json:"follow"`
	Started time.Time `json:"started"`
	Written time.Time `json:"written"`
	Ended   time.Time `json:"ended,omitzero"`
}

type sourceStatus struct {
	Source   string          `json:"source"`
	Records  int64           `json:"records"`
	Pending  int64           `json:"pending"` // of these, in the write-ahead log
	RawBytes int64           `json:"raw_bytes"`
	Bytes    int64           `json:"bytes"`
	First    time.Time       `json:"first,omitzero"`
	Last     time.Time       `json:"last,omitzero"`
	LagBytes int64           `json:"lag_bytes"`
	Rate     float64         `json:"rate"` // records a second
	Gaps     int64           `json:"gaps"`
	Error    string          `json:"error,omitempty"`
	Files    []source.Status `json:"files,omitempty"` // as the collector told
}

func runStatus(ctx context.Context, a *app.App) error {
	s, _, err := openStore(a)
	if err != nil {
		return err
	}
	stats, damage := s.Stats(ctx)
	if damage != nil && stats == nil {
		return damage
	}
	last, err := engine.LastCollector(s)
	if err != nil {
		return err
	}
	if len(stats) == 0 && last == nil {
		return failure.Hint(failure.New(failure.NotReady, "nothing was collected yet"), "collect the logs of this host: mobileops logs collect --once")
	}
	st, err := a.State()
	if err != nil {
		return err
	}
	_, running := st.Holder("logs")
	report := statusOf(stats, last)
	report.Running = running
	kind := failure.None
	if len(report.Problems) > 0 {
		kind = failure.Incomplete
	}
	for _, src := range report.Sources {
		if src.Gaps > 0 || src.Error != "" {
			kind = failure.Incomplete
		}
	}
	if err := printStatus(a.Streams, report); err != nil {
		return err
	}
	if damage != nil {
		return failure.Wrap(failure.Worse(kind, failure.KindOf(damage)), damage)
	}
	if kind == failure.None {
		return nil
	}
	return failure.Silent(kind)
}

// statusOf brings together what is stored and what the collector told.
func statusOf(stats []store.SourceStats, last *engine.Collector) *statusReport {
	r := &statusReport{Schema: "mobileops.logs.status/v1", Sources: []sourceStatus{}, Problems: []source.Problem{}}
	at := map[string]int{}
	of := func(name string) *sourceStatus {
		i, known := at[name]
		if !known {
			i = len(r.Sources)
			at[name] = i
			r.Sources = append(r.Sources, sourceStatus{Source: name})
		}
		return &r.Sources[i]
	}
	for _, st := range stats {
		src := of(st.Source)
		src.Records, src.Pending, src.RawBytes, src.Bytes = st.Records, st.Pending, st.RawBytes, st.Bytes
		src.First, src.Last = time.Unix(0, st.First).UTC(), time.Unix(0, st.Last).UTC()
		r.Records += st.Records
		r.RawBytes += st.RawBytes
		r.Bytes += st.Bytes
	}
	if last != nil {
		r.Problems = append(r.Problems, last.Problems...)
		r.Collector = &collectorInfo{last.PID, last.Follow, last.Started, last.Written, last.Ended}
		for _, f := range last.Sources {
			src := of(f.Stored)
			src.LagBytes += f.LagBytes
			src.Rate += f.Rate
			src.Gaps += f.GapCount
			if src.Error == "" && f.Error != "" {
				src.Error = f.Path + ": " + f.Error
			}
			src.Files = append(src.Files, f)
		}
	}
	slices.SortFunc(r.Sources, func(x, y sourceStatus) int { return cmp.Compare(x.Source, y.Source) })
	return r
}

// maxProblems is how many problems a person is shown.
const maxProblems = 20

func printStatus(s *ui.Streams, r *statusReport) error {
	switch s.Format {
	case ui.JSON:
		return s.Document(r)
	case ui.JSONL:
		return printLines(s, r.Sources)
	}
	table := s.NewTable(ui.Column{Title: "SOURCE", Min: 12, KeepEnd: true}, ui.Column{Title: "RECORDS", Right: true}, ui.Column{Title: "RAW", Right: true, Drop: 3},
		ui.Column{Title: "STORED", Right: true, Drop: 4}, ui.Column{Title: "LAST"}, ui.Column{Title: "BEHIND", Right: true}, ui.Column{Title: "A SECOND", Right: true, Drop: 2}, ui.Column{Title: "GAPS", Right: true}, ui.Column{Title: "PROBLEM", Min: 12, Drop: 1})
	theme := s.Theme()
	for _, src := range r.Sources {
		if s.Quiet && src.Gaps == 0 && src.Error == "" {
			continue
		}
		gaps := ui.Cell{Text: ui.Count(src.Gaps)}
		if src.Gaps > 0 {
			gaps.Style = theme.Bad
		}
		table.Row(src.Source, ui.Count(src.Records), ui.Bytes(src.RawBytes), ui.Bytes(src.Bytes), localTime(src.Last),
			ui.Bytes(src.LagBytes), fmt.Sprintf("%.1f", src.Rate), gaps, ui.Cell{Text: src.Error, Style: theme.Bad})
	}
	if table.Len() > 0 {
		if err := table.Print(); err != nil {
			return err
		}
	}
	for i, p := range r.Problems {
		if i == maxProblems {
			fmt.Fprintf(s.Out, "not read: %d more: --output json has all\n", len(r.Problems)-i)
			break
		}
		fmt.Fprintln(s.Out, theme.Bad("not read")+": "+ui.Escape(p.Path+": "+p.Reason))
	}
	if s.Quiet {
		return nil
	}
	line := fmt.Sprintf("%s, %s raw, %s stored; ", ui.Plural(r.Records, "record", "records"), ui.Bytes(r.RawBytes), ui.Bytes(r.Bytes))
	switch {
	case r.Running && r.Collector != nil:
		line += fmt.Sprintf("collected by process %d since %s", r.Collector.PID, localTime(r.Collector.Started))
	case r.Collector != nil:
		line += "last collected " + ui.Ago(r.Collector.Written, time.Now())
	default:
		line += "nobody collects now"
	}
	_, err := fmt.Fprintln(s.Out, line)
	return err
}
