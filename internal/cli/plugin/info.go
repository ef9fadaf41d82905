package plugin

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/mobileops/mobileops/internal/plugin/catalogue"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/plugin/sandbox"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newInfo(a *app.App, reserved []string) *cobra.Command {
	var f fetching
	cmd := a.Command(app.Spec{
		Use:   "info NAME|FILE|DIR|URL|oci://REF",
		Short: "Show what a plugin is: its commands, permissions and options, and who signed it",
		Long: `Show what a plugin is: its commands, permissions and options, and who signed it. Of
a name it shows what is installed, else what comes with mobileops, else what an index
has, which is downloaded for that. Nothing is installed.`,
		Example: `
mobileops plugin info siem-integration-plugin
mobileops plugin info ./forwarder-1.2.0.plugin.tar.zst     # runbook: before it is installed anywhere
mobileops plugin info forwarder@ops --output json | jq '.permissions[].meaning'
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "done"},
			{Code: 1, Text: "there is no plugin of that name"},
			{Code: 5, Text: "the package is not to be trusted; what it says of itself is shown where it can be read"},
			{Code: 7, Text: "it is planned and not there yet, or no key is trusted here"},
		},
		Files:    []string{installedFiles, indexFiles, keyFiles, stateFile},
		Complete: completePackages(a, true),
		Run: func(ctx context.Context, args []string) error {
			f.spec = args[0]
			return runInfo(ctx, a, reserved, f)
		},
	})
	fs := cmd.Flags()
	fs.StringVar(&f.version, "version", "", "`VERSION` of a plugin that is given by its name, not what is installed or the newest")
	fs.BoolVar(&f.offline, "offline", false, "ask no server")
	app.CompleteValues(cmd, "version")
	return cmd
}

// infoDocument is the document of plugin info.
type infoDocument struct {
	Schema      string           `json:"schema"`
	Name        string           `json:"name"`
	Version     string           `json:"version"`
	Summary     string           `json:"summary"`
	State       string           `json:"state"`            // installed, available, planned
	Reason      string           `json:"reason,omitempty"` // of planned
	Description string           `json:"description,omitempty"`
	Licence     string           `json:"licence,omitempty"`
	Homepage    string           `json:"homepage,omitempty"`
	MinVersion  string           `json:"min_version,omitempty"`
	Source      string           `json:"source,omitempty"`
	Signed      *signedRecord    `json:"signed,omitempty"`  // absent: it is not proved
	Problem     string           `json:"problem,omitempty"` // why it is not to be trusted
	Installed   *installedRecord `json:"installed,omitempty"`
	Available   string           `json:"available,omitempty"` // version that comes with mobileops
	Commands    []commandRecord  `json:"commands"`
	Service     bool             `json:"service"`
	Hooks       []string         `json:"hooks"`
	Permissions []manifest.Line  `json:"permissions"`
	Gaps        []sandbox.Gap    `json:"gaps"`
	Options     []optionRecord   `json:"options"`
	Files       int              `json:"files"`
	Bytes       int64            `json:"bytes"`

	spec string // what plugin install calls it
}

// signedRecord is what a signature says.
type signedRecord struct {
	Key      string     `json:"key"`
	Bundled  bool       `json:"bundled"`
	Sequence uint64     `json:"sequence"`
	Expires  *time.Time `json:"expires,omitempty"` // absent of what is installed already
}

type commandRecord struct {
	Command string `json:"command"` // as it is typed
	Summary string `json:"summary"`
}

type optionRecord struct {
	Name     string `json:"name"` // "destinations[].address"
	Type     string `json:"type"`
	Required bool   `json:"required"`
	Secret   bool   `json:"secret"`
	Summary  string `json:"summary,omitempty"`
}

func runInfo(ctx context.Context, a *app.App, reserved []string, f fetching) error {
	e, c, err := newEngine(a, reserved)
	if err != nil {
		return err
	}
	if isName(f.spec) && f.version == "" {
		m, r, err := e.Manifest(ctx, f.spec)
		if err == nil {
			return infoInstalled(a, e, m, r)
		}
		if !errors.Is(err, plugin.ErrNone) {
			return err
		}
		if item, err := catalogue.Get(f.spec); err == nil {
			return infoItem(a, e, item)
		}
	}
	of, err := fetch(ctx, a, e, f)
	if err != nil {
		return err
	}
	defer of.Close()
	doc := describe(e, of.pkg.Manifest, stateAvailable)
	doc.Source, doc.spec = of.src.Text, f.spec
	var keys interface {
		Verifier([]byte) (*trust.Verifier, error)
	}
	if of.src.Pinned != nil {
		keys = trust.Pinned(*of.src.Pinned)
	} else if keys, err = trust.OpenKeys(c.Plugin.Keys); err != nil {
		return reword(err)
	}
	bad := reword(of.pkg.Verify(keys, time.Now()))
	if bad == nil {
		rel := of.pkg.Release
		doc.Signed = &signedRecord{Key: of.pkg.Key.ID(), Bundled: of.src.Pinned != nil, Sequence: rel.Sequence, Expires: &rel.Expires}
		bad = of.pkg.Manifest.CheckAgainst(reserved)
	}
	if bad != nil {
		doc.Problem = bad.Error()
	}
	if r, err := e.Get(ctx, doc.Name); err == nil {
		rec := newInstalledRecord(r)
		doc.Installed = &rec
	}
	return errors.Join(printInfo(a, doc), bad)
}

// infoInstalled shows what is installed.
func infoInstalled(a *app.App, e *plugin.Engine, m *manifest.Manifest, r *plugin.Record) error {
	doc := describe(e, m, stateInstalled)
	rec := newInstalledRecord(r)
	doc.Installed, doc.Source = &rec, r.Source
	doc.Signed = &signedRecord{Key: r.KeyID, Bundled: r.Bundled, Sequence: r.Sequence}
	if item, err := catalogue.Get(m.Name); err == nil && r.Bundled && item.Sequence > r.Sequence {
		doc.Available = item.Version
	}
	return printInfo(a, doc)
}

// infoItem shows what comes with mobileops, or will.
func infoItem(a *app.App, e *plugin.Engine, item catalogue.Item) error {
	if item.Planned != "" {
		doc := describe(e, &manifest.Manifest{Name: item.Name, Summary: item.Summary, Description: item.Description}, statePlanned)
		doc.Reason = item.Planned
		return errors.Join(printInfo(a, doc), failure.Silent(failure.NotReady))
	}
	doc := describe(e, item.Manifest, stateAvailable)
	doc.Source, doc.spec = inCatalogue, item.Name
	key, err := catalogue.Key()
	if err != nil {
		return err
	}
	doc.Signed = &signedRecord{Key: key.ID(), Bundled: true, Sequence: item.Sequence}
	return printInfo(a, doc)
}

func describe(e *plugin.Engine, m *manifest.Manifest, state string) *infoDocument {
	doc := &infoDocument{
		Schema: "mobileops.plugin.info/v1", Name: m.Name, Version: m.Version, Summary: m.Summary, State: state, Description: strings.TrimSpace(m.Description),
		Licence: m.Licence, Homepage: m.Homepage, MinVersion: m.MinVersion, Commands: []commandRecord{}, Service: m.Service != nil, Hooks: []string{},
		Permissions: []manifest.Line{}, Gaps: []sandbox.Gap{}, Options: flatten("", m.Config), Files: len(m.Files),
	}
	for _, c := range m.Commands {
		typed := strings.Join(strings.Fields("mobileops "+m.Name+" "+c.Name+" "+c.Usage), " ")
		doc.Commands = append(doc.Commands, commandRecord{typed, c.Summary})
	}
	for _, f := range m.Files {
		doc.Bytes += f.Size
	}
	if state == statePlanned {
		return doc
	}
	for _, line := range m.List() {
		doc.Permissions = append(doc.Permissions, line)
		if line.Kind == "hooks" {
			doc.Hooks = append(doc.Hooks, line.What)
		}
	}
	doc.Gaps = append(doc.Gaps, e.Gaps(m)...)
	return doc
}

// flatten lists options by their paths: "destinations[].address".
func flatten(where string, options manifest.Options) []optionRecord {
	list := []optionRecord{}
	for i := range options {
		o := &options[i]
		path := strings.TrimPrefix(where+"."+o.Name, ".")
		list = append(list, optionRecord{path, o.Type, o.Required, o.Secret, o.Summary})
		inner := o
		for inner.Type == manifest.TypeList && inner.Items != nil {
			inner, path = inner.Items, path+"[]"
		}
		list = append(list, flatten(path, inner.Properties)...)
	}
	return list
}

func printInfo(a *app.App, doc *infoDocument) error {
	s := a.Streams
	if s.Format != ui.Text {
		return s.Document(doc)
	}
	if s.Quiet {
		return nil
	}
	facts := []fact{{"Name", doc.Name}, {"Version", doc.Version}, {"Summary", doc.Summary}, {"State", doc.State}, {"Waits for", doc.Reason}}
	if r := doc.Installed; r != nil {
		installed := fmt.Sprintf("%s on %s by %s", r.Version, r.Installed.Local().Format("2006-01-02 15:04"), r.By)
		if !r.Enabled {
			installed += "; it is disabled"
		}
		facts = append(facts, fact{"Installed", installed}, fact{"Before", r.Previous})
	}
	if doc.Available != "" {
		facts = append(facts, fact{"Newer", doc.Available + " (mobileops plugin upgrade " + doc.Name + ")"})
	}
	if g := doc.Signed; g != nil {
		signed := signer(g.Bundled, g.Key) + ", sequence " + strconv.FormatUint(g.Sequence, 10)
		if g.Expires != nil {
			signed += ", may be installed until " + g.Expires.Format("2006-01-02")
		}
		facts = append(facts, fact{"Signed by", signed})
	} else if doc.Problem != "" {
		facts = append(facts, fact{"Signed by", "nobody who is trusted here; what follows is what it says of itself"})
	}
	facts = append(facts, fact{"Source", doc.Source}, fact{"Licence", doc.Licence}, fact{"Homepage", doc.Homepage}, fact{"Needs", needs(doc.MinVersion)})
	if doc.Files > 0 {
		facts = append(facts, fact{"Files", fmt.Sprintf("%s, %s", ui.Plural(int64(doc.Files), "file", "files"), ui.Bytes(doc.Bytes))})
	}
	if err := printFacts(s, facts); err != nil {
		return err
	}
	var b strings.Builder
	theme := s.Theme()
	if doc.Description != "" {
		fmt.Fprintf(&b, "\n%s", ui.Fold(escapeLines(doc.Description), max(s.Width, 80), ""))
	}
	heading := func(title string, n int) {
		if n > 0 {
			fmt.Fprintf(&b, "\n%s\n", theme.Heading(title))
		}
	}
	heading("Commands", len(doc.Commands))
	for _, c := range doc.Commands {
		fmt.Fprintf(&b, "  %s\n      %s\n", ui.Escape(c.Command), ui.Escape(c.Summary))
	}
	heading("What it may do", len(doc.Permissions))
	for _, p := range doc.Permissions {
		fmt.Fprintf(&b, "  %s\n", ui.Escape(p.Meaning))
	}
	writeGaps(&b, theme, doc.Gaps)
	heading("Options", len(doc.Options))
	for _, o := range doc.Options {
		words := []string{o.Type}
		if o.Secret {
			words[0] = "secret"
		}
		if o.Required {
			words = append(words, "required")
		}
		fmt.Fprintf(&b, "  %s (%s)  %s\n", ui.Escape(o.Name), strings.Join(words, ", "), ui.Escape(o.Summary))
	}
	if _, err := fmt.Fprint(s.Out, b.String()); err != nil {
		return err
	}
	if doc.State == stateAvailable && doc.Problem == "" && doc.Installed == nil {
		s.Notice("install it: mobileops plugin install %s", ui.Escape(doc.spec))
	}
	return nil
}

func needs(version string) string {
	if version == "" {
		return ""
	}
	return "mobileops " + version
}

// escapeLines escapes a text of several lines, line by line.
func escapeLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = ui.Escape(lines[i])
	}
	return strings.Join(lines, "\n")
}
