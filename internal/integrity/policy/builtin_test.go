package policy

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/finding"
	"go.yaml.in/yaml/v3"
)

// TestBuiltinCases runs builtin/*.cases.yaml through the matcher and through
// Explain.
func TestBuiltinCases(t *testing.T) {
	for _, name := range BuiltinNames() {
		t.Run(name, func(t *testing.T) {
			p, err := Builtin(name)
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile("builtin/" + name + ".cases.yaml")
			if err != nil {
				t.Fatal(err)
			}
			var cases []struct {
				Path, Severity    string
				Attributes        any
				Growing           bool
				Excluded, Outside bool
			}
			if err := yaml.Unmarshal(data, &cases); err != nil {
				t.Fatal(err)
			}
			if len(cases) < 20 {
				t.Fatalf("only %d cases", len(cases))
			}
			m := p.Compile()
			for _, c := range cases {
				e := p.Explain(c.Path)
				if got := decide(t, m, c.Path); (got != nil) != e.Covered || got != nil && !got.equal(*e.Decides) {
					t.Errorf("%s: the matcher says %+v, Explain %+v", c.Path, got, e.Decides)
				}
				if outside, excluded := e.Start == "", e.Start != "" && !e.Covered; outside != c.Outside || excluded != c.Excluded {
					t.Errorf("%s: outside %t, excluded %t", c.Path, outside, excluded)
				}
				if !e.Covered {
					continue
				}
				if got := e.Severity.String(); got != c.Severity || e.Growing != c.Growing {
					t.Errorf("%s: %s, growing %t, decided by %s:%d %q", c.Path, got, e.Growing, e.Decides.File, e.Decides.Line, e.Decides.Pattern)
				}
				switch want := c.Attributes.(type) {
				case string:
					if want != "standard" || e.Attrs != Standard {
						t.Errorf("%s: attributes %v, want %s", c.Path, e.Attrs, want)
					}
				case []any:
					for _, w := range want {
						name, not := strings.CutPrefix(w.(string), "-")
						if slices.Contains(e.Attrs.Names(), name) == not {
							t.Errorf("%s: attributes %v, want %s", c.Path, e.Attrs, w)
						}
					}
				}
			}
		})
	}
}

func TestBuiltinsAreSound(t *testing.T) {
	for _, name := range BuiltinNames() {
		p, err := Builtin(name)
		if err != nil {
			t.Fatal(err)
		}
		if p.Name != name || p.Description == "" {
			t.Errorf("%s: name %q, description %q", name, p.Name, p.Description)
		}
		q, err := Parse("again", p.Encode())
		if err != nil || !q.Equal(p) {
			t.Errorf("%s: does not survive Encode: %v", name, err)
		}
	}
}

// TestBuiltinStatesStayFew keeps the automaton small on a real tree: that is
// what makes a walk cheap.
func TestBuiltinStatesStayFew(t *testing.T) {
	for _, name := range BuiltinNames() {
		p, err := Builtin(name)
		if err != nil {
			t.Fatal(err)
		}
		m := p.Compile()
		dirs := 0
		var walk func(dir string, s *State)
		walk = func(dir string, s *State) {
			entries, err := os.ReadDir(dir)
			if err != nil || s.Prune() {
				return
			}
			dirs++
			for _, e := range entries {
				if e.IsDir() {
					walk(dir+"/"+e.Name(), s.Enter([]byte(e.Name())))
				}
			}
		}
		walk("/usr", m.Root().Enter([]byte("usr")))
		walk("/etc", m.Root().Enter([]byte("etc")))
		t.Logf("%s: %d directories, %d states", name, dirs, len(m.states))
		if len(m.states) > 2000 {
			t.Errorf("%s: %d states for %d directories", name, len(m.states), dirs)
		}
	}
}

// TestDocumentedFormat keeps docs/formats/policy.md in step: its example is a
// policy, and it names every attribute and set.
func TestDocumentedFormat(t *testing.T) {
	data, err := os.ReadFile("../../../docs/formats/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(data), "```yaml\n")
	example, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("no example")
	}
	p, err := Parse("docs/formats/policy.md", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	if e := p.Explain("/srv/www/a/b.php"); e.Severity != finding.Critical {
		t.Errorf("the example decides %v", e.Severity)
	}
	attrs, setNames := AttrNames()
	for _, name := range slices.Concat(attrs, setNames) {
		if !strings.Contains(string(data), "`"+name+"`") {
			t.Errorf("%s is not described", name)
		}
	}
}
