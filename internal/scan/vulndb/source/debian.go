package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// trackerEntry is what the tracker says of one vulnerability of one source package.
type trackerEntry struct {
	Description string                    `json:"description"`
	Releases    map[string]trackerRelease `json:"releases"`
}

type trackerRelease struct {
	Status  string  `json:"status"` // "resolved", "open", "undetermined"
	Fixed   string  `json:"fixed_version"`
	Urgency string  `json:"urgency"`
	NoDSA   *string `json:"nodsa"`        // why there is no advisory of Debian's for it
	Reason  string  `json:"nodsa_reason"` // "ignored", "postponed", ""
}

// codenames are the releases of Debian that anybody may still run.
func codenames() map[string]string {
	return map[string]string{
		"wheezy": "7", "jessie": "8", "stretch": "9", "buster": "10", "bullseye": "11", "bookworm": "12", "trixie": "13", "forky": "14", "duke": "15",
	}
}

// tracker reads the one document of Debian's security tracker: packages, in each
// of them vulnerabilities, in each of them releases. It has no dates, so how old
// it is is told by the file.
func (r *reader) tracker(at string) error {
	in, f, err := open(at, maxTracker)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	r.sum.Newest = info.ModTime().UTC()
	err = r.trackerDocument(in)
	var bad *MalformedError
	if errors.As(err, &bad) {
		// What comes after is lost with it: that is no source.
		return failure.Hint(err, "get it again: it may be cut off")
	}
	return err
}

func (r *reader) trackerDocument(in io.Reader) error {
	return r.packages(json.NewDecoder(&cancelled{r.ctx.Err, in}), codenames())
}

// cancelled ends reading when the build is interrupted.
type cancelled struct {
	ended func() error
	in    io.Reader
}

func (c *cancelled) Read(p []byte) (int, error) {
	if err := c.ended(); err != nil {
		return 0, err
	}
	return c.in.Read(p)
}

func (r *reader) packages(dec *json.Decoder, releases map[string]string) error {
	fail := func(err error) error {
		if cerr := r.ctx.Err(); cerr != nil {
			return cerr
		}
		bad := malformed(err, dec.InputOffset())
		if bad.Offset == 0 {
			bad.Offset = dec.InputOffset()
		}
		return bad
	}
	if t, err := dec.Token(); err != nil {
		return fail(err)
	} else if t != json.Delim('{') {
		return &MalformedError{Reason: "it is not an object of packages"}
	}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return fail(err)
		}
		name, _ := t.(string)
		at := dec.InputOffset()
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return fail(err)
		}
		r.progress(r.seen, name)
		if r.seen++; r.seen > maxDocuments {
			return failure.Errorf(failure.Untrustworthy, "there are more than %d packages", maxDocuments)
		}
		if err := r.trackerPackage(name, at, raw, releases); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return fail(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return &MalformedError{Offset: dec.InputOffset(), Reason: "something follows the document"}
	}
	if r.sum.Documents == 0 && len(r.sum.Problems) == 0 {
		return &MalformedError{Reason: "it has no vulnerabilities"}
	}
	return nil
}

// trackerPackage reads the vulnerabilities of one package. What is wrong in one
// of them is a problem of its own.
func (r *reader) trackerPackage(name string, at int64, raw json.RawMessage, releases map[string]string) error {
	var entries map[string]json.RawMessage
	if err := json.Unmarshal(raw, &entries); err != nil || name == "" || len(name) > 200 {
		r.sum.problem(protocol.Malformed, name, &MalformedError{Offset: at, Entry: name, Reason: "is not an object of vulnerabilities"})
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(entries)) {
		var e trackerEntry
		if err := json.Unmarshal(entries[id], &e); err != nil {
			bad := malformed(err, 0)
			bad.Offset, bad.Entry = at, name+" "+id
			r.sum.problem(protocol.Malformed, name+" "+id, bad)
			continue
		}
		switch {
		case rejected(e.Description):
			r.sum.skip("rejected")
			continue
		case strings.HasPrefix(id, "TEMP-"):
			r.sum.skip("not named yet") // another name tomorrow
			continue
		case id == "" || len(id) > 200:
			r.sum.problem(protocol.Malformed, name, &MalformedError{Offset: at, Entry: id, Reason: "is no name of a vulnerability"})
			continue
		}
		a := &Advisory{
			IDs: []string{id}, Title: strings.TrimSpace(e.Description), Description: strings.TrimSpace(e.Description),
			Publisher: Publisher{"debian", "Debian Security Tracker", "https://security-tracker.debian.org/tracker"},
		}
		for _, code := range slices.Sorted(maps.Keys(e.Releases)) {
			if p, ok := affectedOf(name, e.Releases[code], code, releases, r.sum); ok {
				a.Affected = append(a.Affected, p)
			}
		}
		if len(a.Affected) == 0 {
			r.sum.skip("affects no release")
			continue
		}
		r.sum.Documents++
		if err := r.fn(a); err != nil {
			return err
		}
	}
	return nil
}

func affectedOf(name string, rel trackerRelease, code string, releases map[string]string, sum *Summary) (Affected, bool) {
	p := Affected{Ecosystem: "debian", Release: releases[code], Package: name, Severity: urgencyOf(rel.Urgency)}
	switch {
	case code == "sid":
		return p, false
	case p.Release == "":
		sum.skip(fmt.Sprintf("release %.40s", code))
		return p, false
	case rel.Status == "resolved" && rel.Fixed == "0": // never was affected
		return p, false
	case rel.Status == "resolved" && rel.Fixed != "":
		p.Fixed = rel.Fixed
		return p, true
	case rel.Status == "undetermined":
		sum.skip("undetermined")
		return p, false
	case rel.Status != "open":
		sum.skip("of another status")
		return p, false
	}
	p.Status = Unfixed
	switch {
	case rel.Urgency == "end-of-life":
		p.Status = EndOfLife
	case rel.Reason == "ignored":
		p.Status = WillNotFix
	case rel.Reason == "postponed":
		p.Status = FixDeferred
	}
	return p, true
}

// urgencyOf is Trivy's reading of Debian's words.
func urgencyOf(word string) Severity {
	switch strings.TrimRight(word, "*") {
	case "unimportant", "low":
		return Low
	case "medium":
		return Medium
	case "high":
		return High
	}
	return UnknownSeverity
}

// rejected reports whether a description says that there is no such vulnerability.
func rejected(description string) bool {
	return strings.Contains(description, "** REJECT") || strings.HasPrefix(description, "Rejected reason:") || strings.Contains(description, "DO NOT USE THIS CANDIDATE NUMBER")
}
