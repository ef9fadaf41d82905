package manifest

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/zeebo/blake3"
)

func contains(list []string, s string) bool { return slices.Contains(list, s) }

// Grew says what p permits that before did not: nothing when p is narrower or
// the same. A path beneath one of before is not new, a limit that fell is not
// wider, and another user to run as is, unless it is an account of the
// plugin's own. A reference to configuration covers itself alone.
func (p Permissions) Grew(before Permissions) []Change {
	var out []Change
	add := func(l Line, was string) { out = append(out, Change{l.Kind, l.What, was, l.Meaning}) }

	for i, place := range p.places() {
		old := before.places()[i].list
		for _, s := range place.list {
			if !place.covered(old, s) {
				add(place.line(s), "")
			}
		}
	}
	limits, were := p.limits(), before.limits()
	for i, l := range limits {
		if l.exceeds(were[i]) {
			add(l.line(), were[i].String())
		}
	}
	if p.RunAs != before.RunAs && p.RunAs != "" {
		was := before.RunAs
		if was == "" {
			was = ownAccount
		}
		add(p.runAs(), was)
	}
	for _, r := range p.Findings {
		if !contains(before.Findings, r) {
			add(findingsLine(r, p.FindingsFrom), "")
		}
	}
	// What it may read now matters when it could read before: otherwise all of
	// it is new.
	if contains(p.Findings, RightRead) && contains(before.Findings, RightRead) && before.FindingsFrom != nil {
		was := strings.Join(before.FindingsFrom, ", ")
		if p.FindingsFrom == nil {
			add(Line{"findings_from", "all sources", "may read findings of all sources"}, was)
		}
		for _, s := range p.FindingsFrom {
			if !contains(before.FindingsFrom, s) {
				add(Line{"findings_from", s, "may read findings of " + s}, was)
			}
		}
	}
	for _, r := range p.Audit {
		if !contains(before.Audit, r) {
			add(auditLine(r), "")
		}
	}
	return out
}

// Grew is that of the permissions, and of what else the host does for the
// plugin by itself: hooks and a service. A default of the configuration that a
// permission refers to is a place that the plugin chose, and is new when it
// was none before.
func (m *Manifest) Grew(before *Manifest) []Change {
	out := m.Permissions.Grew(before.Permissions)
	for _, d := range m.defaults() {
		if !slices.Contains(before.defaults(), d) {
			l := d.line()
			out = append(out, Change{Kind: l.Kind, What: l.What, Meaning: l.Meaning})
		}
	}
	if m.Service != nil && before.Service == nil {
		l := serviceLine()
		out = append(out, Change{Kind: l.Kind, What: l.What, Meaning: l.Meaning})
	}
	counts := map[string]int{}
	for i := range before.Hooks {
		counts[before.Hooks[i].On]++
	}
	for i := range m.Hooks {
		h := &m.Hooks[i]
		counts[h.On]--
		for _, part := range h.parts() {
			// One more hook is news even when an old one was called on the same.
			if counts[h.On] >= 0 && slices.ContainsFunc(before.Hooks, func(old Hook) bool { return old.covers(part) }) {
				continue
			}
			l := part.line()
			out = append(out, Change{Kind: l.Kind, What: l.What, Meaning: l.Meaning})
		}
	}
	return out
}

// parts are hooks that together are called when h is, each on one command.
func (h *Hook) parts() []Hook {
	if len(h.Commands) < 2 {
		return []Hook{*h}
	}
	out := make([]Hook, len(h.Commands))
	for i, c := range h.Commands {
		out[i] = *h
		out[i].Commands = []string{c}
	}
	return out
}

// covers tells whether h is called whenever the part of a hook is, and may do
// as much to what it is called on.
func (h *Hook) covers(part Hook) bool {
	if h.On != part.On || part.Refuse && !h.Refuse || part.MinSeverity < h.MinSeverity || part.Every < h.Every {
		return false
	}
	if h.Sources != nil {
		if part.Sources == nil || slices.ContainsFunc(part.Sources, func(s string) bool { return !contains(h.Sources, s) }) {
			return false
		}
	}
	return !slices.ContainsFunc(part.Commands, func(c string) bool { return !contains(h.Commands, c) })
}

// Digest is a digest of the permissions, 64 hexadecimal digits, by which it can
// be remembered which ones somebody accepted. The order of a list does not
// count. Equal digests mean that neither Grew beyond the other.
func (p Permissions) Digest() string {
	digest := blake3.Sum256(p.canonical())
	return hex.EncodeToString(digest[:])
}

// canonical is JSON with a line before it that no other document begins with.
func (p Permissions) canonical() []byte {
	for _, list := range []*[]string{&p.Network, &p.Unix, &p.Read, &p.Write, &p.Exec, &p.Findings, &p.Audit} {
		*list = slices.Compact(slices.Sorted(slices.Values(*list)))
	}
	from := "all"
	if p.FindingsFrom != nil {
		sorted := slices.Compact(slices.Sorted(slices.Values(p.FindingsFrom)))
		from, p.FindingsFrom = fmt.Sprintf("%q", sorted), nil
	}
	data, err := json.Marshal(struct {
		Permissions
		From string `json:"from"`
	}{p, from})
	if err != nil {
		panic(err) // of strings and numbers, which are always written
	}
	return append([]byte("mobileops.plugin.permissions/v1\n"), data...)
}

// PermissionsDigest is the Digest of the permissions together with everything
// else that Grew of the manifest looks at.
func (m *Manifest) PermissionsDigest() string {
	lines := make([]string, len(m.Hooks))
	for i := range m.Hooks {
		h := &m.Hooks[i] // when it is called and with which rights, not how
		lines[i] = fmt.Sprintf("%q %d %t %q %d %q %t", h.On, h.MinSeverity, h.Sources == nil,
			slices.Sorted(slices.Values(h.Sources)), h.Every, slices.Sorted(slices.Values(h.Commands)), h.Refuse)
	}
	for _, d := range m.defaults() {
		lines = append(lines, fmt.Sprintf("default %q", d))
	}
	slices.Sort(lines)
	h := blake3.New()
	h.Write(m.Permissions.canonical())
	fmt.Fprintf(h, "\nservice %t\n%s", m.Service != nil, strings.Join(lines, "\n"))
	return hex.EncodeToString(h.Sum(nil))
}
