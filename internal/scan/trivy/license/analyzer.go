//go:build goexperiment.jsonv2

// Package license is the analyzer that takes the place of Trivy's license-file
// analyzer. It finds what Trivy's finds, at less cost, and beside it what must be
// passed on: texts, and the lines that say whose something is.
//
// The work is done in internal/scan/license/survey, which does not need Trivy. What
// Trivy's types have no room for goes through the analysis as a custom resource,
// because those take part in the layers of an image: the notice of a file that an
// upper layer deletes is not in the result. Collect takes them out again.
package license

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/aquasecurity/trivy/pkg/fanal/analyzer"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/aquasecurity/trivy/pkg/types"

	"github.com/mobileops/mobileops/internal/scan/license/survey"
	"github.com/mobileops/mobileops/internal/scan/memo"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// Options say how to look.
type Options struct {
	Memo *memo.Memo // nil: nothing is remembered after the run
	// Confidence is that above which a licence is reported; 0: 0.9, as Trivy has it.
	// What Trivy is told as its option goes before.
	Confidence float64
}

// Stats are what the survey counts.
type Stats = survey.Stats

// resourceType is the Type of a custom resource that holds a notice.
const resourceType = "mobileops-notice"

// below is appended to the path of a custom resource. Trivy leaves out resources of
// files that the system's package manager installed, which copyright files are. A
// path beneath the file isn't one of them, and goes with the file when a layer
// deletes it.
const below = "/notice"

// maxProblems is how many problems are kept.
const maxProblems = 1000

// LicenseAnalyzer looks for licences in files.
type LicenseAnalyzer struct {
	o Options

	mu       sync.Mutex
	survey   *survey.Survey
	problems []protocol.Problem
}

// Analyzer returns an analyzer of the type analyzer.TypeLicenseFile.
func Analyzer(o Options) *LicenseAnalyzer {
	a := &LicenseAnalyzer{o: o}
	a.survey = survey.New(survey.Options{Confidence: o.Confidence, Memo: o.Memo})
	return a
}

// Init takes Trivy's option for the confidence. It is called before the analysis.
func (a *LicenseAnalyzer) Init(o analyzer.AnalyzerOptions) error {
	level := o.LicenseScannerOption.ClassifierConfidenceLevel
	a.mu.Lock()
	defer a.mu.Unlock()
	if level != 0 && level != a.o.Confidence {
		a.o.Confidence = level
		a.survey = survey.New(survey.Options{Confidence: level, Memo: a.o.Memo})
	}
	return nil
}

// Part returns an analyzer that does the same, and has problems of its own. They are
// added to those of a by Add, or forgotten.
func (a *LicenseAnalyzer) Part() *LicenseAnalyzer {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &LicenseAnalyzer{o: a.o, survey: a.survey}
}

// Add adds the problems of a Part.
func (a *LicenseAnalyzer) Add(list []protocol.Problem) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.problems = append(a.problems, list[:min(len(list), maxProblems-len(a.problems))]...)
}

// Ruleset is a digest of all that results depend on beside names and content.
func (a *LicenseAnalyzer) Ruleset() [32]byte { return a.current().Ruleset() }

// TextsOf returns the texts that the notices among the resources name, by digest.
// ok is false when one of them was left out because there were too many.
func (a *LicenseAnalyzer) TextsOf(resources []ftypes.CustomResource) (texts map[string]survey.Text, ok bool) {
	texts = map[string]survey.Text{}
	for _, c := range resources {
		data, isText := c.Data.(string)
		if c.Type != resourceType || !isText {
			continue
		}
		var n protocol.Notice
		if err := json.Unmarshal([]byte(data), &n); err != nil {
			return nil, false
		}
		if n.Text == "" {
			continue
		}
		text, there, full := a.current().Text(n.Text)
		switch {
		case there:
			texts[n.Text] = text
		case full:
			return nil, false
		}
	}
	return texts, true
}

// Keep keeps texts that TextsOf returned before.
func (a *LicenseAnalyzer) Keep(texts map[string]survey.Text) {
	s := a.current()
	for _, digest := range slices.Sorted(maps.Keys(texts)) {
		s.Keep(digest, texts[digest])
	}
}

// Type is that of Trivy's analyzer, which must be taken out first.
func (a *LicenseAnalyzer) Type() analyzer.Type { return analyzer.TypeLicenseFile }

// Version takes part in the keys of Trivy's cache. Trivy's own is 1.
func (a *LicenseAnalyzer) Version() int { return 1001 }

// Required reports whether a file is looked at.
func (a *LicenseAnalyzer) Required(path string, _ os.FileInfo) bool { return survey.Wanted(path) }

// Analyze looks at one file.
func (a *LicenseAnalyzer) Analyze(_ context.Context, input analyzer.AnalysisInput) (*analyzer.AnalysisResult, error) {
	s := a.current()
	size := input.Info.Size()
	if !s.Fits(size) {
		a.problem(protocol.TooLarge, input.FilePath, fmt.Sprintf("%d bytes, so it was not searched for licences", size))
		return nil, nil
	}
	content := make([]byte, size)
	n, err := io.ReadFull(input.Content, content)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		a.problem(protocol.Unreadable, input.FilePath, err.Error())
		return nil, nil
	}
	found, err := s.Look(input.FilePath, content[:n])
	if err != nil {
		a.problem(protocol.Malformed, input.FilePath, err.Error())
		return nil, nil
	}
	if found.Notice == nil && len(found.Findings) == 0 {
		return nil, nil
	}
	result := &analyzer.AnalysisResult{}
	if len(found.Findings) > 0 {
		file := ftypes.LicenseFile{Type: ftypes.LicenseType(found.Kind), FilePath: input.FilePath}
		for _, f := range found.Findings {
			file.Findings = append(file.Findings, ftypes.LicenseFinding{Name: f.Name, Confidence: f.Confidence, Link: "https://spdx.org/licenses/" + f.Name + ".html"})
		}
		result.Licenses = []ftypes.LicenseFile{file}
	}
	if found.Notice != nil {
		data, err := json.Marshal(found.Notice)
		if err != nil {
			return nil, fmt.Errorf("notice of %s: %w", input.FilePath, err)
		}
		result.CustomResources = []ftypes.CustomResource{{Type: resourceType, FilePath: input.FilePath + below, Data: string(data)}}
	}
	return result, nil
}

func (a *LicenseAnalyzer) current() *survey.Survey {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.survey
}

func (a *LicenseAnalyzer) problem(kind protocol.ProblemKind, path, detail string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.problems) < maxProblems {
		a.problems = append(a.problems, protocol.Problem{Kind: kind, Path: path, Detail: detail})
	}
}

// Stats returns what was counted so far.
func (a *LicenseAnalyzer) Stats() Stats { return a.current().Stats() }

// Problems returns the files that could not be looked at, at most a thousand.
func (a *LicenseAnalyzer) Problems() []protocol.Problem {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]protocol.Problem(nil), a.problems...)
}

// Texts returns the texts of the notices, by digest.
func (a *LicenseAnalyzer) Texts() map[string]string { return a.current().Texts() }

// Collect puts into the report what Trivy's results bring as custom resources of the
// analyzer: the notices and their texts. Licences of files that the report already
// has get the digest of their text and the lines that say whose they are. Results of
// Trivy's class "custom" hold nothing else and need not become results of the report.
func (a *LicenseAnalyzer) Collect(results types.Results, report *protocol.Report) error {
	texts := a.Texts()
	at := map[string]*protocol.Notice{} // of a path there is one, the uppermost
	for _, r := range results {
		for _, c := range r.CustomResources {
			data, ok := c.Data.(string)
			if c.Type != resourceType || !ok {
				continue
			}
			n := &protocol.Notice{}
			if err := json.Unmarshal([]byte(data), n); err != nil {
				return fmt.Errorf("notice of %s: %w", c.FilePath, err)
			}
			n.Layer = c.Layer.DiffID
			at[n.Path] = n
			report.Notices = append(report.Notices, *n)
			if text, ok := texts[n.Text]; ok {
				if report.Texts == nil {
					report.Texts = map[string]string{}
				}
				report.Texts[n.Text] = text
			}
		}
	}
	for i := range report.Results {
		if report.Results[i].Class != protocol.ClassLicenseFile {
			continue
		}
		for j := range report.Results[i].Licenses {
			l := &report.Results[i].Licenses[j]
			if n := at[l.Path]; n != nil {
				l.Text, l.Copyright = n.Text, n.Copyright
			}
		}
	}
	sortNotices(report.Notices)
	return nil
}
