package pack

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/finding"
)

// How much a manifest may list.
const (
	maxRemove     = 10_000
	maxSetUID     = 256
	maxConfig     = 1024
	maxData       = 64
	maxAdvisories = 1024
	maxArguments  = 64
	maxArgument   = 4096
	maxSummary    = 1000
	maxWord       = 64
)

// Validate says what is wrong with a manifest, as reading a package that has
// it would. Its error is of archive.CodeManifest.
func (m *Manifest) Validate() error {
	if err := m.validate(archive.DefaultLimits()); err != nil {
		return RefuseManifest(err)
	}
	return nil
}

func (m *Manifest) validate(l archive.Limits) error {
	if m.Schema != ManifestSchema {
		return fmt.Errorf("schema is %q; this version reads %q", archive.Abridge(m.Schema), ManifestSchema)
	}
	for _, w := range []struct{ key, value string }{{"name", m.Name}, {"version", m.Version}} {
		if w.value != "" && !isWord(w.value) {
			return fmt.Errorf("%s is %q; it is 1 to %d letters, digits and . _ + ~ : -, and begins with a letter or digit", w.key, archive.Abridge(w.value), maxWord)
		}
	}
	if m.Kind != KindOverlay && m.Kind != KindFull {
		return fmt.Errorf("kind is %q; it is %s or %s", archive.Abridge(m.Kind), KindOverlay, KindFull)
	}
	for _, check := range []func(*archive.Limits) error{m.checkData, m.checkRemove, m.checkSetUID, m.checkConfig, m.checkHooks, m.checkHealth, m.checkAdvisories} {
		if err := check(&l); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manifest) checkData(l *archive.Limits) error {
	if len(m.Data) > maxData {
		return fmt.Errorf("data has %d directories; %d are allowed", len(m.Data), maxData)
	}
	for i, d := range m.Data {
		if err := checkTreePath(d, l); err != nil {
			return fmt.Errorf("data: %q: %w", archive.Abridge(d), err)
		}
		for _, other := range m.Data[:i] {
			if a, b := archive.Fold(d), archive.Fold(other); archive.Within(a, b) || archive.Within(b, a) {
				return fmt.Errorf("data: %q and %q are one beneath the other, or differ by case alone", archive.Abridge(other), archive.Abridge(d))
			}
		}
	}
	return nil
}

func (m *Manifest) checkRemove(l *archive.Limits) error {
	if len(m.Remove) > 0 && m.Kind == KindFull {
		return errors.New("remove is for overlays: with kind full, what is not in the package goes away")
	}
	if len(m.Remove) > maxRemove {
		return fmt.Errorf("remove has %d paths; %d are allowed", len(m.Remove), maxRemove)
	}
	seen := make(map[string]bool, len(m.Remove))
	for _, p := range m.Remove {
		if err := checkTreePath(p, l); err != nil {
			return fmt.Errorf("remove: %q: %w", archive.Abridge(p), err)
		}
		if seen[p] {
			return fmt.Errorf("remove: %q stands there twice", archive.Abridge(p))
		}
		seen[p] = true
		for _, d := range m.Data {
			if archive.Within(p, d) || archive.Within(d, p) {
				return fmt.Errorf("remove: %q is, or holds, data (%q), which outlives updates", archive.Abridge(p), archive.Abridge(d))
			}
		}
	}
	return nil
}

func (m *Manifest) checkSetUID(l *archive.Limits) error {
	if len(m.SetUID) > maxSetUID {
		return fmt.Errorf("setuid has %d files; %d are allowed", len(m.SetUID), maxSetUID)
	}
	seen := map[string]bool{}
	for _, s := range m.SetUID {
		if err := checkTreePath(s.Path, l); err != nil {
			return fmt.Errorf("setuid: %q: %w", archive.Abridge(s.Path), err)
		}
		if seen[s.Path] {
			return fmt.Errorf("setuid: %q stands there twice", archive.Abridge(s.Path))
		}
		seen[s.Path] = true
		if m.IsData(s.Path) {
			return fmt.Errorf("setuid: %q lies in a data directory", archive.Abridge(s.Path))
		}
		mode, ok := s.mode()
		switch {
		case !ok || mode&0o6000 == 0:
			return fmt.Errorf("setuid: %q: mode is %q; it is four octal digits of which the first is 2, 4 or 6, in quotes", archive.Abridge(s.Path), archive.Abridge(s.Mode))
		case mode&0o022 != 0:
			return fmt.Errorf("setuid: %q: with mode %s its group or everybody could write it", archive.Abridge(s.Path), s.Mode)
		}
	}
	return nil
}

// mode returns the bits, if these are four octal digits without a sticky bit.
func (s *SetUID) mode() (uint32, bool) {
	n, err := strconv.ParseUint(s.Mode, 8, 32)
	return uint32(n), err == nil && len(s.Mode) == 4 && n&0o1000 == 0
}

// setID returns the mode that the file at a path must have, 0 for none.
func (m *Manifest) setID(path string) uint32 {
	for i := range m.SetUID {
		if m.SetUID[i].Path == path {
			mode, _ := m.SetUID[i].mode() // validated
			return mode
		}
	}
	return 0
}

func (m *Manifest) checkConfig(l *archive.Limits) error {
	if len(m.Config) > maxConfig {
		return fmt.Errorf("config has %d patterns; %d are allowed", len(m.Config), maxConfig)
	}
	for _, p := range m.Config {
		if err := archive.CheckPattern(p, *l); err != nil {
			return fmt.Errorf("config: %q: %w", archive.Abridge(p), err)
		}
	}
	return nil
}

func (m *Manifest) checkHooks(l *archive.Limits) error {
	for _, h := range []struct {
		key  string
		hook *Hook
	}{{"before", m.Hooks.Before}, {"after", m.Hooks.After}} {
		if h.hook == nil {
			continue
		}
		if err := checkCommand(h.hook.Command, l); err != nil {
			return fmt.Errorf("hooks: %s: %w", h.key, err)
		}
		if err := checkTime(h.hook.Timeout, MaxHookTimeout); err != nil {
			return fmt.Errorf("hooks: %s: timeout %w", h.key, err)
		}
	}
	return nil
}

func (m *Manifest) checkHealth(l *archive.Limits) error {
	h := m.Health
	if h == nil {
		return nil
	}
	if len(h.Command) == 0 && h.HTTP == "" && h.Unit == "" {
		return errors.New("health needs a command, http or unit")
	}
	if len(h.Command) > 0 {
		if err := checkCommand(h.Command, l); err != nil {
			return fmt.Errorf("health: %w", err)
		}
	}
	if h.HTTP != "" {
		u, err := url.Parse(h.HTTP)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || len(h.HTTP) > l.PathBytes || archive.CheckBytes(h.HTTP) != nil {
			return fmt.Errorf("health: http is %q; it is a URL such as http://127.0.0.1:8080/healthz, without a password", archive.Abridge(h.HTTP))
		}
	}
	if h.Unit != "" && !isUnit(h.Unit) {
		return fmt.Errorf("health: unit is %q; it is the full name of a systemd unit, such as mobileops.service", archive.Abridge(h.Unit))
	}
	if err := checkTime(h.Deadline, MaxHealthDeadline); err != nil {
		return fmt.Errorf("health: deadline %w", err)
	}
	return nil
}

func (m *Manifest) checkAdvisories(*archive.Limits) error {
	if len(m.Advisories) > maxAdvisories {
		return fmt.Errorf("advisories has %d entries; %d are allowed", len(m.Advisories), maxAdvisories)
	}
	seen := map[string]bool{}
	for _, a := range m.Advisories {
		if !isWord(a.ID) {
			return fmt.Errorf("advisories: the id %q is not like CVE-2026-1234", archive.Abridge(a.ID))
		}
		if seen[a.ID] {
			return fmt.Errorf("advisories: %s stands there twice", a.ID)
		}
		seen[a.ID] = true
		if _, err := finding.ParseSeverity(a.Severity); err != nil {
			return fmt.Errorf("advisories: %s: severity is %q; it is critical, high, medium, low or info", a.ID, archive.Abridge(a.Severity))
		}
		if y := a.Published.Year(); y < 1990 || y > 2200 || !a.Published.Equal(a.Published.UTC().Truncate(24*time.Hour)) {
			return fmt.Errorf("advisories: %s: published is the day on which it became known, such as 2026-11-01", a.ID)
		}
		if len(a.Summary) > maxSummary || !utf8.ValidString(a.Summary) || archive.CheckBytes(strings.ReplaceAll(a.Summary, `\`, "")) != nil {
			return fmt.Errorf("advisories: %s: summary is one line of at most %d bytes", a.ID, maxSummary)
		}
	}
	return nil
}

// checkTreePath accepts clean paths of the installed tree.
func checkTreePath(p string, l *archive.Limits) error {
	clean, trouble := archive.CleanName(p, l)
	switch {
	case trouble != nil:
		return trouble.Err
	case clean == "" || clean != p:
		return errors.New("write it relative to the installation, such as bin/ping, without ./ or a slash at its end")
	case foldsToMeta(clean):
		return fmt.Errorf("what lies in %s is not part of the installation", MetaDir)
	}
	return nil
}

// checkCommand accepts a program of the package and its arguments.
func checkCommand(command []string, l *archive.Limits) error {
	if len(command) == 0 || len(command) > maxArguments {
		return fmt.Errorf("command is a list of 1 to %d words, of which the first is the program", maxArguments)
	}
	program := command[0]
	clean, trouble := archive.CleanName(program, l)
	switch {
	case trouble != nil:
		return fmt.Errorf("command: %q: %w", archive.Abridge(program), trouble.Err)
	case clean == "" || clean != program:
		return fmt.Errorf("command: %q: write the program relative to the package, such as %s/before", archive.Abridge(program), HooksDir)
	case foldsToMeta(clean) && (!archive.Within(clean, HooksDir) || clean == HooksDir):
		return fmt.Errorf("command: %q: programs of the package lie beneath %s, or in the tree", archive.Abridge(program), HooksDir)
	}
	if slices.ContainsFunc(command, func(arg string) bool {
		return len(arg) > maxArgument || strings.ContainsRune(arg, 0) || !utf8.ValidString(arg)
	}) {
		return fmt.Errorf("command: a word is longer than %d bytes, has a NUL or is not valid UTF-8", maxArgument)
	}
	return nil
}

// checkTime accepts durations that a person would give; 0 is the default.
func checkTime(d, most time.Duration) error {
	if d != 0 && (d < minTimeout || d > most) {
		return fmt.Errorf("is %v; it is %v to %v, written with a unit (30s, 5m)", d, minTimeout, most)
	}
	return nil
}

// isWord tells whether s is a name, version or identifier.
func isWord(s string) bool {
	return s != "" && len(s) <= maxWord && alphanumeric(s[0]) && !strings.ContainsFunc(s, func(r rune) bool {
		return r >= utf8.RuneSelf || !alphanumeric(byte(r)) && !strings.ContainsRune("._+~:-", r)
	})
}

// isUnit tells whether s is the name of a unit, see systemd.unit(5).
func isUnit(s string) bool {
	suffix := strings.LastIndexByte(s, '.')
	return suffix > 0 && len(s) <= 255 && s[0] != '-' &&
		slices.Contains([]string{".service", ".socket", ".target", ".timer", ".path", ".mount", ".slice", ".scope"}, s[suffix:]) &&
		!strings.ContainsFunc(s, func(r rune) bool {
			return r >= utf8.RuneSelf || !alphanumeric(byte(r)) && !strings.ContainsRune(`:_.\@-`, r)
		})
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}
