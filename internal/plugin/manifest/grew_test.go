package manifest

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
)

// random makes manifests of few words, so that two of them often have
// something in common. Only what Grew looks at matters.
func random(r *rand.Rand) *Manifest {
	some := func(words ...string) []string {
		var out []string
		for _, w := range words {
			if r.IntN(3) == 0 {
				out = append(out, w)
			}
		}
		return out
	}
	m := &Manifest{Permissions: Permissions{
		Network: some("a.example:1", "b.example:2", "config:host", "config:hosts[]"),
		Unix:    some("/run/a", "/run/a/b", "config:socket"),
		Read:    some("/", "/etc", "/etc/ssl", "/etcetera", "config:path"),
		Write:   some("/srv", "/srv/a/b", "/srv/a"),
		Exec:    some("/usr/bin", "/usr/bin/jq"),
		Memory:  int64(1+r.IntN(3)) << 25, CPU: time.Duration(r.IntN(3)) * time.Minute,
		Processes: 1 + r.IntN(3), Files: 16 + r.IntN(3), FileSize: int64(1+r.IntN(3)) << 20,
		RunAs:    []string{"", "root", "nobody"}[r.IntN(3)],
		Findings: some(RightRead, RightReport), Audit: some(RightRead),
	}}
	if from := some("integrity", "update", "plugin/x"); len(from) > 0 && slices.Contains(m.Permissions.Findings, RightRead) {
		m.Permissions.FindingsFrom = from
	}
	if r.IntN(2) == 0 {
		m.Service = &Service{}
	}
	for range r.IntN(4) {
		h := Hook{On: []string{OnFinding, OnAudit, OnSchedule, OnBefore, OnAfter}[r.IntN(5)]}
		switch h.On {
		case OnFinding:
			h.MinSeverity = finding.Severity(r.IntN(5))
			h.Sources = some("integrity", "update")
		case OnSchedule:
			h.Every = time.Duration(1+r.IntN(3)) * time.Minute
		case OnBefore, OnAfter:
			h.Commands = append(some("update apply", "integrity check"), "rollback")
			h.Refuse = h.On == OnBefore && r.IntN(2) == 0
		}
		m.Hooks = append(m.Hooks, h)
	}
	for _, o := range []Option{
		{Name: "host", Type: TypeString}, {Name: "socket", Type: TypeString}, {Name: "path", Type: TypeString},
		{Name: "hosts", Type: TypeList, Items: &Option{Type: TypeString}},
	} {
		if r.IntN(3) == 0 {
			o.Default = "default.example:1"
			if o.Type == TypeList {
				o.Default = []any{"one.example:1", "two.example:1"}[:1+r.IntN(2)]
			}
		}
		m.Config = append(m.Config, o)
	}
	return m
}

// widenings add one thing to a manifest that it does not have, or report that
// there is no more to add.
var widenings = map[string]func(m *Manifest) (kind string, added bool){
	"host":           func(m *Manifest) (string, bool) { return addTo(&m.Permissions.Network, "network", "new.example:443") },
	"reference":      func(m *Manifest) (string, bool) { return addTo(&m.Permissions.Network, "network", "config:new") },
	"list reference": func(m *Manifest) (string, bool) { return addTo(&m.Permissions.Read, "read", "config:new[]") },
	"socket":         func(m *Manifest) (string, bool) { return addTo(&m.Permissions.Unix, "unix", "/run/a/new") },
	"read": func(m *Manifest) (string, bool) {
		if slices.Contains(m.Permissions.Read, "/") {
			return "", false
		}
		return addTo(&m.Permissions.Read, "read", "/etc-new")
	},
	"read everything": func(m *Manifest) (string, bool) { return addTo(&m.Permissions.Read, "read", "/") },
	"write above":     func(m *Manifest) (string, bool) { return addTo(&m.Permissions.Write, "write", "/") },
	"exec":            func(m *Manifest) (string, bool) { return addTo(&m.Permissions.Exec, "exec", "/usr/binary") },
	"memory":          func(m *Manifest) (string, bool) { m.Permissions.Memory++; return "memory", true },
	"processes":       func(m *Manifest) (string, bool) { m.Permissions.Processes++; return "processes", true },
	"files":           func(m *Manifest) (string, bool) { m.Permissions.Files++; return "files", true },
	"file size":       func(m *Manifest) (string, bool) { m.Permissions.FileSize++; return "file_size", true },
	"cpu": func(m *Manifest) (string, bool) {
		if m.Permissions.CPU == 0 {
			return "", false
		}
		m.Permissions.CPU++
		return "cpu", true
	},
	"cpu without a limit": func(m *Manifest) (string, bool) {
		had := m.Permissions.CPU != 0
		m.Permissions.CPU = 0
		return "cpu", had
	},
	"root": func(m *Manifest) (string, bool) {
		had := m.Permissions.RunAs != RunAsRoot
		m.Permissions.RunAs = RunAsRoot
		return "run_as", had
	},
	"another user": func(m *Manifest) (string, bool) { m.Permissions.RunAs = "other"; return "run_as", true },
	"read findings": func(m *Manifest) (string, bool) {
		return addTo(&m.Permissions.Findings, "findings", RightRead)
	},
	"report findings": func(m *Manifest) (string, bool) {
		return addTo(&m.Permissions.Findings, "findings", RightReport)
	},
	"audit": func(m *Manifest) (string, bool) { return addTo(&m.Permissions.Audit, "audit", RightRead) },
	"source": func(m *Manifest) (string, bool) {
		if m.Permissions.FindingsFrom == nil {
			return "", false
		}
		return addTo(&m.Permissions.FindingsFrom, "findings_from", "new")
	},
	"all sources": func(m *Manifest) (string, bool) {
		had := m.Permissions.FindingsFrom != nil
		m.Permissions.FindingsFrom = nil
		return "findings_from", had
	},
	"service": func(m *Manifest) (string, bool) {
		had := m.Service == nil
		m.Service = &Service{}
		return "service", had
	},
	"finding hook": func(m *Manifest) (string, bool) { return addHook(m, Hook{On: OnFinding}) },
	"audit hook":   func(m *Manifest) (string, bool) { return addHook(m, Hook{On: OnAudit}) },
	"schedule":     func(m *Manifest) (string, bool) { return addHook(m, Hook{On: OnSchedule, Every: time.Second}) },
	"before": func(m *Manifest) (string, bool) {
		return addHook(m, Hook{On: OnBefore, Commands: []string{"rollback"}})
	},
	"command of a hook": func(m *Manifest) (string, bool) {
		return eachHook(m, OnBefore, func(h *Hook) bool { h.Commands = append(slices.Clone(h.Commands), "new command"); return true })
	},
	"refuse": func(m *Manifest) (string, bool) {
		if slices.ContainsFunc(m.Hooks, func(h Hook) bool { return h.Refuse }) {
			return "", false
		}
		return eachHook(m, OnBefore, func(h *Hook) bool { h.Refuse = true; return true })
	},
	"more often": func(m *Manifest) (string, bool) {
		return eachHook(m, OnSchedule, func(h *Hook) bool { h.Every = time.Second; return true })
	},
	"lesser severity": func(m *Manifest) (string, bool) {
		return eachHook(m, OnFinding, func(h *Hook) bool {
			had := h.MinSeverity > 0
			h.MinSeverity = 0
			return had && !slices.ContainsFunc(m.Hooks, func(o Hook) bool { return o.On == OnFinding && o.MinSeverity == 0 && o.Sources == nil })
		})
	},
	"default": func(m *Manifest) (string, bool) {
		if !slices.Contains(m.Permissions.Network, "config:host") {
			return "", false
		}
		m.Config = slices.Clone(m.Config)
		m.Config[0].Default = "evil.example:443"
		return "network", true
	},
	"default of a list": func(m *Manifest) (string, bool) {
		if !slices.Contains(m.Permissions.Network, "config:hosts[]") {
			return "", false
		}
		m.Config = slices.Clone(m.Config)
		m.Config[3].Default = []any{"one.example:1", "evil.example:443"}
		return "network", true
	},
}

func addTo(list *[]string, kind, word string) (string, bool) {
	if slices.Contains(*list, word) {
		return kind, false
	}
	*list = append(slices.Clone(*list), word)
	return kind, true
}

func addHook(m *Manifest, h Hook) (string, bool) {
	m.Hooks = append(slices.Clone(m.Hooks), h)
	return "hooks", true
}

// eachHook changes the first hook on something, when it is the only one.
func eachHook(m *Manifest, on string, change func(*Hook) bool) (string, bool) {
	m.Hooks = slices.Clone(m.Hooks)
	var found []*Hook
	for i := range m.Hooks {
		if m.Hooks[i].On == on {
			found = append(found, &m.Hooks[i])
		}
	}
	if len(found) != 1 {
		return "", false
	}
	return "hooks", change(found[0])
}

// clone is as deep as widenings reach.
func clone(m *Manifest) *Manifest { c := *m; return &c }

// TestGrewReportsEveryWidening holds of any manifest: nothing grew beyond
// itself; whatever one thing is added is reported, under its key; and taking it
// away again is not.
func TestGrewReportsEveryWidening(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	tried := map[string]int{}
	for range 300 {
		m := random(r)
		if grew := m.Grew(m); len(grew) != 0 {
			t.Fatalf("grew beyond itself: %+v\n%+v", grew, m)
		}
		for name, widen := range widenings {
			wider := clone(m)
			before := m.PermissionsDigest()
			kind, added := widen(wider)
			if !added {
				continue
			}
			tried[name]++
			grew := wider.Grew(m)
			if !slices.ContainsFunc(grew, func(c Change) bool { return c.Kind == kind }) {
				t.Fatalf("%s: not reported: %+v\nbefore %+v\nafter  %+v", name, grew, m, wider)
			}
			for _, c := range grew {
				if c.What == "" || c.Meaning == "" {
					t.Errorf("%s: nobody can read %+v", name, c)
				}
			}
			if m.PermissionsDigest() != before {
				t.Fatalf("%s: the test changed what it started from", name)
			}
			if wider.PermissionsDigest() == before {
				t.Fatalf("%s: the same digest", name)
			}
			if strings.HasPrefix(name, "another user") || strings.HasPrefix(name, "root") || strings.HasPrefix(name, "default") {
				continue // neither of two users, or of two defaults, is the lesser
			}
			if shrunk := m.Grew(wider); len(shrunk) != 0 {
				t.Fatalf("%s: taking it away is reported: %+v\nbefore %+v\nafter  %+v", name, shrunk, wider, m)
			}
		}
	}
	for name := range widenings {
		if tried[name] < 10 {
			t.Errorf("%s was tried only %d times", name, tried[name])
		}
	}
}

// TestGrewIsTransitive: what is no wider than something that is no wider than
// a third is no wider than that.
func TestGrewIsTransitive(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	names := slices.Sorted(maps.Keys(widenings))
	chains := 0
	for range 2000 {
		least := random(r)
		chain := []*Manifest{least}
		for len(chain) < 3 {
			next := clone(chain[len(chain)-1])
			for range 3 {
				widenings[names[r.IntN(len(names))]](next)
			}
			chain = append(chain, next)
		}
		if len(chain[0].Grew(chain[1])) == 0 && len(chain[1].Grew(chain[2])) == 0 {
			chains++
			if grew := chain[0].Grew(chain[2]); len(grew) != 0 {
				t.Fatalf("%+v\n%+v\n%+v\n%+v", grew, chain[0], chain[1], chain[2])
			}
		}
	}
	if chains < 200 {
		t.Errorf("only %d chains", chains)
	}
}

func TestGrewOfPaths(t *testing.T) {
	for _, tc := range []struct {
		before, after string
		want          bool
	}{
		{"/etc", "/etc/ssl", false},
		{"/etc", "/etc", false},
		{"/", "/etc", false},
		{"/etc/ssl", "/etc", true},
		{"/etc", "/etcetera", true},
		{"/etc", "/", true},
		{"/etc", "config:path", true},
		{"/", "config:path", true},
		{"config:path", "/etc", true},
		{"config:path", "config:path", false},
		{"config:path", "config:paths[]", true},
	} {
		got := Permissions{Read: []string{tc.after}}.Grew(Permissions{Read: []string{tc.before}})
		if (len(got) > 0) != tc.want {
			t.Errorf("from %s to %s: %+v", tc.before, tc.after, got)
		}
	}
	// A socket is one place; nothing is beneath it.
	if got := (Permissions{Unix: []string{"/run/a/b"}}).Grew(Permissions{Unix: []string{"/run/a"}}); len(got) != 1 {
		t.Errorf("%+v", got)
	}
	if got := (Permissions{Network: []string{"a.example:2"}}).Grew(Permissions{Network: []string{"a.example:1"}}); len(got) != 1 {
		t.Errorf("another port: %+v", got)
	}
}

func TestGrewTellsWhatItWas(t *testing.T) {
	before, after := DefaultPermissions(), DefaultPermissions()
	after.Memory, after.RunAs = 1<<30, RunAsRoot
	after.Network = []string{"splunk.example:8088"}
	want := []Change{
		{"network", "splunk.example:8088", "", "may connect to splunk.example:8088"},
		{"memory", "1GiB", "256MiB", "may use 1GiB of memory"},
		{"run_as", "root", "an account of its own", "runs as root"},
	}
	if got := after.Grew(before); !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := before.Grew(after); len(got) != 0 {
		t.Errorf("narrower: %+v", got)
	}
}

func TestDigestIsOfTheSet(t *testing.T) {
	a := Permissions{Network: []string{"a.example:1", "b.example:1"}, Findings: []string{RightRead, RightReport}, FindingsFrom: []string{"x", "y"}}
	b := Permissions{Network: []string{"b.example:1", "a.example:1"}, Findings: []string{RightReport, RightRead}, FindingsFrom: []string{"y", "x"}}
	if a.Digest() != b.Digest() {
		t.Error("the order of a list counts")
	}
	if a.Network[0] != "a.example:1" {
		t.Error("Digest sorted what it was asked about")
	}
	seen := map[string]string{}
	for name, p := range map[string]Permissions{
		"a":                 a,
		"nothing":           {},
		"all sources":       {Network: a.Network, Findings: a.Findings},
		"no sources":        {Network: a.Network, Findings: a.Findings, FindingsFrom: []string{}},
		"read not write":    {Read: []string{"/a"}},
		"write not read":    {Write: []string{"/a"}},
		"two in one":        {Read: []string{"/a,/b"}},
		"two":               {Read: []string{"/a", "/b"}},
		"one source, named": {Findings: a.Findings, FindingsFrom: []string{"x y"}},
		"one, named all":    {Findings: a.Findings, FindingsFrom: []string{"all"}},
	} {
		if other, ok := seen[p.Digest()]; ok {
			t.Errorf("%s and %s have the same digest", name, other)
		}
		seen[p.Digest()] = name
	}
	// It is written down beside what was accepted, so it must never change.
	const stable = "4fa1e54b1b750d69"
	if got := DefaultPermissions().Digest(); len(got) != 64 || !strings.HasPrefix(got, stable) {
		t.Errorf("the digest of the defaults is %s", got)
	}
}
