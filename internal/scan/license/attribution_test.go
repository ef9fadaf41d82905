package license

import (
	"bytes"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

var update = flag.Bool("update", false, "write the golden files in testdata anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from what was written:\n%s", file, got)
	}
}

func TestNotice(t *testing.T) {
	n := Attribution(target())
	var text, markdown, doc bytes.Buffer
	if err := n.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if err := n.WriteMarkdown(&markdown); err != nil {
		t.Fatal(err)
	}
	if err := n.WriteJSON(&doc); err != nil {
		t.Fatal(err)
	}
	golden(t, "notice.txt", text.Bytes())
	golden(t, "notice.md", markdown.Bytes())
	golden(t, "notice.json", doc.Bytes())
	// Each text stands there once, though two packages have the same.
	if n := strings.Count(text.String(), "Permission …"); n != 1 {
		t.Errorf("the text of MIT stands there %d times", n)
	}
	if strings.ContainsAny(text.String()+markdown.String(), "\x1b\r") {
		t.Error("control characters of a text are in the notice")
	}
	// What the target doesn't have isn't made up.
	if !strings.Contains(text.String(), "bare 1.0 (GPL-2.0-only)") || !strings.Contains(text.String(), notFound) || strings.Contains(text.String(), "GNU GENERAL PUBLIC") {
		t.Error("the package without a text isn't said to have none")
	}
	// Of the common texts only that which a copyright file refers to, and that is there.
	if !strings.Contains(text.String(), "The Artistic License") || strings.Contains(text.String(), "GPL 3\n") {
		t.Error("common licences")
	}
}

// The order in which files were looked at makes no difference.
func TestNoticeIsStable(t *testing.T) {
	write := func(r *protocol.Report) string {
		var b bytes.Buffer
		n := Attribution(r)
		if err := n.WriteText(&b); err != nil {
			t.Fatal(err)
		}
		if err := n.WriteJSON(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	sorted := target()
	want := write(sorted)
	for seed := range uint64(20) {
		r := target()
		rnd := rand.New(rand.NewPCG(seed, 1))
		for i := range r.Results {
			p := r.Results[i].Packages
			rnd.Shuffle(len(p), func(a, b int) { p[a], p[b] = p[b], p[a] })
		}
		rnd.Shuffle(len(r.Results), func(a, b int) { r.Results[a], r.Results[b] = r.Results[b], r.Results[a] })
		if got := write(r); got != want {
			t.Fatalf("another order of packages gives another notice (seed %d)", seed)
		}
	}
}

// A package that the target has no text for is attributed when the file gives it.
func TestAttributionFile(t *testing.T) {
	n := Attribution(target())
	i := slices.IndexFunc(n.Packages, func(c Credit) bool { return c.Package == "bare" })
	n.Texts = append(n.Texts, NoticeText{Digest: "written-by-hand", Text: "GPL-2 as our supplier gave it\n", Paths: []string{"from the supplier"}, Packages: []string{"bare 1.0"}})
	n.Packages[i].Texts = []string{"written-by-hand"}
	n.Packages[i].Missing = false
	var b bytes.Buffer
	if err := n.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	a, err := ParseAttribution("notice.json", b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	p := DefaultPolicy()
	got := verdicts(t, p.WithAttribution(a).Judge(target(), day))
	if g := got["bare"]; g.Outcome != Allow || g.Attribution != "given" {
		t.Errorf("%+v", g)
	}
	if g := got["@scope/deep"]; g.Outcome != AttributionMissing {
		t.Errorf("the file has no text for it: %+v", g)
	}
	if g := verdicts(t, p.Judge(target(), day))["bare"]; g.Outcome != AttributionMissing {
		t.Errorf("the policy itself was changed: %+v", g)
	}
}

func TestAttributionFileErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "a.json: offset 0",
		`{"schema":"x/v1"}`:      "the schema is",
		`{"schema":"x","foo":1}`: "unknown field",
		`{"schema":"` + AttributionSchema + `","texts":[{"digest":"00","text":"x"}]}`: "the digest of the text is",
		`{"schema":"` + AttributionSchema + `","packages":[{}]}`:                      "without a name",
	} {
		_, err := ParseAttribution("a.json", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || failure.KindOf(err) != failure.Usage {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParseAttribution(f *testing.F) {
	var b bytes.Buffer
	if err := Attribution(target()).WriteJSON(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(`{"schema":"` + AttributionSchema + `","packages":[{"package":"a","texts":["x"]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if a, err := ParseAttribution("x", data); err == nil {
			DefaultPolicy().WithAttribution(a).Judge(target(), day)
		}
	})
}

// FuzzNotice: whatever packages and files are called, nothing reaches a terminal.
func FuzzNotice(f *testing.F) {
	f.Add("name\x1b[2J", "a|b\n# c", "text\x00 \u202e")
	f.Fuzz(func(t *testing.T, name, owner, text string) {
		r := &protocol.Report{
			Results: []protocol.Result{{Class: protocol.ClassOS, Type: "debian", Packages: []protocol.Package{{Name: name, Version: owner, Licenses: []string{owner}}}}},
			Notices: []protocol.Notice{{Path: "usr/share/doc/" + name + "/copyright", Kind: protocol.NoticeCopyright, Text: "d", Copyright: []string{owner}}},
			Texts:   map[string]string{"d": text},
		}
		n := Attribution(r)
		var b bytes.Buffer
		for _, write := range []func() error{func() error { return n.WriteText(&b) }, func() error { return n.WriteMarkdown(&b) }} {
			if err := write(); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range b.String() {
			if c < ' ' && c != '\n' && c != '\t' || c == 0x7f || c == '\u202e' {
				t.Fatalf("%q in %q", c, b.String())
			}
		}
		var doc bytes.Buffer
		if err := n.WriteJSON(&doc); err != nil || !json.Valid(doc.Bytes()) {
			t.Fatalf("%v: %s", err, doc.Bytes())
		}
	})
}
