package scan

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/buildinfo"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/scan/export"
	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/scan/license"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/ui"
)

// reportDocument is what a scan prints as JSON.
type reportDocument struct {
	Schema   string             `json:"schema"`
	Asset    ledger.Asset       `json:"asset"`
	Started  time.Time          `json:"started"`
	Seconds  float64            `json:"seconds"`
	Complete bool               `json:"complete"` // all of the target was looked at, with a database that is not too old
	Engine   string             `json:"engine"`
	Scanners []protocol.Scanner `json:"scanners"`
	Target   string             `json:"target"`
	Kind     protocol.Kind      `json:"kind"`
	OS       *protocol.OS       `json:"os,omitempty"`
	Image    *protocol.ImageID  `json:"image,omitempty"`
	Commit   *protocol.Commit   `json:"commit,omitempty"`
	Database *databaseRecord    `json:"database,omitempty"`
	Stale    bool               `json:"stale,omitempty"` // the database is too old
	Items    []itemRecord       `json:"items"`           // shown ones, in order of urgency
	NotShown int                `json:"not_shown"`       // open ones that flags leave out
	Changes  *changesRecord     `json:"changes,omitempty"`
	Licenses *license.Verdicts  `json:"licenses,omitempty"`
	Packages []packageRecord    `json:"packages,omitempty"`
	Problems []protocol.Problem `json:"problems"`
	Notes    []string           `json:"notes,omitempty"`
	Skipped  protocol.Skipped   `json:"skipped"`
	Stats    protocol.Stats     `json:"stats"`
}

// databaseRecord is what vulnerabilities were looked up in.
type databaseRecord struct {
	Generation int       `json:"generation"`
	Digest     string    `json:"digest"`
	Origin     string    `json:"origin"`
	Updated    time.Time `json:"updated"`
	Advisories int       `json:"advisories"`
	KEV        time.Time `json:"kev,omitzero"`  // of the catalogue of what is known to be exploited; none: there is none
	EPSS       time.Time `json:"epss,omitzero"` // of the model's answer
}

func (v *view) database() *databaseRecord {
	g := v.Database
	if g == nil {
		return nil
	}
	d := &databaseRecord{Generation: g.Number, Digest: g.Digest, Origin: g.Origin, Updated: g.UpdatedAt, Advisories: g.Advisories}
	d.KEV, d.EPSS = v.Intel.Dates()
	return d
}

// itemRecord is an item with what follows from the time.
type itemRecord struct {
	*ledger.Deadline
	New bool `json:"new"`
}

// changesRecord is the difference to the scan before, in numbers: which ones is in
// the items, and in mobileops scan diff.
type changesRecord struct {
	Previous time.Time `json:"previous,omitzero"`
	New      int       `json:"new"`
	Reopened int       `json:"reopened"`
	Resolved int       `json:"resolved"`
	Fixable  int       `json:"fixable"`
	Still    int       `json:"still"`
	Unseen   int       `json:"unseen"`
	// OpenAgain were accepted or expected, and are not any more.
	OpenAgain int `json:"open_again"`
	// FirstLook are scanners that ran here for the first time after others, Baseline
	// is how much they found, which is not new.
	FirstLook []protocol.Scanner `json:"first_look,omitempty"`
	Baseline  int                `json:"baseline"`
}

// packageRecord is a package and where it was found.
type packageRecord struct {
	Target string `json:"target"`
	Type   string `json:"type"`
	protocol.Package
}

func (v *view) record(i *ledger.Deadline) itemRecord {
	return itemRecord{Deadline: i, New: v.news(&i.Item) != ""}
}

func (v *view) document(o *targetOptions) *reportDocument {
	d := &reportDocument{
		Schema: "mobileops.scan/v1", Asset: v.Asset, Started: v.Started.UTC(), Seconds: v.Took.Seconds(), Complete: v.Complete(),
		Engine: v.Scanned.Engine, Scanners: v.Scanners, Target: v.Scanned.Target, Kind: v.Scanned.Kind, OS: v.Scanned.OS, Image: v.Scanned.Image,
		Commit: v.Scanned.Commit, Database: v.database(), Stale: v.Stale, Items: []itemRecord{}, NotShown: v.hidden, Licenses: v.Licenses,
		Problems: v.Scanned.Problems, Notes: v.Scanned.Notes, Skipped: v.Scanned.Skipped, Stats: v.Scanned.Stats,
	}
	if d.Problems == nil {
		d.Problems = []protocol.Problem{}
	}
	for i := range v.shown {
		d.Items = append(d.Items, v.record(&v.shown[i]))
	}
	if c := v.Changes; c != nil {
		d.Changes = &changesRecord{c.Previous, len(c.New), len(c.Reopened), len(c.Resolved), len(c.Fixable), c.Still, c.Unseen, v.openAgain(), c.FirstLook, len(c.Baseline)}
	}
	if o.allPackages {
		d.Packages = []packageRecord{}
		for i := range v.Scanned.Results {
			r := &v.Scanned.Results[i]
			for j := range r.Packages {
				d.Packages = append(d.Packages, packageRecord{r.Target, r.Type, r.Packages[j]})
			}
		}
	}
	return d
}

// print prints a report in the format that was asked for.
func (v *view) print(a *app.App, o *targetOptions) error {
	format := a.Streams.Format
	if text := format == ui.Text || format == formatTable; v.show.newOnly && (!text || a.Streams.Quiet) && v.baseline() > 0 {
		// What is left out for being no news is said once, or nobody would ever know of it.
		a.Streams.Notice("%s: %s See them: mobileops scan list %s", ui.Printable(v.Asset.ID), v.firstLook(), ui.Printable(v.Asset.ID))
	}
	if n := v.leftUnseen(); n > 0 {
		a.Streams.Notice("%s: %s could not be looked at again, for the database is older than one before it (import a newer one: mobileops vulndb import FILE)", ui.Printable(v.Asset.ID), ui.Plural(int64(n), "open vulnerability", "open vulnerabilities"))
	}
	switch {
	case format == ui.Text, format == formatTable:
		return v.printText(a, o.limit)
	case format == ui.JSON:
		return a.Streams.Document(v.document(o))
	case format == ui.JSONL:
		lines := a.Streams.Lines()
		for i := range v.shown {
			if err := lines.Print(v.record(&v.shown[i])); err != nil {
				return err
			}
		}
		return lines.Flush()
	case document(format) != protocol.NoDocument:
		_, err := io.WriteString(a.Streams.Out, v.Scanned.Document)
		if err == nil {
			printProblems(a, v.Scanned.Problems)
		}
		return err
	}
	if !v.Complete() {
		printProblems(a, v.Scanned.Problems)
	}
	notes, err := export.Write(a.Streams.Out, export.Format(format), v.exported(o))
	for _, n := range notes {
		a.Streams.Notice("%s", ui.Printable(n))
	}
	return err
}

// exported is the report as other tools get it.
func (v *view) exported(o *targetOptions) *export.Document {
	d := &export.Document{
		Asset: v.Asset, Version: buildinfo.Get().Version, Host: hostname(), Started: v.Started, Now: v.now, Scanners: v.Scanners,
		Filters: o.filters(), Due: map[ledger.Key]time.Time{}, Changes: v.Changes, Scanned: v.Scanned,
	}
	for i := range v.shown {
		d.Items = append(d.Items, v.shown[i].Item)
		if at := v.shown[i].Due; !at.IsZero() && v.shown[i].State == ledger.Open {
			d.Due[v.shown[i].Key] = at
		}
	}
	if g := v.Database; g != nil {
		d.Database = &export.Database{Name: fmt.Sprintf("generation %d", g.Number), Source: g.Origin, Built: g.UpdatedAt, Stale: v.Stale, MaxAge: v.MaxAge}
		d.Database.KEV, d.Database.EPSS = v.Intel.Dates()
	}
	d.Licenses = licenses(v.Licenses)
	return d
}

// licenses are the verdicts by licence, the worst first.
func licenses(v *license.Verdicts) (out []export.LicenseVerdict) {
	if v == nil {
		return nil
	}
	type key struct {
		license string
		outcome license.Outcome
	}
	at := map[key]int{}
	for i := range v.Verdicts {
		d := &v.Verdicts[i]
		k := key{d.License, d.Outcome}
		n, ok := at[k]
		if !ok {
			n = len(out)
			at[k] = n
			out = append(out, export.LicenseVerdict{License: d.License, Verdict: d.Outcome.String()})
		}
		out[n].Packages++
		if d.Package != "" && len(out[n].Examples) < 5 {
			out[n].Examples = append(out[n].Examples, d.Package)
		}
	}
	return out
}

// filters say in words what the flags leave out.
func (o *targetOptions) filters() (list []string) {
	if len(o.severity) > 0 {
		list = append(list, "severity "+strings.Join(o.severity, ", "))
	}
	if o.ignoreUnfixed {
		list = append(list, "only what a newer version mends")
	}
	if o.newOnly {
		list = append(list, "only what is new since the last scan")
	}
	return list
}

// hostname is what this host calls itself.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}
