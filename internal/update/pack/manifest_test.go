package pack

import (
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/archive"
)

const fullManifest = `schema: mobileops.package/v1
name: platform
version: 2.4.1
kind: overlay
remove: [bin/old]
setuid: [{path: bin/ping, mode: "4755"}]
config: [etc/**, "*.conf"]
data: [var, srv/logs]
hooks:
  before: {command: [.mobileops/hooks/before, x], timeout: 5m}
  after: {command: [bin/after]}
health: {command: [bin/check], http: "http://127.0.0.1:8080/healthz", unit: mobileops.service, deadline: 90s}
advisories:
  - {id: CVE-2026-1234, severity: critical, published: 2026-11-01, summary: a hole}
`

func TestManifestIsRead(t *testing.T) {
	m, err := ParseManifest([]byte(fullManifest), archive.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case m.Name != "platform", m.Version != "2.4.1", m.Kind != KindOverlay, m.Remove[0] != "bin/old",
		m.SetUID[0] != SetUID{"bin/ping", "4755"}, m.Hooks.Before.Timeout != 5*time.Minute, m.Hooks.Before.Command[1] != "x",
		m.Hooks.After.Timeout != DefaultHookTimeout, m.Health.Deadline != 90*time.Second, m.Health.Unit != "mobileops.service",
		!m.Advisories[0].Published.Equal(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)), m.Validate() != nil:
		t.Errorf("%+v", m)
	}
	// What is written is read again.
	text, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseManifest(text, archive.DefaultLimits())
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	twice, _ := again.encode()
	if string(twice) != string(text) {
		t.Errorf("%s\nbecame\n%s", text, twice)
	}
	if err := defaultManifest().Validate(); err != nil {
		t.Error(err)
	}
}

func TestBadManifestsAreRefused(t *testing.T) {
	const head = "schema: mobileops.package/v1\n"
	for _, tc := range []struct{ text, want string }{
		{"", "empty"},
		{"[]", "keys and values"},
		{"schema: mobileops.package/v2\n", "this version reads"},
		{"name: x\n", "schema is"},
		{head + "---\n" + head, "second YAML document"},
		{head + "colour: red\n", "line 2: field colour not found"},
		{head + "hooks: {during: {command: [a]}}\n", "field during not found"},
		{head + head, "stands in line 1 already"},
		{head + "config: [*.conf]\n", "must be in quotes"},
		{head + "config: &c [a]\nremove: *c\n", "anchor"},
		{head + "name: !!binary cGxhdGZvcm0=\n", "a tag"},
		{head + "name: !!str platform\n", "a tag"},
		{head + "hooks: {<<: {before: {command: [a]}}}\n", "merge"},
		{head + "name: [a]\n", "cannot unmarshal"},
		{head + "config: " + strings.Repeat("[", 40) + strings.Repeat("]", 40) + "\n", "nested"},
		{head + "name: -rf\n", "name is"},
		{head + "name: a b\n", "name is"},
		{head + "version: " + strings.Repeat("1", 65) + "\n", "version is"},
		{head + "kind: half\n", "kind is"},
		{head + "kind: full\nremove: [a]\n", "remove is for overlays"},
		{head + "remove: [/a]\n", "slash"},
		{head + "remove: [../a]\n", `".."`},
		{head + "remove: [./a]\n", "relative to the installation"},
		{head + "remove: [a/]\n", "part of the name"},
		{head + "remove: ['.']\n", "relative to the installation"},
		{head + "remove: [a, a]\n", "twice"},
		{head + "remove: [.mobileops/hooks]\n", "not part of the installation"},
		{head + "remove: [var]\ndata: [var/lib]\n", "outlives"},
		{head + "remove: [var/x]\ndata: [var]\n", "outlives"},
		{head + "data: [var, var/lib]\n", "beneath the other"},
		{head + "data: [var, VAR]\n", "beneath the other"},
		{head + "data: [.mobileops/x]\n", "not part"},
		{head + "setuid: [{path: a, mode: 4755}]\n", ""}, // a number of four digits is the same to YAML
		{head + "setuid: [{path: a, mode: 0755}]\n", "four octal digits"},
		{head + "setuid: [{path: a, mode: \"1755\"}]\n", "four octal digits"},
		{head + "setuid: [{path: a, mode: \"04755\"}]\n", "four octal digits"},
		{head + "setuid: [{path: a, mode: \"4758\"}]\n", "four octal digits"},
		{head + "setuid: [{path: a, mode: \"4777\"}]\n", "could write it"},
		{head + "setuid: [{path: a, mode: \"4755\"}, {path: a, mode: \"4755\"}]\n", "twice"},
		{head + "setuid: [{path: var/a, mode: \"4755\"}]\ndata: [var]\n", "data directory"},
		{head + "config: [/etc/**]\n", "leave out the slash"},
		{head + "config: [etc/**x]\n", "stands alone"},
		{head + "config: ['etc/[a']\n", "bracket"},
		{head + "config: [etc/]\n", "dir/**"},
		{head + "config: [../x]\n", "in it"},
		{head + "hooks: {before: {command: []}}\n", "command is a list"},
		{head + "hooks: {before: {command: [/bin/sh]}}\n", "slash"},
		{head + "hooks: {before: {command: [.mobileops/package.yaml]}}\n", "lie beneath"},
		{head + "hooks: {before: {command: [.mobileops/hooks]}}\n", "lie beneath"},
		{head + "hooks: {before: {command: [.mobileops/hooks/../../x]}}\n", `".."`},
		{head + "hooks: {before: {command: [a, \"\\0\"]}}\n", "NUL"},
		{head + "hooks: {before: {command: [a], timeout: 2h}}\n", "timeout is"},
		{head + "hooks: {before: {command: [a], timeout: -1s}}\n", "timeout is"},
		{head + "hooks: {before: {command: [a], timeout: 30}}\n", "such as 30s"},
		{head + "health: {}\n", "health needs"},
		{head + "health: {deadline: 5s}\n", "health needs"},
		{head + "health: {http: 'ftp://x'}\n", "http is"},
		{head + "health: {http: 'http://user:pw@x/'}\n", "http is"},
		{head + "health: {http: 'http://'}\n", "http is"},
		{head + "health: {unit: mobileops}\n", "full name"},
		{head + "health: {unit: --now.service}\n", "full name"},
		{head + "health: {unit: a.service, deadline: 48h}\n", "deadline is"},
		{head + "advisories: [{id: '', severity: high, published: 2026-11-01}]\n", "id"},
		{head + "advisories: [{id: CVE-1, severity: huge, published: 2026-11-01}]\n", "severity"},
		{head + "advisories: [{id: CVE-1, severity: high}]\n", "published"},
		{head + "advisories: [{id: CVE-1, severity: high, published: 2026-11-01T10:00:00Z}]\n", "published"},
		{head + "advisories: [{id: CVE-1, severity: high, published: yesterday}]\n", "like 2026-11-01"},
		{head + "advisories: [{id: CVE-1, severity: high, published: 2026-11-01, summary: \"a\\nb\"}]\n", "one line"},
	} {
		_, err := ParseManifest([]byte(tc.text), archive.DefaultLimits())
		if tc.want == "" {
			if err != nil {
				t.Errorf("%q: %v", tc.text, err)
			}
			continue
		}
		if err == nil || codeOf(err) != archive.CodeManifest || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: %v, want %q", tc.text, err, tc.want)
		}
	}
}

func TestEveryPatternOfConfigIsAsked(t *testing.T) {
	for _, p := range []string{"etc/a", "etc/*", "etc/**", "**", `et\c/a`, "*/a", "e?c/a"} {
		if m := (&Manifest{Config: []string{"other", p}}); !m.IsConfig("etc/a") || m.IsConfig("etc") && p != "**" {
			t.Errorf("%s does not match, or too much", p)
		}
	}
}

func TestConfigAndData(t *testing.T) {
	m, err := ParseManifest([]byte(fullManifest), archive.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	m.Config = append(m.Config, "**")
	for path, want := range map[string][2]bool{
		"etc/a": {true, false}, "var": {false, true}, "var/lib/x": {false, true}, "various": {true, false},
		"srv": {true, false}, "srv/logs/a": {false, true}, ".mobileops/hooks/x": {false, false},
	} {
		if got := [2]bool{m.IsConfig(path), m.IsData(path)}; got != want {
			t.Errorf("%s: config and data %v, want %v", path, got, want)
		}
	}
}
