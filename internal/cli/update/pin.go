package update

import (
	"context"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/update/store"
	"github.com/spf13/cobra"
)

func newPin(a *app.App) *cobra.Command {
	var reason string
	cmd := a.Command(app.Spec{
		Use:   "pin N [--reason TEXT]",
		Short: "Keep a generation from being pruned, whatever its age",
		Long: `Keep a generation from being pruned, whatever its age. Pinning it again gives it
another reason.`,
		Example: `
mobileops update pin 4
mobileops update pin 4 --reason "last one before the new database"
mobileops update pin 4 --quiet || test $? = 8  # runbook: pinned from here on, whoever did it
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "it is pinned"},
			{Code: 1, Text: "there is no such generation"},
			{Code: 4, Text: "not allowed: this is not root"},
			{Code: 5, Text: "what describes it is damaged"},
			{Code: 7, Text: "no update was applied here yet"},
			{Code: 8, Text: "it is pinned already, for that reason; or another update is running"},
		},
		Files:    []string{storeFiles},
		Audited:  true,
		Complete: completeUpTo(a, 1),
		Run:      func(ctx context.Context, args []string) error { return runPin(ctx, a, args[0], reason) },
	})
	cmd.Flags().StringVar(&reason, "reason", "", "`TEXT` that says why")
	app.CompleteValues(cmd, "reason")
	return cmd
}

// maxReason bounds what people give as a reason, in bytes.
const maxReason = 1 << 10

func checkReason(reason string) error {
	if len(reason) > maxReason || !utf8.ValidString(reason) {
		return app.UsageError("--reason is longer than %d bytes, or not text in UTF-8", maxReason)
	}
	return nil
}

func runPin(ctx context.Context, a *app.App, arg, reason string) error {
	if err := checkReason(reason); err != nil {
		return err
	}
	return setPin(ctx, a, "pin", arg, func(g *store.Generation) (*store.Pin, error) {
		if g.Pinned != nil && (reason == "" || g.Pinned.Reason == reason) {
			return nil, failure.Hint(failure.Errorf(failure.Busy, "generation %d is pinned already", g.Number), fmt.Sprintf("let it go: mobileops update unpin %d", g.Number))
		}
		return &store.Pin{Reason: reason, By: a.Actor().Name(), At: time.Now().UTC().Round(0)}, nil
	})
}

// setPin pins a generation, or with a nil pin unpins it.
func setPin(ctx context.Context, a *app.App, verb, arg string, decide func(*store.Generation) (*store.Pin, error)) error {
	number, err := numberArg(arg)
	if err != nil {
		return err
	}
	v, err := openShelf(a, "update "+verb)
	if v == nil {
		return err
	}
	g, err := v.find(number)
	if err != nil {
		return err
	}
	pin, err := decide(g)
	if err != nil {
		return err
	}
	if err := v.engine.Pin(ctx, number, pin, newNotice(a, "update "+verb)); err != nil {
		return noGeneration(err)
	}
	a.SetResult("%s of generation %d (%s)", verb, number, content(g))
	if v, g, err = lookAgain(a, number); err != nil {
		return err
	}
	return printChanged(a, v, g, verb)
}
