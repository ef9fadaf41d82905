package network

import (
	"context"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/network/isolation"
	"github.com/spf13/cobra"
)

func newBlockRefresh(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "refresh [NAME...]",
		Short: "Get feeds again from where they came from",
		Long: `Get feeds again from where they came from.

Without a name, all that came from a URL. A server that has nothing new is not
asked for all of it (ETag, Last-Modified). One feed that cannot be had leaves what
it blocks as it is, and does not keep others from being refreshed. With --quiet,
lines that cannot be read are said when there are more or fewer of them than
before. A systemd timer for it has OnCalendar=*-*-* 00/6:17 and RandomizedDelaySec=10m.`,
		Example: `
mobileops network block refresh drop
0 */6 * * * root mobileops network block refresh --quiet  # cron: mails what went wrong
`,
		Args: cobra.ArbitraryArgs,
		Statuses: []app.Status{
			notRoot,
			{Code: 0, Text: "all of them are as their servers have them"},
			{Code: 1, Text: "there is no such feed, or none came from a URL"},
			{Code: 3, Text: "one could not be had; it blocks what it did"},
			{Code: 6, Text: "some lines could not be read"},
			{Code: 8, Text: "another command holds the lock"},
		},
		Files:    []string{blockTables, blockState, feedFiles},
		Audited:  true,
		Complete: completeFeeds(a),
		Run:      func(ctx context.Context, args []string) error { return runBlockRefresh(ctx, a, args) },
	})
}

func runBlockRefresh(ctx context.Context, a *app.App, names []string) error {
	if err := isolation.Allowed("changed"); err != nil {
		return err
	}
	e, err := newBlocks(a)
	if err != nil {
		return err
	}
	list, err := e.Refresh(ctx, names)
	err = whileIsolated(err)
	var words []string
	for _, in := range list {
		words = append(words, in.Feed.Name)
	}
	a.SetResult("refreshed %s", strings.Join(words, " "))
	if len(list) == 0 {
		return err
	}
	return printImported(a, "refresh", list, false, err)
}
