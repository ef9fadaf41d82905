package source

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/spelling"
)

// fetchNamed gets the package of a name. When it is in several indexes, which
// one is meant is for the operator to say: whoever can add a name to any of
// them could otherwise take the place of another's plugin.
func fetchNamed(ctx context.Context, name, index string, opts Options) (*Found, error) {
	var places []Index
	for _, idx := range opts.Indexes {
		if index == "" || idx.Name == index {
			places = append(places, idx)
		}
	}
	if len(places) == 0 {
		return nil, noIndex(name, index, opts)
	}
	type hit struct {
		idx    Index
		plugin *Plugin
	}
	var hits []hit
	var notes, names []string
	for _, idx := range places {
		s, note, err := current(ctx, idx, opts)
		if err != nil {
			if len(places) > 1 && !errors.Is(err, context.Canceled) {
				err = failure.Hint(err, fmt.Sprintf("name the index that you mean: %s@INDEX", name))
			}
			return nil, err
		}
		if note != "" {
			notes = append(notes, note)
		}
		if p := s.doc.find(name); p != nil {
			hits = append(hits, hit{idx, p})
		}
		for _, p := range s.doc.Plugins {
			names = append(names, p.Name)
		}
	}
	switch len(hits) {
	case 0:
		return nil, notFound(name, index, names)
	case 1:
	default:
		var in []string
		for _, h := range hits {
			in = append(in, name+"@"+h.idx.Name)
		}
		return nil, refuse(CodeAmbiguous, "say which: "+strings.Join(in, ", "), "%s is in %d indexes", name, len(hits))
	}
	version, note, err := choose(hits[0].plugin, opts)
	if err != nil {
		return nil, err
	}
	if note != "" {
		notes = append(notes, note)
	}
	found, err := fetchVersion(ctx, hits[0].idx, version, opts)
	if err != nil {
		return nil, fmt.Errorf("%s %s of index %s: %w", name, version.Version, hits[0].idx.Name, err)
	}
	found.Kind, found.Index, found.Name, found.Version, found.Sequence = InIndex, hits[0].idx.Name, name, version.Version, version.Sequence
	found.Notes = append(notes, found.Notes...)
	return found, nil
}

func noIndex(name, index string, opts Options) error {
	if index == "" || len(opts.Indexes) == 0 {
		return refuse(CodeNoIndex, "name a file, a URL or oci://, or add an index to the configuration: plugin.indexes", "no index is configured in which %s could be", name)
	}
	var names []string
	for _, idx := range opts.Indexes {
		names = append(names, idx.Name)
	}
	return refuse(CodeNoIndex, "configured are: "+strings.Join(names, ", "), "no index is called %s", index)
}

func notFound(name, index string, names []string) error {
	hint := "look for it: mobileops plugin search"
	if near := spelling.Nearest(name, names); near != "" {
		hint = "did you mean " + near + "?"
	}
	if index != "" {
		return refuse(CodeNotFound, hint, "%s is not in the index %s", name, index)
	}
	return refuse(CodeNotFound, hint, "%s is in no configured index", name)
}

// choose returns the version that was asked for, or else the newest that this
// mobileops can run.
func choose(p *Plugin, opts Options) (*Version, string, error) {
	var versions []string
	for i := range p.Versions {
		v := &p.Versions[i]
		versions = append(versions, v.Version)
		if opts.Version != "" && v.Version != opts.Version {
			continue
		}
		if v.runsOn(opts.Product) {
			if i > 0 && opts.Version == "" {
				return v, fmt.Sprintf("%s %s is newer, and needs mobileops %s", p.Name, p.Versions[0].Version, p.Versions[0].MinVersion), nil
			}
			return v, "", nil
		}
		if opts.Version != "" {
			return nil, "", refuse(CodeTooNew, "update mobileops, or ask for another version", "%s %s needs mobileops %s; this is %s", p.Name, v.Version, v.MinVersion, opts.Product)
		}
	}
	if opts.Version != "" {
		if len(versions) > 10 {
			versions = append(versions[:10], "...")
		}
		return nil, "", refuse(CodeNotFound, "there are: "+strings.Join(versions, ", "), "there is no version %.80s of %s", opts.Version, p.Name)
	}
	return nil, "", refuse(CodeTooNew, "update mobileops", "every version of %s needs a newer mobileops than %s, the oldest one %s", p.Name, opts.Product, p.Versions[len(p.Versions)-1].MinVersion)
}

// fetchVersion gets the package of a version, which has to be what the index
// says.
func fetchVersion(ctx context.Context, idx Index, v *Version, opts Options) (*Found, error) {
	p, err := idx.place()
	if err != nil {
		return nil, err
	}
	u, name, err := p.resolve(v.URL)
	if err != nil {
		return nil, err
	}
	promised := promise{size: v.Size, digest: v.Digest}
	switch {
	case u == nil:
		b, err := openLocal(p.dir, name)
		if err != nil {
			return nil, err
		}
		defer b.Close()
		return keep(ctx, b, promised, opts)
	case opts.Offline:
		return nil, offline(shown(u))
	case u.Scheme == "oci":
		return pull(ctx, v.URL, promised, opts)
	}
	return fetchFile(ctx, u, promised, opts)
}
