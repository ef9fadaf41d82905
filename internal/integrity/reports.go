package integrity

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/zeebo/blake3"
)

// ErrNoReport is wrapped when there is no such report.
var ErrNoReport = failure.New(failure.NotReady, "no report")

// reportsBucket has, for each name of a baseline, a zero byte and a sequence
// number (8 bytes, big endian), a ReportEntry as JSON.
var reportsBucket = []byte("integrity.reports")

// How many reports of one name are kept: in the catalogue, which shows how
// things developed, and of those the latest as files with every change.
const (
	keptReports     = 500
	keptReportFiles = 20
)

const reportExt = ".report"

// reportFile is the path of a stored report. The name is part of it, so that
// what a killed run left is found under the lock of the name.
func (e *Engine) reportFile(name, id string) string { return e.path(name + "." + id + reportExt) }

func reportPrefix(name string) []byte { return append([]byte(name), 0) }

// keepReport writes the file of a report and returns its entry, which is to be
// stored by putReport. A report that found nothing needs no file.
func (e *Engine) keepReport(ctx context.Context, r *Report) (*ReportEntry, error) {
	r.ID = newID()
	entry := &ReportEntry{
		ID: r.ID, Baseline: r.Baseline.Name, BaselineID: r.Baseline.ID, Tree: r.Tree, Verify: r.Verify,
		Started: r.Started, Last: r.Started, Runs: 1, Elapsed: r.Elapsed, Summary: r.Summary,
		Classes: map[Class]int{}, Severities: map[string]int{}, Status: r.Kind(finding.Info).Status(),
	}
	entry.Aspects, entry.Drift = r.Aspects, len(r.Drift)
	for i := range r.Drift {
		entry.Severities[r.Drift[i].Severity.String()]++
	}
	entry.Summary.Mounts = nil
	for i := range r.Changes {
		entry.Classes[r.Changes[i].Class]++
		entry.Severities[r.Changes[i].Severity.String()]++
	}
	if r.empty() {
		return entry, nil
	}
	var buf bytes.Buffer // a line of JSON for each change, compressed: small beside the changes themselves
	if err := writeReport(durable.Writer(ctx, &buf), r); err != nil {
		return nil, fmt.Errorf("keep the report: %w", err)
	}
	entry.FileBytes, entry.Digest = int64(buf.Len()), blake3.Sum256(buf.Bytes())
	last, err := e.Reports(ctx, r.Baseline.Name)
	if err != nil {
		return nil, err
	}
	if again(last, entry) >= 0 {
		return entry, nil // its file is there
	}
	if err := durable.WriteFile(e.reportFile(entry.Baseline, entry.ID), buf.Bytes(), 0o600); err != nil {
		return nil, failure.Errorf(failure.Failed, "keep the report: %w", err)
	}
	return entry, nil
}

// empty tells whether a report has nothing that is worth a file.
func (r *Report) empty() bool {
	return len(r.Changes) == 0 && len(r.Drift) == 0 && len(r.Problems) == 0
}

// same tells whether another run found the same.
func (e *ReportEntry) same(o *ReportEntry) bool {
	return e.BaselineID == o.BaselineID && e.Tree == o.Tree && e.Verify == o.Verify && slices.Equal(e.Aspects, o.Aspects) && e.Digest == o.Digest
}

// again returns the index of the last report of the kind of entry when that
// found the same, or -1. Runs of other kinds may lie between: a look at the
// network every few minutes does not push the changes of the night's check out.
func again(list []ReportEntry, entry *ReportEntry) int {
	for i := range list[:min(len(list), keptReportFiles)] { // of older ones the file is gone
		if list[i].Verify == entry.Verify && slices.Equal(list[i].Aspects, entry.Aspects) {
			if list[i].same(entry) {
				return i
			}
			break
		}
	}
	return -1
}

// putReport catalogues a report and drops the oldest. The files that are no
// longer wanted are returned, for after the transaction.
func (e *Engine) putReport(tx *state.Tx, entry *ReportEntry) (gone []string, err error) {
	b, err := tx.CreateBucketIfNotExists(reportsBucket)
	if err != nil {
		return nil, err
	}
	list, keys, err := reportEntries(tx, entry.Baseline)
	if err != nil {
		return nil, err
	}
	if at := again(list, entry); at >= 0 { // one report, which is now the newest
		entry.ID, entry.Started, entry.Runs = list[at].ID, list[at].Started, list[at].Runs+1
		if err := b.Delete(keys[at]); err != nil {
			return nil, err
		}
		list, keys = slices.Delete(list, at, at+1), slices.Delete(keys, at, at+1)
	}
	for i := range list {
		if i+1 >= keptReports {
			if err := b.Delete(keys[i]); err != nil {
				return nil, err
			}
		}
		if i+1 >= keptReportFiles && list[i].FileBytes > 0 {
			gone = append(gone, e.reportFile(list[i].Baseline, list[i].ID))
		}
	}
	n, err := b.NextSequence()
	if err != nil {
		return nil, err
	}
	key := binary.BigEndian.AppendUint64(reportPrefix(entry.Baseline), n)
	v, err := json.Marshal(entry)
	if err != nil {
		return nil, err
	}
	return gone, b.Put(key, v)
}

// reportEntries returns the entries of one name, the newest first, and their keys.
func reportEntries(tx *state.Tx, name string) (list []ReportEntry, keys [][]byte, err error) {
	b := tx.Bucket(reportsBucket)
	if b == nil {
		return nil, nil, nil
	}
	prefix := reportPrefix(name)
	c := b.Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		var e ReportEntry
		if err := json.Unmarshal(v, &e); err != nil {
			return nil, nil, failure.Errorf(failure.Untrustworthy, "catalogue of reports: %w", err)
		}
		list, keys = append(list, e), append(keys, bytes.Clone(k))
	}
	slices.Reverse(list)
	slices.Reverse(keys)
	return list, keys, nil
}

// Reports returns the catalogue of the reports about the baselines of one
// name, the newest first.
func (e *Engine) Reports(ctx context.Context, name string) (list []ReportEntry, err error) {
	err = e.Store.View(ctx, func(tx *state.Tx) (err error) {
		list, _, err = reportEntries(tx, name)
		return err
	})
	return list, err
}

// Latest stands for the newest report of a name that looked at files, and when
// none did, for the newest: looking at the network every few minutes does not
// put the report of the night's check out of reach.
const Latest = "latest"

// latestOf returns the newest report that looked at all of the aspects; when
// none did, the newest. There is at least one in the list.
func latestOf(list []ReportEntry, aspects ...string) ReportEntry {
	for _, e := range list {
		if !slices.ContainsFunc(aspects, func(a string) bool { return !e.looked(a) }) {
			return e
		}
	}
	return list[0]
}

// looked tells whether a report is about an aspect. One that names none is of
// files.
func (e *ReportEntry) looked(aspect string) bool {
	return slices.Contains(e.Aspects, aspect) || e.Aspects == nil && aspect == facts.Files
}

// FindReport returns the entry of the report about baselines of the given name
// whose id begins with ref, or of the newest.
func (e *Engine) FindReport(ctx context.Context, name, ref string) (ReportEntry, error) {
	if err := CheckName(name); err != nil {
		return ReportEntry{}, err
	}
	list, err := e.Reports(ctx, name)
	if err != nil {
		return ReportEntry{}, err
	}
	if len(list) == 0 {
		return ReportEntry{}, failure.Hint(fmt.Errorf("%w about baseline %q", ErrNoReport, name), "make one: mobileops integrity check --name "+name)
	}
	if ref == Latest {
		return latestOf(list, facts.Files), nil
	}
	list = slices.DeleteFunc(list, func(r ReportEntry) bool { return ref == "" || !strings.HasPrefix(r.ID, ref) })
	switch len(list) {
	case 0:
		return ReportEntry{}, failure.Hint(fmt.Errorf("%w %q about baseline %q", ErrNoReport, ref, name), "see mobileops integrity report list")
	case 1:
		return list[0], nil
	}
	return ReportEntry{}, failure.Errorf(failure.Usage, "%q stands for several reports: write more digits of the id", ref)
}

// LoadReport reads a stored report: every change and every problem. Of a
// report that is too old for that it has only the summary, and the error wraps
// ErrNoReport.
func (e *Engine) LoadReport(ctx context.Context, name, ref string) (*Report, ReportEntry, error) {
	entry, err := e.FindReport(ctx, name, ref)
	if err != nil {
		return nil, entry, err
	}
	r := &Report{Verify: entry.Verify, Tree: entry.Tree}
	if entry.FileBytes > 0 {
		b, err := readAtMost(e.reportFile(entry.Baseline, entry.ID), entry.FileBytes)
		if errors.Is(err, fs.ErrNotExist) {
			err = failure.Hint(fmt.Errorf("%w: the changes of %s are no longer kept, only the last %d reports are kept in full", ErrNoReport, entry.ID, keptReportFiles),
				"make a new one: mobileops integrity check --name "+entry.Baseline)
			return nil, entry, err
		}
		if err != nil {
			return nil, entry, failure.Wrap(failure.Failed, err)
		}
		if blake3.Sum256(b) != entry.Digest {
			return nil, entry, fmt.Errorf("%w: %s is not what was catalogued", ErrDamagedReport, e.reportFile(entry.Baseline, entry.ID))
		}
		if r, err = readReport(bytes.NewReader(b)); err != nil {
			return nil, entry, err
		}
	} else if r.Baseline, err = e.Find(ctx, entry.Baseline+"@"+entry.BaselineID); err != nil {
		r.Baseline = Entry{Header: baseline.Header{ID: entry.BaselineID, Name: entry.Baseline}}
	}
	r.ID, r.Started, r.Elapsed, r.Summary, r.Stored = entry.ID, entry.Last, entry.Elapsed, entry.Summary, true
	return r, entry, nil
}

// readAtMost reads a file that has no more than limit bytes.
func readAtMost(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// dropReport removes the file of a report that could not be catalogued. As with
// a baseline, an error can come after the transaction is durable.
func (e *Engine) dropReport(r *ReportEntry) {
	if _, err := e.FindReport(context.Background(), r.Baseline, r.ID); errors.Is(err, ErrNoReport) {
		os.Remove(e.reportFile(r.Baseline, r.ID))
	}
}

// sweepReports removes the files of reports that are not catalogued. The lock
// of the name must be held.
func (e *Engine) sweepReports(ctx context.Context, name string) error {
	// What durable calls a file that is not yet whole.
	parts, err := filepath.Glob(e.path("." + name + ".*" + reportExt + ".tmp-*"))
	if err != nil {
		return err
	}
	for _, f := range parts {
		if whole, _, ok := strings.Cut(filepath.Base(f), ".tmp-"); ok {
			if err := durable.Clean(e.path(strings.TrimPrefix(whole, "."))); err != nil {
				return failure.Wrap(failure.Failed, err)
			}
		}
	}
	files, err := filepath.Glob(e.path(name + ".*" + reportExt))
	if err != nil || len(files) == 0 {
		return err
	}
	list, err := e.Reports(ctx, name)
	if err != nil {
		return err
	}
	for _, f := range files {
		id := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), name+"."), reportExt)
		if validID(id) && !slices.ContainsFunc(list, func(r ReportEntry) bool { return r.ID == id }) {
			os.Remove(f)
		}
	}
	return nil
}
