package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/trust"
	"golang.org/x/mod/semver"
)

// IndexSchema is the schema of index.json.
const IndexSchema = "mobileops.plugin.index/v1"

// IndexRelease is the name of the release that the signature of an index
// speaks of. No plugin can have it, since it has a dot, so a signature of a
// plugin never vouches for an index, and a key can be limited to either.
const IndexRelease = "plugin.index"

// IndexChannel is the channel of that release.
const IndexChannel = "stable"

// IndexName and its signature are the files of an index.
const IndexName = "index.json"

// Limits of an index.
const (
	maxIndex     = 8 << 20 // bytes
	maxSignature = 16 << 10
	maxPlugins   = 10_000
	maxVersions  = 256 // of one plugin
	maxSummary   = 80  // characters
)

// Document is the content of index.json. Members that are not here are
// ignored, which is how version 1 grows.
type Document struct {
	Schema    string    `json:"schema"`
	Serial    uint64    `json:"serial"` // each index has a greater one than those before
	Generated time.Time `json:"generated"`
	Expires   time.Time `json:"expires"` // not to be used from then on; the same as in the signature
	Plugins   []Plugin  `json:"plugins"` // sorted by name
}

// Plugin is a name in an index.
type Plugin struct {
	Name     string    `json:"name"`
	Versions []Version `json:"versions"` // greatest sequence first
}

// Version is one package of a plugin.
type Version struct {
	Version    string `json:"version"`
	Sequence   uint64 `json:"sequence"` // the order of versions
	URL        string `json:"url"`      // of the package: absolute (https, oci), or relative to the index
	Size       int64  `json:"size"`     // bytes
	Digest     string `json:"digest"`   // BLAKE3-256, 64 hexadecimal digits
	Summary    string `json:"summary,omitempty"`
	MinVersion string `json:"min_version,omitempty"` // of mobileops
}

// CheckName returns what is wrong with the name of a plugin: 2 to 48 lower case
// letters and digits in words with a hyphen between, beginning with a letter.
func CheckName(name string) error {
	good := len(name) >= 2 && len(name) <= 48 && name[0] >= 'a' && name[0] <= 'z' && name[len(name)-1] != '-' && !strings.Contains(name, "--")
	if !good || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("%.80q is not the name of a plugin", name)
	}
	return nil
}

// Parse reads index.json and checks all of it. It says nothing about who wrote
// it. Errors are of type *Error.
func Parse(data []byte) (*Document, error) {
	bad := func(format string, args ...any) error {
		return refuse(CodeMalformed, "who publishes the index has to make it anew", "the index is malformed: %s", fmt.Sprintf(format, args...))
	}
	if len(data) > maxIndex {
		return nil, refuse(CodeTooLarge, "", "the index has more than %d bytes", maxIndex)
	}
	doc := new(Document)
	err := json.Unmarshal(data, doc)
	var kind *json.UnmarshalTypeError
	if err == nil || errors.As(err, &kind) { // of another schema everything else may be different
		if doc.Schema != IndexSchema {
			return nil, bad("its schema is %.80q, not %q", doc.Schema, IndexSchema)
		}
	}
	if err != nil {
		return nil, bad("%v", err)
	}
	if err := doc.check(); err != nil {
		return nil, bad("%v", err)
	}
	return doc, nil
}

func (d *Document) check() error {
	switch {
	case d.Serial < 1 || d.Serial > trust.MaxSequence:
		return fmt.Errorf("its serial number %d is not from 1 to %d", d.Serial, uint64(trust.MaxSequence))
	case d.Generated.IsZero() || d.Expires.IsZero():
		return fmt.Errorf("it does not say when it was made, or when it expires")
	case len(d.Plugins) > maxPlugins:
		return fmt.Errorf("it has %d plugins, more than %d", len(d.Plugins), maxPlugins)
	}
	for i := range d.Plugins {
		p := &d.Plugins[i]
		if err := CheckName(p.Name); err != nil {
			return err
		}
		if i > 0 && d.Plugins[i-1].Name >= p.Name {
			return fmt.Errorf("%s does not come after %s: names are sorted and different", p.Name, d.Plugins[i-1].Name)
		}
		if len(p.Versions) < 1 || len(p.Versions) > maxVersions {
			return fmt.Errorf("%s has %d versions, not 1 to %d", p.Name, len(p.Versions), maxVersions)
		}
		for j := range p.Versions {
			if err := p.Versions[j].check(); err != nil {
				return fmt.Errorf("%s: %w", p.Name, err)
			}
			if j > 0 && p.Versions[j-1].Sequence <= p.Versions[j].Sequence {
				return fmt.Errorf("%s: the sequence %d comes after %d: they descend", p.Name, p.Versions[j].Sequence, p.Versions[j-1].Sequence)
			}
		}
	}
	return nil
}

func (v *Version) check() error {
	if err := trust.CheckVersion(v.Version); err != nil {
		return err
	}
	switch {
	case v.Sequence < 1 || v.Sequence > trust.MaxSequence:
		return fmt.Errorf("%s: the sequence %d is not from 1 to %d", v.Version, v.Sequence, uint64(trust.MaxSequence))
	case v.Size < 1:
		return fmt.Errorf("%s: a package of %d bytes", v.Version, v.Size)
	case !isDigest(v.Digest):
		return fmt.Errorf("%s: the digest %.80q is not 64 hexadecimal digits in lower case", v.Version, v.Digest)
	case utf8.RuneCountInString(v.Summary) > maxSummary || strings.ContainsFunc(v.Summary, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }):
		return fmt.Errorf("%s: its summary is not one line of at most %d characters", v.Version, maxSummary)
	case v.MinVersion != "" && !semver.IsValid("v"+v.MinVersion):
		return fmt.Errorf("%s: min_version %.80q is not a version such as 1.2.3", v.Version, v.MinVersion)
	}
	if err := checkLocation(v.URL); err != nil {
		return fmt.Errorf("%s: %w", v.Version, err)
	}
	return nil
}

// checkLocation returns what is wrong with the URL of a package in an index.
func checkLocation(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || s == "" || len(s) > maxURL || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return fmt.Errorf("%s is not the URL of a package", quoted(s))
	case u.User != nil || u.Fragment != "":
		return fmt.Errorf("%s has a password or a fragment", quoted(s))
	case u.Scheme == "oci" && u.Host != "", (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != "":
		return nil
	case u.Scheme != "" || u.Opaque != "" || u.Host != "" || u.Path == "":
		return fmt.Errorf("%s is neither relative nor one of https or oci", quoted(s))
	}
	return nil
}

// runsOn reports whether a mobileops of that version is new enough.
func (v *Version) runsOn(product string) bool {
	return v.MinVersion == "" || !semver.IsValid("v"+product) || semver.Compare("v"+product, "v"+v.MinVersion) >= 0
}

// find returns the plugin of a name, or nil.
func (d *Document) find(name string) *Plugin {
	for i := range d.Plugins {
		if d.Plugins[i].Name == name {
			return &d.Plugins[i]
		}
	}
	return nil
}
