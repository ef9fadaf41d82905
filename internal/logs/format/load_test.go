package format

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/mobileops/mobileops/internal/logs/event"
)

func directory(files map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

// TestOwnFormat adds the example of docs/formats/log-format.md.
func TestOwnFormat(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "formats", "log-format.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(doc), "```")
	if len(blocks) < 5 {
		t.Fatal("the page has no examples")
	}
	format, cases := strings.TrimPrefix(blocks[1], "yaml\n"), strings.TrimPrefix(blocks[3], "yaml\n")
	s, err := builtinSet(t).With(directory(map[string]string{"shop.yaml": format, "shop.cases.yaml": cases, "README": "x"}))
	if err != nil {
		t.Fatal(err)
	}
	n, wrong, err := s.RunCases("shop", []byte(cases))
	if err != nil || n == 0 || len(wrong) > 0 {
		t.Fatalf("%d cases, %v: %s", n, err, strings.Join(wrong, "\n"))
	}
	if _, ok := builtinSet(t).Lookup("shop"); ok {
		t.Error("With has changed the built-in set")
	}
	if _, ok := s.Lookup("syslog"); !ok {
		t.Error("With has lost the built-in formats")
	}
}

func TestCasesThatAreWrong(t *testing.T) {
	s := builtinSet(t)
	_, wrong, err := s.RunCases("plain", []byte("- {text: \"a\\nb\\n\", records: [{raw: a, user: bob}]}\n"))
	if err != nil || len(wrong) != 2 {
		t.Errorf("%v, %v", wrong, err)
	}
	for _, text := range []string{"- [", "- {what: 1}", "a: &x 1\nb: *x", "- {zone: Nowhere/At_All}"} {
		if _, _, err := s.RunCases("plain", []byte(text)); err == nil {
			t.Errorf("%q are cases", text)
		}
	}
	if _, _, err := s.RunCases("none", nil); err == nil {
		t.Error("there are cases of no format")
	}
}

func TestFilesThatAreNoFormats(t *testing.T) {
	const head = "version: 1\nname: x\n"
	for text, want := range map[string]string{
		"":                                                              "EOF",
		"version: 2\nname: x\n":                                         "version",
		head + "what: 1\n":                                              "what",
		head + "---\nversion: 1\n":                                      "one document",
		"version: 1\nname: y\n":                                         "name of the file",
		"version: 1\nname: ../x\n":                                      "letters",
		head + "kind: none\n":                                           "kind",
		head + "rank: 101\n":                                            "rank",
		head + "lines: ['{a']\n":                                        "{ has no }",
		head + "lines: ['']\n":                                          "empty",
		head + "lines: ['((a']\n":                                       "no end",
		head + "lines: ['{a}{b}']\n":                                    "followed by text",
		head + "lines: ['{a:what}']\n":                                  "no kind",
		head + "lines: ['{a:int} {a:int}']\n":                           "two fields",
		head + "lines: ['{time}']\n":                                    "layout",
		head + "lines: ['{time:%Y}']\n":                                 "no date",
		head + "lines: ['((x{time:bsd}))']\n":                           "optional group",
		head + "lines: ['{message:logfmt}']\n":                          "{fields:",
		head + "lines: ['{a:[z-a]}']\n":                                 "ends before it begins",
		head + "lines: ['{a:[x}']\n":                                    "has no ]}",
		head + "join: [untimed]\n":                                      "needs a pattern with a time",
		head + "join: [what]\n":                                         "neither",
		head + "keys: {what: [a]}\n":                                    "no place",
		head + "keys: {user: [a], host: [a]}\n":                         "two places",
		head + "severities: {a: b}\n":                                   "no severity",
		head + "set: {user: x}\n":                                       "neither",
		head + "messages: [what]\n":                                     "no catalogue",
		head + "zone: Nowhere/At_All\n":                                 "zone",
		head + "paths: ['[']\n":                                         "syntax",
		head + "kind: json\nlines: ['{a}']\n":                           "only kinds of lines",
		head + "kind: cri\n":                                            "at least one",
		head + "times: [what]\n":                                        "no time layout",
		head + "description: &a x\nzone: *a\n":                          "aliases",
		head + "catalogue: [{lines: ['{a}']}]\n":                        "no programs",
		head + "catalogue: [{programs: [a], lines: ['{time:bsd}']}]\n":  "has a time",
		head + "catalogue: [{programs: [a], lines: ['{host:word}']}]\n": "sets host",
		head + "lines: ['" + strings.Repeat("((", 10) + strings.Repeat("))", 10) + "']": "nested",
		head + "description: " + strings.Repeat("x", maxFormatFile):                     "KiB",
	} {
		_, err := builtinSet(t).With(directory(map[string]string{"x.yaml": text}))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "x.yaml") {
			t.Errorf("%.80q: %v, which does not name %q", text, err, want)
		}
	}
}

// FuzzFormatFile loads any file as a format; one that is accepted must read
// and fill anything.
func FuzzFormatFile(f *testing.F) {
	entries, err := os.ReadDir("formats")
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".cases.yaml") {
			continue
		}
		data, err := os.ReadFile(filepath.Join("formats", e.Name()))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, []byte("Nov 22 05:55:12 h p[1]: m\n x=y\n"))
	}
	f.Fuzz(func(t *testing.T, data, text []byte) {
		parsed, err := parseFile(data)
		if err != nil {
			return
		}
		if parsed.Catalogue != nil {
			if c, err := newCatalogue(parsed.Catalogue); err == nil {
				form := &Format{messages: []*catalogue{c}}
				form.FillMessage(&event.Event{Program: "sshd", Message: text})
			}
			return
		}
		form, err := parsed.build(builtinSet(t))
		if err != nil {
			return
		}
		recs, n := form.NewReader(testOptions()).Next(nil, text, true)
		if n != len(text) {
			t.Fatalf("%d of %d bytes", n, len(text))
		}
		for _, r := range recs {
			e := event.Event{Record: r}
			form.Fill(&e)
		}
	})
}
