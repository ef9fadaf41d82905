package source

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// places are the logs that hosts have, each with where it is.
//
//go:embed places.yaml
var places []byte

// place is an entry of places.yaml.
type place struct {
	Name    string   `yaml:"name"`
	Kind    Kind     `yaml:"kind"`
	Include []string `yaml:"include"`
	Exclude []string `yaml:"exclude"`
	Format  string   `yaml:"format"`
	Zone    string   `yaml:"zone"`
	Live    bool     `yaml:"live"` // only of the running system, not below a root
	Why     string   `yaml:"why"`
}

func (p *place) spec() Spec {
	return Spec{Name: p.Name, Kind: p.Kind, Include: p.Include, Exclude: p.Exclude, Format: p.Format, Zone: p.Zone, Why: p.Why}
}

func parsePlaces(b []byte) ([]place, error) {
	var file struct {
		Places []place `yaml:"places"`
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		return nil, fmt.Errorf("places of logs: %w", err)
	}
	return file.Places, nil
}

// Discover returns the sources of the host below a root ("" or "/": this one)
// of which something is there, in the order in which they claim files. Why of
// each says what was found. Logs that appear later in the place of one that is
// returned are found by the collector.
//
// journald and a syslog daemon often keep the same messages twice. Both are
// returned: neither is known to have everything that the other one has, and as
// sources of their own they are searched one at a time with a filter.
func Discover(root string) ([]Spec, error) {
	list, err := parsePlaces(places)
	if err != nil {
		return nil, err
	}
	t, err := newTree(root)
	if err != nil {
		return nil, err
	}
	defer t.close()
	var found []Spec
	claimed := map[inode]bool{}
	for _, p := range list {
		if p.Live && t.dir != nil {
			continue
		}
		s := p.spec()
		what, n, err := t.present(&s, claimed)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			s.Why = fmt.Sprintf("%s (%s)", s.Why, what)
			found = append(found, s)
		}
	}
	journal := slices.ContainsFunc(found, func(s Spec) bool { return s.Kind == Journal })
	for i := range found {
		if s := &found[i]; journal && s.Name == "syslog" {
			s.Why += "; the journal may have the same messages: it is kept apart"
		}
	}
	return found, nil
}

// present says what there is of a source: how many files, and the first one.
func (t *tree) present(s *Spec, claimed map[inode]bool) (what string, n int, err error) {
	sp, err := compileSpec(*s)
	if err != nil {
		return "", 0, err
	}
	switch s.Kind {
	case Files, Utmp:
		first := ""
		seen := look(t, []*spec{sp})
		for _, c := range seen.candidates() {
			if id := (inode{c.dev, c.ino}); !claimed[id] {
				claimed[id] = true
				if n++; first == "" {
					first = c.path
				}
			}
		}
		switch n {
		case 0:
			// What may be there and cannot be looked at is no reason to leave the
			// source out: the collector says so.
			for _, p := range seen.problems {
				if !p.Skipped {
					return p.Path + ": " + p.Reason, 1, nil
				}
			}
		case 1:
			what = first
		case 2:
			what = first + " and one more file"
		default:
			what = fmt.Sprintf("%s and %d more files", first, n-1)
		}
	default:
		var there []string
		for _, path := range s.Include {
			st, err := t.stat(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil && s.Kind == Journal && !t.hasJournals(path, st) {
				continue
			}
			there = append(there, path)
		}
		what, n = strings.Join(there, ", "), len(there)
	}
	return what, n, nil
}

// hasJournals reports whether a directory, or one below it, has a journal.
func (t *tree) hasJournals(dir string, st *info) bool {
	if !st.directory() {
		return false
	}
	sp, err := compileSpec(Spec{Include: []string{dir + "/*.journal", dir + "/*/*.journal"}})
	if err != nil {
		return false
	}
	sp.Kind = Files
	return len(look(t, []*spec{sp}).found) > 0
}
