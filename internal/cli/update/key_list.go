package update

import (
	"context"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newKeyList(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "list",
		Short: "List the keys that are trusted to sign packages",
		Long:  `List the keys that are trusted to sign packages, and what each may vouch for.`,
		Example: `
mobileops update key list
mobileops update key list --output json | jq -r '.keys[].id'
mobileops update key list --quiet || echo "nothing can be updated here"    # in a runbook
`,
		Statuses: []app.Status{
			{Code: 0, Text: "there are trusted keys"},
			{Code: 1, Text: "there are none"},
			{Code: 4, Text: "you may not read them"},
			{Code: 5, Text: "others than root can change them, or one of the files is no key"},
		},
		Files: []string{keysDir},
		Run:   func(context.Context, []string) error { return runKeyList(a) },
	})
}

func runKeyList(a *app.App) error {
	keys, err := openKeys(a)
	if err != nil {
		return err
	}
	records := []trustedKey{}
	for _, k := range keys.List() {
		records = append(records, newTrustedKey(k))
	}
	switch {
	case a.Streams.Format == ui.JSON:
		err = a.Streams.Document(trustedKeys{Schema: "mobileops.update.key.list/v1", Directory: keys.Dir(), Keys: records})
	case a.Streams.Format == ui.JSONL:
		lines := a.Streams.Lines()
		for _, r := range records {
			if err := lines.Print(r); err != nil {
				return err
			}
		}
		err = lines.Flush()
	case a.Streams.Quiet:
	case len(records) == 0:
		a.Streams.Notice("no key is trusted (trust one: mobileops update key add FILE.pub)")
	default:
		table := a.Streams.NewTable(ui.Column{Title: "ID"}, ui.Column{Title: "NAMES", Min: 8}, ui.Column{Title: "CHANNELS", Min: 8},
			ui.Column{Title: "KEY", Drop: 2}, ui.Column{Title: "FILE", Min: 12, Drop: 1})
		for _, r := range records {
			table.Row(r.ID, words(r.Names), words(r.Channels), r.Key, r.File)
		}
		err = table.Print()
	}
	if err == nil && len(records) == 0 {
		err = failure.Silent(failure.No)
	}
	return err
}

// words lists what a key is limited to.
func words(list []string) string {
	if len(list) == 0 {
		return "any"
	}
	return strings.Join(list, " ")
}
