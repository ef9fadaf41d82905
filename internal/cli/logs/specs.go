package logs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/format"
	"github.com/mobileops/mobileops/internal/logs/source"
)

// specs returns the sources of this host, as discovered and configured.
func specs(c *config.Config) ([]source.Spec, error) {
	var list []source.Spec
	if c.Logs.Discover {
		found, err := source.Discover(c.Root)
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	for _, item := range c.Logs.Include {
		name, pattern := item, item
		if before, after, ok := strings.Cut(item, "="); ok && !strings.Contains(before, "/") {
			name, pattern = before, after
		}
		if i := slices.IndexFunc(list, func(s source.Spec) bool { return s.Name == name }); i >= 0 {
			if list[i].Kind != source.Files {
				return nil, failure.Errorf(failure.Usage, "logs.include: %q is the name of a source that is no file; choose another", name)
			}
			list[i].Include = append(list[i].Include, pattern)
			continue
		}
		list = append(list, source.Spec{Name: name, Kind: source.Files, Include: []string{pattern}, Why: "logs.include in the configuration"})
	}
	var set *format.Set
	for _, item := range c.Logs.Formats {
		at := strings.LastIndexByte(item, '=')
		pattern, name := item[:at], item[at+1:]
		if set == nil {
			var err error
			if set, err = format.Builtin(); err != nil {
				return nil, err
			}
		}
		if _, ok := set.Lookup(name); !ok {
			return nil, failure.Hint(failure.Errorf(failure.Usage, "logs.formats: there is no format %q", name), "see them: mobileops logs sources --formats")
		}
		list = withFormat(list, pattern, name)
	}
	for i := range list {
		list[i].Exclude = append(list[i].Exclude, c.Logs.Exclude...)
		if list[i].Zone == "" {
			list[i].Zone = c.Logs.Zone
		}
	}
	return list, nil
}

// withFormat sets the format of a source by its name, or of files by a pattern:
// these become a source of their own.
func withFormat(list []source.Spec, pattern, name string) []source.Spec {
	if i := slices.IndexFunc(list, func(s source.Spec) bool { return s.Name == pattern }); i >= 0 {
		list[i].Format = name
		return list
	}
	for i := range list {
		if list[i].Kind == source.Files {
			list[i].Exclude = append(list[i].Exclude, pattern)
		}
	}
	return append(list, source.Spec{Name: pattern, Kind: source.Files, Include: []string{pattern}, Format: name, Why: "logs.formats in the configuration"})
}

// chosen returns the sources that were named: by name, by a pattern of names,
// or as files.
func chosen(list []source.Spec, names []string) ([]source.Spec, error) {
	if len(names) == 0 {
		return list, nil
	}
	var out []source.Spec
	for _, name := range names {
		any := false
		for _, s := range list {
			if ok, err := path.Match(name, s.Name); s.Name == name || ok && err == nil {
				any = true
				if !slices.ContainsFunc(out, func(x source.Spec) bool { return x.Name == s.Name }) {
					out = append(out, s)
				}
			}
		}
		switch {
		case any:
		case strings.HasPrefix(name, "/"):
			out = append(out, source.Spec{Name: name, Kind: source.Files, Include: []string{name}, Why: "named on the command line"})
		default:
			return nil, failure.Hint(failure.Errorf(failure.Usage, "there is no source %q", name), "see them: mobileops logs sources; or name a file by its whole path")
		}
	}
	return out, nil
}

// there says which file that was named on the command line is not there.
func there(root string, names []string) error {
	for _, name := range names {
		if !strings.HasPrefix(name, "/") || strings.ContainsAny(name, "*?[{") {
			continue
		}
		if _, err := os.Lstat(filepath.Join(root, name)); errors.Is(err, fs.ErrNotExist) {
			return failure.Errorf(failure.Usage, "there is no file %s", filepath.Join(root, name))
		}
	}
	return nil
}

// reading returns how sources are read: with the name and the time zone of the
// host whose logs they are.
func reading(c *config.Config, since time.Time) source.Options {
	o := source.Options{Root: c.Root, Zone: zoneOf(c), Since: since}
	if c.Root == "/" {
		o.Host, _ = os.Hostname()
		return o
	}
	tree, err := os.OpenRoot(c.Root)
	if err != nil {
		return o // the collector says what is the matter
	}
	defer tree.Close()
	if f, err := tree.Open("etc/hostname"); err == nil {
		name, _ := io.ReadAll(io.LimitReader(f, 256))
		f.Close()
		o.Host, _, _ = strings.Cut(strings.TrimSpace(string(name)), "\n")
	}
	if link, err := tree.Readlink("etc/localtime"); err == nil && c.Logs.Zone == "" {
		if _, name, ok := strings.Cut(link, "/zoneinfo/"); ok {
			if zone, err := time.LoadLocation(name); err == nil {
				o.Zone = zone
			}
		}
	}
	return o
}

// knownSources completes names of sources that have stored records.
func knownSources(ctx context.Context, a *app.App) []string {
	s, _, err := openStore(a)
	if err != nil {
		return nil
	}
	list, err := s.Stats(ctx)
	if err != nil {
		return nil
	}
	var names []string
	for _, st := range list {
		names = append(names, st.Source)
	}
	return names
}
