package integrity

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/schedule"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newScheduleList(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "list",
		Short: "List the schedules, with their next run",
		Long: `List the schedules, with their next run and whether their files are as they
were written. With --quiet: only those whose files are edited or missing.`,
		Example: `
mobileops integrity schedule list
mobileops integrity schedule list --output json | jq -r '.schedules[].files[].path'
`,
		Statuses: []app.Status{
			{Code: 0, Text: "the schedules were listed, however many"},
			{Code: 1, Text: "a file of a schedule is missing, so it cannot run"},
		},
		Files: []string{unitFiles, cronFile, stateFile},
		Run:   func(ctx context.Context, _ []string) error { return runScheduleList(ctx, a) },
	})
}

// scheduleReport is the document of integrity schedule and its verbs.
type scheduleReport struct {
	Schema    string          `json:"schema"`
	Schedules []scheduleEntry `json:"schedules"`
	Changed   []string        `json:"changed,omitempty"` // files that were written or removed
	Todo      []string        `json:"todo,omitempty"`    // commands that must be run for it to take effect
}

type scheduleEntry struct {
	Name          string         `json:"name"`
	Baseline      string         `json:"baseline"`
	Mode          string         `json:"mode"`
	Timing        string         `json:"timing"`
	JitterSeconds int64          `json:"jitter_seconds"`
	OffsetSeconds int64          `json:"offset_seconds"` // of this host within the jitter; cron
	Via           string         `json:"via"`
	Next          time.Time      `json:"next"` // with systemd up to the jitter later
	LastRun       *time.Time     `json:"last_run,omitempty"`
	Root          string         `json:"root"`
	Command       []string       `json:"command"`
	Environment   []string       `json:"environment,omitempty"`
	Mail          string         `json:"mail,omitempty"`
	Installed     time.Time      `json:"installed"`
	Files         []scheduleFile `json:"files"`
}

type scheduleFile struct {
	Path    string `json:"path"`
	State   string `json:"state,omitempty"`
	Digest  string `json:"digest"`
	Content string `json:"content,omitempty"` // of what --print would write
}

// newScheduleEntry is a schedule in a document. Without states, it is one that
// is only planned, and the files are shown with their content.
func newScheduleEntry(s *schedule.Schedule, states []schedule.FileState, last time.Time) scheduleEntry {
	out := scheduleEntry{
		Name: s.Name, Baseline: s.Baseline, Mode: s.Mode(), Timing: s.Timing.String(),
		JitterSeconds: int64(s.Jitter.Seconds()), OffsetSeconds: int64(s.Offset.Seconds()), Via: string(s.Via),
		Next: s.Next(time.Now()), Root: s.Root, Command: append([]string{s.Binary}, s.Args...), Environment: s.Env, Mail: s.Mail,
		Installed: s.Installed, Files: []scheduleFile{},
	}
	if !last.IsZero() {
		out.LastRun = &last
	}
	for n := range s.Files {
		digest, _ := s.Files[n].Digest.MarshalText()
		f := scheduleFile{Path: s.Files[n].Path, Digest: string(digest)}
		if states != nil {
			f.State = string(states[n])
		} else {
			f.Content = string(s.Files[n].Data())
		}
		out.Files = append(out.Files, f)
	}
	return out
}

// scheduleNow is a schedule, how its files are, and when what it does was last
// done.
type scheduleNow struct {
	schedule.Schedule
	states []schedule.FileState
	last   time.Time
}

// worst is the state of the file that is in the worst one.
func (s *scheduleNow) worst() schedule.FileState {
	for _, bad := range []schedule.FileState{schedule.Missing, schedule.Edited} {
		if slices.Contains(s.states, bad) {
			return bad
		}
	}
	return schedule.AsWritten
}

// schedulesNow looks at all schedules.
func schedulesNow(ctx context.Context, e *engine.Engine, now time.Time) ([]scheduleNow, error) {
	list, runs, err := e.Schedules(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]scheduleNow, len(list))
	for n := range list {
		out[n] = scheduleNow{Schedule: list[n], last: schedule.LastRun(&list[n], runs, now)}
		if out[n].states, err = schedule.Look(&list[n]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// completeSchedules returns the names of the schedules with what they are.
func completeSchedules(ctx context.Context, a *app.App) []string {
	e, _, err := newEngine(a)
	if err != nil {
		return nil
	}
	list, err := schedule.List(ctx, e.Store)
	if err != nil {
		return nil
	}
	words := make([]string, len(list))
	for n := range list {
		words[n] = list[n].Name + "\t" + list[n].Mode() + " " + list[n].Baseline + ", " + list[n].Timing.String()
	}
	return words
}

func runScheduleList(ctx context.Context, a *app.App) error {
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	now := time.Now()
	list, err := schedulesNow(ctx, e, now)
	if err != nil {
		return err
	}
	if a.Streams.Format != ui.Text {
		doc := scheduleReport{Schema: "mobileops.integrity.schedule.list/v1", Schedules: []scheduleEntry{}}
		for n := range list {
			doc.Schedules = append(doc.Schedules, newScheduleEntry(&list[n].Schedule, list[n].states, list[n].last))
		}
		if err := a.Streams.Document(doc); err != nil {
			return err
		}
		return missingFiles(list)
	}
	theme := a.Streams.Theme()
	table := a.Streams.NewTable(
		ui.Column{Title: "NAME", Min: 8}, ui.Column{Title: "RUNS"}, ui.Column{Title: "BASELINE", Min: 6, Drop: 3}, ui.Column{Title: "WHEN"},
		ui.Column{Title: "NEXT", Drop: 1}, ui.Column{Title: "LAST RUN", Drop: 2}, ui.Column{Title: "BY", Drop: 4}, ui.Column{Title: "FILES", Min: 6})
	for n := range list {
		s := &list[n]
		files := ui.Cell{Text: string(s.worst())}
		if s.worst() != schedule.AsWritten {
			files.Style = theme.Warn
		} else if a.Streams.Quiet {
			continue
		}
		last := "never"
		if !s.last.IsZero() {
			last = ui.Ago(s.last, now)
		}
		table.Row(s.Name, s.Mode(), s.Baseline, s.Timing.String(), ui.Ago(s.Next(now), now), last, string(s.Via), files)
	}
	if len(list) == 0 && !a.Streams.Quiet {
		fmt.Fprintln(a.Streams.Err, "no schedules (make one: mobileops integrity schedule --daily 03:00)")
	}
	if err := table.Print(); err != nil {
		return err
	}
	return missingFiles(list)
}
