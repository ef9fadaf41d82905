package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/mobileops/mobileops/internal/plugin/catalogue"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

func newConfig(a *app.App) *cobra.Command {
	var example bool
	cmd := a.Command(app.Spec{
		Use:   "config NAME [--example]",
		Short: "Show what a plugin is configured to, and whether that is valid",
		Long: `Show what a plugin is configured to, with defaults and without secrets, and
whether that is valid. What is wrong is said with file and line.

With --example it prints a file to start from, with every option, what it takes and
its default, also for plugins of the catalogue that are not installed.`,
		Example: `
mobileops plugin config siem-integration-plugin
mobileops plugin config siem-integration-plugin --example >/etc/mobileops/plugins/siem-integration-plugin.yaml
mobileops plugin config siem-integration-plugin --quiet && mobileops plugin restart siem-integration-plugin   # runbook: after a change
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the configuration is valid"},
			{Code: 1, Text: "no such plugin is installed"},
			{Code: 2, Text: "the configuration is not valid"},
			{Code: 5, Text: "others can change the configuration, or the plugin is not what was installed"},
			{Code: 7, Text: "it is not configured, is planned, or has no options"},
		},
		Files:    []string{configFiles, installedFiles, stateFile},
		Complete: completePackages(a, true),
		Run:      func(ctx context.Context, args []string) error { return runConfig(ctx, a, args[0], example) },
	})
	cmd.Flags().BoolVar(&example, "example", false, "print a configuration to start from")
	return cmd
}

// configDocument is the document of plugin config.
type configDocument struct {
	Schema  string          `json:"schema"`
	Name    string          `json:"name"`
	Version string          `json:"version"`
	File    string          `json:"file"`
	FileB64 []byte          `json:"file_b64,omitempty"` // present when the path is not valid UTF-8
	Exists  bool            `json:"exists"`             // without the file there are defaults alone
	Valid   bool            `json:"valid"`
	Problem string          `json:"problem,omitempty"`
	Values  json.RawMessage `json:"values,omitempty"` // without secrets
	Secrets []secretRecord  `json:"secrets"`
	Example string          `json:"example,omitempty"` // with --example
}

type secretRecord struct {
	Name string `json:"name"`
	File string `json:"file,omitempty"` // that it is in; absent: in the configuration itself
}

func runConfig(ctx context.Context, a *app.App, name string, example bool) error {
	e, _, err := newEngine(a, nil)
	if err != nil {
		return err
	}
	m, _, err := e.Manifest(ctx, name)
	if example && errors.Is(err, plugin.ErrNone) {
		item, missing := catalogue.Get(name)
		switch {
		case missing == nil && item.Planned != "":
			return failure.Errorf(failure.NotReady, "%s is planned and not there yet: %s", name, item.Planned)
		case missing == nil:
			m, err = item.Manifest, nil
		}
	}
	if err != nil {
		return err
	}
	doc := configDocument{Schema: "mobileops.plugin.config/v1", Name: name, Version: m.Version, File: e.ConfigFile(name), Secrets: []secretRecord{}}
	doc.FileB64 = lossless(doc.File)
	if _, err := os.Lstat(doc.File); !errors.Is(err, fs.ErrNotExist) {
		doc.Exists = true
	}
	if example {
		return printExample(a, m, &doc)
	}
	values, _, invalid := e.Configuration(m)
	if invalid == nil {
		doc.Valid, doc.Values = true, values.JSON()
		for _, s := range values.Secrets() {
			secret, _ := values.Secret(s)
			doc.Secrets = append(doc.Secrets, secretRecord{s, secret.File})
		}
	} else {
		doc.Problem = invalid.Error()
	}
	if a.Streams.Format != ui.Text {
		err = a.Streams.Document(doc)
	} else if invalid == nil && !a.Streams.Quiet {
		err = printConfig(a, m, &doc)
	}
	return errors.Join(err, invalid)
}

func printExample(a *app.App, m *manifest.Manifest, doc *configDocument) error {
	if len(m.Config) == 0 {
		return failure.Errorf(failure.NotReady, "%s has no options: there is nothing to configure", m.Name)
	}
	head := fmt.Sprintf("# Configuration of %s %s: %s\n\n", m.Name, m.Version, doc.File)
	doc.Example = head + string(m.Config.Example())
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(doc)
	}
	if _, err := fmt.Fprint(a.Streams.Out, doc.Example); err != nil {
		return err
	}
	if !a.Streams.OutTTY {
		return nil
	}
	a.Streams.Notice("put it where it counts: mkdir -p %s && mobileops plugin config %s --example >%s", ui.Escape(filepath.Dir(doc.File)), m.Name, ui.Escape(doc.File))
	return nil
}

func printConfig(a *app.App, m *manifest.Manifest, doc *configDocument) error {
	from := doc.File
	if !doc.Exists {
		from += " is not there: defaults"
	}
	if err := say(a.Streams, "# %s %s: %s", m.Name, m.Version, ui.Escape(from)); err != nil {
		return err
	}
	text, err := asYAML(doc.Values)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprint(a.Streams.Out, text); err != nil {
		return err
	}
	for _, s := range doc.Secrets {
		where := "is set"
		if s.File != "" {
			where = "is in " + s.File
		}
		if _, err := fmt.Fprintf(a.Streams.Out, "# secret %s %s\n", s.Name, ui.Escape(where)); err != nil {
			return err
		}
	}
	return nil
}

// asYAML writes JSON as people read it, in the same order.
func asYAML(data []byte) (string, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil { // JSON is YAML
		return "", err
	}
	var plain func(n *yaml.Node)
	plain = func(n *yaml.Node) {
		n.Style = 0
		for _, c := range n.Content {
			plain(c)
		}
	}
	plain(&doc)
	if len(doc.Content) == 0 || len(doc.Content[0].Content) == 0 {
		return "", nil
	}
	out, err := yaml.Marshal(&doc)
	return string(out), err
}
