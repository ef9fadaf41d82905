package sla

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/state"
)

const day = 24 * time.Hour

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func wantShort(t *testing.T, s Survey, want ...string) {
	t.Helper()
	got := short(s)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("pending are\n\t%s\nnot\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func wantProblem(t *testing.T, s Survey, text string) {
	t.Helper()
	if s.Complete() || s.Skipped != "" || !slices.ContainsFunc(s.Problems, func(p string) bool { return strings.Contains(p, text) }) {
		t.Errorf("problems are %q (skipped: %q), and none says %q", s.Problems, s.Skipped, text)
	}
}

func wantComplete(t *testing.T, s Survey) {
	t.Helper()
	if !s.Complete() {
		t.Errorf("the survey is not complete: %q (skipped: %q)", s.Problems, s.Skipped)
	}
}

// standard is a host with packages that lack security updates in every way.
func standard(m *machine) (stable, security archive) {
	m.install(
		deb{name: "libfoo", version: "1.0-1", source: "foo"}, deb{name: "foo-bin", version: "1.0-1", source: "foo"},
		deb{name: "heldback", version: "1:2-1"}, deb{name: "pinned", version: "3-1"}, deb{name: "blocked", version: "4-1"},
		deb{name: "current", version: "5-1+deb12u1"}, deb{name: "ordinary", version: "6-1"}, deb{name: "ahead", version: "9"},
		deb{name: "libfoo", version: "1.0-1", arch: "i386", source: "foo"},
		deb{name: "gone", version: "1"}, deb{name: "meta", version: "1"},
	)
	m.run("dpkg", "--root="+m.root, "--force-not-root", "--log=/dev/null", "--purge", "gone")
	stable = archive{name: "stable", label: "Debian", suite: "bookworm", date: noon.Add(-90 * day), debs: []deb{
		{name: "libfoo", version: "1.0-1", source: "foo"}, {name: "ordinary", version: "6-2"}, {name: "ahead", version: "8"}}}
	security = archive{name: "security", label: "Debian-Security", suite: "bookworm-security", date: noon.Add(-2 * day), validUntil: noon.Add(5 * day), debs: []deb{
		{name: "libfoo", version: "1.0-1+deb12u1", source: "foo"}, {name: "foo-bin", version: "1.0-1+deb12u1", source: "foo"},
		{name: "libfoo", version: "1.0-1+deb12u1", arch: "i386", source: "foo"},
		{name: "heldback", version: "1:2-1+deb12u1"}, {name: "pinned", version: "3-1+deb12u1"},
		{name: "blocked", version: "4-1+deb12u1", depends: "nowhere"}, {name: "current", version: "5-1+deb12u1"},
		{name: "ahead", version: "8+deb12u1"}, {name: "gone", version: "2"}, {name: "meta", version: "2", depends: "meta-new"}, {name: "meta-new", version: "2"}}}
	m.sources(stable, security)
	m.run("sh", "-c", "echo heldback hold | dpkg --root="+m.root+" --force-not-root --set-selections")
	m.write("etc/apt/preferences.d/pin", "Package: pinned\nPin: version 3-1\nPin-Priority: 1001\n")
	return stable, security
}

func TestAptSeesWhatIsPending(t *testing.T) {
	m := newMachine(t)
	standard(m)
	s := m.survey(Apt{MaxAge: 7 * day}, noon)
	wantComplete(t, s)
	// A simulated upgrade would show foo and meta alone.
	want := []string{
		"apt/blocked/4-1+deb12u1 blocked",
		"apt/foo/1.0-1+deb12u1 foo-bin+libfoo+libfoo:i386",
		"apt/heldback/1:2-1+deb12u1 heldback (held)",
		"apt/meta/2 meta",
		"apt/pinned/3-1+deb12u1 pinned (pinned)",
	}
	wantShort(t, s, want...)
	for _, a := range s.Advisories {
		if a.Severity != High || !a.Published.Equal(noon.Add(-2*day)) {
			t.Errorf("%s is %s of %s", a.ID(), a.Severity, a.Published)
		}
	}
	upgrade := m.run("apt-get", "-s", "dist-upgrade")
	if strings.Contains(upgrade, "Inst heldback") || strings.Contains(upgrade, "Inst pinned") || strings.Contains(upgrade, "Inst blocked") {
		t.Errorf("these are not kept back, so nothing was shown:\n%s", upgrade)
	}
}

func TestAptTouchesNothing(t *testing.T) {
	m := newMachine(t)
	standard(m)
	// A hostile tree would have apt run something.
	m.write("etc/apt/apt.conf", `Dir::Bin::dpkg "/bin/false"; APT::Architecture "s390x"; DPkg::Pre-Install-Pkgs "/bin/false"; garbage`)
	list := func() (out []string) {
		filepath.WalkDir(m.root, func(path string, d os.DirEntry, _ error) error {
			if info, err := d.Info(); err == nil {
				out = append(out, path+" "+info.ModTime().String())
			}
			return nil
		})
		return out
	}
	before := list()
	wantComplete(t, m.survey(Apt{MaxAge: 7 * day}, noon))
	if after := list(); !slices.Equal(before, after) {
		t.Errorf("before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

func TestAptListsThatAreOldOrMissing(t *testing.T) {
	m := newMachine(t)
	stable, security := standard(m)
	for _, c := range []struct {
		now     time.Time
		maxAge  time.Duration
		problem string
	}{
		{noon.Add(5 * day), 7 * day, ""},
		{noon.Add(5*day + time.Second), 7 * day, "more than 7 days old: run apt-get update"},
		{noon.Add(5*day + time.Second), 30 * day, "were valid until 2026-11-27T12:00:00Z"},
		{noon.Add(5*day + time.Second), 0, "were valid until"},
		{noon.Add(-30 * day), 7 * day, ""}, // a clock that is behind
	} {
		s := m.survey(Apt{MaxAge: c.maxAge}, c.now)
		if c.problem == "" {
			wantComplete(t, s)
		} else {
			wantProblem(t, s, c.problem)
		}
		if len(s.Advisories) == 0 {
			t.Error("what old lists know is not shown")
		}
	}

	release, err := filepath.Glob(filepath.Join(m.root, "var/lib/apt/lists/*security_Release"))
	if err != nil || len(release) != 1 {
		t.Fatal(release, err)
	}
	good, err := os.ReadFile(release[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(release[0], []byte(strings.Replace(string(good), "\nDate: ", "\nDate: at ", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, m.survey(Apt{}, noon), "cannot be told: Date")

	m.sources(stable)
	wantProblem(t, m.survey(Apt{}, noon), "the package lists of no security archive")
	m.write("etc/apt/sources.list", m.publish(stable)+m.publish(security))
	for _, f := range []string{release[0], strings.TrimSuffix(release[0], "Release") + "main_binary-amd64_Packages"} {
		os.Remove(f)
	}
	wantProblem(t, m.survey(Apt{}, noon), "bookworm-security are not here: run apt-get update")
	m.write("etc/apt/sources.list", "nonsense here\n")
	wantProblem(t, m.survey(Apt{}, noon), "apt-get: E: ")
	m.write("var/lib/dpkg/status", "Package: x\nVersion\n")
	wantProblem(t, m.survey(Apt{}, noon), "dpkg-query: ")
	s := (&Apt{Root: t.TempDir()}).Survey(context.Background(), noon)
	if s.Skipped == "" || s.Complete() {
		t.Errorf("a tree without packages is %+v", s)
	}
}

// TestAptFromPendingToFixed goes through a life with a real upgrade in it.
func TestAptFromPendingToFixed(t *testing.T) {
	m := newMachine(t)
	m.install(deb{name: "libfoo", version: "1.0-1", source: "foo"})
	security := archive{name: "security", label: "Debian-Security", suite: "bookworm-security", date: noon.Add(-day), debs: []deb{{name: "libfoo", version: "1.0-1+deb12u1", source: "foo"}}}
	m.sources(security)
	store := state.New(t.TempDir(), state.Options{})
	look := func(now time.Time) []Entry {
		t.Helper()
		s := m.survey(Apt{}, now)
		wantComplete(t, s)
		observe(t, store, s, now)
		return list(t, store, Filter{}, now)
	}
	first := look(noon)
	if len(first) != 1 || first[0].State != Pending || first[0].ID() != "apt/foo/1.0-1+deb12u1" || !first[0].Due.Equal(noon.Add(30*day)) {
		t.Fatalf("%+v", first)
	}
	// A newer update does not start a new deadline for the one that is missing.
	security.debs[0].version, security.date = "1.0-1+deb12u2", noon.Add(20*day)
	m.sources(security)
	both := look(noon.Add(20 * day))
	if len(both) != 2 || both[0].ID() != "apt/foo/1.0-1+deb12u1" || both[0].State != Pending || !both[1].Due.Equal(noon.Add(50*day)) {
		t.Fatalf("%+v", both)
	}
	if late := look(noon.Add(31 * day)); late[0].State != Overdue || late[1].State != Pending {
		t.Fatalf("%+v", late)
	}
	m.run("apt-get", "-y", "dist-upgrade")
	done := look(noon.Add(32 * day))
	if len(done) != 2 || done[0].Outcome != Late || done[1].Outcome != InTime {
		t.Fatalf("%+v %+v", done[0].Record, done[1].Record)
	}
	version, err := os.ReadFile(filepath.Join(m.root, "usr/share/libfoo-amd64/version"))
	if err != nil || string(version) != "1.0-1+deb12u2" {
		t.Errorf("installed is %q (%v)", version, err)
	}
	// Installed again as it was: pending again, and known since the beginning.
	m.install(deb{name: "libfoo", version: "1.0-1", source: "foo"})
	if again := look(noon.Add(33 * day)); again[0].State != Pending || !again[0].FirstKnown.Equal(noon.Add(20*day)) {
		t.Errorf("%+v", again[0].Record)
	}
	// What is not there any more needs no update.
	m.run("dpkg", "--root="+m.root, "--force-not-root", "--log=/dev/null", "--purge", "libfoo")
	for _, e := range look(noon.Add(34 * day)) {
		if e.State != Fixed {
			t.Errorf("%s is %s", e.ID(), e.State)
		}
	}
}

func TestThisHost(t *testing.T) {
	if _, err := os.Stat("/var/lib/dpkg/status"); err != nil || program("apt-cache") == "" {
		t.Skip("NOT RUN: this host has no apt")
	}
	s := (&Apt{Severity: High}).Survey(context.Background(), time.Now())
	if s.Skipped != "" || len(s.Installed) < 50 {
		t.Errorf("%d packages are installed here (skipped: %q, problems: %q)", len(s.Installed), s.Skipped, s.Problems)
	}
}
