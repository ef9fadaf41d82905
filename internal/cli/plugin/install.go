package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type installOptions struct {
	consentOptions
	version  string
	offline  bool
	disabled bool
}

// installStatuses are those of verbs that install a package.
var installStatuses = []app.Status{
	{Code: 4, Text: "you may not install here, or it was not accepted"},
	{Code: 5, Text: "the package is not to be trusted: no signature, a wrong key, expired, older, or not what was signed. Nothing was installed"},
}

func newInstall(a *app.App, reserved []string) *cobra.Command {
	var o installOptions
	cmd := a.Command(app.Spec{
		Use:   "install NAME|FILE|DIR|URL|oci://REF [flags]",
		Short: "Install a plugin, after saying what it may do",
		Long: `Install a plugin, after saying what it may do. NAME is one that comes with
mobileops, for which no network is needed, or one of an index (plugin.indexes);
NAME@INDEX takes that index. A file ends with .plugin.tar.zst or .plugin.tar.gz, or
has a slash before its name, as a directory has.

Everything is proved before anything is installed: the key that signed it must be
trusted here (mobileops plugin trust), and every file must be what was signed. What
the plugin may do, and what of that this host cannot enforce, is asked at a
terminal. Elsewhere --accept-permissions and --accept-unenforced answer.

Installing a newer version is what upgrade does. The one before is kept for
mobileops plugin rollback.`,
		Example: `
mobileops plugin install siem-integration-plugin
mobileops plugin install ./forwarder-1.2.0.plugin.tar.zst
mobileops plugin install forwarder@ops --version 1.2.0
mobileops plugin install oci://registry.example.org/plugins/forwarder:1.2.0
mobileops plugin install forwarder --accept-permissions --quiet || test $? = 8   # runbook: on every host, also where it is there
`,
		Args: cobra.ExactArgs(1),
		Statuses: append([]app.Status{
			{Code: 0, Text: "it is installed"},
			{Code: 1, Text: "there is no plugin of that name"},
			{Code: 2, Text: "its permissions were not accepted, or a flag does not fit; nothing was done"},
			{Code: 7, Text: "it is planned and not there yet, no key is trusted here, it needs a newer mobileops, or this host cannot enforce what it may not do"},
			{Code: 8, Text: "it is installed already, or another plugin command runs"},
		}, installStatuses...),
		Files:    []string{installedFiles, configFiles, keyFiles, indexFiles, stateFile},
		Audited:  true,
		Complete: completePackages(a, false),
		Run:      func(ctx context.Context, args []string) error { return runInstall(ctx, a, &o, reserved, args[0]) },
	})
	o.addFlags(cmd)
	fs := cmd.Flags()
	fs.BoolVar(&o.downgrade, "allow-downgrade", false, "install it although a newer one was installed here")
	fs.StringVar(&o.version, "version", "", "`VERSION` of a plugin that is given by its name, not the newest")
	fs.BoolVar(&o.offline, "offline", false, "ask no server: only what comes with mobileops, files, and indexes as they were fetched last")
	fs.BoolVar(&o.disabled, "disabled", false, "leave it disabled: none of its commands and hooks runs until mobileops plugin enable")
	app.CompleteValues(cmd, "version")
	return cmd
}

func runInstall(ctx context.Context, a *app.App, o *installOptions, reserved []string, spec string) error {
	if err := a.Govern("plugin.keys"); err != nil {
		return err
	}
	e, c, err := newEngine(a, reserved)
	if err != nil {
		return err
	}
	of, err := fetch(ctx, a, e, fetching{spec: spec, version: o.version, offline: o.offline})
	if err != nil {
		return err
	}
	defer of.Close()
	if o.version != "" && of.pkg.Manifest.Version != o.version {
		return app.UsageError("--version %s is for the name of a plugin, and this is %s", o.version, of.pkg.Manifest.Version)
	}
	doc, err := install(ctx, a, e, c, &o.consentOptions, of, o.disabled)
	if doc == nil {
		return err
	}
	doc.Schema = "mobileops.plugin.install/v1"
	a.SetResult("%s %s is installed, signed by %s", doc.Plugin.Name, doc.Plugin.Version, doc.Plugin.Key)
	return errors.Join(printChanged(a, doc, "installed"), err)
}

// install installs an offer that somebody agrees to. With a document it is
// installed, though something after it may have failed.
func install(ctx context.Context, a *app.App, e *plugin.Engine, c *config.Config, o *consentOptions, of *offer, disabled bool) (*changed, error) {
	p, err := inspect(ctx, e, of)
	if err != nil {
		return nil, err
	}
	consent, err := o.agree(ctx, a, p)
	if err != nil {
		return nil, err
	}
	consent.Disabled = disabled
	r, err := e.Install(ctx, p, consent)
	if r == nil {
		return nil, err
	}
	plan := newPlanRecord(p)
	doc := &changed{Plugin: newInstalledRecord(r), Plan: &plan}
	if p.Installed != nil {
		doc.From = p.Installed.Release.Version
	}
	restarted, failed := renew(ctx, c, r.Name)
	doc.Restarted = restarted
	if failed != nil {
		failed = failure.Hint(fmt.Errorf("%s %s is installed, and its service did not start anew: %w", r.Name, r.Release.Version, failed), "see why: mobileops plugin logs "+r.Name)
		if p.Installed != nil {
			failed = failure.Hint(failed, "go back: mobileops plugin rollback "+r.Name)
		}
	}
	if p.Installed == nil {
		doc.Next = next(e, p.Manifest, r)
		if client, err := dial(ctx, c); client == nil && err == nil && p.Manifest.Service == nil && supervised(p.Manifest) {
			doc.Next = append(doc.Next, "its hooks are called while a supervisor runs, and none does ("+beginSupervisor+")")
		}
	}
	return doc, errors.Join(err, failed)
}

// next says what somebody does with a plugin that was just installed.
func next(e *plugin.Engine, m *manifest.Manifest, r *plugin.Record) (list []string) {
	if !r.Enabled {
		list = append(list, "enable it: mobileops plugin enable "+m.Name)
	}
	if len(m.Config) > 0 {
		if _, _, err := e.Configuration(m); err != nil {
			list = append(list, "configure it: "+e.ConfigFile(m.Name)+" (a template: mobileops plugin config "+m.Name+" --example)")
		} else if _, err := os.Lstat(e.ConfigFile(m.Name)); err != nil {
			list = append(list, "configure it where its defaults do not fit: "+e.ConfigFile(m.Name)+" (a template: mobileops plugin config "+m.Name+" --example)")
		}
	}
	if m.Service != nil {
		list = append(list, "start it: mobileops plugin start "+m.Name)
	}
	if len(m.Commands) > 0 {
		list = append(list, "see its commands: mobileops "+m.Name+" --help")
	}
	return list
}

// printChanged says what became of a change.
func printChanged(a *app.App, doc *changed, done string) error {
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(doc)
	}
	if a.Streams.Quiet {
		return nil
	}
	r := &doc.Plugin
	text := fmt.Sprintf("%s %s: %s", r.Name, r.Version, done)
	if doc.From != "" && doc.From != r.Version {
		text += fmt.Sprintf(", before it %s", doc.From)
	}
	switch {
	case doc.Restarted:
		text += "; its service was started anew"
	case doc.Stopped:
		text += "; its service was stopped"
	}
	if _, err := fmt.Fprintln(a.Streams.Out, text); err != nil {
		return err
	}
	for _, n := range doc.Next {
		a.Streams.Notice("%s", ui.Escape(n))
	}
	return nil
}
