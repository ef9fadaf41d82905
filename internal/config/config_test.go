package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

func env(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	path := write(t, "lock_timeout: 1s\nintegrity:\n  jobs: 2\n  io_limit: 50MB/s\n  policy: full\n")
	l, err := Load(Sources{
		File:   path,
		UID:    os.Getuid(),
		Flags:  map[string]FlagValue{"integrity.jobs": {"--jobs", "4"}},
		Getenv: env(map[string]string{"HOME": "/home/me", "MOBILEOPS_INTEGRITY_JOBS": "3", "MOBILEOPS_INTEGRITY_IO_LIMIT": "1MiB/s", "MOBILEOPS_INTEGRITY_POLICY": ""}),
	})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(l.Integrity, Integrity{Policy: "full", Jobs: 4, IOLimit: 1 << 20, Retained: 5}) || l.LockTimeout != time.Second || l.Root != "/" {
		t.Errorf("%+v", l.Config)
	}
	for key, want := range map[string]Origin{
		"integrity.jobs":     {"flag", "--jobs"},
		"integrity.io_limit": {"environment", "MOBILEOPS_INTEGRITY_IO_LIMIT"},
		"integrity.policy":   {"file", path + ":5"},
		"lock_timeout":       {"file", path + ":1"},
		"integrity.retained": {"default", ""},
	} {
		if got := l.Origins[key]; got != want {
			t.Errorf("%s from %v, want %v", key, got, want)
		}
	}
}

func TestMistakesNameFileLineAndWhatWasMeant(t *testing.T) {
	for text, wants := range map[string][]string{
		"integrty:\n  jobs: 2\n":                          {`:1: unknown key "integrty" (did you mean "integrity"?)`},
		"\nintegrity:\n  job: 2\n":                        {`:3: unknown key "integrity.job" (did you mean "integrity.jobs"?)`},
		"jobs: 2\n":                                       {`:1: unknown key "jobs" (did you mean "integrity.jobs"?)`},
		"zzz: 1\n":                                        {`:1: unknown key "zzz"`},
		"integrity:\n  io_limit: 50 apples\n":             {`:2: integrity.io_limit: "50 apples" is not a rate (such as 50MB/s`},
		"integrity:\n  jobs: -1\n  idle: perhaps\n":       {`:2: integrity.jobs: "-1" is not a number`, `:3: integrity.idle: "perhaps" is neither`},
		"state_dir: relative\n":                           {`:1: state_dir: "relative" is not an absolute path`},
		"lock_timeout: 10\n":                              {`:1: lock_timeout: "10" is not a duration`},
		"lock_timeout: [1s]\n":                            {`:1: lock_timeout must be a plain value`},
		"lock_timeout:\n":                                 {`:1: lock_timeout has no value`},
		"lock_timeout: 1s\nlock_timeout: 2s\n":            {`:2: lock_timeout is set again; the first is on line 1`},
		"state_dir: &a /x\nlog_dir: *a\n":                 {`:2: log_dir: aliases are not supported`},
		"integrity: 4\n":                                  {`:1: integrity must hold keys and values`},
		"- a\n":                                           {`:1: must be keys and values`},
		"a: [\n":                                          {`config.yaml:`},
		"root: /\n---\nroot: /mnt\n":                      {`a second document`},
		"integrity:\n  retained: 0\n":                     {`:2: integrity.retained: "0" is not a number from 1 to 10000`},
		"lock_timeout: 999999h\n":                         {`:1: lock_timeout`},
		"root: \"/a\\0b\"\n":                              {`:1: root: "/a\x00b" contains a NUL byte`},
		"state_dir: /a\nintegrity:\n\trun: 1\n":           {`config.yaml:3: found character that cannot start any token`},
		"integrity:\n  <<: {jobs: 2}\n":                   {`unknown key "integrity.<<"`},
		strings.Repeat("x", maxFileSize) + ": overlong\n": {`is larger than`},
	} {
		path := write(t, text)
		_, err := Load(Sources{File: path, UID: os.Getuid(), Getenv: env(map[string]string{"HOME": "/home/me"})})
		if failure.KindOf(err) != failure.Usage {
			t.Errorf("%.40q: kind %v (%v)", text, failure.KindOf(err), err)
			continue
		}
		for _, want := range wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%.40q: %v\nlacks %s", text, err, want)
			}
		}
	}
}

func TestMistakesOutsideTheFileNameTheirSource(t *testing.T) {
	_, err := Load(Sources{
		UID:    1000,
		Flags:  map[string]FlagValue{"lock_timeout": {"--lock-timeout", "soon"}},
		Getenv: env(map[string]string{"HOME": "/nonexistent", "MOBILEOPS_INTEGRITY_IDLE": "so"}),
	})
	for _, want := range []string{`--lock-timeout: "soon" is not a duration`, `MOBILEOPS_INTEGRITY_IDLE: "so" is neither true nor false`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %s", err, want)
		}
	}
}

func TestUsualPlaces(t *testing.T) {
	for _, tc := range []struct {
		uid  int
		env  map[string]string
		want Config
	}{
		{1000, map[string]string{"HOME": "/h"}, Config{StateDir: "/h/.local/state/mobileops", LogDir: "/h/.local/state/mobileops/log", RunDir: "/h/.local/state/mobileops/run"}},
		{1000, map[string]string{"HOME": "/h", "XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/r"}, Config{StateDir: "/s/mobileops", LogDir: "/s/mobileops/log", RunDir: "/r/mobileops"}},
		{1000, map[string]string{"HOME": "/h", "XDG_STATE_HOME": "relative"}, Config{StateDir: "/h/.local/state/mobileops", LogDir: "/h/.local/state/mobileops/log", RunDir: "/h/.local/state/mobileops/run"}},
		{1000, map[string]string{"MOBILEOPS_STATE_DIR": "/elsewhere"}, Config{StateDir: "/elsewhere", LogDir: "/elsewhere/log", RunDir: "/elsewhere/run"}},
		{1000, map[string]string{"MOBILEOPS_STATE_DIR": "/elsewhere", "MOBILEOPS_LOG_DIR": "/logs"}, Config{StateDir: "/elsewhere", LogDir: "/logs", RunDir: "/elsewhere/run"}},
	} {
		l, err := Load(Sources{UID: tc.uid, Getenv: env(tc.env)})
		if err != nil {
			t.Errorf("%v: %v", tc.env, err)
			continue
		}
		got := Config{StateDir: l.StateDir, LogDir: l.LogDir, RunDir: l.RunDir}
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%v: %+v, want %+v", tc.env, got, tc.want)
		}
	}
	if _, err := Load(Sources{UID: 1000, Getenv: env(nil)}); err == nil || !strings.Contains(err.Error(), "HOME is not set (say it: --state-dir DIR)") {
		t.Errorf("without HOME: %v", err)
	}
	if p := UsualPaths(0, env(map[string]string{"HOME": "/root", "XDG_CONFIG_HOME": "/x"})); p.Config != "/etc/mobileops/config.yaml" || p.StateDir != "/var/lib/mobileops" {
		t.Errorf("root: %+v", p)
	}
	if p := UsualPaths(1, env(map[string]string{"HOME": "/h"})); p.Config != "/h/.config/mobileops/config.yaml" {
		t.Errorf("%+v", p)
	}
}

func TestRootFollowsNoFileThatOthersCanWrite(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("NOT RUN: only root can give a file away")
	}
	load := func(path string, uid int) error {
		_, err := Load(Sources{File: path, UID: uid, Getenv: env(map[string]string{"HOME": "/h"})})
		return err
	}
	path := write(t, "root: /\n")
	if err := load(path, 0); err != nil {
		t.Errorf("a file of root: %v", err)
	}
	os.Chmod(path, 0o646)
	if err := load(path, 0); !errors.Is(err, ErrUntrusted) || failure.KindOf(err) != failure.Untrustworthy {
		t.Errorf("world-writable: %v", err)
	}
	if err := load(path, 1000); err != nil {
		t.Errorf("another user's own business: %v", err)
	}
	os.Chmod(path, 0o644)
	os.Chown(path, 1000, 1000)
	if err := load(path, 0); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "user 1000") {
		t.Errorf("a file of another user: %v", err)
	}
	os.Chown(path, 0, 1000)
	os.Chmod(path, 0o664)
	if err := load(path, 0); !errors.Is(err, ErrUntrusted) {
		t.Errorf("writable by another group: %v", err)
	}
}

func TestNotAFile(t *testing.T) {
	for _, path := range []string{t.TempDir(), "/dev/zero"} {
		if _, err := Load(Sources{File: path, UID: 1, Getenv: env(nil)}); failure.KindOf(err) != failure.Usage {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := Load(Sources{File: "/nonexistent/x", Getenv: env(nil)}); failure.KindOf(err) != failure.Usage || !strings.Contains(err.Error(), "config init") {
		t.Errorf("%v", err)
	}
}

func TestTemplate(t *testing.T) {
	text := Template()
	settings, problems := parseFile("template", []byte(text))
	if len(settings) != 0 || len(problems) != 0 {
		t.Errorf("as it comes: %v, %v", settings, problems)
	}
	// Every example is one that is accepted.
	var lines []string
	for line := range strings.Lines(text) {
		bare := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "#"))
		name, _, ok := strings.Cut(bare, ": ")
		if ok && !strings.Contains(name, " ") && name != "Default" {
			lines = append(lines, strings.Replace(line, "# ", "", 1))
		} else if strings.HasSuffix(bare, ":") && !strings.HasPrefix(strings.TrimSpace(line), "#") {
			lines = append(lines, line)
		}
	}
	problemsNow, err := Validate(write(t, strings.Join(lines, "")), Sources{UID: os.Getuid(), Getenv: env(nil)})
	if err != nil || len(problemsNow) > 0 {
		t.Errorf("%v, %v in\n%s", problemsNow, err, strings.Join(lines, ""))
	}
	settings, _ = parseFile("template", []byte(strings.Join(lines, "")))
	if len(settings) != len(Keys()) {
		t.Errorf("%d of %d keys in the template:\n%s", len(settings), len(Keys()), strings.Join(lines, ""))
	}
	for line := range strings.Lines(text) {
		if len(line) > 81 && !strings.Contains(line, "Default:") {
			t.Errorf("too long: %s", line)
		}
	}
}

func TestParseValues(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "4096": 4096, "50MB": 50e6, "64MiB": 64 << 20, "1.5kB": 1500, "2 GiB": 2 << 30, "7B": 7, "3k": 3000} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "B", "-1", "1e9", "NaN", "Inf", "50mb", "5 0", "0x10", "99999999999TB", "1MB/s"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("ParseSize(%q) = %d", s, got)
		}
	}
	if got, err := ParseRate("50MB/s"); err != nil || got != 50e6 {
		t.Errorf("ParseRate: %d, %v", got, err)
	}
	for s, want := range map[string]time.Duration{"10s": 10 * time.Second, "7d": 7 * 24 * time.Hour, "1d12h": 36 * time.Hour, "0": 0} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "10", "-1s", "d", "1.5d", "-7d", "1d2", "99999d99999999h"} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("ParseDuration(%q) = %v", s, got)
		}
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte(Template()))
	f.Add([]byte("integrity:\n  jobs: 2\n"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Add([]byte("? {a: b}\n: c\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		settings, problems := parseFile("f", data)
		for name, set := range settings {
			if set.line < 1 {
				t.Errorf("%s is on line %d", name, set.line)
			}
		}
		for _, p := range problems {
			if p.Text == "" {
				t.Error("a problem without a text")
			}
		}
	})
}
