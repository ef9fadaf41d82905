package pack

import (
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/archive"
)

// ManifestSchema is the schema of the manifest.
const ManifestSchema = "mobileops.package/v1"

// What a package is to the tree that is there.
const (
	KindOverlay = "overlay" // it is laid over what is there
	KindFull    = "full"    // what is not in it goes away
)

// Manifest is .mobileops/package.yaml: what a package says of itself. It is
// covered by the signature as everything in the package.
type Manifest struct {
	Schema string `yaml:"schema" json:"schema"` // ManifestSchema
	// Name and Version are those of the release, which decides; a package
	// whose manifest says something else than its release is a mistake.
	Name    string `yaml:"name,omitempty" json:"name,omitempty"`
	Version string `yaml:"version,omitempty" json:"version,omitempty"`
	Kind    string `yaml:"kind,omitempty" json:"kind,omitempty"` // KindOverlay or KindFull
	// Remove are paths that go away, with all beneath them, before an overlay
	// is laid.
	Remove []string `yaml:"remove,omitempty" json:"remove,omitempty"`
	// SetUID are the only files that may have setuid or setgid bits.
	SetUID []SetUID `yaml:"setuid,omitempty" json:"setuid,omitempty"`
	// Config are patterns of files that admins edit, see IsConfig.
	Config []string `yaml:"config,omitempty" json:"config,omitempty"`
	// Data are directories that outlive generations, see IsData.
	Data       []string   `yaml:"data,omitempty" json:"data,omitempty"`
	Hooks      Hooks      `yaml:"hooks,omitempty" json:"hooks,omitzero"`
	Health     *Health    `yaml:"health,omitempty" json:"health,omitempty"`
	Advisories []Advisory `yaml:"advisories,omitempty" json:"advisories,omitempty"`
}

// SetUID is a file that has setuid or setgid bits.
type SetUID struct {
	Path string `yaml:"path" json:"path"`
	// Mode are four octal digits, such as "4755". The file must have exactly
	// these in the package.
	Mode string `yaml:"mode" json:"mode"`
}

// Hooks are run before and after a generation becomes current.
type Hooks struct {
	Before *Hook `yaml:"before,omitempty" json:"before,omitempty"`
	After  *Hook `yaml:"after,omitempty" json:"after,omitempty"`
}

// Hook is a command and how long it may take.
type Hook struct {
	// Command is a path beneath .mobileops/hooks or in the tree, and its
	// arguments. No shell is between.
	Command []string      `yaml:"command" json:"command"`
	Timeout time.Duration `yaml:"timeout,omitempty" json:"timeout_ns,omitempty"` // DefaultHookTimeout when 0
}

// Health says how to find out whether a new generation works. What is given
// must all hold before the deadline.
type Health struct {
	Command  []string      `yaml:"command,omitempty" json:"command,omitempty"`      // as Hook.Command; exits with 0
	HTTP     string        `yaml:"http,omitempty" json:"http,omitempty"`            // a URL that answers with 2xx
	Unit     string        `yaml:"unit,omitempty" json:"unit,omitempty"`            // a systemd unit that is active
	Deadline time.Duration `yaml:"deadline,omitempty" json:"deadline_ns,omitempty"` // DefaultHealthDeadline when 0
}

// Advisory is a weakness that the package closes.
type Advisory struct {
	ID       string `yaml:"id" json:"id"`             // such as CVE-2026-1234
	Severity string `yaml:"severity" json:"severity"` // a word of finding.ParseSeverity
	// Published is midnight UTC of the day on which it became known.
	Published time.Time `yaml:"published" json:"published"`
	Summary   string    `yaml:"summary,omitempty" json:"summary,omitempty"`
}

// Bounds of time.
const (
	DefaultHookTimeout    = 30 * time.Second
	MaxHookTimeout        = 30 * time.Minute
	DefaultHealthDeadline = 60 * time.Second
	MaxHealthDeadline     = time.Hour
	minTimeout            = 100 * time.Millisecond
)

// defaultManifest is that of a package without one.
func defaultManifest() *Manifest { return &Manifest{Schema: ManifestSchema, Kind: KindOverlay} }

// IsConfig tells whether admins edit the file at a path, so that their edits
// are merged with what a package brings. Patterns are matched part by part as
// by path.Match, and ** stands for any number of parts, at the end for at
// least one: etc/** is everything beneath etc. What is data is not
// configuration, nor is anything beneath .mobileops.
func (m *Manifest) IsConfig(path string) bool {
	if isMeta(path) || m.IsData(path) {
		return false
	}
	for _, p := range m.Config {
		// What comes before the first special character decides about most.
		if i := strings.IndexAny(p, `*?[\`); !strings.HasPrefix(path, p[:max(i, 0)]) || i < 0 && p != path {
			continue
		}
		if archive.Match(p, path) {
			return true
		}
	}
	return false
}

// IsData tells whether a path is a data directory or lies beneath one.
func (m *Manifest) IsData(path string) bool { return m.dataOf(path) != "" }

// dataOf returns the data directory that a path is or lies beneath.
func (m *Manifest) dataOf(path string) string {
	for _, d := range m.Data {
		if archive.Within(path, d) {
			return d
		}
	}
	return ""
}

// isMeta tells whether a clean path is never part of the installed tree.
func isMeta(path string) bool { return archive.Within(path, MetaDir) }
