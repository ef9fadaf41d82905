// Package listing is the signed list of the plugins that come with mobileops:
// what they are, and the digest of the package of each. The program that makes
// the bundle writes it, and package catalogue reads it without a look at the
// packages themselves.
//
// It stands apart from package catalogue because that one has the bundle
// embedded, and the program that makes the bundle must not.
//
// docs/formats/plugin-catalogue.md describes the files.
package listing

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/trust"
)

// Schema names the format of catalogue.json.
const Schema = "mobileops.plugin.catalogue/v1"

// Names of the files of a bundle, beside the packages.
const (
	FileName      = "catalogue.json"
	SignatureName = "catalogue.json.minisig"
	KeyName       = "key.pub"
)

// releaseName is what the signature of catalogue.json is about. It has a dot,
// which no plugin's name has: the signature of a plugin never passes for it.
const releaseName = "plugin.catalogue"

// Expires returns the end of everything in a bundle. It lies beyond the life of
// any build: what is in a program does not get old by itself, a host without a
// network must be able to install from it for as long as the program runs, and
// whoever holds an old program back holds back its plugins by that alone.
func Expires() time.Time { return time.Date(2099, 12, 31, 23, 59, 59, 0, time.UTC) }

// Names are the plugins that come with mobileops, sorted. Each is a directory
// beneath plugins/ in the repository.
func Names() []string {
	return []string{"siem-integration-plugin", "vulnerability-scanner-plugin"}
}

// Archive is the name of the file that has the package of a plugin.
func Archive(name string) string { return name + ".plugin.tar.zst" }

// Listing is catalogue.json.
type Listing struct {
	Schema   string   `json:"schema"`   // Schema
	Platform string   `json:"platform"` // that the programs are for: "linux/amd64"
	Plugins  []Plugin `json:"plugins"`  // by name
}

// Plugin is one of the list. Name, version, commands and all else that people
// are shown stand in the manifest, which is the one of the package.
type Plugin struct {
	Sequence uint64             `json:"sequence"` // see Sequence
	Size     int64              `json:"size"`     // bytes of the package
	Digest   string             `json:"digest"`   // BLAKE3-256 of the package, 64 lower-case hexadecimal digits
	Manifest *manifest.Manifest `json:"manifest"`
}

// Write returns catalogue.json and its signature.
func (l *Listing) Write(ctx context.Context, s trust.Signer) (data, signature []byte, err error) {
	if data, err = l.Marshal(); err != nil {
		return nil, nil, err
	}
	// A release is about something that has versions. The list has none: it
	// is never compared with another one, since it comes and goes with the
	// program that it is a part of.
	rel := trust.Release{Name: releaseName, Version: "1", Sequence: 1, Channel: "stable", Expires: Expires()}
	signature, err = trust.SignPackage(ctx, s, bytes.NewReader(data), rel, "")
	return data, signature, err
}

// Marshal returns catalogue.json, in one line since it is read far more often
// by programs. Equal lists give the same bytes.
func (l *Listing) Marshal() ([]byte, error) {
	data, err := json.Marshal(l)
	return append(data, '\n'), err
}

// Read proves catalogue.json by its signature and the public key beside it, and
// decodes it. Its errors are of kind failure.Untrustworthy.
func Read(data, signature, key []byte) (*Listing, error) {
	public, err := trust.ParsePublicKey(key)
	if err != nil {
		return nil, damaged("%s: %w", KeyName, err)
	}
	v, err := trust.Pinned(public).Verifier(signature)
	if err != nil {
		return nil, damaged("%s: %w", SignatureName, err)
	}
	v.Write(data) // a hash: never fails
	if err := v.Verify(); err != nil {
		return nil, damaged("%s: %w", FileName, err)
	}
	if rel := v.Release(); rel.Name != releaseName {
		return nil, damaged("%s: its signature is about %s", FileName, rel.Name)
	}
	l := new(Listing)
	if err := json.Unmarshal(data, l); err != nil {
		return nil, damaged("%s: %w", FileName, err)
	}
	if l.Schema != Schema {
		return nil, damaged("%s has the schema %.80q; wanted is %s", FileName, l.Schema, Schema)
	}
	for i, p := range l.Plugins {
		if p.Manifest == nil {
			return nil, damaged("%s: plugin %d has no manifest", FileName, i+1)
		}
	}
	return l, nil
}

func damaged(format string, args ...any) error {
	return failure.Errorf(failure.Untrustworthy, "the plugins that are part of this mobileops are damaged: %w", fmt.Errorf(format, args...))
}

// Sequence returns the sequence of a bundled plugin, which orders its releases:
// that of 1.2.3 is 1002003. So it grows with the version, without a counter that
// somebody would have to keep. Pre-releases do not come with mobileops, and the
// second and third number are below 1000: an error otherwise.
func Sequence(version string) (uint64, error) {
	bad := fmt.Errorf("the version %q of a plugin that comes with mobileops is not three numbers such as 1.4.0, the last two below 1000", version)
	parts := strings.Split(version, ".")
	if len(parts) != 3 {
		return 0, bad
	}
	var sequence uint64
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 32)
		if err != nil || strconv.FormatUint(n, 10) != p || i > 0 && n > 999 {
			return 0, bad
		}
		sequence = sequence*1000 + n
	}
	if sequence == 0 {
		return 0, bad
	}
	return sequence, nil
}
