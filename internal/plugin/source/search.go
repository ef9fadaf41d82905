package source

import (
	"cmp"
	"context"
	"slices"
	"strings"
)

// Hit is a plugin that a search found.
type Hit struct {
	Index    string
	Name     string
	Version  string // the newest that this mobileops can run; else the newest
	Sequence uint64
	Summary  string
	Needs    string // the version of mobileops that all versions need at least, when this one is older
	Size     int64
	rank     int
}

// Results are what a search found and where it looked.
type Results struct {
	Hits    []Hit    // best first
	Indexes []Status // one for each configured index; Err says why it was not searched
}

// Search looks for all words of query in names and summaries, in any case, in
// the indexes as they were fetched last (Refresh). It asks no server. An empty
// query finds everything. An expired index is searched too, and its Status has
// the error that Resolve would give.
func Search(ctx context.Context, query string, opts Options) (*Results, error) {
	opts = opts.withDefaults()
	words := strings.Fields(strings.ToLower(query))
	r := new(Results)
	for _, idx := range opts.Indexes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s, err := load(idx, opts)
		st := s.status(idx)
		st.Cached, st.Err = true, err
		if s != nil {
			if xerr := s.release.Current(opts.Now(), idx.Seen.Time); xerr != nil {
				st.Err = expired(idx.Name, xerr)
			}
			for i := range s.doc.Plugins {
				if h, ok := match(&s.doc.Plugins[i], words, opts); ok {
					h.Index = idx.Name
					r.Hits = append(r.Hits, h)
				}
			}
		}
		r.Indexes = append(r.Indexes, st)
	}
	slices.SortStableFunc(r.Hits, func(a, b Hit) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Index, b.Index))
	})
	return r, nil
}

func match(p *Plugin, words []string, opts Options) (Hit, bool) {
	v := &p.Versions[0]
	h := Hit{Name: p.Name, Needs: v.MinVersion}
	for i := range p.Versions {
		if p.Versions[i].runsOn(opts.Product) {
			v, h.Needs = &p.Versions[i], ""
			break
		}
		h.Needs = p.Versions[i].MinVersion
	}
	h.Version, h.Sequence, h.Summary, h.Size = v.Version, v.Sequence, v.Summary, v.Size
	summary := strings.ToLower(v.Summary)
	for _, w := range words {
		switch {
		case p.Name == w:
		case strings.HasPrefix(p.Name, w):
			h.rank = max(h.rank, 1)
		case strings.Contains(p.Name, w):
			h.rank = max(h.rank, 2)
		case strings.Contains(summary, w):
			h.rank = max(h.rank, 3)
		default:
			return h, false
		}
	}
	return h, true
}
