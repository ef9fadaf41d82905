package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/isolation"
	"github.com/mobileops/mobileops/internal/network/segment"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newReconcile(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "reconcile",
		Short: "Put in force again what is to be in force",
		Long: `Put in force again what is to be in force.

Run at boot, before there is a network, by mobileops-isolation.service: a host
that was isolated for good is isolated again, what was blocked is blocked for the
time that is left, and segments are as they were applied. Isolation that nobody
confirmed is not in force again. Also after somebody flushed the rules of this
host, or changed its links.`,
		Example: `
mobileops network reconcile
@reboot root mobileops network reconcile --quiet      # cron, where there is no systemd
*/5 * * * * root mobileops network reconcile --quiet  # cron: after a foreign flush, at most five minutes later
`,
		Statuses: []app.Status{
			notRoot,
			{Code: 0, Text: "what is to be in force is"},
			{Code: 3, Text: "it is not; the message says what"},
			{Code: 6, Text: "it is, but for workloads that are not there yet"},
		},
		Files:   []string{tablesFile, stateFile, feedFiles, lockFiles},
		Audited: true,
		Run:     func(ctx context.Context, _ []string) error { return runReconcile(ctx, a) },
	})
}

// reconcileReport is the document of mobileops network reconcile.
type reconcileReport struct {
	Schema    string               `json:"schema"`
	Isolation isolation.Reconciled `json:"isolation"`
	Blocks    []string             `json:"blocks"`   // what was put in force again
	Segments  []segment.Change     `json:"segments"` // what was made again or taken away
	Missing   []string             `json:"missing"`  // workloads that are not there yet
	Problems  []string             `json:"problems"`
}

func runReconcile(ctx context.Context, a *app.App) error {
	c, err := a.Config()
	if err != nil {
		return err
	}
	e, err := newEngine(a, c, true)
	if err != nil {
		return err
	}
	r := &reconcileReport{Schema: "mobileops.network.reconcile/v1", Blocks: []string{}, Segments: []segment.Change{}, Missing: []string{}, Problems: []string{}}
	worst := failure.None
	problem := func(what string, err error) {
		if err != nil {
			worst = failure.Worse(worst, failure.KindOf(err))
			r.Problems = append(r.Problems, what+": "+err.Error())
		}
	}
	// What cuts comes before what connects, and trouble with one is no reason to
	// leave the others out.
	r.Isolation, err = e.Reconcile(ctx)
	problem("isolation", err)
	problem("blocks", r.blocks(ctx, a))
	problem("segments", r.segments(ctx, a))
	if r.Isolation == isolation.AsRecorded && len(r.Blocks)+len(r.Segments)+len(r.Problems) == 0 {
		a.OnlyLooked() // cron runs it all the time
	}
	done := slices.DeleteFunc(r.lines(), func(l string) bool { return strings.HasSuffix(l, ": as recorded") })
	a.SetResult("%s", strings.Join(done, "; "))
	if err := printReconciled(a.Streams, r); err != nil {
		return err
	}
	switch {
	case worst != failure.None:
		return failure.Wrap(worst, errors.New(strings.Join(r.Problems, "; ")))
	case len(r.Missing) > 0:
		return failure.Silent(failure.Incomplete)
	}
	return nil
}

func (r *reconcileReport) blocks(ctx context.Context, a *app.App) error {
	e, err := newBlocks(a)
	if err != nil {
		return err
	}
	changed, err := e.Reconcile(ctx)
	r.Blocks = append(r.Blocks, changed...)
	return err
}

func (r *reconcileReport) segments(ctx context.Context, a *app.App) error {
	e, err := newSegments(a)
	if err != nil {
		return err
	}
	plan, err := e.Reconcile(ctx)
	if plan != nil {
		r.Segments, r.Missing = append(r.Segments, plan.Changes()...), append(r.Missing, words(plan.Missing)...)
	}
	return err
}

// lines say in words what was done.
func (r *reconcileReport) lines() (list []string) {
	if r.Isolation != "" {
		list = append(list, "isolation: "+string(r.Isolation))
	}
	if len(r.Problems) == 0 && len(r.Blocks) == 0 {
		list = append(list, "blocks: as recorded")
	}
	if len(r.Problems) == 0 && len(r.Segments)+len(r.Missing) == 0 {
		list = append(list, "segments: as recorded")
	}
	for _, b := range r.Blocks {
		list = append(list, "blocks: "+b)
	}
	for _, c := range r.Segments {
		list = append(list, "segments: "+string(c.Sign)+" "+c.Text)
	}
	for _, m := range r.Missing {
		list = append(list, "segments: not there yet: "+m)
	}
	return list
}

func printReconciled(s *ui.Streams, r *reconcileReport) error {
	if s.Format != ui.Text {
		return s.Document(r)
	}
	if s.Quiet {
		return nil // a workload that is stopped is no news
	}
	for _, l := range r.lines() {
		if _, err := fmt.Fprintln(s.Out, ui.Escape(l)); err != nil {
			return err
		}
	}
	return nil
}
