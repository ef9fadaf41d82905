package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/plugin/pack"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newVerify(a *app.App, reserved []string) *cobra.Command {
	var conform bool
	cmd := a.Command(app.Spec{
		Use:   "verify [NAME|FILE|DIR]... [--conformance]",
		Short: "Prove that plugins are what was signed, every file of them",
		Long: `Prove that plugins are what was signed, every file of them, by keys that are trusted
now. Without a name that is done for all that are installed, together with their
configuration. A file or directory is a package, which is proved as before it is
installed. The same is done whenever a plugin is started.

With --conformance the program of each is also held against the protocol
(docs/plugins.md): slow answers, refusals, kill -9 of either side. That starts it with
your rights and not in its sandbox, so do it as a user who owns nothing else.`,
		Example: `
mobileops plugin verify
mobileops plugin verify ./forwarder-1.2.0.plugin.tar.zst --conformance
20 4 * * * root mobileops plugin verify --quiet   # cron: mails what was changed after it was installed
`,
		Args: cobra.ArbitraryArgs,
		Statuses: []app.Status{
			{Code: 0, Text: "all are what was signed"},
			{Code: 1, Text: "no such plugin is installed, or one does not conform to the protocol"},
			{Code: 2, Text: "a configuration is not valid"},
			{Code: 5, Text: "one is not what was signed, or its key is not trusted any more"},
			{Code: 7, Text: "no key is trusted here, or one is not configured"},
		},
		Files:   []string{installedFiles, keyFiles, configFiles, stateFile},
		Audited: true,
		Complete: func(ctx context.Context, args []string, typed string) []string {
			if looksLikePath(typed) {
				return app.Files(packageExtensions()...)
			}
			return completeInstalled(a)(ctx, args, typed)
		},
		Run: func(ctx context.Context, args []string) error { return runVerify(ctx, a, reserved, args, conform) },
	})
	cmd.Flags().BoolVar(&conform, "conformance", false, "also hold the program against the protocol, outside its sandbox")
	return cmd
}

// verifyDocument is the document of plugin verify.
type verifyDocument struct {
	Schema  string           `json:"schema"`
	Good    bool             `json:"good"`
	Plugins []verifiedRecord `json:"plugins"`
}

type verifiedRecord struct {
	Name    string        `json:"name"`           // "" of a package that says none
	Path    string        `json:"path,omitempty"` // of a package
	Version string        `json:"version,omitempty"`
	Key     string        `json:"key,omitempty"`
	Files   int           `json:"files"`
	Good    bool          `json:"good"`
	Problem string        `json:"problem,omitempty"`
	Code    string        `json:"code,omitempty"` // of the problem; see docs/formats/plugin-package.md
	Checks  []checkRecord `json:"checks,omitempty"`

	err error
}

func runVerify(ctx context.Context, a *app.App, reserved, args []string, conform bool) error {
	e, c, err := newEngine(a, reserved)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		list, err := e.List(ctx)
		if err != nil {
			return err
		}
		for _, r := range list {
			args = append(args, r.Name)
		}
	}
	if conform && os.Geteuid() == 0 {
		a.Streams.Notice("mobileops: the conformance test starts programs as root and outside their sandbox; another user will do")
	}
	doc := verifyDocument{Schema: "mobileops.plugin.verify/v1", Good: true, Plugins: []verifiedRecord{}}
	var errs []error
	kind := failure.None
	for _, arg := range args {
		rec := verified(ctx, e, c, reserved, arg, conform)
		rec.err = reword(rec.err)
		if err := ctx.Err(); err != nil {
			return err
		}
		if rec.Good = rec.err == nil; rec.err != nil {
			doc.Good = false
			rec.Problem, rec.Code = rec.err.Error(), string(pack.CodeOf(rec.err))
			kind = failure.Worse(kind, failure.KindOf(rec.err))
			errs = append(errs, fmt.Errorf("%s: %w", arg, rec.err))
		}
		doc.Plugins = append(doc.Plugins, *rec)
	}
	a.SetResult("%d plugins were read, %d are not good", len(doc.Plugins), len(errs))
	if a.Streams.Format != ui.Text {
		err = printMany(a.Streams, doc, doc.Plugins)
	} else {
		err = printVerified(a, &doc)
	}
	if err != nil {
		return err
	}
	return failure.Wrap(kind, errors.Join(errs...))
}

// verified proves what is installed under a name, or a package.
func verified(ctx context.Context, e *plugin.Engine, c *config.Config, reserved []string, arg string, conform bool) *verifiedRecord {
	if !isName(arg) {
		return verifiedPackage(ctx, c, reserved, arg, conform)
	}
	rec := &verifiedRecord{Name: arg}
	r, err := e.Verify(ctx, arg)
	if r != nil {
		rec.Version, rec.Key = r.Release.Version, r.KeyID
	}
	if rec.err = err; err != nil && !rec.unconfigured() {
		return rec
	}
	m, _, err := e.Manifest(ctx, arg)
	if err != nil {
		rec.err = err
		return rec
	}
	rec.Files = len(m.Files)
	if conform && rec.err == nil {
		dir := filepath.Join(c.Plugin.Dir, "installed", arg, fmt.Sprintf("%s-%d", r.Release.Version, r.Sequence))
		rec.Checks, rec.err = runConformance(ctx, dir, m)
	}
	return rec
}

// unconfigured says whether a plugin is what was signed, and only its
// configuration is missing or wrong.
func (r *verifiedRecord) unconfigured() bool {
	kind := failure.KindOf(r.err)
	return r.Path == "" && r.Key != "" && pack.CodeOf(r.err) == "" && (kind == failure.Usage || kind == failure.NotReady)
}

// verifiedPackage proves a package as before it is installed.
func verifiedPackage(ctx context.Context, c *config.Config, reserved []string, path string, conform bool) *verifiedRecord {
	rec := &verifiedRecord{Path: path}
	keys, err := trust.OpenKeys(c.Plugin.Keys)
	if rec.err = err; err != nil {
		return rec
	}
	pkg, m, err := openProved(path, keys)
	if m != nil {
		rec.Name, rec.Version, rec.Files = m.Name, m.Version, len(m.Files)
	}
	if rec.err = err; err != nil {
		return rec
	}
	defer pkg.Close()
	rec.Key = pkg.Key.ID()
	if rec.err = errors.Join(m.CheckPackaged(), m.CheckAgainst(reserved)); rec.err != nil {
		return rec
	}
	if !conform {
		rec.err = pkg.Prove(ctx)
		return rec
	}
	tmp, err := os.MkdirTemp("", "mobileops-plugin-")
	if rec.err = err; err != nil {
		return rec
	}
	defer os.RemoveAll(tmp)
	dir := filepath.Join(tmp, m.Name)
	if rec.err = pkg.Unpack(ctx, dir); rec.err == nil {
		rec.Checks, rec.err = runConformance(ctx, dir, m)
	}
	return rec
}

// openProved opens a package and proves its signature. The manifest is there,
// too, when that fails.
func openProved(path string, keys pack.Verifier) (*pack.Package, *manifest.Manifest, error) {
	pkg, err := pack.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, failure.Wrap(failure.NotReady, err)
	}
	if err != nil {
		return nil, nil, err
	}
	m := pkg.Manifest
	if err := pkg.Verify(keys, time.Now()); err != nil {
		pkg.Close()
		return nil, m, err
	}
	return pkg, m, nil
}

func printVerified(a *app.App, doc *verifyDocument) error {
	theme := a.Streams.Theme()
	table := a.Streams.NewTable(ui.Column{Title: "PLUGIN", Min: 16, KeepEnd: true}, ui.Column{Title: "VERSION"}, ui.Column{Title: "FILES", Right: true}, ui.Column{Title: "SIGNED BY", Drop: 1}, ui.Column{Title: "VERDICT"})
	for i := range doc.Plugins {
		r := &doc.Plugins[i]
		if a.Streams.Quiet { // what is wrong is said as an error
			continue
		}
		verdict := ui.Cell{Text: "as signed", Style: theme.Good}
		switch {
		case r.Good && len(r.Checks) > 0:
			verdict.Text = "as signed, and conforms"
		case !r.Good && r.Code != "":
			verdict = ui.Cell{Text: r.Code, Style: theme.Bad}
		case r.unconfigured():
			verdict = ui.Cell{Text: "as signed, not configured", Style: theme.Warn}
		case !r.Good:
			verdict = ui.Cell{Text: "not good", Style: theme.Bad}
		}
		what := r.Name
		if r.Path != "" {
			what = r.Path
		}
		table.Row(what, r.Version, r.Files, r.Key, verdict)
	}
	if err := table.Print(); err != nil {
		return err
	}
	if err := printChecks(a, doc); err != nil {
		return err
	}
	if len(doc.Plugins) == 0 && !a.Streams.Quiet {
		a.Streams.Notice("no plugin is installed: nothing to verify")
	}
	return nil
}
