package document

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
)

var limits = Limits{What: "a policy", Bytes: 4096, Nesting: 20}

// TestParse: what is wrong with a document, each with its place, and what of it can
// still be read.
func TestParse(t *testing.T) {
	for name, tc := range map[string]struct{ data, want string }{
		"a document":       {"a: 1\nb: [x, y]\n", ""},
		"nothing":          {"", ""},
		"comments":         {"# x\n", ""},
		"explicit nothing": {"---\n...\n", ""},
		"two":              {"a: 1\n---\nb: 1\n", "f:2:1: a second YAML document: a file holds one"},
		"second broken":    {"a: 1\n---\n\t\n", "f:3: found character that cannot start any token"},
		"tab":              {"a:\n\tb: 1\n", "f:2: found character that cannot start any token"},
		"alias":            {"a: &x 1\nb: *x\n", "f:1:4: an anchor (&name): write the value where it is needed; a value that begins with & must be in quotes\nf:2:4: an alias (*name): write the value; a value that begins with * must be in quotes"},
		"unknown alias":    {"a: 1\nb: *secret\n", "f:2: an alias without an anchor; a value that begins with * or & must be in quotes"},
		"star":             {"a: *.c\n", "f: did not find expected alphabetic or numeric character; a value that begins with * or & must be in quotes"},
		"merge":            {"<<: {a: 1}\n", "f:1:1: a merge key (<<): write the keys where they are needed"},
		"tag":              {"a: !x y\n", "f:1:4: a tag (!name): leave it out; a value that begins with ! must be in quotes"},
		"binary":           {"a: !!binary aGk=\n", "f:1:4: a tag (!name): leave it out; a value that begins with ! must be in quotes"},
		"key":              {"{[a]: 1}\n", "f:1:2: a key must be a word"},
		"null key":         {"~: 1\nnull: 2\n", ""},
		"repeated":         {"a: 1\nb: {c: 1, c: 2}\na: {d: 1, d: 2}\n", "f:2:11: \"c\" stands in line 2 already\nf:3:1: \"a\" stands in line 1 already\nf:3:11: \"d\" stands in line 3 already"},
		"control":          {"\"a\\e\": 1\n\"a\\e\": 2\n", `f:2:1: "a\x1b" stands in line 1 already`},
		"large":            {strings.Repeat("#", 5000), "f: larger than 4096 bytes: this is not a policy"},
		"brackets":         {"a: 1\nb: " + strings.Repeat("[", 1000), "f:2: nested more than 20 deep"},
		"dashes":           {strings.Repeat("- ", 1000), "f:1: nested more than 20 deep"},
		"marks":            {"a: 1\n" + strings.Repeat("? ", 1000), "f:2: nested more than 20 deep"},
		"colons":           {strings.Repeat(": ", 1000), "f:1: nested more than 20 deep"},
		"wide":             {"a: [" + strings.Repeat("{b: 1, c: d}, ", 200) + "]\n", ""},
		"JSON":             {`{"a": {` + strings.Repeat(`"1": 1, `, 1) + `"2": [` + strings.Repeat(`{"b": "c"}, `, 200) + `1]}}`, ""},
		"indented":         {strings.Repeat(" ", 1000) + "a: 1\n", "f:1: nested more than 20 deep"},
	} {
		t.Run(name, func(t *testing.T) {
			e := &Error{File: "f"}
			root := e.Parse([]byte(tc.data), limits)
			got := ""
			if err := e.Result(failure.Usage); err != nil {
				got = err.Error()
			}
			if got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
			if got == "" && root == nil && strings.Contains(tc.data, "1") {
				t.Error("no root")
			}
		})
	}
}

// TestParseGoesOn: a repeated key and an item of a list are told, and what stands
// beside them is read.
func TestParseGoesOn(t *testing.T) {
	e := &Error{File: "f"}
	root := e.Parse([]byte("a: [!x, b, *c]\na: 2\nd: &c 3\n"), limits)
	if root != nil || len(e.Problems) != 1 { // *c stands before &c: the parser gives up
		t.Errorf("%v, %v", root, e)
	}
	e = &Error{File: "f"}
	root = e.Parse([]byte("a: [!x , b]\na: 2\nd: 3\n"), limits)
	if len(e.Problems) != 2 || root == nil || len(root.Content) != 4 {
		t.Fatalf("%+v, %v", root, e)
	}
	if list := root.Content[1].Content; len(list) != 1 || list[0].Value != "b" || root.Content[3].Value != "3" {
		t.Errorf("%+v", root)
	}
}

// TestResult: in the order of the file, and no more than can be read.
func TestResult(t *testing.T) {
	e := &Error{File: "f"}
	if e.Result(failure.Usage) != nil {
		t.Fatal("an error without problems")
	}
	for i := range 60 {
		e.Add(Place{Line: 60 - i, Column: 3}, "problem %d", i)
	}
	e.Add(Place{Line: 1, Column: 1}, "first")
	e.Add(Place{}, "whole")
	err := e.Result(failure.Usage)
	lines := strings.Split(err.Error(), "\n")
	if failure.KindOf(err) != failure.Usage || len(lines) != MaxProblems+1 || lines[0] != "f: whole" || lines[1] != "f:1:1: first" || lines[2] != "f:1:3: problem 59" || lines[MaxProblems] != "f: and 12 more" {
		t.Errorf("%q", lines)
	}
	if all := (*Error)(nil); !errors.As(err, &all) || all != e {
		t.Error("it does not wrap the document's error")
	}
}

func TestProblem(t *testing.T) {
	for want, p := range map[string]Problem{
		"f:2:3: x":  {"f", 2, 3, "x"},
		"f:2: x":    {"f", 2, 0, "x"},
		"f: x":      {"f", 0, 0, "x"},
		"line 2: x": {"", 2, 3, "x"},
		"x":         {"", 0, 0, "x"},
	} {
		if p.Error() != want {
			t.Errorf("%q, want %q", p.Error(), want)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	many := make([]string, 30)
	for i := range many {
		many[i] = fmt.Sprintf("unlike%d", i)
	}
	for _, tc := range []struct {
		typed string
		known []string
		want  string
	}{
		{"pathes", []string{"paths", "rules"}, `; did you mean "paths"?`},
		{"zzz", []string{"paths", "rules"}, " (known: paths, rules)"},
		{"zzz", many, ""},
		{"zzz", nil, ""},
	} {
		if got := DidYouMean(tc.typed, tc.known); got != tc.want {
			t.Errorf("%q: %q", tc.typed, got)
		}
	}
}

// FuzzParse: no panic, no endless time, and every problem is one line that is safe
// to print.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"a: 1\n", "a: &x [*x]\n", "<<: 1\n", "? [a]\n: b\n", "- - -\n", "a: 1\n---\n", "\x00", "a: !!binary x\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e := &Error{File: "f"}
		root := e.Parse(data, limits)
		err := e.Result(failure.Usage)
		if err == nil {
			return
		}
		for _, line := range strings.Split(err.Error(), "\n") {
			if !strings.HasPrefix(line, "f:") {
				t.Errorf("%q (root %v)", line, root)
			}
			for _, c := range line {
				if c < ' ' || c == 0x7f {
					t.Errorf("%q", line)
				}
			}
		}
	})
}
