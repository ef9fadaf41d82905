package schedule

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// hostile are words that cron, systemd or a shell would take apart.
var hostile = []string{
	"plain", "with space", "5%", "100%n", "$HOME", "${HOME}", "a'b", `a"b`, `a\b`, "`id`", "$(id)", ";true", "a#b", "*", "~", "größe", "",
}

// The command in the entry, after cron took it, gives a shell these words.
func TestCronCommandMeansItsWords(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "a program%")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nfor word; do printf '%s\\0' \"$word\"; done\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := nightly(Cron)
	s.Jitter, s.Binary, s.Args = 0, program, hostile
	f, err := s.cronEntry()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(f.data), "\n"), "\n")
	_, command, ok := strings.Cut(lines[len(lines)-1], " root ")
	if !ok || !strings.HasPrefix(lines[len(lines)-1], "0 3 * * * root ") {
		t.Fatalf("entry %q", lines[len(lines)-1])
	}
	for i := range command {
		if command[i] == '%' && command[i-1] != '\\' {
			t.Errorf("cron ends the command at %q", command[i:])
		}
	}
	out, err := exec.Command("/bin/sh", "-c", strings.ReplaceAll(command, `\%`, "%")).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); !slices.Equal(got, hostile) {
		t.Errorf("the shell gives %q, want %q", got, hostile)
	}
}

func units(t *testing.T, s Schedule) map[string]string {
	t.Helper()
	files, err := s.units()
	if err != nil {
		t.Fatal(err)
	}
	text := map[string]string{}
	for _, f := range files {
		text[strings.TrimPrefix(f.Path, "/etc/systemd/system/mobileops-integrity-check")] = string(f.data)
	}
	return text
}

func TestUnitsSatisfySystemd(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("NOT RUN: the unit files were not checked: systemd-analyze is not installed (apt-get install systemd; make test does)")
	}
	plain, full := nightly(Systemd), nightly(Systemd)
	plain.Jitter, plain.Binary = 0, "/bin/true"
	full.Binary, full.Args, full.Mail, full.Verify = "/bin/echo", hostile, "ops@example.org", true
	full.Env = []string{`MOBILEOPS_STATE_DIR=/srv/a b%c"d\e`}
	full.Dirs = Dirs{State: `/srv/a b%c"d\e`, Log: "/srv/log"}
	full.Timing = Timing{week, 27 * time.Hour}
	for _, s := range []Schedule{plain, full} {
		dir := t.TempDir()
		files, err := s.units()
		if err != nil {
			t.Fatal(err)
		}
		args := []string{"verify", "--man=no"}
		for _, f := range files {
			path := filepath.Join(dir, filepath.Base(f.Path))
			// The mailer need not be installed where this runs.
			text := strings.ReplaceAll(string(f.data), mailer, "/bin/cat")
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			args = append(args, path)
		}
		out, err := exec.Command(analyze, args...).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "mobileops") { // other units of this host may have faults
				t.Error(line)
			}
		}
		if err != nil && !t.Failed() {
			t.Errorf("systemd-analyze verify: %v\n%s", err, out)
		}
	}
}

func TestUnitsSayWhatWasAskedFor(t *testing.T) {
	s := nightly(Systemd)
	s.Mail, s.Args = "ops@example.org", []string{"integrity", "check", "--rehash-sample", "5%", "--name", "$x y"}
	s.Env, s.Dirs = []string{"MOBILEOPS_STATE_DIR=/srv/a b"}, Dirs{State: "/srv/a b", Anchors: []string{"/mnt/usb"}}
	text := units(t, s)
	for unit, lines := range map[string][]string{
		".timer": {"OnCalendar=*-*-* 03:00:00", "RandomizedDelaySec=1800s", "FixedRandomDelay=yes", "Persistent=true", "WantedBy=timers.target"},
		".service": {
			`ExecStart=/usr/bin/mobileops integrity check --rehash-sample 5%% --name "$$x y"`, `Environment="MOBILEOPS_STATE_DIR=/srv/a b"`,
			`ReadWritePaths="-/srv/a b"`, "ReadWritePaths=-/mnt/usb", "OnFailure=mobileops-integrity-check-mail.service",
		},
		"-mail.service": {"Type=oneshot"},
	} {
		for _, line := range lines {
			if !strings.Contains(text[unit], "\n"+line+"\n") {
				t.Errorf("%s lacks %q:\n%s", unit, line, text[unit])
			}
		}
	}
	if !strings.Contains(text["-mail.service"], `"To: ops@example.org\\nSubject`) {
		t.Errorf("mail:\n%s", text["-mail.service"])
	}
	// Without its state an image has nothing to check yet; a host was robbed.
	for root, want := range map[string]bool{"/": false, "/mnt/image": true} {
		s.Root = root
		if text := units(t, s)[".service"]; strings.Contains(text, "\nConditionPathExists=/srv/a b/state.db\n") != want || !strings.Contains(text, "(1)\n") {
			t.Errorf("%s:\n%s", root, text)
		}
	}
	s.Jitter, s.Mail = 0, ""
	text = units(t, s)
	if len(text) != 2 || strings.Contains(text[".timer"], "Delay") || strings.Contains(text[".service"], "OnFailure") {
		t.Errorf("%q", text)
	}
}

// hardening are the settings of a service that confine it.
func hardening(text string) (lines []string) {
	_, service, _ := strings.Cut(text, "[Service]")
	for line := range strings.Lines(service) {
		if name, _, ok := strings.Cut(line, "="); ok && line[0] != '#' &&
			!slices.Contains([]string{"ExecStart", "Environment", "ReadWritePaths", "TimeoutStartSec"}, name) {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestHardeningIsThatOfThePackagedUnit(t *testing.T) {
	packaged, err := os.ReadFile("../../../packaging/systemd/mobileops-integrity-check.service")
	if err != nil {
		t.Fatal(err)
	}
	got, want := hardening(units(t, nightly(Systemd))[".service"]), hardening(string(packaged))
	if !slices.Equal(got, want) || len(want) < 20 {
		t.Errorf("the template has\n%s\nand packaging has\n%s", strings.Join(got, ""), strings.Join(want, ""))
	}
}
