package update

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/update/store"
	"github.com/spf13/cobra"
)

// completeChanges completes --change with changes that could be applied.
func completeChanges(a *app.App, cmd *cobra.Command) {
	a.CompleteFlag(cmd, "change", func(ctx context.Context, _ []string, _ string) (words []string) {
		s, err := a.State()
		if err != nil {
			return nil
		}
		_ = s.View(ctx, func(tx *state.Tx) error {
			now := time.Now()
			host, _ := os.Hostname()
			list, err := change.List(tx, change.Filter{}, now)
			for _, c := range list {
				if c.On(host) == nil && c.InForce(now) == nil {
					words = append(words, c.ID+"\t"+c.Subject())
				}
			}
			return err
		})
		return words
	})
}

// completeWhich completes one argument, or a flag, with the numbers of the
// generations that fit, the latest first.
func completeWhich(a *app.App, fits func(*shelf, *store.Generation) bool) func(context.Context, []string, string) []string {
	return func(_ context.Context, args []string, typed string) (words []string) {
		if len(args) > 0 {
			return nil
		}
		v, err := openShelf(a, "completion")
		if v == nil || err != nil && v.list == nil {
			return nil
		}
		for _, g := range slices.Backward(v.list) {
			if w := strconv.Itoa(g.Number); fits(v, g) && strings.HasPrefix(w, typed) {
				words = append(words, w+"\t"+title(g))
			}
		}
		return words
	}
}

// packageExtensions are those of the files that packages are.
func packageExtensions() []string { return []string{"tar.zst", "tar.gz"} }

// completePackages completes the names of packages of the repository, and files
// that could be packages.
func completePackages(a *app.App) func(context.Context, []string, string) []string {
	return func(ctx context.Context, _ []string, typed string) []string {
		if isFile(typed) {
			return app.Files(packageExtensions()...)
		}
		var words []string
		for _, w := range offered(ctx, a, typed) {
			if strings.HasPrefix(w, typed) {
				words = append(words, w)
			}
		}
		if len(words) == 0 {
			return app.Files(packageExtensions()...)
		}
		return words
	}
}
