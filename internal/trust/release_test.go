package trust

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

func TestComment(t *testing.T) {
	if got := release().Comment(); got != comment {
		t.Errorf("the comment is %q, want %q", got, comment)
	}
	// In any order.
	fields := strings.Fields(comment)
	for i := range fields {
		r, err := ParseComment(strings.Join(append(append([]string{}, fields[i:]...), fields[:i]...), " "))
		if err != nil || r != release() {
			t.Errorf("from field %d: %+v, %v", i, r, err)
		}
	}
	long := Release{strings.Repeat("n", MaxName), strings.Repeat("9", MaxVersion), MaxSequence, strings.Repeat("c", MaxName), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}
	if err := long.Check(); err != nil {
		t.Errorf("the longest release: %v", err)
	}
	if r, err := ParseComment(long.Comment()); err != nil || r != long {
		t.Errorf("the longest release: %+v, %v", r, err)
	}
}

func TestParseCommentRefuses(t *testing.T) {
	with := func(old, new string) string {
		if !strings.Contains(comment, old) {
			t.Fatalf("%q is not in the comment", old)
		}
		return strings.Replace(comment, old, new, 1)
	}
	for _, tc := range []struct{ text, says string }{
		{"", "a field is empty"},
		{"timestamp:1700000000", `"timestamp:1700000000" is not a field`},
		{" " + comment, "at byte 0: a field is empty"},
		{comment + " ", "a field is empty"},
		{with(" ", "  "), "at byte 14: a field is empty"},
		{with(" ", "\t"), "not 1 to 64"},
		{comment + " name=platform", "is there twice"},
		{comment + " arch=arm64", `"arch" is not a field`},
		{comment + " Name=x", `"Name" is not a field`},
		{comment + " =x", `"" is not a field`},
		{with("name=platform ", ""), "name is missing"},
		{with("version=2.4.1 ", ""), "version is missing"},
		{with("sequence=17 ", ""), "sequence is missing"},
		{with("channel=stable ", ""), "channel is missing"},
		{with(" expires=2027-01-01T00:00:00Z", ""), "expires is missing"},
		{with("platform", ""), "the name"},
		{with("platform", "Platform"), "the name"},
		{with("platform", "../etc"), "the name"},
		{with("platform", ".hidden"), "the name"},
		{with("platform", "-x"), "the name"},
		{with("platform", "a/b"), "the name"},
		{with("platform", "plätform"), "the name"},
		{with("platform", "a=b"), "the name"},
		{with("platform", strings.Repeat("n", MaxName+1)), "the name"},
		{with("2.4.1", ""), "the version"},
		{with("2.4.1", "-1"), "the version"},
		{with("2.4.1", "2.4\x1b[31m"), "the version"},
		{with("2.4.1", "2/4"), "the version"},
		{with("2.4.1", strings.Repeat("1", MaxVersion+1)), "the version"},
		{with("17", "0"), "the sequence"},
		{with("17", "-1"), "the sequence"},
		{with("17", "+17"), "the sequence"},
		{with("17", "017"), "the sequence"},
		{with("17", "1e3"), "the sequence"},
		{with("17", "0x11"), "the sequence"},
		{with("17", "9223372036854775808"), "the sequence"},
		{with("17", "99999999999999999999999"), "the sequence"},
		{with("stable", "st able"), "\"able\" is not a field"},
		{with("stable", "STABLE"), "the channel"},
		{with("2027-01-01T00:00:00Z", "2027-01-01"), "the end"},
		{with("2027-01-01T00:00:00Z", "2027-01-01T00:00:00+00:00"), "the end"},
		{with("2027-01-01T00:00:00Z", "2027-01-01T00:00:00.5Z"), "the end"},
		{with("2027-01-01T00:00:00Z", "2027-02-30T00:00:00Z"), "the end"},
		{with("2027-01-01T00:00:00Z", "2027-01-01T00:00:60Z"), "the end"},
		{with("2027-01-01T00:00:00Z", "2027-01-01t00:00:00z"), "the end"},
		{comment + " " + strings.Repeat("x", MaxComment), "longer than"},
	} {
		r, err := ParseComment(tc.text)
		if CodeOf(err) != CodeComment || failure.KindOf(err) != failure.Untrustworthy || !strings.Contains(err.Error(), tc.says) || r != (Release{}) {
			t.Errorf("%.100q: %+v, %v; want %q", tc.text, r, err, tc.says)
		}
	}
}

func TestCheckRelease(t *testing.T) {
	for _, change := range []func(*Release){
		func(r *Release) { r.Name = "x version=9" },
		func(r *Release) { r.Version = "" },
		func(r *Release) { r.Sequence = 0 },
		func(r *Release) { r.Sequence = math.MaxInt64 + 1 },
		func(r *Release) { r.Channel = "a\nb" },
		func(r *Release) { r.Expires = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		func(r *Release) { r.Expires = r.Expires.Add(time.Millisecond) },
	} {
		r := release()
		change(&r)
		wantCode(t, r.Check(), CodeComment)
		if _, err := SignPackage(t.Context(), newSigner(t), strings.NewReader("x"), r, ""); err == nil {
			t.Errorf("%+v was signed", r)
		}
	}
	zone := release()
	zone.Expires = zone.Expires.In(time.FixedZone("x", 3600))
	if err := zone.Check(); err != nil || zone.Comment() != comment {
		t.Errorf("in another zone: %v, %s", err, zone.Comment())
	}
}

func TestCurrent(t *testing.T) {
	r := release()
	end := r.Expires
	for _, tc := range []struct {
		now, seen time.Time
		current   bool
	}{
		{end.Add(-time.Second), time.Time{}, true},
		{end, time.Time{}, false},
		{end.AddDate(1, 0, 0), time.Time{}, false},
		{end.AddDate(0, -1, 0), end.AddDate(0, -2, 0), true},
		{end.AddDate(0, -2, 0), end.AddDate(0, -1, 0), true}, // back, but not so far that it matters
		{end.AddDate(-3, 0, 0), end, false},                  // wound back
		{time.Unix(0, 0), end.Add(time.Hour), false},         // a board without a clock
	} {
		err := r.Current(tc.now, tc.seen)
		if tc.current && err != nil {
			t.Errorf("now %s, seen %s: %v", tc.now, tc.seen, err)
		}
		if !tc.current {
			wantCode(t, err, CodeExpired)
		}
	}
}

func FuzzParseComment(f *testing.F) {
	f.Add(comment)
	f.Add("expires=2027-01-01T00:00:00Z channel=beta sequence=1 version=1:2~rc1+b name=a.b-c_d")
	f.Add("name=platform name=platform")
	f.Add("timestamp:1700000000\tfile:x\thashed")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseComment(text)
		if err != nil {
			if CodeOf(err) != CodeComment || r != (Release{}) {
				t.Fatalf("%q: %+v, %v", text, r, err)
			}
			return
		}
		// What is read is what was written, but for the order.
		if back, err := ParseComment(r.Comment()); err != nil || back != r {
			t.Fatalf("%q was read as %+v, whose comment is read as %+v, %v", text, r, back, err)
		}
		if len(r.Comment()) != len(text) {
			t.Fatalf("%q and %q say the same", text, r.Comment())
		}
		if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Fatalf("%q was taken", text)
		}
	})
}

func FuzzSignature(f *testing.F) {
	s := newSigner(f)
	keys := newKeys(f, s.Public())
	good := string(sign(f, s, "one", release()))
	f.Add(good)
	f.Add(strings.ReplaceAll(good, "\n", "\r\n"))
	f.Add(strings.TrimSpace(good))
	f.Add("untrusted comment: \nRUQ=\ntrusted comment: \n\n")
	lines := strings.Split(good, "\n")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := keys.Verifier([]byte(text))
		if err != nil {
			if CodeOf(err) == "" {
				t.Fatalf("%q: %v has no code", text, err)
			}
			return
		}
		// Nobody but the signer can make one, so it is the one that there is:
		// in all lines but the first, and however its lines end.
		got := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
		if v.Release() != release() || got[1] != lines[1] || got[2] != lines[2] || got[3] != lines[3] {
			t.Fatalf("%q was taken", text)
		}
	})
}
