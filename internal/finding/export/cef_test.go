package export

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/finding"
)

// cefEvent is what a consumer reads from a line.
type cefEvent struct {
	header []string // vendor, product, version, class, name, severity
	ext    map[string]string
}

// parseCEF reads one line by the rules of the specification and nothing more:
// in the header only \\ and \| are escapes; in extension values only \\, \=,
// \n and \r, and a bare = ends a key. Anything else is an error.
func parseCEF(line string) (*cefEvent, error) {
	if strings.ContainsAny(line, "\n\r") {
		return nil, fmt.Errorf("raw line break")
	}
	if !utf8.ValidString(line) {
		return nil, fmt.Errorf("invalid UTF-8")
	}
	rest, ok := strings.CutPrefix(line, "CEF:0|")
	if !ok {
		return nil, fmt.Errorf("no CEF:0 header")
	}
	e := &cefEvent{ext: map[string]string{}}
	for len(e.header) < 6 {
		field, n, err := cefUntil(rest, '|', `\|`)
		if err != nil {
			return nil, fmt.Errorf("header %d: %w", len(e.header), err)
		}
		if n == len(rest) {
			return nil, fmt.Errorf("the header ends in field %d", len(e.header))
		}
		e.header = append(e.header, field)
		rest = rest[n+1:]
	}
	for rest != "" {
		key, after, ok := strings.Cut(rest, "=")
		if !ok || key == "" || strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
			return nil, fmt.Errorf("bad key in %q", rest)
		}
		value, n, err := cefUntil(after, '=', `\=nr`)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		rest = ""
		if n < len(after) { // a bare =: what stands before it, back to a space, is the next key
			space := strings.LastIndexByte(after[:n], ' ')
			if space < 0 {
				return nil, fmt.Errorf("%s: bare = in its value", key)
			}
			rest = after[space+1:]
			if value, _, err = cefUntil(after[:space], '=', `\=nr`); err != nil {
				return nil, err
			}
		}
		if _, twice := e.ext[key]; twice {
			return nil, fmt.Errorf("key %s twice", key)
		}
		e.ext[key] = value
	}
	return e, nil
}

// cefUntil unescapes s up to a bare end byte and returns where that stands.
func cefUntil(s string, end byte, escapable string) (string, int, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == end:
			return b.String(), i, nil
		case s[i] == '\\':
			i++
			if i == len(s) || strings.IndexByte(escapable, s[i]) < 0 {
				return "", 0, fmt.Errorf("stray backslash in %q", s)
			}
			b.WriteByte(strings.NewReplacer("n", "\n", "r", "\r").Replace(s[i : i+1])[0])
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), len(s), nil
}

func checkCEF(t *testing.T, line string, r *finding.Record) {
	t.Helper()
	e, err := parseCEF(line)
	if err != nil {
		t.Errorf("%v in %q", err, line)
		return
	}
	if n, err := strconv.Atoi(e.header[5]); err != nil || n < 0 || n > 10 {
		t.Errorf("severity %q", e.header[5])
	}
	for i, limit := range []int{63, 63, 31, 1023, 512, 2} {
		if e.header[i] == "" && i != 2 || len(e.header[i]) > limit {
			t.Errorf("header field %d has %d bytes", i, len(e.header[i]))
		}
	}
	for k, v := range e.ext {
		limit := 1023
		if len(k) == 3 && strings.HasPrefix(k, "cs") {
			limit = 4000
			if e.ext[k+"Label"] == "" {
				t.Errorf("%s has no label", k)
			}
		}
		if v == "" || len(v) > limit {
			t.Errorf("%s has %d bytes", k, len(v))
		}
	}
	want := Visible(r.Subject)
	if len(want) <= 1023 && e.ext["cs2"] != want {
		t.Errorf("subject %q, want %q", e.ext["cs2"], want)
	}
	if strings.HasPrefix(r.Subject, "/") != (e.ext["filePath"] != "") || e.ext["externalId"] != r.Fingerprint.String() {
		t.Errorf("%v", e.ext)
	}
}

func TestCEF(t *testing.T) {
	list := append(records(20), hostileRecords()...)
	lines := strings.Split(strings.TrimSuffix(string(encode(t, CEFFormat, list)), "\n"), "\n")
	if len(lines) != len(list) {
		t.Fatalf("%d lines for %d records", len(lines), len(list))
	}
	for i, line := range lines {
		checkCEF(t, line, list[i])
	}
	want := "CEF:0|mobileops|mobileops|1.2.3|integrity/file-changed|content changed|5|externalId=" + list[2].Fingerprint.String() +
		" cat=integrity rt=1772337600000 start=1772334000000 end=1772337600000 cnt=3 dvchost=web-1 filePath=/etc/file 2 msg=content changed; reinstall it" +
		" cs1=waived; waived by bob until 2026-06-01: vendor cs1Label=state cs2=/etc/file 2 cs2Label=subject cs3=new: 2; old: 1 cs3Label=evidence" +
		" cs4=fs fs cs4Label=tags cs5=https://example.org/a b cs5Label=references cs6=" + list[2].ID() + " cs6Label=id"
	if lines[2] != want {
		t.Errorf("got  %s\nwant %s", lines[2], want)
	}
}

func TestCEFParserIsStrict(t *testing.T) {
	for _, line := range []string{
		"", "CEF:0|a|b|c|d|e|5", `CEF:0|a\n|b|c|d|e|5|`, "CEF:0|a|b|c|d|e|5|x=a=b", `CEF:0|a|b|c|d|e|5|x=a\|b`, `CEF:0|a|b|c|d|e|5|x=a\`, "CEF:0|a|b|c|d|e|5|x=1 x=2",
	} {
		if _, err := parseCEF(line); err == nil {
			t.Errorf("%q was accepted", line)
		}
	}
}

func FuzzCEF(f *testing.F) {
	for _, h := range slices.Concat(hostile, []string{strings.Repeat("ä\\=", 3000)}) {
		f.Add(h, h, h)
	}
	f.Fuzz(func(t *testing.T, title, subject, value string) {
		fi := finding.Finding{Source: "s", Rule: "r", Title: title, Subject: subject, Evidence: map[string]string{"k": value}}
		r := &finding.Record{Finding: fi, Fingerprint: fi.Fingerprint(), FirstSeen: t0, LastSeen: t0, TimesSeen: 1}
		checkCEF(t, string(appendCEF(nil, Meta{Version: value, Host: title}, r)), r)
	})
}
