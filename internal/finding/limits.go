package finding

import (
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/failure"
)

// What is stored of one finding, in bytes where nothing else is said. What a
// sensor was fed by an attacker is cut to these, never refused: a refusal
// would let one hostile file name hide the rest of the scan. A record that was
// cut says so in Truncated, and its fingerprint is over the whole subject.
const (
	MaxName          = 256      // source and rule; more is an error, since sensors choose them
	MaxScope         = 256      // one scope; more is an error
	MaxScopes        = 1024     // scopes that see one finding; more is an error
	MaxTitle         = 1 << 10  //
	MaxSubject       = 16 << 10 // PATH_MAX is 4 KiB
	MaxRemediation   = 4 << 10  //
	MaxEvidence      = 16 << 10 // all keys and values together
	MaxEvidenceValue = 4 << 10  // one value
	MaxEvidenceKey   = 256      // one key
	MaxItems         = 64       // references, tags and evidence entries, each
	MaxReference     = 2 << 10  // one reference
	MaxTag           = 256      // one tag
	MaxText          = 4 << 10  // owner, reason, who; more is an error, since people type them
	MaxRecord        = 1 << 20  // one encoded record
)

// ErrInvalid says that a sensor or a caller handed over something that cannot
// be stored.
var ErrInvalid = failure.New(failure.Failed, "invalid finding")

// bounded returns f cut to the limits, and whether anything was cut.
func bounded(f Finding) (Finding, bool) {
	cut := false
	clip := func(s string, limit int) string {
		if len(s) <= limit {
			return s
		}
		cut = true
		// Do not cut within a character, unless the text is no UTF-8 anyway.
		end := limit
		for end > max(0, limit-utf8.UTFMax) && !utf8.RuneStart(s[end]) {
			end--
		}
		return s[:end]
	}
	list := func(in []string, limit int) []string {
		if len(in) > MaxItems {
			in, cut = in[:MaxItems], true
		}
		if !slices.ContainsFunc(in, func(s string) bool { return len(s) > limit }) {
			return in
		}
		out := make([]string, len(in))
		for i, s := range in {
			out[i] = clip(s, limit)
		}
		return out
	}
	f.Title = clip(f.Title, MaxTitle)
	f.Subject = clip(f.Subject, MaxSubject)
	f.Remediation = clip(f.Remediation, MaxRemediation)
	f.References = list(f.References, MaxReference)
	f.Tags = list(f.Tags, MaxTag)
	if len(f.Evidence) > 0 {
		kept, left := make(map[string]string, len(f.Evidence)), MaxEvidence
		for _, k := range slices.Sorted(maps.Keys(f.Evidence)) {
			key := clip(k, MaxEvidenceKey)
			if len(kept) == MaxItems || len(key) >= left {
				cut = true
				break
			}
			left -= len(key)
			v := clip(f.Evidence[k], min(MaxEvidenceValue, left))
			left -= len(v)
			kept[key] = v
		}
		f.Evidence = kept
	}
	return f, cut
}

// checkNames refuses what a sensor must never hand over.
func checkNames(source, scope string, found []Finding) error {
	name := func(what, s string) error {
		if s == "" || len(s) > MaxName {
			return fmt.Errorf("%w: the %s must have 1 to %d bytes", ErrInvalid, what, MaxName)
		}
		return nil
	}
	if err := name("source", source); err != nil {
		return err
	}
	if len(scope) > MaxScope {
		return fmt.Errorf("%w: the scope exceeds %d bytes", ErrInvalid, MaxScope)
	}
	for i := range found {
		f := &found[i]
		if f.Source != "" && f.Source != source {
			return fmt.Errorf("%w: it says source %q in a report of %q", ErrInvalid, f.Source, source)
		}
		if err := name("rule", f.Rule); err != nil {
			return err
		}
		if !f.Severity.valid() {
			return fmt.Errorf("%w: no such severity: %d", ErrInvalid, int(f.Severity))
		}
	}
	return nil
}
