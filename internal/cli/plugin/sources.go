package plugin

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/mobileops/mobileops/internal/buildinfo"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/registry"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/mobileops/mobileops/internal/plugin/catalogue"
	"github.com/mobileops/mobileops/internal/plugin/pack"
	"github.com/mobileops/mobileops/internal/plugin/source"
	"github.com/mobileops/mobileops/internal/spelling"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/ui"
)

// indexFiles is what help says of the indexes that a host keeps.
const indexFiles = "/var/lib/mobileops/plugin/indexes/: indexes as they were fetched last"

// sourceOptions say where packages are looked for, as it is configured.
func sourceOptions(ctx context.Context, c *config.Config, e *plugin.Engine) (source.Options, error) {
	o := source.Options{
		CacheDir: filepath.Join(c.StateDir, "plugin", "indexes"), Product: buildinfo.Get().Version,
		Proxy: http.ProxyFromEnvironment, Credentials: registry.Credentials[source.Credential](c.Plugin.Credentials, "plugin.credentials"),
	}
	if len(c.Plugin.Indexes) == 0 {
		return o, nil
	}
	var err error
	if o.Keys, err = trust.OpenKeys(c.Plugin.Keys); err != nil {
		return o, reword(err)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Plugin.Indexes)) {
		idx := source.Index{Name: name, URL: c.Plugin.Indexes[name]}
		if idx.Seen, err = e.SeenIndex(ctx, idx.URL); err != nil {
			return o, err
		}
		o.Indexes = append(o.Indexes, idx)
	}
	o.Accept = func(name string, seen source.Seen) error { return e.AcceptIndex(ctx, c.Plugin.Indexes[name], seen) }
	return o, nil
}

// offer is a package that somebody could install.
type offer struct {
	pkg   *pack.Package
	src   plugin.Source
	found *source.Found // nil: it comes with mobileops
}

// Close gives back what the package takes.
func (o *offer) Close() error {
	err := o.pkg.Close()
	if o.found != nil {
		err = errors.Join(err, o.found.Close())
	}
	return err
}

// fetching is where a package is to come from.
type fetching struct {
	spec    string // NAME, NAME@INDEX, a path, a URL, oci://…
	version string // of a name, not the newest
	offline bool
}

// isName says whether a word is the name of a plugin, and neither an address
// nor a path.
func isName(spec string) bool { return source.CheckName(spec) == nil }

// fetch gets a package: of a name, the one that comes with mobileops, and
// otherwise that of an index. It proves nothing yet.
func fetch(ctx context.Context, a *app.App, e *plugin.Engine, f fetching) (*offer, error) {
	if isName(f.spec) {
		item, err := catalogue.Get(f.spec)
		switch {
		case err == nil && item.Planned != "":
			return nil, failure.Errorf(failure.NotReady, "%s is planned and not there yet: %s", item.Name, item.Planned)
		case err == nil && (f.version == "" || f.version == item.Version):
			return bundled(item.Name)
		case err != nil && !errors.Is(err, catalogue.ErrUnknown):
			return nil, err
		}
	}
	c, err := a.Config()
	if err != nil {
		return nil, err
	}
	if isName(f.spec) && len(c.Plugin.Indexes) == 0 {
		return nil, unknown(f)
	}
	opts, err := sourceOptions(ctx, c, e)
	if err != nil {
		return nil, err
	}
	opts.Version, opts.Offline = f.version, f.offline
	if strings.Contains(f.spec, "://") && !f.offline {
		if err := registry.Check(c.Plugin.Credentials, "plugin.credentials"); err != nil {
			return nil, err
		}
	}
	var done, total atomic.Int64
	opts.Progress = func(d, t int64) { done.Store(d); total.Store(max(t, 0)) }
	bar := a.Streams.Progress("downloading", func() ui.Counters { return ui.Counters{Bytes: done.Load(), TotalBytes: total.Load()} })
	found, err := source.Resolve(ctx, f.spec, opts)
	bar.Stop()
	if err != nil {
		return nil, explainFetch(reword(err))
	}
	for _, note := range found.Notes {
		a.Streams.Notice("mobileops: %s", ui.Escape(note))
	}
	pkg, err := pack.Open(found.Path)
	if err != nil {
		return nil, errors.Join(err, found.Close())
	}
	return &offer{pkg, plugin.Source{Text: origin(found)}, found}, nil
}

// origin says in the record where a package came from.
func origin(f *source.Found) string {
	if f.Index != "" {
		return f.Origin + " (index " + f.Index + ")"
	}
	return f.Origin
}

// bundled opens a package that comes with mobileops.
func bundled(name string) (*offer, error) {
	r, err := catalogue.Open(name)
	if err != nil {
		return nil, err
	}
	key, err := catalogue.Key()
	if err != nil {
		return nil, err
	}
	pkg, err := pack.OpenReader(r)
	if err != nil {
		return nil, err
	}
	return &offer{pkg, plugin.Source{Text: "mobileops", Pinned: &key}, nil}, nil
}

// unknown is the error about a name where there are no indexes.
func unknown(f fetching) error {
	var known []string
	items, _ := catalogue.List()
	for _, i := range items {
		known = append(known, i.Name)
		if i.Name == f.spec {
			return failure.Errorf(failure.No, "%s comes with mobileops as %s, and no index is configured that could have %s (plugin.indexes)", f.spec, i.Version, f.version)
		}
	}
	hint := "see what there is: mobileops plugin search"
	if near := spelling.Nearest(f.spec, known); near != "" {
		hint = "did you mean " + near + "?"
	}
	return failure.Hint(failure.Errorf(failure.No, "%s does not come with mobileops, and no index is configured (plugin.indexes); a file is written as ./%s", f.spec, f.spec), hint)
}

// explainFetch tells apart that there is no such plugin, and no such file.
func explainFetch(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return failure.Wrap(failure.NotReady, err)
	}
	if source.CodeOf(err) == source.CodeNotFound {
		return failure.Wrap(failure.No, err)
	}
	return err
}

// inspect proves an offer and says what installing it would do. The offer stays
// open.
func inspect(ctx context.Context, e *plugin.Engine, o *offer) (*plugin.Plan, error) {
	p, err := e.Inspect(ctx, o.pkg, o.src)
	if err != nil {
		return nil, reword(err)
	}
	if f := o.found; f != nil && f.Index != "" && (p.Manifest.Name != f.Name || p.Manifest.Version != f.Version || p.Release.Sequence != f.Sequence) {
		return nil, failure.Errorf(failure.Untrustworthy, "index %s says that this is %s %s (sequence %d), and it is %s %s (sequence %d); ask who publishes the index",
			f.Index, f.Name, f.Version, f.Sequence, p.Manifest.Name, p.Manifest.Version, p.Release.Sequence)
	}
	return p, nil
}
