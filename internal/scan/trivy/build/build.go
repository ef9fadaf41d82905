//go:build goexperiment.jsonv2

// Package build makes a vulnerability database, as Trivy reads it, out of
// advisories as they are published (package source) and of trees in the layout of
// Trivy's own vuln-list.
//
// Everything goes through the tables that Trivy's own builder uses on the way: an
// advisory-detail for each vulnerability of each package, a vulnerability-detail
// for each source that describes one. In the end they are put in order, what was
// rejected is left out, the tables are dropped and the file is written anew
// without the room that they took. The same sources make the same advisories.
//
// github.com/aquasecurity/trivy-db/pkg/vulndb is not used: through vulnsrc/ghsa
// it runs "go list" when it is loaded.
package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/aquasecurity/trivy-db/pkg/db"
	"github.com/mobileops/mobileops/internal/buildinfo"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/scan/vulndb/source"
	bolt "go.etcd.io/bbolt"
)

// batch is how many documents go into one transaction.
const batch = 2000

// Build makes the database that req asks for, in a directory that is there and
// empty. Documents that could not be read are problems of the report; a source of
// which nothing can be used is an error, and then the directory is empty still.
func Build(ctx context.Context, req *protocol.Build, progress func(protocol.Progress)) (*protocol.BuildReport, error) {
	began := time.Now()
	if len(req.Sources) == 0 {
		return nil, failure.Errorf(failure.Usage, "there are no sources to build a database from")
	}
	if entries, err := os.ReadDir(req.Output); err != nil {
		return nil, err
	} else if len(entries) > 0 {
		return nil, failure.Errorf(failure.Usage, "%s is not empty", req.Output)
	}
	work, err := os.MkdirTemp(req.Temp, "vulndb-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	b := &builder{ctx: ctx, work: work, progress: progress, report: &protocol.BuildReport{
		Schema: protocol.Schema, Version: buildinfo.Get().Version, Skipped: map[string]int{}, Ecosystems: map[string]int{},
	}}
	if err := b.run(req); err != nil {
		return nil, errors.Join(err, emptied(req.Output))
	}
	b.report.Took = time.Since(began)
	return b.report, nil
}

// emptied takes away what was made.
func emptied(dir string) error {
	var errs []error
	for _, name := range []string{"trivy.db", "metadata.json"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

type builder struct {
	ctx      context.Context
	work     string // a directory for what goes away in the end
	progress func(protocol.Progress)
	report   *protocol.BuildReport

	conn *bolt.DB
	tx   *bolt.Tx // open while a source is read
	held int      // documents in it
	last time.Time
}

func (b *builder) run(req *protocol.Build) (err error) {
	// What is made here is thrown away when the machine goes down, so nothing is
	// flushed until the end.
	if err := db.Init(b.work, db.WithBoltOptions(&bolt.Options{NoSync: true, NoFreelistSync: true, FreelistType: bolt.FreelistMapType, Timeout: 5 * time.Second})); err != nil {
		return err
	}
	defer db.Close()
	b.conn = db.Config{}.Connection()
	for _, src := range req.Sources {
		if err := b.source(src); err != nil {
			return err
		}
	}
	if err := b.finish(); err != nil {
		return err
	}
	if b.report.Advisories == 0 || b.report.Vulnerabilities == 0 {
		return failure.Hint(failure.Errorf(failure.Untrustworthy, "there is not one advisory in the sources"), "is each source of the format that was given for it?")
	}
	updated := b.updated()
	if updated.IsZero() {
		return failure.Errorf(failure.Untrustworthy, "no source says when it was changed, so nobody could tell how old the database is")
	}
	if err := b.compact(filepath.Join(req.Output, "trivy.db")); err != nil {
		return err
	}
	meta, err := json.Marshal(map[string]any{"Version": db.SchemaVersion, "UpdatedAt": updated, "NextUpdate": updated.Add(24 * time.Hour), "DownloadedAt": updated})
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(req.Output, "metadata.json"), append(meta, '\n'), 0o600)
}

// updated is when the sources were last changed, by the newest of them.
func (b *builder) updated() (t time.Time) {
	for _, s := range b.report.Sources {
		if s.Newest.After(t) {
			t = s.Newest
		}
	}
	return t.UTC().Truncate(time.Second)
}

// source puts one source into the tables.
func (b *builder) source(src protocol.Source) error {
	if src.Format == protocol.VulnList {
		return b.vulnList(src)
	}
	sum, err := source.Read(b.ctx, src, b.add, func(documents int, name string) { b.tell("build", int64(documents), name) })
	if err == nil {
		err = b.commit()
	} else if b.tx != nil {
		err = errors.Join(err, b.tx.Rollback())
		b.tx = nil
	}
	if err != nil {
		return err
	}
	b.take(sum)
	if sum.Documents == 0 {
		err := failure.Errorf(failure.Untrustworthy, "there is no advisory of the format %s in %s", src.Format, src.Path)
		if len(sum.Problems) > 0 {
			p := sum.Problems[0]
			err = failure.Errorf(failure.Untrustworthy, "there is no advisory of the format %s in %s: %s: %s", src.Format, src.Path, p.Path, p.Detail)
		}
		return failure.Hint(err, "is it of another format?")
	}
	b.report.Sources = append(b.report.Sources, protocol.SourceReport{Source: src, Documents: sum.Documents, Newest: sum.Newest})
	return nil
}

// take adds what came of a source to the report.
func (b *builder) take(sum *source.Summary) {
	for why, n := range sum.Skipped {
		b.report.Skipped[why] += n
	}
	b.report.Problems = append(b.report.Problems, sum.Problems...)
}

// add puts one advisory into the transaction that is open.
func (b *builder) add(a *source.Advisory) error {
	if b.tx == nil {
		tx, err := b.conn.Begin(true)
		if err != nil {
			return err
		}
		b.tx, b.held = tx, 0
	}
	if err := put(b.tx, a, b.report.Skipped); err != nil {
		return err
	}
	if b.held++; b.held >= batch {
		return b.commit()
	}
	return nil
}

func (b *builder) commit() error {
	if b.tx == nil {
		return nil
	}
	tx := b.tx
	b.tx = nil
	return tx.Commit()
}

// tell reports progress, several times a second at most.
func (b *builder) tell(stage string, n int64, item string) {
	if now := time.Now(); now.Sub(b.last) > 200*time.Millisecond {
		b.last = now
		b.progress(protocol.Progress{Stage: stage, Files: n, Item: item})
	}
}

// compact writes the tables that are left into a file without free pages.
func (b *builder) compact(path string) error {
	dst, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true, Timeout: 5 * time.Second, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return err
	}
	err = bolt.Compact(dst, b.conn, 64<<20)
	if err == nil {
		err = dst.Sync()
	}
	if err = errors.Join(err, dst.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return durable.SyncDir(filepath.Dir(path))
}
