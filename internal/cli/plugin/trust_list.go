package plugin

import (
	"context"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newTrustList(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "list",
		Short: "List the keys that are trusted to sign plugins",
		Long: `List the keys that are trusted to sign plugins, and what each may vouch for. That of
the plugins that come with mobileops is part of it, and is not among them.`,
		Example: `
mobileops plugin trust list
mobileops plugin trust list --output json | jq -r '.keys[].id'
mobileops plugin trust list --quiet || echo "only what comes with mobileops can be installed"   # in a runbook
`,
		Statuses: []app.Status{
			{Code: 0, Text: "there are trusted keys"},
			{Code: 1, Text: "there are none"},
			{Code: 4, Text: "you may not read them"},
			{Code: 5, Text: "others than root can change them, or one of the files is no key"},
		},
		Files: []string{keyFiles},
		Run:   func(context.Context, []string) error { return runTrustList(a) },
	})
}

func runTrustList(a *app.App) error {
	keys, err := openKeys(a)
	if err != nil {
		return err
	}
	doc := trustedKeys{Schema: "mobileops.plugin.trust.list/v1", Directory: keys.Dir(), Keys: []trustedKey{}}
	for _, k := range keys.List() {
		doc.Keys = append(doc.Keys, newTrustedKey(k))
	}
	switch {
	case a.Streams.Format != ui.Text:
		err = printMany(a.Streams, doc, doc.Keys)
	case a.Streams.Quiet:
	case len(doc.Keys) == 0:
		a.Streams.Notice("no key is trusted (trust one: mobileops plugin trust add FILE.pub)")
	default:
		table := a.Streams.NewTable(ui.Column{Title: "ID"}, ui.Column{Title: "NAMES", Min: 8}, ui.Column{Title: "KEY", Drop: 2}, ui.Column{Title: "FILE", Min: 12, Drop: 1})
		for _, k := range doc.Keys {
			names := "any"
			if len(k.Names) > 0 {
				names = strings.Join(k.Names, " ")
			}
			table.Row(k.ID, names, k.Key, k.File)
		}
		err = table.Print()
	}
	if err == nil && len(doc.Keys) == 0 {
		err = failure.Silent(failure.No)
	}
	return err
}
