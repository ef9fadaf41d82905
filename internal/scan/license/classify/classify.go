// Package classify recognises licences by their text: what it finds is what Trivy
// finds, with the same classifier (github.com/google/licenseclassifier) and the
// same corpus, at a fraction of the cost.
//
// Trivy gives every file to the classifier, which compares its words with those of
// each of some 430 texts, one file at a time, and keeps all words it ever saw. Here
//
//   - a Sieve tells first whether the file has enough of the words of any text for
//     the classifier to look closer. It may say yes too often, and never no when the
//     classifier would have found something, so that results are equal;
//   - the words of files are kept in a dictionary of their own, so that memory does
//     not grow with what was scanned, and only the comparison itself has to be done
//     for one file after another;
//   - the classifier, which takes half a second to load, is loaded when the first
//     file passes the sieve.
//
// Nothing here needs Trivy; its analyzer stands in internal/scan/trivy/license.
package classify

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	classifier "github.com/google/licenseclassifier/v2"
	"github.com/google/licenseclassifier/v2/assets"
)

// Revision changes when results for the same content may change: with the
// classifier, its corpus, or what is done here. It belongs to the key under which
// results are remembered.
const Revision = "licenseclassifier v2.0.0, revision 1"

// threshold is how much of a text must be in a file for the classifier to report
// it at all: what its own default corpus is made with.
const threshold = 0.8

// Kind is where a licence was found.
type Kind string

// The kinds, in the words of Trivy's report.
const (
	Header Kind = "header"       // the short form that stands in source files
	File   Kind = "license-file" // the licence itself
)

// Finding is one licence that was recognised.
type Finding struct {
	Name       string  `json:"name"`       // mostly an SPDX id
	Confidence float64 `json:"confidence"` // 0 to 1
}

// Result is what was recognised in one file. Findings are sorted by name. Kind is
// empty when there is none, or when all that was found is a supplement, such as an
// exception.
type Result struct {
	Kind     Kind      `json:"kind,omitempty"`
	Findings []Finding `json:"findings,omitempty"`
}

// Stats count what a Classifier did.
type Stats struct {
	Sieved     int64 // files whose words were looked at
	Classified int64 // of them, those that the classifier had to look at
}

// Classifier recognises licences. Its methods may be called at the same time.
type Classifier struct {
	confidence float64
	sieved     atomic.Int64
	classified atomic.Int64
}

// New returns a classifier that reports licences of which it is surer than
// confidence; Trivy's default is 0.9.
func New(confidence float64) *Classifier {
	return &Classifier{confidence: confidence}
}

// What is known of licences is read once for the process, when it is needed.
var (
	corpusClassifier = sync.OnceValues(assets.DefaultClassifier)
	corpusSieve      = sync.OnceValues(NewSieve)
)

// matching is held while the classifier compares: the library that it uses for
// differences (sergi/go-diff) appends to slices of its corpus. What it writes is what
// stands there, but it writes.
var matching sync.Mutex

// Stats returns what was counted so far.
func (c *Classifier) Stats() Stats {
	return Stats{Sieved: c.sieved.Load(), Classified: c.classified.Load()}
}

// Classify recognises the licences in the content of one file.
func (c *Classifier) Classify(content []byte) (Result, error) {
	s, err := corpusSieve()
	if err != nil {
		return Result{}, err
	}
	c.sieved.Add(1)
	if !s.May(content) {
		return Result{}, nil
	}
	return c.match(content)
}

// match asks the classifier.
func (c *Classifier) match(content []byte) (Result, error) {
	known, err := corpusClassifier()
	if err != nil {
		return Result{}, fmt.Errorf("load the licence classifier: %w", err)
	}
	c.classified.Add(1)
	// Normalize adds words to the dictionary of the classifier that it belongs to.
	// That of an empty one is as good, and is thrown away with it.
	content = classifier.NewClassifier(threshold).Normalize(content)
	matching.Lock()
	matches := known.Match(content).Matches
	matching.Unlock()
	var r Result
	for _, m := range matches {
		// A line that says whose a file is, is reported as a match called Copyright.
		// It is no licence.
		if m.MatchType == "Copyright" || m.Confidence <= c.confidence || slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Name == m.Name }) {
			continue
		}
		switch m.MatchType {
		case "Header":
			r.Kind = Header
		case "License":
			r.Kind = File
		}
		r.Findings = append(r.Findings, Finding{Name: m.Name, Confidence: m.Confidence})
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return cmp.Compare(a.Name, b.Name) })
	return r, nil
}
