package vulndb

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// Status is how the databases of a host stand.
type Status struct {
	Vulnerabilities *Generation   `json:"vulnerabilities,omitempty"` // nil: there is none
	Age             time.Duration `json:"-"`
	Stale           bool          `json:"stale"`
	Java            *Generation   `json:"java,omitempty"`
	KEV             *Table        `json:"kev,omitempty"`
	EPSS            *Table        `json:"epss,omitempty"`
	Generations     int           `json:"generations"`        // of the vulnerability database
	Problems        []string      `json:"problems,omitempty"` // what keeps scans from being relied upon, and what is damaged
}

// Status looks at what is there, as Open does. The error is the one that Open
// would give, so its kind is failure.NotReady when the database is missing or too
// old, or that of a damaged table; the Status is there all the same, unless the
// catalogue cannot be read.
func (s *Store) Status(ctx context.Context) (*Status, error) {
	st := &Status{}
	var worst error
	note := func(err error) {
		st.Problems = append(st.Problems, err.Error())
		if k := failure.KindOf(err); worst == nil || k != failure.KindOf(worst) && failure.Worse(k, failure.KindOf(worst)) == k {
			worst = err
		}
	}
	for _, k := range []Kind{Vulnerabilities, Java} {
		sh, err := s.shelf(ctx, k)
		if err != nil {
			return nil, err
		}
		g := sh.get(sh.current)
		_, held, err := s.lease(ctx, k)
		if held != nil {
			held.Close()
		}
		if err != nil {
			note(err)
		}
		if k == Java {
			st.Java = g
			continue
		}
		st.Vulnerabilities, st.Generations = g, len(sh.list)
		if g == nil {
			if err == nil {
				note(failure.Hint(ErrMissing, hintImport))
			}
			continue
		}
		st.Age = g.Age(s.opts.Now())
		if err := s.fresh(g); err != nil {
			st.Stale = true
			note(err)
		}
	}
	for _, which := range []struct {
		name string
		to   **Table
	}{{kev, &st.KEV}, {epss, &st.EPSS}} {
		t, err := s.whole(which.name)
		switch {
		case err == nil:
			*which.to = about(t)
		case !errors.Is(err, fs.ErrNotExist):
			note(err)
		}
	}
	return st, worst
}
