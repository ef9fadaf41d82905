package plugin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/mobileops/mobileops/internal/plugin/catalogue"
	"github.com/mobileops/mobileops/internal/plugin/source"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// States of what a search finds.
const (
	stateInstalled = "installed"
	stateAvailable = "available"
	statePlanned   = "planned" // in the catalogue, and not there yet
	stateTooNew    = "too new" // needs a newer mobileops
)

// inCatalogue is where a hit is that comes with mobileops.
const inCatalogue = "mobileops"

func newSearch(a *app.App) *cobra.Command {
	var refresh bool
	cmd := a.Command(app.Spec{
		Use:   "search [WORD]... [--refresh]",
		Short: "Search for plugins: those that come with mobileops, and those of indexes",
		Long: `Search for plugins: those that come with mobileops, and those of indexes
(plugin.indexes) as they were fetched last. All words must be in the name or the
summary. No server is asked unless --refresh says so.`,
		Example: `
mobileops plugin search
mobileops plugin search siem
mobileops plugin search scanner --refresh
10 4 * * * root mobileops plugin search --refresh --quiet >/dev/null   # cron: indexes are there when the network is not
`,
		Args: cobra.ArbitraryArgs,
		Statuses: []app.Status{
			{Code: 0, Text: "something was found"},
			{Code: 1, Text: "nothing was found"},
			{Code: 5, Text: "an index is not to be trusted or has expired; the others are listed"},
			{Code: 6, Text: "an index could not be reached, or was never fetched; the others are listed"},
		},
		Files: []string{indexFiles, keyFiles, stateFile},
		Run:   func(ctx context.Context, args []string) error { return runSearch(ctx, a, args, refresh) },
		Complete: func(_ context.Context, args []string, _ string) []string {
			return names(offered(args))
		},
	})
	cmd.Flags().BoolVar(&refresh, "refresh", false, "ask the indexes anew")
	return cmd
}

// searchDocument is the document of plugin search.
type searchDocument struct {
	Schema  string        `json:"schema"`
	Query   string        `json:"query"`
	Plugins []hitRecord   `json:"plugins"`
	Indexes []indexRecord `json:"indexes"`
}

type hitRecord struct {
	Name      string `json:"name"`
	Version   string `json:"version"` // "" of one that is planned
	Summary   string `json:"summary"`
	State     string `json:"state"`
	Where     string `json:"where"`               // "mobileops", or the name of an index
	Reason    string `json:"reason,omitempty"`    // why it cannot be installed
	Installed string `json:"installed,omitempty"` // version
}

type indexRecord struct {
	Name    string     `json:"name"`
	URL     string     `json:"url"`
	Serial  uint64     `json:"serial"`
	Fetched *time.Time `json:"fetched,omitempty"`
	Expires *time.Time `json:"expires,omitempty"`
	Plugins int        `json:"plugins"`
	Problem string     `json:"problem,omitempty"`
}

func runSearch(ctx context.Context, a *app.App, words []string, refresh bool) error {
	e, c, err := newEngine(a, nil)
	if err != nil {
		return err
	}
	doc := searchDocument{Schema: "mobileops.plugin.search/v1", Query: strings.Join(words, " "), Plugins: []hitRecord{}, Indexes: []indexRecord{}}
	installed := map[string]string{}
	if list, err := e.List(ctx); err != nil { // what there is can be said nevertheless
		a.Streams.Notice("mobileops: what is installed is not known: %s", ui.Escape(err.Error()))
	} else {
		for _, r := range list {
			installed[r.Name] = r.Release.Version
		}
	}
	items, err := catalogue.List()
	if err != nil {
		return err
	}
	for _, i := range items {
		if matches(&i, words) {
			doc.add(hitRecord{Name: i.Name, Version: i.Version, Summary: i.Summary, State: stateAvailable, Where: inCatalogue, Reason: i.Planned}, installed)
		}
	}
	kind := failure.None
	if len(c.Plugin.Indexes) > 0 {
		opts, err := sourceOptions(ctx, c, e)
		if err != nil {
			return err
		}
		if kind, err = searchIndexes(ctx, a, e, opts, &doc, installed, refresh); err != nil {
			return err
		}
	}
	if a.Streams.Format != ui.Text {
		err = printMany(a.Streams, doc, doc.Plugins)
	} else {
		err = printSearch(a, &doc, len(installed) == len(doc.Plugins))
	}
	if err == nil && len(doc.Plugins) == 0 {
		kind = failure.Worse(kind, failure.No)
	}
	return cmp.Or(err, failure.Silent(kind))
}

// add adds a hit with its state.
func (d *searchDocument) add(h hitRecord, installed map[string]string) {
	switch version, here := installed[h.Name]; {
	case here:
		h.State, h.Installed = stateInstalled, version
	case h.Where == inCatalogue && h.Reason != "":
		h.State = statePlanned
	case h.Reason != "":
		h.State = stateTooNew
	}
	d.Plugins = append(d.Plugins, h)
}

// matches says whether all words are in the name or the summary of an item.
func matches(i *catalogue.Item, words []string) bool {
	text := strings.ToLower(i.Name + " " + i.Summary)
	return !slices.ContainsFunc(strings.Fields(strings.ToLower(strings.Join(words, " "))), func(w string) bool { return !strings.Contains(text, w) })
}

// searchIndexes adds what is in the indexes, and says what is wrong with them.
func searchIndexes(ctx context.Context, a *app.App, e *plugin.Engine, opts source.Options, doc *searchDocument, installed map[string]string, refresh bool) (failure.Kind, error) {
	kind := failure.None
	problems := map[string]error{}
	if refresh {
		for _, st := range source.Refresh(ctx, opts) {
			if st.Err != nil {
				problems[st.Name] = st.Err
			}
		}
		if err := ctx.Err(); err != nil {
			return kind, err
		}
		for i := range opts.Indexes { // what was accepted just now
			idx := &opts.Indexes[i]
			var err error
			if idx.Seen, err = e.SeenIndex(ctx, idx.URL); err != nil {
				return kind, err
			}
		}
	}
	found, err := source.Search(ctx, doc.Query, opts)
	if err != nil {
		return kind, err
	}
	now := time.Now()
	for _, st := range found.Indexes {
		if problems[st.Name] == nil {
			problems[st.Name] = st.Err
		}
		problems[st.Name] = reword(problems[st.Name])
		rec := indexRecord{Name: st.Name, URL: st.URL, Serial: st.Serial, Plugins: st.Plugins}
		if st.Serial > 0 {
			rec.Fetched, rec.Expires = &st.Fetched, &st.Expires
		}
		switch problem := problems[st.Name]; {
		case problem != nil:
			rec.Problem = problem.Error()
			k := failure.Incomplete
			if failure.KindOf(problem) == failure.Untrustworthy {
				k = failure.Untrustworthy
			}
			kind = failure.Worse(kind, k)
			a.Streams.Notice("mobileops: %s", ui.Escape(problem.Error()))
			if st.Serial > 0 {
				a.Streams.Notice("index %s as it was %s", st.Name, ui.Ago(st.Fetched, now))
			}
		case !a.Streams.Quiet && a.Streams.Format == ui.Text:
			a.Streams.Notice("index %s: %s, fetched %s", st.Name, ui.Plural(int64(st.Plugins), "plugin", "plugins"), ui.Ago(st.Fetched, now))
		}
		doc.Indexes = append(doc.Indexes, rec)
	}
	for _, h := range found.Hits {
		reason := ""
		if h.Needs != "" {
			reason = "needs mobileops " + h.Needs
		}
		doc.add(hitRecord{Name: h.Name, Version: h.Version, Summary: h.Summary, State: stateAvailable, Where: h.Index, Reason: reason}, installed)
	}
	return kind, nil
}

func printSearch(a *app.App, doc *searchDocument, nothingNew bool) error {
	theme := a.Streams.Theme()
	table := a.Streams.NewTable(ui.Column{Title: "NAME"}, ui.Column{Title: "VERSION"}, ui.Column{Title: "STATE"}, ui.Column{Title: "WHERE", Drop: 1}, ui.Column{Title: "SUMMARY", Min: 20})
	reasons := 0
	for _, h := range doc.Plugins {
		state := ui.Cell{Text: h.State}
		switch h.State {
		case stateInstalled:
			state.Style = theme.Good
		case statePlanned, stateTooNew:
			state.Style = theme.Faint
			reasons++
		}
		version := h.Version
		if h.Installed != "" && h.Installed != h.Version {
			version += " (" + h.Installed + " here)"
		}
		table.Row(h.Name, version, state, h.Where, h.Summary)
	}
	if err := table.Print(); err != nil {
		return err
	}
	switch {
	case a.Streams.Quiet:
	case len(doc.Plugins) == 0:
		a.Streams.Notice("nothing has %s", ui.Escape(fmt.Sprintf("%q", doc.Query)))
	case reasons < len(doc.Plugins) && !nothingNew:
		a.Streams.Notice("more about one: mobileops plugin info NAME; install it: mobileops plugin install NAME")
	}
	return nil
}
