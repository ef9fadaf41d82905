package ledger

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/zeebo/blake3"
)

// keyContext separates keys of items from other uses of BLAKE3. It is part of the
// format: another string makes every item a new one.
const keyContext = "mobileops 2026 scan ledger item v1"

// sight is an item of one observation: all sightings of it, joined.
type sight struct {
	key       Key
	ecosystem string
	subject   string
	Sighting
	seen []byte // the stored form of the sighting
}

// join brings the sightings of an observation within the limits, and joins those
// of the same item. They come sorted by key.
func join(o *Observation) (list []sight, err error) {
	list = make([]sight, 0, len(o.Items))
	k := keyer{h: blake3.NewDeriveKey(keyContext)}
	for i, ordinal := range ordinals(o.Items) {
		s := &o.Items[i]
		if !slices.Contains(Classes(), s.Class) {
			return nil, fmt.Errorf("%w: %q is no class of items", ErrInvalid, clip(string(s.Class), 64))
		}
		if s.ID == "" {
			return nil, fmt.Errorf("%w: item %d, a %s, has no id", ErrInvalid, i+1, s.Class)
		}
		if !slices.Contains(o.Scanners, s.Class.Scanner()) {
			return nil, fmt.Errorf("%w: %s is what the scanner %s finds, which did not run", ErrInvalid, clip(s.ID, 128), s.Class.Scanner())
		}
		j := sight{Sighting: *s}
		j.Ordinal = ordinal
		j.identify(o.Asset.ID, &k)
		j.Sighting = j.bounded()
		list = append(list, j)
	}
	list = joined(byKey(list))
	for i := range list {
		if list[i].seen, err = encodeSeen(&list[i].Sighting); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// byKey sorts by key, those of one key as they came. Places are sorted rather than
// sights, which are too large to be moved around.
func byKey(list []sight) []sight {
	places := make([]int, len(list))
	for i := range places {
		places[i] = i
	}
	slices.SortFunc(places, func(a, b int) int {
		return cmp.Or(bytes.Compare(list[a].key[:], list[b].key[:]), cmp.Compare(a, b))
	})
	out := make([]sight, len(list))
	for i, at := range places {
		out[i] = list[at]
	}
	return out
}

// encodeSeen returns the stored form of a sighting.
func encodeSeen(s *Sighting) ([]byte, error) { return json.Marshal(s) }

// ordinals numbers secrets of one rule, path and match by where they stand, so
// that each stays itself when lines move. Everything else has the number 0.
func ordinals(items []Sighting) []int {
	numbers := make([]int, len(items))
	type place struct{ rule, path, match string }
	at := map[place][]int{}
	for i := range items {
		if s := &items[i]; s.Class == Secret {
			p := place{s.ID, first(s.Paths), s.Match}
			at[p] = append(at[p], i)
		}
	}
	for _, list := range at {
		slices.SortStableFunc(list, func(a, b int) int { return cmp.Compare(items[a].StartLine, items[b].StartLine) })
		for n, i := range list {
			numbers[i] = n
		}
	}
	return numbers
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// identify sets what the identity of a sighting follows from.
func (j *sight) identify(asset string, k *keyer) {
	path := cleanPath(first(j.Paths))
	var parts []string
	switch j.Class {
	case Vulnerability:
		j.ecosystem, j.subject = ecosystem(j.Type), stableName(j.Package)
		parts = []string{j.ecosystem, j.subject, j.ID}
	case Secret:
		j.subject = path
		parts = []string{j.ID, path, j.Match, fmt.Sprint(j.Ordinal)}
	case Misconfiguration:
		j.subject = path
		parts = []string{j.ID, path, j.Resource}
	case License:
		if j.subject = stableName(j.Package); j.subject != "" {
			j.ecosystem = ecosystem(j.Type)
			parts = []string{j.ecosystem, j.subject, j.ID}
		} else {
			j.subject = path
			parts = []string{"", "/" + path, j.ID}
		}
	}
	j.key = k.of(append([]string{asset, string(j.Class)}, parts...)...)
	j.ecosystem, j.subject = clip(j.ecosystem, MaxName), clip(j.subject, MaxPath)
}

// keyer computes many keys with one hasher.
type keyer struct {
	h   *blake3.Hasher
	buf []byte
}

func (k *keyer) of(parts ...string) (key Key) {
	k.buf = k.buf[:0]
	for _, p := range parts {
		k.buf = binary.LittleEndian.AppendUint64(k.buf, uint64(len(p)))
		k.buf = append(k.buf, p...)
	}
	k.h.Reset()
	k.h.Write(k.buf)
	k.h.Digest().Read(key[:])
	return key
}

// joined joins neighbours of the same key. What they say of where and which
// versions is put together; of the rest the most severe one counts.
func joined(list []sight) []sight {
	out := list[:0]
	for i := range list {
		if n := len(out); n > 0 && out[n-1].key == list[i].key {
			out[n-1].Sighting = both(&out[n-1].Sighting, &list[i].Sighting)
			continue
		}
		out = append(out, list[i])
	}
	return out
}

// both joins two sightings of an item.
func both(a, b *Sighting) Sighting {
	s, o := *a, *b
	if o.Severity.Rank() > s.Severity.Rank() || o.Severity == s.Severity && o.score() > s.score() {
		s, o = o, s
	}
	if s.CVSS == nil {
		s.CVSS = o.CVSS
	}
	if s.EPSS == nil {
		s.EPSS = o.EPSS
	}
	if s.KEV == nil {
		s.KEV = o.KEV
	}
	paths := union(s.Paths, o.Paths, 1<<30)
	s.MorePaths = max(s.MorePaths, o.MorePaths) + max(0, len(paths)-MaxPaths)
	s.Paths = cut(paths, MaxPaths)
	s.Installed = union(s.Installed, o.Installed, MaxVersions)
	s.Fixed = union(s.Fixed, o.Fixed, MaxVersions)
	s.Aliases = union(s.Aliases, o.Aliases, MaxVersions)
	s.PURLs = union(s.PURLs, o.PURLs, MaxVersions)
	if a.StartLine > 0 && (b.StartLine == 0 || a.StartLine <= b.StartLine) {
		s.StartLine, s.EndLine = a.StartLine, a.EndLine
	} else {
		s.StartLine, s.EndLine = b.StartLine, b.EndLine
	}
	// A package whose name has its version in it is called by the later one.
	s.Package = max(a.Package, b.Package)
	return s
}

func (s *Sighting) score() float64 {
	if s.CVSS == nil {
		return 0
	}
	return s.CVSS.Score
}

// union returns what is in either list, sorted, at most limit.
func union(a, b []string, limit int) []string {
	if len(b) == 0 || slices.Equal(a, b) {
		return a
	}
	if len(a) == 0 {
		return b
	}
	return cut(sorted(slices.Concat(a, b)), limit)
}

func sorted(list []string) []string {
	if len(list) < 2 {
		return list
	}
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

func cut(list []string, limit int) []string {
	if len(list) > limit {
		return list[:limit]
	}
	return list
}

// bounded brings what a scan saw within the limits.
func (j *sight) bounded() Sighting {
	s := j.Sighting
	texts := func(list []string, count, limit int) []string {
		out := make([]string, 0, len(list))
		for _, t := range list {
			if t = clip(t, limit); t != "" {
				out = append(out, t)
			}
		}
		if len(out) == 0 {
			return nil
		}
		return cut(sorted(out), count)
	}
	for _, f := range []*string{&s.ID, &s.Type, &s.Package, &s.Status, &s.Resource, &s.Layer, &s.Category, &s.SeveritySource, &s.DataSource} {
		*f = clip(*f, MaxName)
	}
	for _, f := range []*string{&s.Title, &s.Match, &s.URL, &s.PURL} {
		*f = clip(*f, MaxText)
	}
	s.Message, s.Resolution = clip(s.Message, MaxMessage), clip(s.Resolution, MaxMessage)
	paths := make([]string, len(s.Paths))
	for i, p := range s.Paths {
		paths[i] = cleanPath(p)
	}
	paths = texts(paths, 1<<30, MaxPath)
	s.MorePaths = max(0, s.MorePaths) + max(0, len(paths)-MaxPaths)
	s.Paths = cut(paths, MaxPaths)
	if s.PURL != "" {
		s.PURLs = append(slices.Clone(s.PURLs), s.PURL)
		s.PURL = ""
	}
	s.PURLs = texts(s.PURLs, MaxVersions, MaxText)
	s.Installed, s.Fixed = texts(s.Installed, MaxVersions, MaxName), texts(s.Fixed, MaxVersions, MaxName)
	s.Aliases, s.References = texts(s.Aliases, MaxVersions, MaxName), texts(s.References, MaxReferences, MaxText)
	s.Severity = SeverityOf(string(s.Severity))
	s.StartLine, s.EndLine = max(0, s.StartLine), max(0, s.EndLine)
	if c := s.CVSS; c != nil {
		if !(c.Score > 0 && c.Score <= 10) {
			s.CVSS = nil
		} else {
			s.CVSS = &CVSS{c.Score, clip(c.Source, MaxName), clip(c.Vector, MaxName)}
		}
	}
	if e := s.EPSS; e != nil {
		if !(e.Score >= 0 && e.Score <= 1) || !(e.Percentile >= 0 && e.Percentile <= 1) {
			s.EPSS = nil
		} else {
			s.EPSS = &EPSS{e.Score, e.Percentile, storable(e.Date)}
		}
	}
	if k := s.KEV; k != nil {
		s.KEV = &KEV{storable(k.Added), storable(k.Due), k.Ransomware}
	}
	s.Published = storable(s.Published)
	return s
}

// ecosystems are the words that different kinds of files have for where packages
// come from, and the one that is in keys: a project that changes its lock file has
// the same packages.
func ecosystem(kind string) string {
	switch k := strings.ToLower(kind); k {
	case "npm", "yarn", "pnpm", "bun", "node-pkg", "javascript", "nodejs":
		return "npm"
	case "gomod", "gobinary", "go", "golang":
		return "golang"
	case "jar", "pom", "gradle", "sbt", "java":
		return "maven"
	case "pip", "pipenv", "poetry", "uv", "pylock", "python-pkg", "conda-pkg", "conda-environment", "python":
		return "pypi"
	case "bundler", "gemspec", "ruby":
		return "gem"
	case "cargo", "rustbinary", "rust":
		return "cargo"
	case "composer", "composer-vendor", "php":
		return "composer"
	case "nuget", "dotnet-core", "packages-props", "dotnet":
		return "nuget"
	default:
		return k
	}
}
