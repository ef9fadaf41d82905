package worker

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

func TestAnswer(t *testing.T) {
	want := protocol.Report{
		Schema: protocol.Schema, Version: "1.2.3", Engine: "trivy", Kind: protocol.Image, Target: "a", OS: &protocol.OS{Family: "debian"},
		Results: []protocol.Result{{Target: "x", Packages: []protocol.Package{{Name: "p"}}}, {Target: "y"}}, Document: "a\nb",
		Problems: []protocol.Problem{{Detail: "d"}}, Stats: protocol.Stats{Files: 3},
	}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	a, err := readAnswer(strings.NewReader(string(text)+" \n"), int64(len(text))+2)
	if err != nil {
		t.Fatal(err)
	}
	got := protocol.Report{Results: a.results, Document: a.document}
	if err := a.fill(&got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if a.failure() != nil {
		t.Error("it is no failure")
	}
	for cut := range len(text) {
		if _, err := readAnswer(strings.NewReader(string(text[:cut])), 1<<20); err == nil {
			t.Errorf("cut at %d", cut)
		}
	}
	for bad, want := range map[string]string{
		string(text) + "x":     fmt.Sprintf("offset %d: something follows", len(text)),
		"":                     "nothing",
		"panic: x":             "offset",
		"[]":                   "missing",
		`{"results": {}}`:      "results: it is no list",
		`{"results": [3]}`:     "results: ",
		`{"document": 3}`:      "document: ",
		`{"a":` + "\x00" + `}`: "offset",
	} {
		if _, err := readAnswer(strings.NewReader(bad), 1<<20); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := readAnswer(strings.NewReader(string(text)), int64(len(text))-1); err != errTooLong {
		t.Error(err)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{`{"results":[{"target":"a","packages":[{}]}],"document":"x","stats":{"files":1}}`, `{"status":5,"message":"m"}`, `{"results":null}`, `{"sources":[],"took":1}`, "panic: x", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := readAnswer(strings.NewReader(string(text)), 1<<20)
		if err != nil {
			return
		}
		report := protocol.Report{Results: a.results, Document: a.document}
		if a.fill(&report) == nil {
			var whole protocol.Report
			if err := json.Unmarshal(text, &whole); err == nil && len(whole.Results) != len(report.Results) && strings.Count(strings.ToLower(string(text)), `"results"`) == 1 && !strings.Contains(string(text), `\u`) {
				t.Errorf("%d results, not %d", len(report.Results), len(whole.Results))
			}
		}
		a.failure()
	})
}

func FuzzProgress(f *testing.F) {
	f.Add([]byte("{\"stage\":\"walk\",\"files\":3}\n{\"stage\":\"match\"}\n"))
	f.Add([]byte("x\n\n{\"stage\":\"a\"}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		n := newNews()
		n.read(strings.NewReader(string(text)))
		n.close()
		n.tell(func(p protocol.Progress) {
			if p == (protocol.Progress{}) {
				t.Error("no news")
			}
		})
		for _, c := range n.at() {
			if c < ' ' {
				t.Errorf("%q", n.at())
			}
		}
	})
}

func FuzzLastWords(f *testing.F) {
	f.Add([]byte("panic: x\n\ngoroutine 1\n"), uint64(1))
	f.Add([]byte("a\nb\nc\nd\x1b[2J"), uint64(2))
	f.Fuzz(func(t *testing.T, text []byte, seed uint64) {
		whole, parts := &lastWords{}, &lastWords{}
		_, _ = whole.Write(text)
		// However it comes, it is the same.
		random := rand.New(rand.NewPCG(seed, 0))
		for rest := text; len(rest) > 0; {
			n := 1 + random.IntN(len(rest))
			_, _ = parts.Write(rest[:n])
			rest = rest[n:]
		}
		a, panicked := whole.tell()
		if b, also := parts.tell(); a != b || panicked != also {
			t.Errorf("%q, %q", a, b)
		}
		if len(whole.ring) > mostWords || len(a) > 4*mostHeadline*toldLines+100 {
			t.Errorf("%d bytes", len(whole.ring))
		}
		for _, c := range a {
			if c < ' ' {
				t.Errorf("%q", a)
			}
		}
	})
}

// BenchmarkAnswer reads a report of 20,000 vulnerabilities.
func BenchmarkAnswer(b *testing.B) {
	r := protocol.Report{}
	for i := range 100 {
		result := protocol.Result{Target: fmt.Sprint(i)}
		for j := range 200 {
			result.Vulnerabilities = append(result.Vulnerabilities, protocol.Vulnerability{ID: fmt.Sprintf("CVE-2026-%d", j), Package: "p", Description: strings.Repeat("x", 500)})
		}
		r.Results = append(r.Results, result)
	}
	text, _ := json.Marshal(r)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := readAnswer(io.MultiReader(strings.NewReader(string(text))), 1<<30); err != nil {
			b.Fatal(err)
		}
	}
}
