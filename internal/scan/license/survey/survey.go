// Package survey looks at the files of a target, one at a time, for what they say
// about licences: which ones are recognised, whose the file is, and the text that
// must be passed on.
//
// What it recognises, and in which files, is what Trivy's license-file analyzer
// does, and a little more: docs/formats/scan-parity.md, section "Licences", has the
// list. What a file says depends on its content and on its kind alone, so results
// are remembered by them: equal texts are looked at once in a run, and a file that
// any run has seen is only read and hashed.
//
// Its methods may be called at the same time.
package survey

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/mobileops/mobileops/internal/scan/license"
	"github.com/mobileops/mobileops/internal/scan/license/classify"
	"github.com/mobileops/mobileops/internal/scan/memo"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/zeebo/blake3"
)

// Options say how to look.
type Options struct {
	Confidence float64    // licences of which the classifier is not surer are left out; 0: 0.9
	Memo       *memo.Memo // nil: nothing is remembered after the run
	MaxFile    int64      // bytes; larger files are not read; 0: 16 MiB
	MaxText    int64      // bytes of one text that is kept; 0: 512 KiB
	MaxTexts   int64      // bytes of all of them; 0: 64 MiB
}

// Stats count what was done.
type Stats struct {
	Files      int64 // looked at
	Bytes      int64 // of them
	Remembered int64 // of the files, those whose result was known by their content
	Classified int64 // of them, those that the classifier had to look at
	Binary     int64 // not text
	TooLarge   int64 // larger than MaxFile, not read
	LeftOut    int64 // texts that are not kept, for their size
}

// role is for what a file is read.
type role struct {
	kind protocol.NoticeKind
	// recognise: its text is given to the classifier. That of a Debian package's
	// copyright file is not: Trivy reads it, and does so when nothing else helps.
	recognise bool
}

// Found is what one file says.
type Found struct {
	// Notice is nil when the file says nothing.
	Notice *protocol.Notice
	// Kind and Findings are what was recognised by the text, in the words of Trivy.
	// They are empty for files that belong to packages, which other parts of Trivy
	// report.
	Kind     classify.Kind
	Findings []classify.Finding
}

// Survey looks at files.
type Survey struct {
	o          Options
	classifier *classify.Classifier
	rulesets   map[role][32]byte

	mu    sync.Mutex
	known map[[64]byte]*pending // by content and ruleset
	texts map[string]Text       // by digest
	kept  int64                 // bytes of texts
	left  map[string]bool       // digests of texts that are not kept
	full  bool                  // one of them for want of room

	files, bytes, remembered, binary, tooLarge, leftOut atomic.Int64
}

// Text is what a file says that must be passed on.
type Text struct {
	Text string `json:"text"` // in UTF-8
	Size int64  `json:"size"` // bytes of the file
}

// pending is a result that is there when ready is closed.
type pending struct {
	ready  chan struct{}
	result record
	err    error
}

// record is what is remembered of a file.
type record struct {
	Kind      classify.Kind      `json:"k,omitempty"`
	Findings  []classify.Finding `json:"f,omitempty"`
	Licenses  []string           `json:"l,omitempty"`
	Copyright []string           `json:"c,omitempty"`
}

func (r *record) empty() bool {
	return len(r.Findings) == 0 && len(r.Licenses) == 0 && len(r.Copyright) == 0
}

// revision changes when the same file may give another record.
const revision = "survey revision 2"

// New returns a survey.
func New(o Options) *Survey {
	if o.Confidence == 0 {
		o.Confidence = 0.9
	}
	if o.MaxFile == 0 {
		o.MaxFile = 16 << 20
	}
	if o.MaxText == 0 {
		o.MaxText = 512 << 10
	}
	if o.MaxTexts == 0 {
		o.MaxTexts = 64 << 20
	}
	s := &Survey{
		o: o, classifier: classify.New(o.Confidence), rulesets: map[role][32]byte{},
		known: map[[64]byte]*pending{}, texts: map[string]Text{}, left: map[string]bool{},
	}
	for _, k := range []protocol.NoticeKind{protocol.NoticeLicense, protocol.NoticeNotice, protocol.NoticeCopyright, protocol.NoticeCommon, protocol.NoticeHeader} {
		for _, recognise := range []bool{false, true} {
			s.rulesets[role{k, recognise}] = blake3.Sum256(fmt.Appendf(nil, "%s\n%s\n%v\n%s\n%v\n", revision, classify.Revision, o.Confidence, k, recognise))
		}
	}
	return s
}

// Stats returns what was counted so far.
func (s *Survey) Stats() Stats {
	return Stats{
		Files: s.files.Load(), Bytes: s.bytes.Load(), Remembered: s.remembered.Load(), Classified: s.classifier.Stats().Classified,
		Binary: s.binary.Load(), TooLarge: s.tooLarge.Load(), LeftOut: s.leftOut.Load(),
	}
}

// Texts returns the texts that were kept, in UTF-8, by the digests that notices name.
func (s *Survey) Texts() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]string, len(s.texts))
	for digest, text := range s.texts {
		out[digest] = text.Text
	}
	return out
}

// Text returns a text by the digest that a notice names. full tells that some are not
// there because there were too many.
func (s *Survey) Text(digest string) (text Text, ok, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, ok = s.texts[digest]
	return text, ok, s.full
}

// Ruleset is a digest of all that results depend on beside names and content.
func (s *Survey) Ruleset() [32]byte {
	whole := s.rulesets[role{protocol.NoticeLicense, true}]
	return blake3.Sum256(fmt.Appendf(nil, "%x %d %d %d", whole, s.o.MaxFile, s.o.MaxText, s.o.MaxTexts))
}

// Fits reports whether a file of the size is looked at, and counts it when not.
func (s *Survey) Fits(size int64) bool {
	if size <= s.o.MaxFile {
		return true
	}
	s.tooLarge.Add(1)
	return false
}

// Look tells what the file of a path, relative to the target, says.
func (s *Survey) Look(path string, content []byte) (Found, error) {
	if !isText(content) {
		s.binary.Add(1)
		return Found{}, nil
	}
	s.files.Add(1)
	s.bytes.Add(int64(len(content)))
	kind := license.KindOf(path)
	if kind == "" {
		kind = protocol.NoticeHeader
	}
	sum := blake3.Sum256(content)
	packaged := ofPackage(path)
	r, err := s.record(role{kind, !packaged || kind != protocol.NoticeCopyright}, sum, content)
	if err != nil {
		return Found{}, err
	}
	var f Found
	if !packaged {
		f.Kind, f.Findings = r.Kind, slices.Clone(r.Findings)
	}
	if kind == protocol.NoticeHeader && r.empty() {
		return f, nil
	}
	f.Notice = &protocol.Notice{Path: path, Kind: kind, Licenses: slices.Clone(r.Licenses), Copyright: slices.Clone(r.Copyright)}
	switch kind {
	case protocol.NoticeHeader:
		return f, nil
	case protocol.NoticeCommon:
		if e := license.CommonLicense(path); e != nil {
			f.Notice.Licenses = []string{e.String()}
		}
	}
	f.Notice.Text = hex.EncodeToString(sum[:])
	s.keep(f.Notice.Text, int64(len(content)), func() string { return license.UTF8(content) })
	return f, nil
}

// Keep keeps a text that Text returned before.
func (s *Survey) Keep(digest string, text Text) {
	s.keep(digest, text.Size, func() string { return text.Text })
}

// keep keeps a text of a file of size bytes, when it isn't too large.
func (s *Survey) keep(digest string, size int64, text func() string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.texts[digest]; ok || s.left[digest] {
		return
	}
	if size > s.o.MaxText || s.kept+size > s.o.MaxTexts {
		s.full = s.full || size <= s.o.MaxText
		s.left[digest] = true
		s.leftOut.Add(1)
		return
	}
	s.texts[digest] = Text{text(), size}
	s.kept += size
}

// record returns what a file of that kind and content says.
func (s *Survey) record(role role, sum [32]byte, content []byte) (record, error) {
	ruleset := s.rulesets[role]
	key := [64]byte(append(sum[:], ruleset[:]...))
	s.mu.Lock()
	p, ok := s.known[key]
	if !ok {
		p = &pending{ready: make(chan struct{})}
		s.known[key] = p
	}
	s.mu.Unlock()
	if ok {
		<-p.ready
		s.remembered.Add(1)
		return p.result, p.err
	}
	defer close(p.ready)
	remembered := memo.Key{Content: sum, Ruleset: ruleset}
	if s.o.Memo != nil {
		if b, ok := s.o.Memo.Get(remembered); ok && (len(b) == 0 || json.Unmarshal(b, &p.result) == nil) {
			s.remembered.Add(1)
			return p.result, nil
		}
		p.result = record{}
	}
	p.result, p.err = s.read(role, content)
	if p.err == nil && s.o.Memo != nil {
		var b []byte
		if !p.result.empty() {
			b, p.err = json.Marshal(p.result)
		}
		s.o.Memo.Put(remembered, b)
	}
	return p.result, p.err
}

// read reads a file whose result isn't known.
func (s *Survey) read(role role, content []byte) (r record, err error) {
	var debian *license.DebianCopyright
	kind := role.kind
	switch kind {
	case protocol.NoticeCommon:
		return r, nil // its name says what it is
	case protocol.NoticeCopyright:
		if debian, err = license.ParseDebian(content); err != nil {
			return r, err
		}
	}
	// A copyright file that says nothing to a machine may still have a known text.
	mute := debian != nil && !debian.Machine && len(debian.Common) == 0
	if role.recognise || mute {
		found, err := s.classifier.Classify(content)
		if err != nil {
			return r, err
		}
		r.Kind, r.Findings = found.Kind, found.Findings
	}
	if e := license.Tag(content); e != nil && len(r.Findings) == 0 && kind == protocol.NoticeHeader {
		r.Kind, r.Findings = classify.Header, []classify.Finding{{Name: e.String(), Confidence: 1}}
	}
	if debian != nil {
		r.Copyright = debian.Copyright
		if e := debian.Expression(); e != nil {
			r.Licenses = []string{e.String()}
		}
		if !mute {
			return r, nil
		}
	}
	for _, f := range r.Findings {
		if name := license.ParseName(f.Name).String(); !slices.Contains(r.Licenses, name) {
			r.Licenses = append(r.Licenses, name)
		}
	}
	switch {
	case debian != nil:
	case kind != protocol.NoticeHeader:
		r.Copyright = license.Copyrights(content)
	case len(r.Findings) > 0:
		r.Copyright = license.Copyrights(content[:min(len(content), headerBytes)])
	}
	return r, nil
}

// headerBytes is how much of a source file is its head.
const headerBytes = 16 << 10
