package integrity

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/schedule"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newScheduleShow(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "show [NAME]",
		Short: "Show a schedule: what runs, when, and by which files",
		Example: `
mobileops integrity schedule show
mobileops integrity schedule show integrity-verify --output json
`,
		Args: cobra.MaximumNArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the schedule was shown"},
			{Code: 1, Text: "a file of it is missing, so it cannot run"},
			{Code: 7, Text: "there is no such schedule"},
		},
		Files:    []string{unitFiles, cronFile, stateFile},
		Run:      func(ctx context.Context, args []string) error { return runScheduleShow(ctx, a, args) },
		Complete: func(ctx context.Context, args []string, _ string) []string { return completeSchedule(ctx, a, args) },
	})
}

func completeSchedule(ctx context.Context, a *app.App, args []string) []string {
	if len(args) > 0 {
		return nil
	}
	return completeSchedules(ctx, a)
}

// missingFiles is the status of verbs that look at schedules.
func missingFiles(list []scheduleNow) error {
	for n := range list {
		if list[n].worst() == schedule.Missing {
			return failure.Silent(failure.No)
		}
	}
	return nil
}

func runScheduleShow(ctx context.Context, a *app.App, args []string) error {
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	name := schedule.DefaultName("", "", false)
	if len(args) > 0 {
		name = args[0]
	}
	if _, err := schedule.Find(ctx, e.Store, name); err != nil {
		return err
	}
	now := time.Now()
	list, err := schedulesNow(ctx, e, now)
	if err != nil {
		return err
	}
	var s *scheduleNow
	for n := range list {
		if list[n].Name == name {
			s = &list[n]
		}
	}
	if a.Streams.Format != ui.Text {
		doc := scheduleReport{Schema: "mobileops.integrity.schedule.show/v1", Schedules: []scheduleEntry{newScheduleEntry(&s.Schedule, s.states, s.last)}}
		if err := a.Streams.Document(doc); err != nil {
			return err
		}
		return missingFiles([]scheduleNow{*s})
	}
	last := "never"
	if !s.last.IsZero() {
		last = stamp(s.last)
	}
	rows := [][2]string{
		{"Schedule", s.Name + ", made " + stamp(s.Installed)},
		{"Runs", strings.Join(append([]string{s.Binary}, s.Args...), " ")},
		{"When", whenText(&s.Schedule) + ", by " + string(s.Via)},
		{"Next", nextText(&s.Schedule, now)},
		{"Last", last},
	}
	for _, env := range s.Env {
		rows = append(rows, [2]string{"With", env})
	}
	if s.Mail != "" {
		rows = append(rows, [2]string{"Mails", s.Mail})
	}
	for n := range s.Files {
		rows = append(rows, [2]string{"File", filepath.Join(s.Root, s.Files[n].Path) + ", " + string(s.states[n])})
	}
	theme := a.Streams.Theme()
	for _, row := range rows {
		if _, err := fmt.Fprintf(a.Streams.Out, "%s %s\n", theme.Heading(fmt.Sprintf("%-9s", row[0])), ui.Escape(row[1])); err != nil {
			return err
		}
	}
	return missingFiles([]scheduleNow{*s})
}
