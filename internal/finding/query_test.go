package finding

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

func TestFilterAndOrder(t *testing.T) {
	s := newStore(t)
	s.report("", t0, Summary{New: 4}, changed("/etc/b", High), changed("/etc/a", High), changed("/usr/bin/x", Critical), changed("/var/log", Info))
	s.update(func(tx *state.Tx) error {
		_, err := Report(tx, "scan", "", []Finding{{Rule: "CVE-1", Severity: High, Subject: "openssl", Tags: []string{"cve", "pkg"}}}, t0.Add(time.Hour))
		return err
	})
	for _, tc := range []struct {
		f    Filter
		want string
	}{
		{Filter{}, "/usr/bin/x /etc/a /etc/b openssl /var/log"},
		{Filter{MinSeverity: High}, "/usr/bin/x /etc/a /etc/b openssl"},
		{Filter{Sources: []string{"scan"}}, "openssl"},
		{Filter{Sources: []string{"scan", "integrity"}, Rules: []string{"CVE-1"}}, "openssl"},
		{Filter{Tags: []string{"pkg", "nope"}}, "openssl"},
		{Filter{Since: t0.Add(time.Minute)}, "openssl"},
		{Filter{Since: t0}, "/usr/bin/x /etc/a /etc/b openssl /var/log"},
		{Filter{Subject: "etc"}, "/etc/a /etc/b"},
		{Filter{Subject: "/etc/*"}, "/etc/a /etc/b"},
		{Filter{Subject: "*/?"}, "/usr/bin/x /etc/a /etc/b"},
		{Filter{States: []State{Resolved}}, ""},
	} {
		var got []string
		for _, r := range s.list(tc.f, t0) {
			got = append(got, r.Subject)
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%+v: %q, want %q", tc.f, got, tc.want)
		}
	}
}

func TestMatchSubject(t *testing.T) {
	for _, tc := range []struct {
		pattern, subject string
		want             bool
	}{
		{"a*", "abc", true}, {"a*", "xabc", false}, {"*c", "abc", true}, {"*b*", "abc", true}, {"a*c*e", "abcde", true},
		{"a*c*f", "abcde", false}, {"a?c", "abc", true}, {"a?c", "ac", false}, {`a\*`, "a*", true}, {`a\*`, "ab", false},
		{`*\?`, "what?", true}, {"**", "", true}, {"?", "", false}, {`\`, `\`, true}, {"*.so.*", "/lib/x.so.1", true}, {"/\xff*", "/\xff\xfe", true},
	} {
		if got := matchSubject(tc.pattern, tc.subject); got != tc.want {
			t.Errorf("%q on %q: %v", tc.pattern, tc.subject, got)
		}
	}
	start := processorTime(t)
	matchSubject(strings.Repeat("a*", 500)+"b", strings.Repeat("a", MaxSubject))
	if d := processorTime(t) - start; d > 5*time.Second {
		t.Errorf("a hostile pattern took %v", d)
	}
}

func TestGetByPrefix(t *testing.T) {
	s := newStore(t)
	// Records with chosen keys: real fingerprints would not collide in a test.
	keys := []string{"aaaa0000000000000000000000000000", "aaaa1111110000000000000000000001", "aaaa1111110000000000000000000012", "bbbb0000000000000000000000000000"}
	s.update(func(tx *state.Tx) error {
		b, err := openBuckets(tx)
		for _, k := range keys {
			r := &Record{Finding: changed("/"+k[:8], Low)}
			err = errors.Join(err, r.Fingerprint.UnmarshalText([]byte(k)), b.record(r, noEvent, t0))
		}
		return err
	})
	get := func(id string) (r *Record, err error) {
		err = s.db.View(func(tx *state.Tx) error { r, err = Get(tx, id, t0); return err })
		return r, err
	}
	for id, want := range map[string]string{"bbbb": keys[3], "BBBB0": keys[3], "aaaa0": keys[0], keys[1]: keys[1], keys[2][:31]: keys[2]} {
		if r, err := get(id); err != nil || r.Fingerprint.String() != want {
			t.Errorf("%s: %v, %v", id, r, err)
		}
	}
	for _, id := range []string{"cccc", "ffff", "aaaa2", "00000"} {
		if _, err := get(id); !errors.Is(err, ErrNotFound) || failure.KindOf(err) != failure.No {
			t.Errorf("%s: %v", id, err)
		}
	}
	_, err := get("aaaa1111")
	var amb *AmbiguousError
	if !errors.As(err, &amb) || failure.KindOf(err) != failure.Usage {
		t.Fatalf("ambiguous: %v", err)
	}
	for _, want := range []string{"aaaa111111000000000000000000000 (low, file-changed, \"/aaaa1111\")", "aaaa111111000000000000000000001 ("} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v: lacks %s", err, want)
		}
	}
	if _, err := get("aaaa"); !strings.Contains(err.Error(), "aaaa000000 (") {
		t.Errorf("%v", err)
	}
}
