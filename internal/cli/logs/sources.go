package logs

import (
	"context"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/logs/format"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newSources(a *app.App) *cobra.Command {
	var formats bool
	cmd := a.Command(app.Spec{
		Use:   "sources [--formats]",
		Short: "List what mobileops logs collect reads on this host, and why",
		Long: `List what mobileops logs collect reads on this host, and why.

Sources are found where hosts usually have them; logs.include, logs.exclude and
logs.formats in the configuration add, leave out and say in which format files
are. Without that, the format of each file is told by its content.`,
		Example: `
mobileops logs sources
mobileops logs sources --root /mnt/image
mobileops logs sources --formats                         # the formats that are known
mobileops logs sources --output json | jq -r '.sources[].name'
`,
		Statuses: []app.Status{{Code: 0, Text: "there are sources"}, {Code: 1, Text: "there are none"}},
		Files:    []string{"/var/log, /run/log/journal, /var/lib/docker, /var/log/pods: looked at"},
		Run: func(context.Context, []string) error {
			if formats {
				return runFormats(a)
			}
			return runSources(a)
		},
	})
	cmd.Flags().BoolVar(&formats, "formats", false, "list the formats of records instead")
	return cmd
}

// sourceRecord is a source in JSON.
type sourceRecord struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"`
	Include []string `json:"include"`
	Exclude []string `json:"exclude,omitempty"`
	Format  string   `json:"format,omitempty"` // empty: by content
	Zone    string   `json:"zone,omitempty"`   // empty: that of the host
	Why     string   `json:"why"`
}

func runSources(a *app.App) error {
	c, err := a.Config()
	if err != nil {
		return err
	}
	list, err := specs(c)
	if err != nil {
		return err
	}
	records := []sourceRecord{}
	for _, s := range list {
		records = append(records, sourceRecord{s.Name, string(s.Kind), s.Include, s.Exclude, s.Format, s.Zone, s.Why})
	}
	switch a.Streams.Format {
	case ui.JSON:
		err = a.Streams.Document(struct {
			Schema  string         `json:"schema"`
			Sources []sourceRecord `json:"sources"`
		}{"mobileops.logs.sources/v1", records})
	case ui.JSONL:
		err = printLines(a.Streams, records)
	default:
		table := a.Streams.NewTable(ui.Column{Title: "SOURCE"}, ui.Column{Title: "KIND"}, ui.Column{Title: "READS", Min: 20},
			ui.Column{Title: "FORMAT", Drop: 2}, ui.Column{Title: "WHY", Min: 16, Drop: 1})
		for _, r := range records {
			format := r.Format
			if format == "" && r.Kind == "file" {
				format = "by content"
			}
			table.Row(r.Name, r.Kind, strings.Join(r.Include, " "), format, r.Why)
		}
		err = table.Print()
	}
	return anyOf(len(records), err)
}

func runFormats(a *app.App) error {
	set, err := format.Builtin()
	if err != nil {
		return err
	}
	type formatRecord struct {
		Name        string `json:"name"`
		Description string `json:"description"`
	}
	records := []formatRecord{}
	for _, name := range set.Names() {
		f, _ := set.Lookup(name)
		records = append(records, formatRecord{name, f.Description()})
	}
	switch a.Streams.Format {
	case ui.JSON:
		return a.Streams.Document(struct {
			Schema  string         `json:"schema"`
			Formats []formatRecord `json:"formats"`
		}{"mobileops.logs.formats/v1", records})
	case ui.JSONL:
		return printLines(a.Streams, records)
	}
	table := a.Streams.NewTable(ui.Column{Title: "FORMAT"}, ui.Column{Title: "WHAT IT IS", Min: 20})
	for _, r := range records {
		table.Row(r.Name, r.Description)
	}
	return table.Print()
}
