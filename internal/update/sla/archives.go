package sla

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// index is a package list that apt knows about, as apt-get indextargets names it.
type index struct {
	file        string // where it is kept, perhaps compressed
	metaKey     string // "main/binary-amd64/Packages"
	release     string // "bookworm-security", as sources.list has it
	repository  string // URL
	label       string
	suite       string
	codename    string
	description string    // as apt-cache policy names it
	date        time.Time // of its Release file; zero: not known
}

// indexFormat has the fields of index, in the order of parseIndexes.
const indexFormat = "$(FILENAME)\t$(METAKEY)\t$(RELEASE)\t$(REPO_URI)\t$(LABEL)\t$(SUITE)\t$(CODENAME)\t$(DESCRIPTION)"

// security reports whether the index is of a security archive: Debian's has the
// label Debian-Security and suites such as stable-security, Ubuntu's the suites
// jammy-security and jammy-infra-security.
func (x *index) security() bool {
	return strings.EqualFold(x.label, "Debian-Security") || strings.HasSuffix(strings.ToLower(x.label), "-security") ||
		securitySuite(x.suite) || securitySuite(x.codename)
}

// securitySuite goes by the name alone. Before Debian 11 it was buster/updates.
func securitySuite(name string) bool {
	return strings.HasSuffix(name, "-security") || strings.HasSuffix(name, "/updates")
}

// archives returns the package lists of security archives by their description,
// and says what is wrong with them.
func (a *Apt) archives(ctx context.Context, s *Survey, conf string, t *tools, now time.Time) (map[string]*index, error) {
	list := func(more ...string) ([]index, error) {
		out, err := a.apt(ctx, conf, t.get, append([]string{"indextargets", "--format", indexFormat, "Created-By: Packages"}, more...)...)
		if err != nil {
			return nil, err
		}
		return parseIndexes(out)
	}
	here, err := list()
	if err != nil {
		return nil, err
	}
	// Those that are configured, whether or not they were ever fetched: without
	// what their Release file says.
	configured, err := list("-o", "APT::Get::IndexTargets::ReleaseInfo=false")
	if err != nil {
		return nil, err
	}
	type archive struct{ repository, release string }
	found := map[string]*index{}
	fetched := map[archive]bool{}
	dates := map[archive]time.Time{}
	for i := range here {
		x := &here[i]
		if !x.security() {
			continue
		}
		found[x.description] = x
		where := archive{x.repository, x.release}
		if !fetched[where] {
			fetched[where] = true
			a.fresh(s, x, now)
			dates[where] = x.date
		}
		x.date = dates[where]
	}
	for _, x := range configured {
		if where := (archive{x.repository, x.release}); securitySuite(x.release) && !fetched[where] {
			fetched[where] = true
			s.Problems = append(s.Problems, fmt.Sprintf("the package lists of %s %s are not here: run apt-get update", x.repository, x.release))
		}
	}
	if len(found) == 0 && len(s.Problems) == 0 {
		s.Problems = append(s.Problems, "apt has the package lists of no security archive: add one to its sources and run apt-get update")
	}
	return found, nil
}

// fresh says when the answer of an archive is too old.
func (a *Apt) fresh(s *Survey, x *index, now time.Time) {
	r, err := a.readRelease(x)
	if err != nil {
		s.Problems = append(s.Problems, fmt.Sprintf("how old the package lists of %s %s are cannot be told: %v", x.repository, x.release, err))
		return
	}
	x.date = r.date
	if s.AsOf = earlier(s.AsOf, r.date); a.MaxAge > 0 && now.Sub(r.date) > a.MaxAge {
		s.Problems = append(s.Problems, fmt.Sprintf("the package lists of %s %s are of %s, more than %d days old: run apt-get update", x.repository, x.release, r.date.Format(time.DateOnly), int(a.MaxAge/(24*time.Hour))))
		return
	}
	if !r.validUntil.IsZero() && now.After(r.validUntil) {
		s.Problems = append(s.Problems, fmt.Sprintf("the package lists of %s %s were valid until %s: run apt-get update", x.repository, x.release, r.validUntil.Format(time.RFC3339)))
	}
}

// maxRelease is how much of a Release file is read: its fields come first, its
// digests after them.
const maxRelease = 256 << 10

// readRelease reads the Release file that an index belongs to. It stands beside
// it, under the name of the index without its key.
func (a *Apt) readRelease(x *index) (r release, err error) {
	name, ok := "", false
	for _, ext := range []string{"", ".lz4", ".zst", ".gz", ".xz", ".bz2", ".lzma"} {
		if name, ok = strings.CutSuffix(x.file, strings.ReplaceAll(x.metaKey, "/", "_")+ext); ok {
			break
		}
	}
	if !ok {
		return r, fmt.Errorf("%q is no name of a package list", x.file)
	}
	root, err := os.OpenRoot(a.root())
	if err != nil {
		return r, err
	}
	defer root.Close()
	rel, err := filepath.Rel(a.root(), name)
	if err != nil {
		return r, err
	}
	for _, kind := range []string{"InRelease", "Release"} {
		f, err := root.Open(rel + kind)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return r, err
		}
		defer f.Close()
		if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
			return r, fmt.Errorf("%s is not a regular file", name+kind)
		}
		b, err := io.ReadAll(io.LimitReader(f, maxRelease))
		if err != nil {
			return r, err
		}
		return parseRelease(b)
	}
	return r, errors.New("there is no Release file")
}

// pending compares what is installed with what the security archives offer.
func (a *Apt) pending(ctx context.Context, s *Survey, conf string, t *tools, packages []installed, archives map[string]*index) error {
	byName := make(map[string]*installed, len(packages))
	var names []string
	for i := range packages {
		byName[packages[i].name] = &packages[i]
		names = append(names, packages[i].name)
	}
	answered := map[string]bool{}
	for len(names) > 0 {
		n := min(batch, len(names))
		out, err := a.apt(ctx, conf, t.cache, append([]string{"policy", "--"}, names[:n]...)...)
		if err != nil {
			return err
		}
		names = names[n:]
		if err := parsePolicy(bytes.NewReader(out), func(c choice) {
			p := byName[c.name]
			if p == nil {
				return
			}
			answered[c.name] = true
			if u, ok := a.update(p, &c, archives); ok {
				s.Advisories = append(s.Advisories, u)
			}
		}); err != nil {
			return err
		}
	}
	var silent []string
	for name := range byName {
		if !answered[name] {
			silent = append(silent, name)
		}
	}
	if len(silent) > 0 {
		s.Problems = append(s.Problems, fmt.Sprintf("apt says nothing about %d of the installed packages, such as %s", len(silent), silent[0]))
	}
	return nil
}

// update returns the security update that a package lacks: the newest one that a
// security archive offers.
func (a *Apt) update(p *installed, c *choice, archives map[string]*index) (u Advisory, pending bool) {
	var best *offer
	var published time.Time
	for i := range c.offers {
		o := &c.offers[i]
		if CompareVersions(o.version, p.version) <= 0 || best != nil && CompareVersions(o.version, best.version) <= 0 {
			continue
		}
		for _, from := range o.from {
			if x := archives[from]; x != nil {
				best, published = o, x.date
			}
		}
	}
	if best == nil {
		return u, false
	}
	u = Advisory{
		Source: SourceApt, Name: p.source, Advisory: best.version, Severity: a.Severity, Published: published,
		Installed: p.version, FixedIn: best.version, Packages: []string{p.name},
	}
	switch {
	case p.held:
		u.Note = "held"
	case best.phased:
		u.Note = "phased"
	case c.candidate == "(none)" || CompareVersions(c.candidate, best.version) < 0:
		u.Note = "pinned"
	}
	return u, true
}
