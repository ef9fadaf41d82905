// Package manifest is plugin.yaml: what a plugin says of itself, what it may
// do, and which configuration it takes.
//
// Parse reads one, strictly: what it does not know, says twice or could be
// read in two ways is an error that names line and column. Check holds a
// Manifest, however it was made, against every rule that needs nothing but the
// manifest; CheckPackaged adds what holds of the manifest of a package, and
// CheckAgainst that it takes no name of the product's own.
//
// Three things are done with a manifest:
//   - Permissions say everything that the plugin may do. List tells it to
//     people, Grew what a new version may do beyond an old one, and Resolve
//     puts the values of the configuration in the places that refer to them.
//   - Options are a small schema of the plugin's configuration. Validate reads
//     what the admin wrote, and gives Values, from which secrets are kept
//     apart; Example writes a file to start from.
//   - Files are the digests of everything in the package. A signature is of
//     plugin.yaml alone: it reaches the files through these.
//
// Invariants: a Manifest that Parse returned passes Check, and Parse of what
// Marshal wrote gives an equal one. What the configuration chooses is chosen by
// the admin: a permission "config:PATH" lets the values at PATH through, and
// nothing else.
//
// docs/formats/plugin.md describes the file and the package. Versions follow
// semver.org 2.0.0, licences the SPDX specification 3.0, annex "SPDX license
// expressions", patterns RE2 (https://github.com/google/re2/wiki/Syntax).
package manifest

import (
	"time"

	"github.com/mobileops/mobileops/internal/finding"
)

// Schema is the schema of the manifest.
const Schema = "mobileops.plugin/v1"

// Names of the files of a package that is not listed under files.
const (
	FileName      = "plugin.yaml"
	SignatureName = "plugin.yaml.minisig"
)

// MaxBytes is the greatest size of a manifest, in bytes.
const MaxBytes = 256 << 10

// Manifest is plugin.yaml. Defaults are filled in by Parse.
type Manifest struct {
	Schema      string          `json:"schema"` // Schema
	Name        string          `json:"name"`
	Version     string          `json:"version"` // of semver.org
	Summary     string          `json:"summary"` // one line
	Description string          `json:"description,omitempty"`
	Licence     string          `json:"licence"` // an SPDX expression
	Homepage    string          `json:"homepage,omitempty"`
	MinVersion  string          `json:"min_version,omitempty"` // of mobileops
	Commands    []Command       `json:"commands,omitempty"`
	Service     *Service        `json:"service,omitempty"` // nil: none
	Hooks       []Hook          `json:"hooks,omitempty"`
	Config      Options         `json:"config,omitempty"`
	Permissions Permissions     `json:"permissions"`
	Files       map[string]File `json:"files,omitempty"` // by name; nil before it is packaged
}

// Program returns the name of the plugin's program, which lies in the root of
// its package.
func (m *Manifest) Program() string { return "mobileops-" + m.Name }

// Command is one that people type: mobileops PLUGIN COMMAND.
type Command struct {
	Name     string   `json:"name"` // "" is mobileops PLUGIN itself
	Summary  string   `json:"summary"`
	Usage    string   `json:"usage,omitempty"` // of the arguments, for help: "[DESTINATION...]"
	Args     Args     `json:"args"`
	Flags    []Flag   `json:"flags,omitempty"`
	Examples []string `json:"examples,omitempty"`
}

// How arguments are completed.
const (
	CompleteNone  = "none"
	CompleteFiles = "files"
	CompleteDirs  = "dirs"
	CompleteWords = "words" // Args.Words
)

// Args are the arguments of a command. The zero value takes none; with args
// in the manifest, Max is -1 unless it is given.
type Args struct {
	Min      int      `json:"min"`
	Max      int      `json:"max"`                // -1: any number
	Complete string   `json:"complete,omitempty"` // CompleteNone and so on; "" is CompleteNone
	Words    []string `json:"words,omitempty"`
}

// Types of flags.
const (
	FlagBool     = "bool"
	FlagString   = "string"
	FlagInt      = "int"
	FlagDuration = "duration"
	FlagChoice   = "choice"
	FlagFile     = "file"
	FlagDir      = "dir"
)

// Flag is a flag of a command.
type Flag struct {
	Name     string   `json:"name"`            // without dashes
	Short    string   `json:"short,omitempty"` // one letter
	Type     string   `json:"type"`            // FlagBool and so on
	Default  string   `json:"default,omitempty"`
	Choices  []string `json:"choices,omitempty"`
	Summary  string   `json:"summary"`
	Required bool     `json:"required,omitempty"`
}

// When a service is started again.
const (
	RestartAlways    = "always"
	RestartOnFailure = "on-failure"
	RestartNever     = "never"
)

// Service is a process that is kept running.
type Service struct {
	Args         []string      `json:"args,omitempty"`
	ReadyTimeout time.Duration `json:"ready_timeout_ns"`
	StopTimeout  time.Duration `json:"stop_timeout_ns"`       // between SIGTERM and SIGKILL
	Restart      string        `json:"restart"`               // RestartAlways and so on
	Watchdog     time.Duration `json:"watchdog_ns,omitempty"` // ping must be answered within it; 0: none is sent
}

// What a hook is called on.
const (
	OnFinding  = "finding"
	OnAudit    = "audit"
	OnSchedule = "schedule"
	OnBefore   = "before" // a command of mobileops
	OnAfter    = "after"
)

// Hook is a call of the program when something happens.
type Hook struct {
	On          string           `json:"on"` // OnFinding and so on
	Args        []string         `json:"args,omitempty"`
	Timeout     time.Duration    `json:"timeout_ns"`
	MinSeverity finding.Severity `json:"min_severity"`       // OnFinding
	Sources     []string         `json:"sources,omitempty"`  // OnFinding; nil: all that it may read
	Every       time.Duration    `json:"every_ns,omitempty"` // OnSchedule
	Commands    []string         `json:"commands,omitempty"` // OnBefore, OnAfter: "update apply"
	Refuse      bool             `json:"refuse,omitempty"`   // OnBefore: an exit status other than 0 keeps the command from running
}

// File is what a package has under a name.
type File struct {
	Digest     string `json:"digest"` // BLAKE3-256, 64 lower-case hexadecimal digits
	Size       int64  `json:"size"`   // bytes
	Executable bool   `json:"executable,omitempty"`
}
