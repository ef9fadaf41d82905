package integrity

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/pkg/filehash"
)

// ErrDamagedReport is wrapped by errors about a stored report that is not what
// was written.
var ErrDamagedReport = failure.New(failure.Untrustworthy, "stored report is damaged")

// reportSchema is the name and version of the format of a stored report: one
// zstd frame of JSON lines, described in docs/formats/report.md.
const reportSchema = "mobileops.integrity.report/v1"

// maxReportLine bounds a line of a stored report. The longest is that of an
// entry with 256 KiB of extended attributes, in base64, of which each of up to
// ten thousand was another one before (XATTR_LIST_MAX bounds their names).
const maxReportLine = 16 << 20

// reportLine is one line: the head first, then the changes and problems.
type reportLine struct {
	Head    *reportHead    `json:"report,omitempty"`
	Change  *storedChange  `json:"change,omitempty"`
	Drift   *facts.Change  `json:"drift,omitempty"`
	Problem *storedProblem `json:"problem,omitempty"`
}

// reportHead is what a stored report says of itself. When and how long is in
// the catalogue, as one file stands for all runs that found the same.
type reportHead struct {
	Schema   string `json:"schema"`
	Verify   bool   `json:"verify"`
	Baseline Entry  `json:"baseline"`
	Tree     string `json:"tree"`
	// Aspects are those that were compared; none: files alone.
	Aspects   []string   `json:"aspects,omitempty"`
	Unknown   []Unknown  `json:"unknown,omitempty"`
	Ownership *Ownership `json:"ownership,omitempty"`
}

type storedChange struct {
	Path       []byte            `json:"path"` // base64, as all bytes
	From       []byte            `json:"from,omitempty"`
	Kind       ChangeKind        `json:"kind"`
	Severity   finding.Severity  `json:"severity"`
	Class      Class             `json:"class,omitempty"`
	Package    string            `json:"package,omitempty"`
	Reason     string            `json:"reason,omitempty"`
	Attributes []storedAttribute `json:"attributes,omitempty"`
	Now        *storedRecord     `json:"now,omitempty"`
}

// storedAttribute has its values as bytes: the target of a link need not be text.
type storedAttribute struct {
	Name string `json:"name"`
	Old  []byte `json:"old"`
	New  []byte `json:"new"`
}

// storedRecord is a baseline.Record at the path of its change.
type storedRecord struct {
	Dir     []byte           `json:"dir"`
	Name    []byte           `json:"name"`
	Info    filehash.Info    `json:"info"`
	Content filehash.Content `json:"content"`
	Sum     baseline.Hash    `json:"sum"`
	Target  []byte           `json:"target,omitempty"`
	Xattrs  []filehash.Xattr `json:"xattrs,omitempty"`
}

type storedProblem struct {
	Path   []byte      `json:"path"`
	Kind   ProblemKind `json:"kind"`
	Reason string      `json:"reason"`
	Dir    bool        `json:"dir,omitempty"`
	Denied bool        `json:"denied,omitempty"`
	Before bool        `json:"before,omitempty"`
}

// writeReport writes the lines of a report.
func writeReport(to io.Writer, r *Report) error {
	z, err := zstd.NewWriter(to, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return err
	}
	w := bufio.NewWriter(z)
	enc := json.NewEncoder(w)
	err = enc.Encode(reportLine{Head: &reportHead{reportSchema, r.Verify, r.Baseline, r.Tree, r.Aspects, r.Unknown, r.Ownership}})
	for i := 0; i < len(r.Changes) && err == nil; i++ {
		err = enc.Encode(reportLine{Change: storeChange(&r.Changes[i])})
	}
	for i := 0; i < len(r.Drift) && err == nil; i++ {
		err = enc.Encode(reportLine{Drift: &r.Drift[i]})
	}
	for i := 0; i < len(r.Problems) && err == nil; i++ {
		p := storedProblem(r.Problems[i])
		err = enc.Encode(reportLine{Problem: &p})
	}
	if err == nil {
		err = w.Flush()
	}
	return errors.Join(err, z.Close())
}

func storeChange(c *Change) *storedChange {
	s := &storedChange{Path: c.Path, From: c.From, Kind: c.Kind, Severity: c.Severity, Class: c.Class, Package: c.Package, Reason: c.Reason}
	for _, a := range c.Attributes {
		s.Attributes = append(s.Attributes, storedAttribute{a.Name, []byte(a.Old), []byte(a.New)})
	}
	if n := c.Now; n != nil {
		s.Now = &storedRecord{n.Dir, n.Name, n.Info, n.Content, baseline.Hash(n.Sum), n.Target, n.Xattrs}
	}
	return s
}

func (s *storedChange) change() (Change, error) {
	c := Change{Path: s.Path, From: s.From, Kind: s.Kind, Severity: s.Severity, Class: s.Class, Package: s.Package, Reason: s.Reason}
	for _, a := range s.Attributes {
		c.Attributes = append(c.Attributes, Attribute{a.Name, string(a.Old), string(a.New)})
	}
	if n := s.Now; n != nil {
		c.Now = &baseline.Record{Dir: n.Dir, Name: n.Name, Info: n.Info, Content: n.Content, Sum: filehash.Sum(n.Sum), Target: n.Target, Xattrs: n.Xattrs}
		if !bytes.Equal(c.Now.Path(), c.Path) {
			return c, errors.New("a change is not at its path")
		}
	}
	return c, nil
}

// readReport reads what writeReport wrote. Errors wrap ErrDamagedReport and
// name the line.
func readReport(from io.Reader) (*Report, error) {
	z, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	r := &Report{}
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, maxReportLine)
	n := 0
	damaged := func(why any) error { return fmt.Errorf("%w: line %d: %v", ErrDamagedReport, n, why) }
	for lines.Scan() {
		n++
		var l reportLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return nil, damaged(err)
		}
		switch {
		case n == 1 && l.Head != nil:
			if l.Head.Schema != reportSchema {
				return nil, damaged(fmt.Sprintf("its format is %q, not %q", l.Head.Schema, reportSchema))
			}
			r.Verify, r.Baseline, r.Tree = l.Head.Verify, l.Head.Baseline, l.Head.Tree
			r.Aspects, r.Unknown, r.Ownership = l.Head.Aspects, l.Head.Unknown, l.Head.Ownership
		case n > 1 && l.Change != nil:
			c, err := l.Change.change()
			if err != nil {
				return nil, damaged(err)
			}
			r.Changes = append(r.Changes, c)
		case n > 1 && l.Drift != nil && l.Drift.Fact() != nil:
			r.Drift = append(r.Drift, *l.Drift)
		case n > 1 && l.Problem != nil:
			r.Problems = append(r.Problems, Problem(*l.Problem))
		default:
			return nil, damaged("it is neither a change nor a problem")
		}
	}
	if err := lines.Err(); err != nil {
		return nil, damaged(err)
	}
	if n == 0 {
		return nil, damaged("it is empty")
	}
	return r, nil
}

// ReportEntry is a stored report in the catalogue. Runs one after the other
// that found the same are one entry.
type ReportEntry struct {
	ID         string         `json:"id"` // 16 hexadecimal digits, random
	Baseline   string         `json:"baseline"`
	BaselineID string         `json:"baseline_id"`
	Tree       string         `json:"tree"`
	Verify     bool           `json:"verify"`
	Started    time.Time      `json:"started"` // the first run
	Last       time.Time      `json:"last"`    // the last run began
	Runs       int            `json:"runs"`
	Aspects    []string       `json:"aspects,omitempty"` // that were compared; none: files alone
	Drift      int            `json:"drift,omitempty"`   // changes of the aspects beside files
	Elapsed    time.Duration  `json:"elapsed_ns"`        // of the last run
	Summary    Summary        `json:"summary"`           // of the last run
	Classes    map[Class]int  `json:"classes,omitempty"`
	Severities map[string]int `json:"severities,omitempty"`
	Status     int            `json:"status"`     // exit status, with every change counted
	FileBytes  int64          `json:"file_bytes"` // 0: nothing was found, so there is no file
	Digest     baseline.Hash  `json:"digest"`     // BLAKE3 of the file; without a file, of nothing
}

// Mode returns "check" or "verify".
func (e *ReportEntry) Mode() string {
	if e.Verify {
		return "verify"
	}
	return "check"
}
