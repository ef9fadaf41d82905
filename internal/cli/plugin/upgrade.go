package plugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/mobileops/mobileops/internal/plugin/catalogue"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/plugin/source"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type upgradeOptions struct {
	consentOptions
	all     bool
	dryRun  bool
	offline bool
}

func newUpgrade(a *app.App, reserved []string) *cobra.Command {
	var o upgradeOptions
	cmd := a.Command(app.Spec{
		Use:   "upgrade NAME...|--all [--dry-run] [flags]",
		Short: "Install newer versions of plugins",
		Long: `Install newer versions of plugins: those that come with this mobileops, and for
others those of the indexes (plugin.indexes). What a new version may do beyond the
installed one must be accepted again, and is shown. A service that runs is started
anew, and the version before is kept for mobileops plugin rollback.

One that was installed from a file or a registry, and that no index has, is upgraded
by installing the new one.`,
		Example: `
mobileops plugin upgrade siem-integration-plugin
mobileops plugin upgrade --all --dry-run
0 5 * * 1 root mobileops plugin upgrade --all --quiet   # cron: what asks for no new permissions; mails what does
`,
		Args: func(_ *cobra.Command, args []string) error {
			if o.all == (len(args) > 0) {
				return app.UsageError("say which: names of plugins, or --all")
			}
			return nil
		},
		Statuses: append([]app.Status{
			{Code: 0, Text: "all are as new as they can be"},
			{Code: 1, Text: "with --dry-run: there is something newer; otherwise: no such plugin is installed"},
			{Code: 2, Text: "new permissions were not accepted; those plugins were left as they are"},
			{Code: 3, Text: "an index could not be reached, or a service did not start anew"},
			{Code: 7, Text: "this host cannot enforce what it may not do, or it needs a newer mobileops"},
			{Code: 8, Text: "another plugin command runs"},
		}, installStatuses...),
		Files:    []string{installedFiles, keyFiles, indexFiles, socketFile, stateFile},
		Audited:  true,
		Complete: completeInstalled(a),
		Run:      func(ctx context.Context, args []string) error { return runUpgrade(ctx, a, &o, reserved, args) },
	})
	o.addFlags(cmd)
	fs := cmd.Flags()
	fs.BoolVar(&o.all, "all", false, "all plugins that are installed")
	fs.BoolVar(&o.dryRun, "dry-run", false, "say what is newer, and install nothing")
	fs.BoolVar(&o.offline, "offline", false, "ask no server: only what comes with mobileops, and indexes as they were fetched last")
	return cmd
}

// upgradeDocument is the document of plugin upgrade.
type upgradeDocument struct {
	Schema  string           `json:"schema"`
	DryRun  bool             `json:"dry_run"`
	Plugins []upgradedRecord `json:"plugins"`
}

type upgradedRecord struct {
	Name      string            `json:"name"`
	From      string            `json:"from"`
	To        string            `json:"to,omitempty"`    // absent: nothing is newer
	Where     string            `json:"where,omitempty"` // "mobileops", or the name of an index
	Upgraded  bool              `json:"upgraded"`
	Restarted bool              `json:"restarted,omitempty"`
	Grew      []manifest.Change `json:"grew,omitempty"`
	Problem   string            `json:"problem,omitempty"`
}

// candidate is a version that is newer than what is installed.
type candidate struct {
	spec, version, where string
}

// newest finds newer versions.
type newest struct {
	items map[string]catalogue.Item
	hits  []source.Hit
}

// look looks at what there is. What is wrong with an index keeps nobody from
// upgrading from the others.
func look(ctx context.Context, a *app.App, e *plugin.Engine, c *config.Config, list []*plugin.Record, offline bool) (*newest, error) {
	n := &newest{items: map[string]catalogue.Item{}}
	items, err := catalogue.List()
	if err != nil {
		return nil, err
	}
	for _, i := range items {
		n.items[i.Name] = i
	}
	foreign := false
	for _, r := range list {
		foreign = foreign || !r.Bundled
	}
	if !foreign || len(c.Plugin.Indexes) == 0 {
		return n, nil
	}
	doc := searchDocument{}
	opts, err := sourceOptions(ctx, c, e)
	if err != nil {
		return nil, err
	}
	var errs []error
	if !offline {
		for _, st := range source.Refresh(ctx, opts) {
			if st.Err != nil {
				errs = append(errs, reword(st.Err))
			}
		}
		for i := range opts.Indexes {
			idx := &opts.Indexes[i]
			if idx.Seen, err = e.SeenIndex(ctx, idx.URL); err != nil {
				return nil, err
			}
		}
	}
	found, err := source.Search(ctx, doc.Query, opts)
	if err != nil {
		return nil, err
	}
	for _, st := range found.Indexes {
		if offline && st.Err != nil {
			errs = append(errs, reword(st.Err))
		}
	}
	n.hits = found.Hits
	return n, errors.Join(errs...)
}

// of returns what is newer than a plugin; nil: nothing.
func (n *newest) of(r *plugin.Record) (*candidate, error) {
	if r.Bundled {
		if i, ok := n.items[r.Name]; ok && i.Planned == "" && i.Sequence > r.Sequence {
			return &candidate{r.Name, i.Version, inCatalogue}, nil
		}
		return nil, nil
	}
	var best *candidate
	for _, h := range n.hits {
		if h.Name != r.Name || h.Sequence <= r.Sequence {
			continue
		}
		switch {
		case h.Needs != "":
			return nil, failure.Errorf(failure.NotReady, "%s %s needs mobileops %s", h.Name, h.Version, h.Needs)
		case best != nil:
			return nil, failure.Errorf(failure.Usage, "indexes %s and %s have a newer one; say which: mobileops plugin install %s@%s", best.where, h.Index, h.Name, h.Index)
		}
		best = &candidate{h.Name + "@" + h.Index, h.Version, h.Index}
	}
	return best, nil
}

func runUpgrade(ctx context.Context, a *app.App, o *upgradeOptions, reserved, args []string) error {
	if o.dryRun {
		a.OnlyLooked()
	}
	if err := a.Govern("plugin.keys"); err != nil {
		return err
	}
	e, c, err := newEngine(a, reserved)
	if err != nil {
		return err
	}
	list, err := chosen(ctx, e, args)
	if err != nil {
		return err
	}
	n, unreachable := look(ctx, a, e, c, list, o.offline)
	if n == nil {
		return unreachable
	}
	doc := upgradeDocument{Schema: "mobileops.plugin.upgrade/v1", DryRun: o.dryRun, Plugins: []upgradedRecord{}}
	var errs []error
	kind := failure.None
	if unreachable != nil {
		errs, kind = append(errs, unreachable), failure.Worse(failure.Failed, failure.KindOf(unreachable))
	}
	count := 0
	for _, r := range list {
		rec := upgradedRecord{Name: r.Name, From: r.Release.Version}
		err := upgradeOne(ctx, a, e, c, o, n, r, &rec)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			rec.Problem = err.Error()
			errs, kind = append(errs, fmt.Errorf("%s: %w", r.Name, err)), failure.Worse(kind, failure.KindOf(err))
		}
		if rec.Upgraded || o.dryRun && rec.To != "" {
			count++
		}
		doc.Plugins = append(doc.Plugins, rec)
	}
	a.SetResult("%d of %d plugins were upgraded", count, len(list))
	if count == 0 && len(errs) == 0 {
		a.OnlyLooked()
	}
	if a.Streams.Format != ui.Text {
		err = printMany(a.Streams, doc, doc.Plugins)
	} else {
		err = printUpgraded(a, &doc, count)
	}
	if err != nil {
		return err
	}
	if len(errs) > 0 {
		return failure.Wrap(kind, errors.Join(errs...))
	}
	if o.dryRun && count > 0 {
		return failure.Silent(failure.No)
	}
	return nil
}

// chosen returns the records of names, or all.
func chosen(ctx context.Context, e *plugin.Engine, names []string) ([]*plugin.Record, error) {
	if len(names) == 0 {
		return e.List(ctx)
	}
	var list []*plugin.Record
	for _, name := range names {
		r, err := e.Get(ctx, name)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}

// upgradeOne upgrades a plugin if there is something newer.
func upgradeOne(ctx context.Context, a *app.App, e *plugin.Engine, c *config.Config, o *upgradeOptions, n *newest, r *plugin.Record, rec *upgradedRecord) error {
	to, err := n.of(r)
	if to == nil || err != nil {
		return err
	}
	rec.To, rec.Where = to.version, to.where
	f := fetching{spec: to.spec, offline: o.offline}
	if to.where != inCatalogue {
		f.version = to.version
	}
	of, err := fetch(ctx, a, e, f)
	if err != nil {
		return err
	}
	defer of.Close()
	if o.dryRun {
		p, err := inspect(ctx, e, of)
		if err != nil {
			return err
		}
		rec.Grew = p.Grew
		return nil
	}
	doc, err := install(ctx, a, e, c, &o.consentOptions, of, false)
	if doc != nil {
		rec.Upgraded, rec.Restarted, rec.Grew = true, doc.Restarted, doc.Plan.Grew
	}
	return err
}

func printUpgraded(a *app.App, doc *upgradeDocument, count int) error {
	if a.Streams.Quiet && !(doc.DryRun && count > 0) {
		return nil
	}
	theme := a.Streams.Theme()
	table := a.Streams.NewTable(ui.Column{Title: "NAME"}, ui.Column{Title: "INSTALLED"}, ui.Column{Title: "NEWER"}, ui.Column{Title: "WHERE", Drop: 2}, ui.Column{Title: "WHAT", Min: 20})
	for i := range doc.Plugins {
		r := &doc.Plugins[i]
		what := ui.Cell{Text: "nothing newer", Style: theme.Faint}
		var grew []string
		for _, g := range r.Grew {
			grew = append(grew, changeText(g))
		}
		switch {
		case r.Problem != "":
			what = ui.Cell{Text: "left as it is", Style: theme.Bad}
		case r.Restarted:
			what = ui.Cell{Text: "upgraded, and its service started anew", Style: theme.Good}
		case r.Upgraded:
			what = ui.Cell{Text: "upgraded", Style: theme.Good}
		case r.To != "" && len(grew) > 0:
			what = ui.Cell{Text: "asks for more: " + strings.Join(grew, "; "), Style: theme.Warn}
		case r.To != "":
			what = ui.Cell{Text: "may do nothing more than before"}
		}
		if a.Streams.Quiet && r.To == "" {
			continue
		}
		table.Row(r.Name, r.From, cmp.Or(r.To, "-"), r.Where, what)
	}
	if err := table.Print(); err != nil {
		return err
	}
	if len(doc.Plugins) == 0 {
		a.Streams.Notice("no plugin is installed")
	}
	return nil
}
