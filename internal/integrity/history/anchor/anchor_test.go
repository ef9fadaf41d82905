package anchor

import (
	"crypto/ed25519"
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

// Whoever pastes at night pastes too much, too little, or in pieces.
func TestPasted(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	signed := func(n uint64) Anchor {
		a := anchorOf(n)
		a.Signature = ed25519.Sign(key, a.Message())
		return a
	}
	first, last, theirs := signed(1), signed(2), signed(3)
	theirs.Host = "another"
	line, old := last.String(), first.String()
	for name, text := range map[string]string{
		"plain":            line,
		"CRLF":             line + "\r\n",
		"white space":      "\n\n \t " + line + " \n\n",
		"of a log":         "<85>1 2026-05-01T12:00:00Z web1 mobileops 12 anchor - " + line + "\n",
		"quoted":           "> \"" + line + "\"\n",
		"byte order mark":  "\ufeff" + line,
		"a whole file":     "# ours\n" + old + "\n" + line + "\n" + theirs.String() + "\n",
		"one cut before":   old[:100] + "\n" + line + "\n",
		"broken in a word": line[:100] + "\n" + line[100:180] + "\n" + line[180:],
		"broken at spaces": strings.ReplaceAll(line, " 2", "\r\n 2"),
		"both":             line[:60] + "\n" + strings.Replace(line[60:], " ", " \n", 1),
	} {
		if a, err := Pasted(text, host); err != nil || a.String() != line {
			t.Errorf("%s: %v %v", name, a, err)
		}
	}
	for name, text := range map[string]string{
		"nothing":   "",
		"no anchor": "hello\n",
		"cut off":   line[:100],
		// The older one must not stand for the one that is not whole.
		"last one cut off": old + "\n" + line[:len(line)-20] + "\n",
		"too many pieces":  strings.Join(strings.SplitAfter(line[:100], "a"), "\n") + "\n\n\n\n\n\n\n" + line[100:],
	} {
		var wrong *ParseError
		if a, err := Pasted(text, host); !errors.As(err, &wrong) {
			t.Errorf("%s: %v %v", name, a, err)
		}
	}
	if a, err := Pasted(theirs.String(), host); err != nil || a.Host != "another" {
		t.Errorf("of another host: %v %v", a, err)
	}
}

func FuzzPasted(f *testing.F) {
	a := anchorOf(7)
	f.Add(a.String())
	f.Add(a.String()[:80] + "\r\n" + a.String()[80:] + "\n" + Version + " ")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := Pasted(text, host)
		if err != nil {
			return
		}
		if again, err := Parse(a.String()); err != nil || again.String() != a.String() {
			t.Errorf("%q: %v", a.String(), err)
		}
	})
}
