package anchor

import (
	"errors"
	"strings"
	"testing"
	"time"
)

const (
	host   = "00112233445566778899aabbccddeeff"
	digest = "00000000000000000000000000000000000000000000000000000000000000ab"
)

var signature = strings.Repeat("A", 86) + "=="

func TestParse(t *testing.T) {
	good := Version + " " + host + " 12 " + digest + " 2026-05-01T12:00:00Z "
	for _, line := range []string{good + "-", good + signature, good + "-\n", good + "-\r\n"} {
		a, err := Parse(line)
		if err != nil || a.Counter != 12 || a.Host != host || a.Digest[31] != 0xab || !a.Time.Equal(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)) {
			t.Errorf("%q: %+v %v", line, a, err)
		}
		if a.String() != strings.TrimRight(line, "\r\n") {
			t.Errorf("%q became %q", line, a.String())
		}
	}
	for line, at := range map[string]int{
		"":                             0,
		"hello":                        0,
		strings.Repeat("x", MaxLine+1): MaxLine,
		good:                           len(good),
		good + "- -":                   0,
		" " + good + "-":               0,
		strings.Replace(good, " ", "  ", 1) + "-":                     0,
		strings.Replace(good, host, "h\x00", 1) + "-":                 len(Version) + 1,
		strings.Replace(good, " 12 ", " 012 ", 1) + "-":               len(Version+host) + 2,
		strings.Replace(good, " 12 ", " 0 ", 1) + "-":                 len(Version+host) + 2,
		strings.Replace(good, " 12 ", " +1 ", 1) + "-":                len(Version+host) + 2,
		strings.Replace(good, digest, digest[2:], 1) + "-":            len(Version+host+"12") + 3,
		strings.Replace(good, "ab 2026", "AB 2026", 1) + "-":          len(Version+host+"12") + 3,
		strings.Replace(good, "12:00:00Z", "12:00:00.5Z", 1) + "-":    len(Version+host+"12"+digest) + 4,
		strings.Replace(good, "12:00:00Z", "12:00:00+00:00", 1) + "-": len(Version+host+"12"+digest) + 4,
		good + "AAAA":                 len(good),
		good + signature[:86] + "=":   len(good),
		good + signature[:85] + "B==": len(good),
		good + "-\n\n":                len(good),
	} {
		var wrong *ParseError
		if a, err := Parse(line); !errors.As(err, &wrong) {
			t.Errorf("%q is %+v, %v", line, a, err)
		} else if wrong.Offset != at {
			t.Errorf("%q: offset %d, want %d: %v", line, wrong.Offset, at, err)
		}
	}
}

func TestLast(t *testing.T) {
	line := func(h, n string) string {
		return Version + " " + h + " " + n + " " + digest + " 2026-05-01T12:00:00Z -\n"
	}
	text := "# anchors\n\n" + line(host, "3") + line("other", "9") + line(host, "2") + line("other", "10") + "what is this\n" + line(host, "7")[:50]
	if a, strange := Last(text, host); a == nil || a.Counter != 2 || strange != 2 {
		t.Errorf("%+v, %d strange lines", a, strange)
	}
	if a, _ := Last(text, "nobody"); a != nil {
		t.Errorf("%+v", a)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Version + " " + host + " 12 " + digest + " 2026-05-01T12:00:00Z " + signature)
	f.Add(Version + " " + host + " 18446744073709551615 " + digest + " 0000-01-01T00:00:00Z -\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, line string) {
		a, err := Parse(line)
		if err != nil {
			var wrong *ParseError
			if !errors.As(err, &wrong) || wrong.Offset > len(line) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		again, err := Parse(a.String())
		if err != nil || again.String() != a.String() || a.String() != strings.TrimRight(line, "\r\n") {
			t.Fatalf("%q is %q: %v", line, a.String(), err)
		}
	})
}
