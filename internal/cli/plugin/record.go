package plugin

import (
	"time"

	"github.com/mobileops/mobileops/internal/plugin"
)

// installedRecord is a plugin that is installed, in JSON.
type installedRecord struct {
	Name      string    `json:"name"`
	Version   string    `json:"version"`
	Sequence  uint64    `json:"sequence"`
	Enabled   bool      `json:"enabled"`
	Start     bool      `json:"start"`             // its service runs whenever the supervisor does
	Service   string    `json:"service,omitempty"` // what its service does; absent: it has none, or nobody knows
	Key       string    `json:"key"`               // id of the key that signed it
	Bundled   bool      `json:"bundled"`           // it came with mobileops
	Source    string    `json:"source"`
	Installed time.Time `json:"installed"`
	By        string    `json:"by"`
	Account   uint32    `json:"account,omitempty"`   // number of its user; absent: that of who runs it
	Without   []string  `json:"without,omitempty"`   // layers that somebody accepted to do without
	Previous  string    `json:"previous,omitempty"`  // version that plugin rollback goes back to
	Available string    `json:"available,omitempty"` // a newer version that comes with mobileops
}

func newInstalledRecord(r *plugin.Record) installedRecord {
	out := installedRecord{
		Name: r.Name, Version: r.Release.Version, Sequence: r.Sequence, Enabled: r.Enabled, Start: r.Start, Key: r.KeyID, Bundled: r.Bundled,
		Source: r.Source, Installed: r.Installed, By: r.By, Account: r.Account,
	}
	for _, l := range r.Without {
		out.Without = append(out.Without, string(l))
	}
	if r.Previous != nil {
		out.Previous = r.Previous.Version
	}
	return out
}

// changed is the document of verbs that change which version is installed, or
// whether it is used.
type changed struct {
	Schema    string          `json:"schema"`
	Plugin    installedRecord `json:"plugin"`
	From      string          `json:"from,omitempty"`      // version that was there before
	Restarted bool            `json:"restarted,omitempty"` // its service, which ran
	Stopped   bool            `json:"stopped,omitempty"`   // its service, which ran
	Plan      *planRecord     `json:"plan,omitempty"`      // what was accepted
	Next      []string        `json:"next,omitempty"`      // what to do now
	Data      *bool           `json:"data,omitempty"`      // what it kept was removed, too
}
