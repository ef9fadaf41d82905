package vulndb

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// Generation is one database that was taken in.
type Generation struct {
	Number int    `json:"number"`
	Kind   Kind   `json:"kind"`
	Digest string `json:"digest"` // BLAKE3-256 of the database's file, hexadecimal
	Size   int64  `json:"size"`   // of that file, in bytes
	// Origin is where it came from: a path, a reference with a digest, or "built
	// from …".
	Origin   string    `json:"origin"`
	Manifest string    `json:"manifest,omitempty"` // digest of the OCI manifest that it was pulled by
	Signer   string    `json:"signer,omitempty"`   // the key that vouched for it
	Imported time.Time `json:"imported"`
	By       string    `json:"by,omitempty"`
	Metadata
	// Advisories is how many packages have a vulnerability, counted once for each
	// of both, and Vulnerabilities how many are described; both are 0 of Java.
	Advisories      int            `json:"advisories"`
	Vulnerabilities int            `json:"vulnerabilities"`
	Ecosystems      map[string]int `json:"ecosystems,omitempty"` // advisories by "debian 12", "npm"
	Sources         []DataSource   `json:"sources,omitempty"`
	// Current is filled in when it is read: it is the one that scans use.
	Current bool `json:"current"`

	// Seen is how the file looked when its content was last proved.
	Seen fingerprint `json:"seen"`
}

// Age is how long ago the database was built, by what it says of itself.
func (g *Generation) Age(now time.Time) time.Duration { return now.Sub(g.UpdatedAt) }

// title names a generation in messages.
func (g *Generation) title() string {
	if g.Kind == Java {
		return fmt.Sprintf("generation %d of the Java database", g.Number)
	}
	return fmt.Sprintf("generation %d of the vulnerability database", g.Number)
}

// DataSource is whose advisories a database has.
type DataSource struct {
	Bucket string `json:"bucket"` // "npm::GitHub Security Advisory npm"
	ID     string `json:"id"`     // "ghsa"
	Name   string `json:"name,omitempty"`
	URL    string `json:"url,omitempty"`
}

// Metadata is what metadata.json says of a database.
type Metadata struct {
	Schema     int       `json:"schema"`
	UpdatedAt  time.Time `json:"updated"`              // when it was built, or what it is built from was last changed
	NextUpdate time.Time `json:"next_update,omitzero"` // when its publisher has another
}

// maxMetadata bounds metadata.json, in bytes.
const maxMetadata = 64 << 10

// parseMetadata reads metadata.json.
func parseMetadata(data []byte, k Kind) (m Metadata, err error) {
	bad := func(format string, args ...any) (Metadata, error) {
		return Metadata{}, failure.Errorf(failure.Untrustworthy, "metadata.json of the database: "+format, args...)
	}
	var doc struct {
		Version               int
		UpdatedAt, NextUpdate time.Time
	}
	if len(data) > maxMetadata {
		return bad("it has more than %d bytes", maxMetadata)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return bad("byte %d: %v", syntax.Offset, err)
		}
		return bad("%v", err)
	}
	switch {
	case doc.Version != k.schema():
		return bad("it is of schema %d, and schema %d is read here (get the database of that version)", doc.Version, k.schema())
	case doc.UpdatedAt.Year() < 2015 || doc.UpdatedAt.Year() > 9999:
		return bad("it does not say when it was updated, so nobody could tell that it is too old")
	}
	return Metadata{Schema: doc.Version, UpdatedAt: doc.UpdatedAt.UTC().Truncate(time.Second), NextUpdate: doc.NextUpdate.UTC().Truncate(time.Second)}, nil
}
