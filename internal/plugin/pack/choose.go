package pack

import (
	"context"
	"io/fs"
	"strings"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
)

// DefaultInclude returns the patterns of what is packed beside the program
// when nothing else is asked for. None of them has to match.
func DefaultInclude() []string {
	return []string{"README*", "LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "files/**"}
}

// choose lists the files that are packed.
func choose(ctx context.Context, t *tree, m *manifest.Manifest, opts *BuildOptions) (map[string]fs.FileInfo, error) {
	include := opts.Include
	if include == nil {
		include = DefaultInclude()
	}
	for _, p := range append(append([]string{}, include...), opts.Exclude...) {
		if err := archive.CheckPattern(p, archive.DefaultLimits()); err != nil {
			return nil, failure.Errorf(failure.Usage, "%q: %w", p, err)
		}
	}
	used := make([]bool, len(include))
	infos := map[string]fs.FileInfo{}
	err := t.walk(ctx, ".", func(name string, info fs.FileInfo) (bool, error) {
		switch {
		case name == manifest.FileName, strings.HasSuffix(name, ".minisig") && !info.IsDir(), info.Name() == ".git", matches(opts.Exclude, name):
			return false, nil
		case info.IsDir():
			return true, nil
		}
		wanted := name == m.Program()
		for i, p := range include {
			// A link to a directory would be left out in silence otherwise.
			through := !info.Mode().IsRegular() && strings.HasPrefix(p, name+"/")
			if through || archive.Match(p, name) {
				wanted, used[i] = true, true
			}
		}
		if !wanted {
			return false, nil
		}
		if err := regular(name, info); err != nil {
			return false, failure.Errorf(failure.Failed, "build a package that no host would take: %w", err)
		}
		infos[name] = info
		if len(infos) > manifest.MaxFiles {
			return false, failure.Errorf(failure.Failed, "there are more than %d files; name those that belong to the plugin", manifest.MaxFiles)
		}
		return false, nil
	})
	if err != nil {
		return nil, err
	}
	if _, there := infos[m.Program()]; !there {
		return nil, failure.Errorf(failure.NotReady, "%q is not there: it is the program that mobileops starts; build the plugin first", m.Program())
	}
	for i, p := range opts.Include {
		if !used[i] {
			return nil, failure.Errorf(failure.Usage, "no file matches %q, which is to be packed", p)
		}
	}
	return infos, nil
}

func matches(patterns []string, name string) bool {
	for _, p := range patterns {
		if archive.Match(p, name) {
			return true
		}
	}
	return false
}
