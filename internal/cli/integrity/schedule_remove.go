package integrity

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/integrity/schedule"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newScheduleRemove(a *app.App) *cobra.Command {
	var force bool
	cmd := a.Command(app.Spec{
		Use:   "remove NAME [--force]",
		Short: "Remove a schedule and its files",
		Example: `
mobileops integrity schedule remove integrity-check
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the schedule is gone"},
			{Code: 4, Text: "/etc or the state may not be written"},
			{Code: 7, Text: "there is no such schedule"},
			{Code: 8, Text: "a file of it was edited (--force removes it all the same)"},
		},
		Files:    []string{unitFiles, cronFile, stateFile},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runScheduleRemove(ctx, a, args[0], force) },
		Complete: func(ctx context.Context, args []string, _ string) []string { return completeSchedule(ctx, a, args) },
	})
	cmd.Flags().BoolVar(&force, "force", false, "remove files that were edited, too")
	return cmd
}

func runScheduleRemove(ctx context.Context, a *app.App, name string, force bool) error {
	inst, _, err := newInstaller(a)
	if err != nil {
		return err
	}
	out, err := inst.Remove(ctx, name, force)
	if out == nil {
		return err
	}
	a.SetResult("removed %s", name)
	return errors.Join(printRemoved(a, out), err)
}

func printRemoved(a *app.App, out *schedule.Outcome) error {
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(scheduleReport{
			Schema: "mobileops.integrity.schedule.remove/v1", Changed: out.Changed, Todo: out.Todo,
			Schedules: []scheduleEntry{newScheduleEntry(&out.Schedule, make([]schedule.FileState, len(out.Schedule.Files)), time.Time{})},
		})
	}
	if a.Streams.Quiet && len(out.Todo) == 0 {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Removed: %s, which ran integrity %s %s.\n", out.Schedule.Name, out.Schedule.Mode(), out.Schedule.Timing)
	for _, path := range out.Changed {
		fmt.Fprintf(&b, "  %s\n", ui.Escape(filepath.Join(out.Schedule.Root, path)))
	}
	writeTodo(&b, a, out)
	_, err := fmt.Fprint(a.Streams.Out, b.String())
	return err
}
