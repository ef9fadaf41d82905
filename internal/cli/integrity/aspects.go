package integrity

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/integrity/facts/containers"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

const factsFile = "integrity/ID.facts in the state directory: what the host was beside its files"

// onlyFlag adds --only, completed with lists of aspects.
func onlyFlag(a *app.App, cmd *cobra.Command, only *string, usage string) {
	cmd.Flags().StringVar(only, "only", "", usage)
	a.CompleteFlag(cmd, "only", func(_ context.Context, _ []string, typed string) []string {
		typed = typed[:strings.LastIndexByte(typed, ',')+1]
		var words []string
		for _, aspect := range facts.Aspects() {
			if !slices.Contains(strings.Split(typed, ","), aspect) {
				words = append(words, typed+aspect)
			}
		}
		return words
	})
}

// parseOnly reads --only; nil when it was not given.
func parseOnly(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	var list []string
	for word := range strings.SplitSeq(s, ",") {
		word = strings.TrimSpace(word)
		if !slices.Contains(facts.Aspects(), word) {
			return nil, failure.Errorf(failure.Usage, "--only %q: write some of %s, separated by commas", s, strings.Join(facts.Aspects(), ", "))
		}
		if !slices.Contains(list, word) {
			list = append(list, word)
		}
	}
	slices.SortFunc(list, func(a, b string) int {
		return cmp.Compare(slices.Index(facts.Aspects(), a), slices.Index(facts.Aspects(), b))
	})
	return list, nil
}

// takenAspects are the aspects of a new baseline. When it covers what a policy
// says of the system that runs here, it is about the host; of some paths or of
// another tree, about their files.
func takenAspects(only string, c *config.Config, paths []string) ([]string, error) {
	list, err := parseOnly(only)
	if err != nil || list != nil {
		if c.Root != "/" && len(list) > 0 && !slices.Equal(list, []string{facts.Files}) {
			return nil, failure.Errorf(failure.Usage, "--only %s: with --root there are only files: what runs here is not what lies in %s", only, c.Root)
		}
		return list, err
	}
	if c.Root != "/" || len(paths) > 0 {
		return []string{facts.Files}, nil
	}
	return facts.Aspects(), nil
}

// collectors are how the host is asked, as configured.
func collectors(c *config.Config) (out engine.Collectors) {
	for _, r := range c.Integrity.Runtimes {
		name, socket, _ := strings.Cut(r, "=")
		out.Containers.Endpoints = append(out.Containers.Endpoints, containers.Endpoint{Name: name, Socket: socket})
	}
	out.Binaries.Jobs = c.Integrity.Jobs
	return out
}

// driftReport is one fact that differs.
type driftReport struct {
	ID         string            `json:"id"` // as integrity accept takes it
	Aspect     string            `json:"aspect"`
	Kind       string            `json:"kind"`
	Key        string            `json:"key"`
	Change     string            `json:"change"` // added, removed or changed
	Severity   string            `json:"severity"`
	Attributes []facts.Attribute `json:"attributes"` // of a changed fact
	Now        map[string]string `json:"now,omitempty"`
	Before     map[string]string `json:"before,omitempty"`
}

func driftReports(list []facts.Change) []driftReport {
	out := make([]driftReport, 0, len(list))
	for i := range list {
		c := &list[i]
		f := c.Fact()
		d := driftReport{ID: c.ID(), Aspect: f.Aspect, Kind: f.Kind, Key: f.Key, Change: string(c.Kind), Severity: c.Severity.String(), Attributes: c.Attributes}
		if d.Attributes == nil {
			d.Attributes = []facts.Attribute{}
		}
		if c.New != nil {
			d.Now = c.New.Attributes
		}
		if c.Old != nil {
			d.Before = c.Old.Attributes
		}
		out = append(out, d)
	}
	return out
}

// printDrift prints what differs beside files. Its ids are what integrity
// accept takes.
func printDrift(a *app.App, list []facts.Change) error {
	theme := a.Streams.Theme()
	table := a.Streams.NewTable(ui.Column{Title: "SEVERITY"}, ui.Column{Title: "CHANGE"},
		ui.Column{Title: "WHERE", Min: 20, KeepEnd: true}, ui.Column{Title: "WHAT", Min: 16, Drop: 1})
	for i := range list {
		c := &list[i]
		table.Row(
			ui.Cell{Text: c.Severity.String(), Style: func(s string) string { return theme.Severity(int(c.Severity), s) }},
			string(c.Kind), c.ID(), drifted(c))
	}
	if err := table.Print(); err != nil || table.Len() == 0 {
		return err
	}
	_, err := fmt.Fprintln(a.Streams.Out)
	return err
}

// drifted says in a few words what a fact is or how it changed.
func drifted(c *facts.Change) string {
	if c.Kind != facts.Changed {
		return about(c.Fact())
	}
	words := make([]string, 0, len(c.Attributes))
	for _, at := range c.Attributes {
		if at.Name == "digest" || len(at.Old)+len(at.New) > 200 {
			words = append(words, at.Name)
			continue
		}
		words = append(words, at.Name+" "+at.Old+" to "+at.New)
	}
	return strings.Join(words, ", ")
}

// about says in a few words what a fact is.
func about(f *facts.Fact) string {
	var words []string
	for _, name := range []string{facts.Risks, "special", "object", "type", "program", "script", "user", "unit", "image", "rules", "policy", "gateway", "interface", "rule",
		"addresses", "nameservers", "hosts", "names", "value", "version", "package", "content"} {
		if v := f.Attributes[name]; v != "" && v != facts.None && v != "any" {
			words = append(words, name+" "+v)
		}
	}
	return strings.Join(words, ", ")
}

// printUnknown says what nobody knows, so that nobody takes it for clean.
func printUnknown(w io.Writer, theme ui.Theme, list []engine.Unknown) {
	for _, u := range list {
		fmt.Fprintf(w, "%s: %s: %s.\n", theme.Warn("Not known"), ui.Escape(u.Source), ui.Escape(u.Reason))
	}
}

// comparedAspects names what was compared beside files.
func comparedAspects(r *engine.Report) string {
	var list []string
	for _, aspect := range r.Aspects {
		if aspect != facts.Files {
			list = append(list, aspect)
		}
	}
	return strings.Join(list, ", ")
}
