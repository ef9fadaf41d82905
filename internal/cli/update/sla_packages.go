package update

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/update/repo"
	"github.com/mobileops/mobileops/internal/update/sla"
	"github.com/mobileops/mobileops/internal/update/store"
)

// surveyPackages looks which security updates of installed packages the repository
// has, by what was verified of it last: that is for mobileops update check to
// fetch.
func surveyPackages(ctx context.Context, a *app.App, c *config.Config, now time.Time) sla.Survey {
	s := sla.Survey{Source: sla.SourcePackage}
	switch {
	case c.Update.Repository == "":
		s.Skipped = "no repository of updates is configured (update.repository)"
		return s
	case c.Root != "/":
		s.Skipped = "packages of mobileops are looked at on the host alone, not with --root"
		return s
	}
	packages, err := currentPackages(c)
	if errors.Is(err, store.ErrNone) {
		s.Skipped = "nothing was installed by mobileops update"
		return s
	}
	problem := func(format string, args ...any) { s.Problems = append(s.Problems, fmt.Sprintf(format, args...)) }
	if err != nil {
		problem("what is installed cannot be told: %v", err)
		return s
	}
	client, err := openRepository(a, c)
	if err != nil {
		problem("%v", err)
		return s
	}
	list, err := client.Available(ctx)
	if repo.CodeOf(err) == repo.CodeNever {
		problem("the repository was never looked at: run mobileops update check")
		return s
	}
	if err != nil {
		problem("%v", err)
		return s
	}
	s.Advisories = missingUpdates(list, packages, audit.HostID())
	fresh, _ := client.Freshness()
	s.AsOf = fresh.Checked
	if most := c.Update.SLA.ListsAge; most > 0 && now.Sub(fresh.Checked) > most {
		problem("what is known of the repository is of %s: run mobileops update check", fresh.Checked.Format(time.DateOnly))
	}
	if fresh.Expired != nil {
		problem("what is known of the repository has expired: run mobileops update check")
	}
	if n := len(fresh.Unusable); n > 0 {
		problem("%d packages of the repository cannot be understood, such as %q: %s", n, fresh.Unusable[0].Path, fresh.Unusable[0].Reason)
	}
	return s
}

// currentPackages are the packages whose content is in the current generation.
func currentPackages(c *config.Config) (map[string]store.Origin, error) {
	p := configured(c)
	st := store.New(store.Options{Dir: p.store, Target: p.target})
	n, err := st.Current()
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, store.ErrNone
	}
	g, err := st.Generation(n)
	if err != nil {
		return nil, err
	}
	if g.Damaged != "" {
		return nil, fmt.Errorf("generation %d is damaged: %s", n, g.Damaged)
	}
	return g.Packages, nil
}

// missingUpdates returns the advisories of releases that are newer than what is
// installed of the same package and channel, and that nothing up to that names.
// A release that says how bad it is and names no advisory stands for itself.
func missingUpdates(list []repo.Target, packages map[string]store.Origin, host string) (out []sla.Advisory) {
	closed := map[[2]string]bool{} // package and advisory
	for i := range list {
		if t := &list[i]; !newer(t, packages) {
			for _, id := range t.Advisories {
				closed[[2]string{t.Release.Name, id}] = true
			}
		}
	}
	for i := range list {
		t := &list[i]
		if !newer(t, packages) {
			continue
		}
		ids := t.Advisories
		if len(ids) == 0 && t.Severity != "" {
			ids = []string{t.Release.Version}
		}
		note := ""
		if in, _ := t.Rollout.Includes(host); !in {
			note = "not rolled out to this host yet"
		}
		for _, id := range ids {
			if closed[[2]string{t.Release.Name, id}] {
				continue
			}
			out = append(out, sla.Advisory{
				Source: sla.SourcePackage, Name: t.Release.Name, Advisory: id, Severity: sla.ParseSeverity(t.Severity), Published: t.Published,
				Installed: packages[t.Release.Name].Version, FixedIn: t.Release.Version, Note: note,
			})
		}
	}
	return out
}

// newer reports whether a release is newer than what is installed; never when the
// package is not, or is of another channel, whose sequences cannot be compared.
func newer(t *repo.Target, packages map[string]store.Origin) bool {
	here, ok := packages[t.Release.Name]
	return ok && here.Channel == t.Release.Channel && t.Release.Sequence > here.Sequence
}
