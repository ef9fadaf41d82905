package wellformed

import (
	"strings"
	"testing"
)

func TestJSON(t *testing.T) {
	for _, good := range []string{
		`{}`, "\xef\xbb\xbf{\"a\": [1, 2]}", `{"a":1}` + "\n" + `{"a":2}`, "",
		"// a comment\n{\"a\": \"http://x/* */\", /* b */ \"c\": [1,2,],\n}\n", `{"a": "\"//"}`,
	} {
		if err := JSON([]byte(good)); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, where := range map[string]string{
		"{\n\"a\": [1\n}": "line 3", "{": "EOF", "not json": "line 1", `{"a" "b"}`: "line 1", "/* no end": "line 1",
	} {
		if err := JSON([]byte(bad)); err == nil || !strings.Contains(err.Error(), where) {
			t.Errorf("%q: %v, want %q", bad, err, where)
		}
	}
}

func TestYAML(t *testing.T) {
	for _, good := range []string{
		"", "a: b\n---\nc: [1, 2]\n", "a: !Ref b\n", "x: {{ .Values.x }}\n  bad: : :", "{% if a %}\n- [",
		"a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
	} {
		if err := YAML([]byte(good)); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, where := range map[string]string{
		"apiVersion: v1\nkind: [Pod\nmetadata: x\n": "line", "a: b: c\n": "mapping", "\tx: y": "token", "a: \x01": "control",
	} {
		if err := YAML([]byte(bad)); err == nil || !strings.Contains(err.Error(), where) {
			t.Errorf("%q: %v, want %q", bad, err, where)
		}
	}
}

func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,],}`, "//\n{}", "/*", `"\`, "{"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(_ *testing.T, b []byte) { _ = JSON(b) })
}

func FuzzYAML(f *testing.F) {
	for _, s := range []string{"a: &a [*a]", "---\n...\n---", "? - :", "a: |\n b"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(_ *testing.T, b []byte) { _ = YAML(b) })
}

func TestRepeatedKey(t *testing.T) {
	for content, line := range map[string]string{
		"a: 1\nb: 2\n":                       "",
		"a: {x: 1}\nb: {x: 1}\n":             "",
		"a: 1\n\"1\": x\n1: y\n":             "", // a text and a number
		"a: 1\nb:\n  c: 1\n  c: 2\n":         "line 4",
		"---\na: 1\n---\na: 1\na: 2\n":       "line 5",
		"a: [":                               "", // others say so
		strings.Repeat("  a: {}\n", 100_000): "line 2",
	} {
		err := RepeatedKey([]byte(content))
		if (err == nil) != (line == "") || err != nil && !strings.HasPrefix(err.Error(), line+":") {
			t.Errorf("%.40q: %v, want %q", content, err, line)
		}
	}
}
