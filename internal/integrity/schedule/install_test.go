package schedule

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// bench is a tree and an installer for it, whose systemctl is written down.
type bench struct {
	*Installer
	t    *testing.T
	said []string
	fail error
}

func newBench(t *testing.T, booted bool) *bench {
	b := &bench{t: t, Installer: &Installer{Store: state.New(t.TempDir(), state.Options{}), Root: t.TempDir()}}
	b.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
	if booted {
		b.Systemctl = func(_ context.Context, args ...string) error {
			b.said = append(b.said, strings.Join(args, " "))
			return b.fail
		}
	}
	return b
}

func (b *bench) write(name, text string) {
	b.t.Helper()
	path := filepath.Join(b.Root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) read(name string) string {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.Root, name))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

func (b *bench) install(s Schedule, force bool) (*Outcome, error) {
	b.t.Helper()
	if err := b.Plan(&s); err != nil {
		b.t.Fatal(err)
	}
	return b.Install(b.t.Context(), s, force)
}

func nightly(via Via) Schedule {
	return Schedule{
		Name: "integrity-check", Baseline: "default", Timing: Timing{day, 3 * time.Hour}, Jitter: 30 * time.Minute, Via: via,
		Binary: "/usr/bin/mobileops", Args: []string{"integrity", "check", "--quiet"}, Installed: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC),
	}
}

func kind(t *testing.T, err error, want failure.Kind) {
	t.Helper()
	if failure.KindOf(err) != want {
		t.Errorf("error %v, want kind %d", err, want)
	}
}

func TestTwiceChangesNothing(t *testing.T) {
	for _, via := range []Via{Systemd, Cron} {
		b := newBench(t, via == Systemd)
		first, err := b.install(nightly(via), false)
		if err != nil || len(first.Changed) == 0 {
			t.Fatalf("%+v, %v", first, err)
		}
		before, _ := os.Stat(filepath.Join(b.Root, first.Changed[0]))
		if before.Mode() != 0o644 {
			t.Errorf("mode %v: cron refuses what others can write", before.Mode())
		}
		later := nightly(via)
		later.Installed = later.Installed.Add(time.Hour)
		second, err := b.install(later, false)
		if err != nil || len(second.Changed) != 0 {
			t.Errorf("%+v, %v", second, err)
		}
		after, _ := os.Stat(filepath.Join(b.Root, first.Changed[0]))
		if !os.SameFile(before, after) {
			t.Error("the file was written again")
		}
		s, err := Find(t.Context(), b.Store, "integrity-check")
		if err != nil || !s.Installed.Equal(first.Schedule.Installed) {
			t.Errorf("installed %s, %v", s.Installed, err)
		}
	}
}

func TestEditedFilesAreLeftAlone(t *testing.T) {
	b := newBench(t, false)
	if _, err := b.install(nightly(Cron), false); err != nil {
		t.Fatal(err)
	}
	const entry = "etc/cron.d/mobileops-integrity-check"
	edited := b.read(entry) + "# ours\n"
	b.write(entry, edited)
	hourly := nightly(Cron)
	hourly.Timing = Timing{Period: time.Hour}
	_, err := b.install(hourly, false)
	kind(t, err, failure.Busy)
	_, err = b.Remove(t.Context(), "integrity-check", false)
	kind(t, err, failure.Busy)
	// Another kind of schedule would remove the entry: also refused.
	_, err = b.install(nightly(Systemd), false)
	kind(t, err, failure.Busy)
	if b.read(entry) != edited {
		t.Error("it was changed")
	}
	if _, err := os.Stat(filepath.Join(b.Root, "etc/systemd")); err == nil {
		t.Error("units were written beside it")
	}
	s, _ := Find(t.Context(), b.Store, "integrity-check")
	if states, err := Look(&s); err != nil || states[0] != Edited || s.Timing.Period != day {
		t.Errorf("%v, %v, %s", states, err, s.Timing)
	}
	if out, err := b.install(hourly, true); err != nil || len(out.Changed) != 1 {
		t.Errorf("with force: %+v, %v", out, err)
	}
	// A file of that name that was never ours.
	other := nightly(Cron)
	other.Name = "theirs"
	b.write("etc/cron.d/mobileops-theirs", "* * * * * root true\n")
	_, err = b.install(other, false)
	kind(t, err, failure.Busy)
	// Nor is a link written through, or a directory replaced.
	other.Name = "linked"
	b.write("target", "keep")
	if err := os.Symlink("../../target", filepath.Join(b.Root, "etc/cron.d/mobileops-linked")); err != nil {
		t.Fatal(err)
	}
	_, err = b.install(other, false)
	kind(t, err, failure.Busy)
	if _, err := b.install(other, true); err != nil || b.read("target") != "keep" {
		t.Errorf("through the link: %q, %v", b.read("target"), err)
	}
	other.Name = "directory"
	if err := os.Mkdir(filepath.Join(b.Root, "etc/cron.d/mobileops-directory"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err = b.install(other, true); err == nil {
		t.Error("a directory was replaced")
	}
}

// A kill between remembering and writing leaves the former file: still ours.
func TestCutShortIsContinued(t *testing.T) {
	b := newBench(t, false)
	if _, err := b.install(nightly(Cron), false); err != nil {
		t.Fatal(err)
	}
	const entry = "etc/cron.d/mobileops-integrity-check"
	former := b.read(entry)
	hourly := nightly(Cron)
	hourly.Timing = Timing{Period: time.Hour}
	if _, err := b.install(hourly, false); err != nil {
		t.Fatal(err)
	}
	b.write(entry, former)
	s, _ := Find(t.Context(), b.Store, "integrity-check")
	if states, _ := Look(&s); states[0] != AsWritten {
		t.Errorf("it is taken for %s", states[0])
	}
	weekly := nightly(Cron)
	weekly.Timing = Timing{Period: week}
	if out, err := b.install(weekly, false); err != nil || len(out.Changed) != 1 {
		t.Errorf("%+v, %v", out, err)
	}
	b.write(entry, former)
	if out, err := b.install(hourly, false); err != nil || len(out.Changed) != 1 {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestNothingIsWrittenOutsideOfTheTree(t *testing.T) {
	b := newBench(t, false)
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(b.Root, "etc/cron.d")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.install(nightly(Cron), true); err == nil {
		t.Error("it was installed")
	}
	if list, _ := os.ReadDir(outside); len(list) > 0 {
		t.Errorf("%v was written outside", list)
	}
}

func TestSystemctlIsToldOrNamed(t *testing.T) {
	b := newBench(t, true)
	if _, err := b.install(nightly(Systemd), false); err != nil {
		t.Fatal(err)
	}
	if want := []string{"daemon-reload", "enable --now mobileops-integrity-check.timer"}; !slices.Equal(b.said, want) {
		t.Errorf("systemctl was told %q", b.said)
	}
	b.said = nil
	out, err := b.install(nightly(Cron), false)
	if want := []string{"disable --now mobileops-integrity-check.timer", "daemon-reload"}; err != nil || !slices.Equal(b.said, want) {
		t.Errorf("systemctl was told %q, %v", b.said, err)
	}
	if len(out.Changed) != 3 {
		t.Errorf("changed: %q", out.Changed)
	}
	b.fail = errors.New("no bus")
	out, err = b.install(nightly(Systemd), false)
	if err == nil || !slices.Equal(out.Todo, []string{"systemctl daemon-reload", "systemctl enable --now mobileops-integrity-check.timer"}) {
		t.Errorf("%+v, %v", out, err)
	}

	// Where systemd does not run, it is said what to run.
	b = newBench(t, false)
	out, err = b.install(nightly(Systemd), false)
	if err != nil || len(out.Todo) != 1 || out.Todo[0] != "systemctl --root="+b.Root+" enable mobileops-integrity-check.timer" {
		t.Errorf("%q, %v", out.Todo, err)
	}
	wants := filepath.Join(b.Root, "etc/systemd/system/timers.target.wants")
	if systemctl, err := exec.LookPath("systemctl"); err != nil {
		t.Log("NOT RUN: systemctl --root=… enable: systemctl is not installed")
	} else if text, err := exec.Command(systemctl, "--root="+b.Root, "enable", "mobileops-integrity-check.timer").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, text)
	} else if _, err := os.Lstat(filepath.Join(wants, "mobileops-integrity-check.timer")); err != nil {
		t.Error(err)
	}
	t.Log("NOT RUN: systemctl enable --now against a running systemd: none is PID 1 here")
	out, err = b.Remove(t.Context(), "integrity-check", false)
	if err != nil || len(out.Changed) != 2 || len(out.Todo) != 0 {
		t.Errorf("%+v, %v", out, err)
	}
	if list, _ := os.ReadDir(wants); len(list) > 0 {
		t.Errorf("%v is left", list)
	}
	_, err = b.Remove(t.Context(), "integrity-check", false)
	kind(t, err, failure.NotReady)
}

func TestNamesOfOthersAreNotTaken(t *testing.T) {
	b := newBench(t, false)
	if _, err := b.install(nightly(Cron), false); err != nil {
		t.Fatal(err)
	}
	other := nightly(Cron)
	other.Baseline = "app"
	_, err := b.install(other, true)
	kind(t, err, failure.Busy)
	if err := os.Remove(filepath.Join(b.Root, "etc/machine-id")); err != nil {
		t.Fatal(err)
	}
	s := nightly(Cron)
	kind(t, b.Plan(&s), failure.NotReady)
	s.Jitter = 0
	if err := b.Plan(&s); err != nil {
		t.Error(err)
	}
	for _, bad := range []func(*Schedule){
		func(s *Schedule) { s.Name = "a.b" }, func(s *Schedule) { s.Name = "" }, func(s *Schedule) { s.Name = "-a" }, func(s *Schedule) { s.Name = strings.Repeat("a", 65) },
		func(s *Schedule) { s.Jitter = 24 * time.Hour }, func(s *Schedule) { s.Jitter = time.Second }, func(s *Schedule) { s.Jitter = -time.Hour },
		func(s *Schedule) { s.Mail = "a b" }, func(s *Schedule) { s.Mail = "-oQ/tmp" }, func(s *Schedule) { s.Mail = "a\nroot * * * * *" },
		func(s *Schedule) { s.Env = []string{"MOBILEOPS_STATE_DIR=/a\nMAILTO=x"} }, func(s *Schedule) { s.Binary = "/opt/\x1b/mobileops" },
		func(s *Schedule) { s.Args = append(s.Args, strings.Repeat("x", 1000)) }, func(s *Schedule) { s.Env = []string{`A="'`} },
	} {
		s := nightly(Cron)
		s.Jitter = 0
		bad(&s)
		kind(t, b.Plan(&s), failure.Usage)
	}
}

func TestDetect(t *testing.T) {
	root := t.TempDir()
	if got := Detect(root); got != Cron {
		t.Errorf("an empty tree has %s", got)
	}
	if err := errors.Join(os.Mkdir(filepath.Join(root, "sbin"), 0o755), os.Symlink("/lib/systemd/systemd", filepath.Join(root, "sbin/init"))); err != nil {
		t.Fatal(err)
	}
	if got := Detect(root); got != Systemd {
		t.Errorf("a tree with systemd as init has %s", got)
	}
}
