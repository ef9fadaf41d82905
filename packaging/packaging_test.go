// Package packaging holds no program: its tests check what a host gets beside
// the binary, the way a host would: installed, by make.
package packaging

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/cli"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/internal/network/isolation"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update/pack"
)

//go:generate sh -c "go run ../cmd/mobileops config init --stdout >config.yaml"

// prefix is not the default, so what has it built in shows.
const prefix = "/opt/host"

// installed runs make install once, and returns the DESTDIR.
var installed = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "mobileops-install-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("make", "--no-print-directory", "-C", "..", "build", "install", "DESTDIR="+dir, "PREFIX="+prefix)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w:\n%s", err, out)
	}
	return dir, err
})

func TestMain(m *testing.M) {
	status := m.Run()
	if dir, err := installed(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(status)
}

func install(t *testing.T) string {
	t.Helper()
	dir, err := installed()
	if err != nil {
		t.Fatalf("make install: %v", err)
	}
	return dir
}

func TestInstallPutsEverythingInItsPlace(t *testing.T) {
	dest := install(t)
	for name, mode := range map[string]fs.FileMode{
		"bin/mobileops": 0o755,
		"share/bash-completion/completions/mobileops":          0o644,
		"share/zsh/site-functions/_mobileops":                  0o644,
		"share/fish/vendor_completions.d/mobileops.fish":       0o644,
		"share/man/man1/mobileops.1":                           0o644,
		"share/man/man1/mobileops-integrity-policy-explain.1":  0o644,
		"share/man/man5/mobileops.yaml.5":                      0o644,
		"share/doc/mobileops/LICENSE":                          0o644,
		"share/doc/mobileops/examples/config.yaml":             0o644,
		"share/doc/mobileops/examples/policy.yaml":             0o644,
		"share/doc/mobileops/examples/isolation-profile.yaml":  0o644,
		"share/doc/mobileops/examples/package.yaml":            0o644,
		"share/doc/mobileops/examples/people.yaml":             0o644,
		"share/doc/mobileops/examples/first-check":             0o755,
		"share/doc/mobileops/examples/cron":                    0o644,
		"lib/systemd/system/mobileops-integrity-check.service": 0o644,
		"lib/systemd/system/mobileops-integrity-check.timer":   0o644,
		"lib/systemd/system/mobileops-watch.service":           0o644,
		"lib/systemd/system/mobileops-isolation.service":       0o644,
		"lib/systemd/system/mobileops-logs.service":            0o644,
		"lib/systemd/system/mobileops-logs-rotate.service":     0o644,
		"lib/systemd/system/mobileops-logs-rotate.timer":       0o644,
		"lib/systemd/system/mobileops-network.service":         0o644,
		"lib/systemd/system/mobileops-update.service":          0o644,
		"lib/systemd/system/mobileops-update-apply@.service":   0o644,
		"lib/systemd/system/mobileops-update-apply@.timer":     0o644,
		"lib/systemd/system/mobileops-update-check.service":    0o644,
		"lib/systemd/system/mobileops-plugins.service":         0o644,
		"lib/systemd/system/mobileops-scan.service":            0o644,
		"lib/systemd/system/mobileops-scan.timer":              0o644,
		"lib/systemd/system/mobileops-update-check.timer":      0o644,
	} {
		info, err := os.Stat(filepath.Join(dest, prefix, name))
		if err != nil {
			t.Error(err)
		} else if info.Mode() != mode || info.Size() == 0 {
			t.Errorf("%s: mode %v, %d bytes", name, info.Mode(), info.Size())
		}
	}
	filepath.WalkDir(dest, func(path string, d fs.DirEntry, err error) error {
		if rel := strings.TrimPrefix(path, dest); !d.IsDir() && !strings.HasPrefix(rel, prefix+"/") {
			t.Errorf("%s was installed outside the prefix", rel)
		}
		return err
	})
	out, err := exec.Command(filepath.Join(dest, prefix, "bin/mobileops"), "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "mobileops ") {
		t.Errorf("the installed binary says %q, %v", out, err)
	}
}

func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("NOT RUN: the unit files were not checked: systemd-analyze is not installed (apt-get install systemd; make test does)")
	}
	dest := install(t)
	dir := filepath.Join(dest, prefix, "lib/systemd/system")
	copies := t.TempDir()
	var files []string
	for name, calls := range map[string]string{
		"mobileops-integrity-check.service": "integrity check --quiet",
		"mobileops-integrity-check.timer":   "",
		"mobileops-watch.service":           "integrity watch --quiet --output jsonl",
		"mobileops-logs.service":            "logs collect --follow --quiet",
		"mobileops-logs-rotate.service":     "logs rotate --quiet",
		"mobileops-logs-rotate.timer":       "",
		"mobileops-network.service":         "network serve --quiet",
		"mobileops-isolation.service":       "network reconcile --quiet",
		"mobileops-update.service":          "update reconcile --quiet",
		"mobileops-update-apply@.service":   "update apply %i --prune --quiet",
		"mobileops-update-apply@.timer":     "",
		"mobileops-update-check.service":    "update check --quiet",
		"mobileops-plugins.service":         "plugin supervise --quiet",
		"mobileops-scan.service":            "scan host --quiet --new-only --fail-on high",
		"mobileops-scan.timer":              "",
		"mobileops-update-check.timer":      "",
	} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if want := "ExecStart=" + prefix + "/bin/mobileops " + calls + "\n"; calls != "" && !strings.Contains(string(text), want) {
			t.Errorf("no %q in %s", want, name)
		}
		// The binary must exist for the check, so the copy runs it where it is.
		text = []byte(strings.ReplaceAll(string(text), "="+prefix+"/bin/", "="+dest+prefix+"/bin/"))
		file := filepath.Join(copies, name)
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	slices.Sort(files)
	out, err := exec.Command(analyze, append([]string{"verify", "--man=no"}, files...)...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		// Other units of this host are read too, and may have faults.
		if strings.Contains(line, "mobileops") {
			t.Error(line)
		}
	}
	if err != nil && !t.Failed() {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// run is one invocation of mobileops.
func run(t *testing.T, args ...string) (status int, out string) {
	t.Helper()
	streams, stdout, stderr := ui.Test(nil)
	status = cli.Main(t.Context, append([]string{"mobileops"}, args...), streams, func(string) string { return "" })
	return status, stdout.String() + stderr.String()
}

func TestExampleConfigurationIsValid(t *testing.T) {
	data, err := os.ReadFile("config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, fresh := run(t, "config", "init", "--stdout"); fresh != string(data) {
		t.Error("config.yaml is not what mobileops config init writes today (make generate)")
	}
	if status, out := run(t, "config", "validate", "config.yaml"); status != 0 {
		t.Errorf("status %d: %s", status, out)
	}
}

func TestExamplePolicy(t *testing.T) {
	p, err := policy.Load("examples/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/etc/shadow":                 "critical",
		"/srv/www/index.html":         "high",
		"/srv/www/upload/a.jpg":       "",
		"/srv/www/upload/a/b.php":     "critical",
		"/var/log/nginx/access.log":   "low",
		"/var/log/nginx/error.log.gz": "",
	} {
		e := p.Explain(path)
		if got := e.Severity.String(); e.Covered != (want != "") || e.Covered && got != want {
			t.Errorf("%s: covered %t, %s", path, e.Covered, got)
		}
	}
}

func TestExampleProfile(t *testing.T) {
	p, err := isolation.LoadProfile("", "examples/isolation-profile.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if p.Description == "" || len(p.Allow) == 0 || len(p.Probe) == 0 || p.Confirm == "" || p.Strict {
		t.Errorf("it does not show what a profile has: %+v", p)
	}
	// Commented out or not, every key that is known is shown.
	text, err := os.ReadFile("examples/isolation-profile.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for i := range reflect.TypeFor[isolation.Profile]().NumField() {
		key := reflect.TypeFor[isolation.Profile]().Field(i).Tag.Get("yaml")
		if !regexp.MustCompile(`(?m)^(# )?` + key + `:`).Match(text) {
			t.Errorf("%s is not shown", key)
		}
	}
	// What is commented out is understood, too.
	all := filepath.Join(t.TempDir(), "all.yaml")
	if err := os.WriteFile(all, regexp.MustCompile(`(?m)^# ([a-z_]+:)`).ReplaceAll(text, []byte("$1")), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := isolation.LoadProfile("", all); err != nil || !p.DNS || !p.KeepEstablished {
		t.Errorf("%+v, %v", p, err)
	}
	if status, out := run(t, "network", "isolate", "--dry-run", "--profile", "examples/isolation-profile.yaml", "--output", "json"); status != 1 || strings.Count(out, `"why": "profile"`) != len(p.Allow) {
		t.Errorf("status %d: %s", status, out)
	}
}

func TestExamplePackage(t *testing.T) {
	text, err := os.ReadFile("examples/package.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m, err := pack.ParseManifest(text, archive.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	// It shows everything that there is.
	empty := func(name string, v reflect.Value) {
		for i := range v.NumField() {
			if v.Field(i).IsZero() {
				t.Errorf("%s.%s is not shown", name, v.Type().Field(i).Name)
			}
		}
	}
	empty("manifest", reflect.ValueOf(*m))
	empty("hooks", reflect.ValueOf(m.Hooks))
	empty("health", reflect.ValueOf(*m.Health))
	empty("advisories", reflect.ValueOf(m.Advisories[0]))
	if err := m.Validate(); err != nil {
		t.Error(err)
	}
}

func TestExamplePeople(t *testing.T) {
	path := filepath.Join(t.TempDir(), "people.yaml") // of ours, and nobody else's to write
	text, err := os.ReadFile("examples/people.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := change.ReadPeople(path, os.Getuid(), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[int]string{1000: "alice", 1100: "alice", 1001: "bob", 1002: ""} {
		if got := p.Know(change.Identity{Actor: audit.Actor{UID: uid, LoginUID: int64(uid)}}).Person; got != want {
			t.Errorf("uid %d is %q, want %q", uid, got, want)
		}
	}
}

// TestCommandsInRunbooksExist keeps what is pasted from documents in step with the
// commands: each is there, and has every flag that it is given.
func TestCommandsInRunbooksExist(t *testing.T) {
	fence := regexp.MustCompile("(?ms)^```(?:sh|console)\n(.*?)^```")
	call := regexp.MustCompile(`\bmobileops((?: [a-z][a-z-]*)+)([^|;&)#\n]*)`)
	flag := regexp.MustCompile(`(?:^| )(--[a-z][a-z-]*)`)
	for _, file := range []string{"../docs/runbooks/patch-a-host.md", "../docs/runbooks/forward-to-a-siem.md", "../docs/runbooks/scan-a-host.md", "../README.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		calls := 0
		for _, block := range fence.FindAllSubmatch(text, -1) {
			for _, c := range call.FindAllSubmatch(block[1], -1) {
				calls++
				// Words that follow the verb are its arguments: the longest command counts.
				words := strings.Fields(string(c[1]))
				if yaml, err := os.ReadFile("../plugins/" + words[0] + "/plugin.yaml"); err == nil {
					if len(words) < 2 || !strings.Contains(string(yaml), "\n  - name: "+words[1]+"\n") {
						t.Errorf("%s: the plugin has no such command: %s", file, c[0])
					}
					continue
				}
				found, help := "", ""
				for n := len(words); n > 0 && found == ""; n-- {
					name := strings.Join(words[:n], " ")
					if status, out := run(t, append(words[:n:n], "--help")...); status == 0 && strings.Contains(out, "\n  mobileops "+name) {
						found, help = name, out
					}
				}
				if !strings.Contains(help, "\nExit status\n") { // a noun alone has none
					t.Errorf("%s: no command: %s", file, c[0])
				}
				for _, f := range flag.FindAllSubmatch(c[2], -1) {
					if !strings.Contains(help, string(f[1])) {
						t.Errorf("%s: mobileops %s has no flag %s", file, found, f[1])
					}
				}
			}
		}
		if calls == 0 {
			t.Errorf("%s: no call of mobileops found", file)
		}
	}
}

// TestCommandsInExamplesExist keeps the cron example, the unit and the script
// in step with the commands.
func TestCommandsInExamplesExist(t *testing.T) {
	call := regexp.MustCompile(`(?m)^[^#\n]*(?:\bmobileops|^run) ((?:integrity|audit|state|config|logs|network|update|change|plugin|scan|vulndb) [a-z-]+)((?: --[a-z-]+)*)`)
	for _, file := range []string{"cron/mobileops", "systemd/mobileops-integrity-check.service", "systemd/mobileops-watch.service", "systemd/mobileops-logs.service", "systemd/mobileops-logs-rotate.service", "systemd/mobileops-network.service", "systemd/mobileops-isolation.service",
		"systemd/mobileops-update.service", "systemd/mobileops-update-apply@.service", "systemd/mobileops-update-check.service", "systemd/mobileops-plugins.service", "systemd/mobileops-scan.service", "examples/first-check", "../docs/isolation.md", "../docs/runbooks/contain-a-host.md"} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		calls := call.FindAllStringSubmatch(string(data), -1)
		if len(calls) == 0 {
			t.Errorf("%s: no call of mobileops found", file)
		}
		for _, c := range calls {
			status, help := run(t, append(strings.Fields(c[1]), "--help")...)
			if status != 0 || !strings.Contains(help, "mobileops "+c[1]) {
				t.Errorf("%s: mobileops %s: status %d", file, c[1], status)
			}
			for flag := range strings.FieldsSeq(c[2]) {
				if !strings.Contains(help, flag) {
					t.Errorf("%s: mobileops %s has no flag %s", file, c[1], flag)
				}
			}
		}
	}
}

var cronTime = regexp.MustCompile(`^[0-9*/,-]+$`)

func TestCronExample(t *testing.T) {
	data, err := os.ReadFile("cron/mobileops")
	if err != nil {
		t.Fatal(err)
	}
	jobs := 0
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || regexp.MustCompile(`^[A-Z]+=`).MatchString(line) {
			continue
		}
		if rest, ok := strings.CutPrefix(line, "@reboot"); ok { // instead of the five fields of a time
			line = "0 0 1 1 *" + rest
		}
		f := strings.Fields(line)
		if len(f) < 7 || f[5] != "root" || slices.ContainsFunc(f[:5], func(s string) bool { return !cronTime.MatchString(s) }) {
			t.Errorf("%q is not a line of /etc/cron.d", line)
		}
		if !strings.Contains(line, "--quiet") {
			t.Errorf("%q mails when there is nothing to say", line)
		}
		jobs++
	}
	if jobs == 0 {
		t.Error("no job")
	}
}

// TestCronIsQuietWithoutUpdates: on a host where nothing was ever updated, and no
// repository is configured, the jobs of updates have nothing to mail.
func TestCronIsQuietWithoutUpdates(t *testing.T) {
	data, err := os.ReadFile("cron/mobileops")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(install(t), prefix, "bin")
	dir := t.TempDir()
	target := dir + "/app"
	job := regexp.MustCompile(`(?m)^[^#\n]+?\sroot +(.*mobileops (?:update|change) .*)$`)
	jobs := job.FindAllStringSubmatch(string(data), -1)
	if len(jobs) < 4 {
		t.Fatalf("%d jobs of updates found", len(jobs))
	}
	quiet := func(command string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", strings.ReplaceAll(command, "/opt/mobileops", target))
		cmd.Env = []string{"PATH=" + bin + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + dir, "MOBILEOPS_STATE_DIR=" + dir + "/state", "MOBILEOPS_LOG_DIR=" + dir + "/log", "MOBILEOPS_RUN_DIR=" + dir + "/run", "MOBILEOPS_UPDATE_TARGET=" + target, "MOBILEOPS_UPDATE_KEYS=" + dir + "/keys"}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	guarded := 0
	for _, j := range jobs {
		if strings.Contains(j[1], "update sla") { // that is about the packages of this machine, too
			continue
		}
		if out, _ := quiet(j[1]); out != "" {
			t.Errorf("%s mails\n%s", j[1], out)
		}
		bare, ok := strings.CutPrefix(j[1], "test -L /opt/mobileops && ")
		if !ok {
			continue
		}
		guarded++
		if out, err := quiet(bare); err == nil || out == "" {
			t.Errorf("%s needs no guard: %q, %v", bare, out, err)
		}
	}
	if guarded != 2 {
		t.Errorf("%d jobs look first whether there is an installation", guarded)
	}
}
