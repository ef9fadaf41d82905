package query

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func document(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "query.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestExamples runs the examples of docs/query.md. Each finds something in the
// sample, and not all of it.
func TestExamples(t *testing.T) {
	_, block, ok := strings.Cut(document(t), "```query\n")
	if !ok {
		t.Fatal("docs/query.md has no block of examples")
	}
	block, _, _ = strings.Cut(block, "```")
	n := 0
	for line := range strings.Lines(block) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "# ") {
			continue
		}
		n++
		q, err := Parse(line, testOptions())
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		got := found(q)
		if q.Pipeline() != nil {
			if got = run(t, q, sample()); got == "" {
				t.Errorf("%s makes nothing", line)
			}
		} else if got == "[]" || got == found(mustParse(t, "*")) {
			t.Errorf("%s finds %s", line, got)
		}
		if len(q.Notes()) > 0 && !strings.Contains(line, "uid=0") {
			t.Errorf("%s: %q", line, q.Notes())
		}
	}
	if n < 25 {
		t.Errorf("%d examples, want 25", n)
	}
}

// TestDecisions holds docs/query.md to what it says about what people who know
// grep type: each of the cells is text, a comparison or an error as it says.
func TestDecisions(t *testing.T) {
	_, table, _ := strings.Cut(document(t), "## What people who know grep type")
	table, _, _ = strings.Cut(table, "## Grammar")
	n := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.ReplaceAll(strings.Trim(strings.TrimSpace(line), "|"), `\|`, "\x00"), "|")
		if len(cells) != 2 || !strings.Contains(cells[0], "`") || strings.Contains(cells[0], "between words") {
			continue
		}
		for i, expr := range strings.Split(cells[0], "`") {
			if i%2 == 0 {
				continue
			}
			expr = strings.TrimPrefix(strings.ReplaceAll(expr, "\x00", "|"), "… ")
			n++
			q, err := Parse(expr, testOptions())
			kind := "text"
			switch {
			case err != nil:
				kind = "an error"
			case !textOnly(q):
				kind = "a comparison"
			case strings.HasPrefix(q.String(), "not"):
				kind = "a negation"
			case strings.HasPrefix(expr, "("):
				kind = "a group"
			}
			if !strings.HasPrefix(strings.TrimSpace(cells[1]), kind) {
				t.Errorf("%s is %s, and docs/query.md says: %s (%v)", expr, kind, cells[1], err)
			}
		}
	}
	if n < 45 {
		t.Errorf("%d decisions are in the table: the test does not find them", n)
	}
}

// TestFieldsAreDocumented holds the tables of docs/query.md to the code.
func TestFieldsAreDocumented(t *testing.T) {
	doc := document(t)
	for _, f := range FieldNames() {
		if !strings.Contains(doc, "\n| `"+f+"` |") {
			t.Errorf("docs/query.md has no line about %s", f)
		}
	}
	for _, name := range stageNames() {
		if !strings.Contains(doc, "\n| `"+name) {
			t.Errorf("docs/query.md has no line about %s", name)
		}
	}
}
