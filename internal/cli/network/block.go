package network

import (
	"context"
	"net/url"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newBlock(a *app.App) *cobra.Command {
	return a.Group("block", "Keep lists of addresses from this host, and see what is cut off",
		newBlockImport(a), newBlockRefresh(a), newBlockList(a), newBlockShow(a), newBlockRemove(a))
}

// redacted is a source without the password of its URL.
func redacted(source string) string {
	if u, err := url.Parse(source); err == nil && u.User != nil {
		return u.Redacted()
	}
	return source
}

// completeFeeds offers the names of feeds.
func completeFeeds(a *app.App) func(context.Context, []string, string) []string {
	return func(ctx context.Context, _ []string, typed string) (words []string) {
		e, err := newBlocks(a)
		if err != nil {
			return nil
		}
		feeds, err := e.Feeds(ctx)
		if err != nil {
			return nil
		}
		for _, f := range feeds {
			if strings.HasPrefix(f.Name, typed) {
				words = append(words, f.Name+"\t"+ui.Plural(int64(f.Total()), "entry", "entries")+" of "+ui.Escape(redacted(f.Source)))
			}
		}
		return words
	}
}

// completeBlocked offers the names of feeds and the targets of blocks.
func completeBlocked(a *app.App) func(context.Context, []string, string) []string {
	feeds := completeFeeds(a)
	return func(ctx context.Context, args []string, typed string) []string {
		words := feeds(ctx, args, typed)
		e, err := newBlocks(a)
		if err != nil {
			return words
		}
		list, err := e.Blocks(ctx)
		if err != nil {
			return words
		}
		for _, b := range list {
			if name := b.Target.String(); strings.HasPrefix(name, typed) && len(words) < 200 {
				words = append(words, name+"\t"+ui.Escape(b.Reason))
			}
		}
		return words
	}
}
