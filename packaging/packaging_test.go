// Package packaging holds no program: its tests check what a host gets beside
// the binary, the way a host would: installed, by make.
package packaging

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mobileops/mobileops/internal/cli"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/internal/ui"
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
		"share/doc/mobileops/examples/first-check":             0o755,
		"share/doc/mobileops/examples/cron":                    0o644,
		"lib/systemd/system/mobileops-integrity-check.service": 0o644,
		"lib/systemd/system/mobileops-integrity-check.timer":   0o644,
		"lib/systemd/system/mobileops-watch.service":           0o644,
		"lib/systemd/system/mobileops-logs.service":            0o644,
		"lib/systemd/system/mobileops-logs-rotate.service":     0o644,
		"lib/systemd/system/mobileops-logs-rotate.timer":       0o644,
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
	} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if want := "ExecStart=" + prefix + "/bin/mobileops " + calls + "\n"; calls != "" && !strings.Contains(string(text), want) {
			t.Errorf("no %q in %s", want, name)
		}
		// The binary must exist for the check, so the copy runs it where it is.
		text = []byte(strings.ReplaceAll(string(text), "ExecStart=", "ExecStart="+dest))
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
	status = cli.Main(t.Context(), append([]string{"mobileops"}, args...), streams, func(string) string { return "" })
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

// TestCommandsInExamplesExist keeps the cron example, the unit and the script
// in step with the commands.
func TestCommandsInExamplesExist(t *testing.T) {
	call := regexp.MustCompile(`(?m)^[^#\n]*(?:\bmobileops|^run) ((?:integrity|audit|state|config|logs) [a-z]+)((?: --[a-z-]+)*)`)
	for _, file := range []string{"cron/mobileops", "systemd/mobileops-integrity-check.service", "systemd/mobileops-watch.service", "systemd/mobileops-logs.service", "systemd/mobileops-logs-rotate.service", "examples/first-check"} {
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
