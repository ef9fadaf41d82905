package policy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/document"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
)

const example = `# who watches what
description: "Web server"
paths: [/srv/www, /etc]
cross_filesystems: true
defaults:
  attributes: [standard, -mtime]
  severity: low
rules:
  - "!*.tmp"
  - path: /etc/ssh/**
    severity: critical
    attributes: [-ctime]
  - path: ["/srv/www/log", '!/srv/www/log/x']
  - {path: /srv/www/access, class: growing, attributes: "perms, content size mtime"}
`

func TestParse(t *testing.T) {
	p, err := Parse("dir/web.yaml", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	want := &Policy{
		Name: "web", Description: "Web server",
		Paths: []string{"/etc", "/srv/www"}, CrossFilesystems: true,
		Default: Rule{Attrs: Standard &^ Mtime, Severity: finding.Low},
		Rules: []Rule{
			{Pattern: "*.tmp", Exclude: true, Line: 9},
			{Pattern: "/etc/ssh/**", Attrs: Standard &^ (Mtime | Ctime), Severity: finding.Critical, Line: 10},
			{Pattern: "/srv/www/log", Attrs: Standard &^ Mtime, Severity: finding.Low, Line: 13},
			{Pattern: "/srv/www/log/x", Exclude: true, Line: 13},
			{Pattern: "/srv/www/access", Growing: true, Attrs: Type | Mode | UID | GID | Flags | ACL | Caps | SELinux | Content | Size, Severity: finding.Low, Line: 14},
		},
	}
	if !p.Equal(want) {
		t.Errorf("got %+v\nwant %+v", p, want)
	}
	for i, r := range p.Rules {
		if r.Line != want.Rules[i].Line {
			t.Errorf("rule %d: line %d, want %d", i, r.Line, want.Rules[i].Line)
		}
	}
}

// TestParseReportsEverything has each mistake on a line of its own, and wants
// all of them from one call.
func TestParseReportsEverything(t *testing.T) {
	data := `paths: [relative, /a/../b, "/x*"]
pathes: [/etc]
paths: [/etc]
cross_filesystems: perhaps
defaults:
  severity: hihg
  attrs: all
rules:
  - /etc/
  - path: /etc//x
    attributes: [modee, mode, -gdi]
  - severity: low
  - path: "[z-a]"
  - path: "a{b"
  - path: "a**b"
  - path: "!/x"
    severity: low
  - !/etc/mtab
  - path: 'a\'
  - path: '\x4'
  - path: "{a}"
  - path: "[[:alpha:]]"
  - path: ../x
  - path: x
    class: grwing
  - path:
  - []
  - path: {a: b}
  - path: ""
  - path: x
    attributes: []
`
	_, err := Parse("p.yaml", []byte(data))
	if err == nil {
		t.Fatal("accepted")
	}
	if failure.KindOf(err) != failure.Usage {
		t.Errorf("kind %v", failure.KindOf(err))
	}
	golden := filepath.Join("testdata", "problems.golden")
	want, readErr := os.ReadFile(golden)
	if readErr != nil {
		t.Fatal(readErr)
	}
	if got := err.Error() + "\n"; got != string(want) {
		t.Errorf("got:\n%s\nwant (%s):\n%s", got, golden, want)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ data, want string }{
		"nothing":         {"", "p.yaml: the policy is empty; it needs at least paths"},
		"comments only":   {"# x\n", "p.yaml: the policy is empty; it needs at least paths"},
		"a list":          {"- /etc\n", "p.yaml:1:1: a policy must have keys"},
		"no paths":        {"name: x\n", "p.yaml:1:1: a policy needs paths"},
		"empty paths":     {"paths: []\n", "p.yaml:1:8: paths is empty"},
		"version":         {"version: 2\npaths: [/]\n", "p.yaml:1:10: version \"2\": this program knows version 1"},
		"two documents":   {"paths: [/]\n---\npaths: [/]\n", "p.yaml:2:1: a second YAML document"},
		"tabs":            {"paths:\n\t- /\n", "p.yaml:2: found character that cannot start any token"},
		"star unquoted":   {"paths: [/]\nrules:\n- *.pyc\n", "must be in quotes"},
		"alias":           {"paths: [/]\nrules:\n- &a x\n- *a\n", "p.yaml:4:3: an alias (*name)"},
		"braces unquoted": {"paths: [/]\nrules:\n- path: {a: b}/c\n", "did not find expected key"},
		"rule deep":       {"paths: [/]\nrules: [[[/x]]]\n", "p.yaml:2:9: a pattern must be a single value"},
		"alias bomb":      {"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\npaths: *c\n", "p.yaml:4:8: an alias (*name)"},
		"brackets":        {"paths: " + strings.Repeat("[", 100000), "p.yaml:1: nested more than 200 deep"},
		"dashes":          {"paths:\n" + strings.Repeat("- ", 100000), "p.yaml:2: nested more than 200 deep"},
		"too large":       {"paths: [/]\n" + strings.Repeat("# padding\n", 200000), "p.yaml: larger than 1048576 bytes"},
		"too many rules":  {"paths: [/]\nrules:\n" + strings.Repeat("- x\n", maxRules+1), "more than 5000 rules"},
		"brace bomb":      {"paths: [/]\nrules: ['" + strings.Repeat("{a,b}", 20) + "']\n", "more than 256 names"},
		"nested braces":   {"paths: [/]\nrules: ['" + strings.Repeat("{a,", 20) + strings.Repeat("}", 20) + "']\n", "nested more than 8 deep"},
		"many braces":     {"paths: [/]\nrules:\n" + strings.Repeat("- '"+strings.Repeat("{a,b}", 8)+"'\n", 300), "more than 50000 names"},
		"long pattern":    {"paths: [/]\nrules: [" + strings.Repeat("a", 5000) + "]\n", "longer than 4096 bytes"},
		"many components": {"paths: [/]\nrules: [" + strings.Repeat("/a", 300) + "]\n", "more than 256 components"},
		"binary":          {"paths: [/]\nrules: [!!binary aGFsbG8=]\n", "a tag (!name)"},
		"merge key":       {"paths: [/]\n<<: {rules: []}\n", "p.yaml:2:1: a merge key (<<)"},
		"many problems":   {"paths: [/]\nrules:\n" + strings.Repeat("- x/\n", 80), "and 30 more"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Parse("p.yaml", []byte(tc.data))
			if err == nil {
				t.Fatalf("accepted: %+v", p)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %q, want %q", err, tc.want)
			}
			var pe *document.Error
			if !errors.As(err, &pe) {
				t.Error("not a document.Error")
			}
		})
	}
}

func TestEncode(t *testing.T) {
	p, err := Parse("web.yaml", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	p = p.WithPaths([]string{"/b\xff\n*", "/é [x]", "/b\xff\n*/below", "rel/../ative"})
	if want := []string{"/ative", "/b\xff\n*", "/é [x]"}; !slices.Equal(p.Paths, want) {
		t.Errorf("paths %q, want %q", p.Paths, want)
	}
	p.Description = "quotes \" \\ and\ncontrol \x07 \u202e 🌍"
	q, err := Parse("other.yaml", p.Encode())
	if err != nil {
		t.Fatalf("%v\n%s", err, p.Encode())
	}
	if !q.Equal(p) || string(q.Encode()) != string(p.Encode()) {
		t.Errorf("got:\n%s\nwant:\n%s", q.Encode(), p.Encode())
	}
	if p.Digest() != q.Digest() {
		t.Error("the digests differ")
	}
	q.Rules[1].Severity = finding.High
	if p.Digest() == q.Digest() || p.Equal(q) {
		t.Error("a different severity does not show")
	}
}

func TestParseAttrs(t *testing.T) {
	for _, tc := range []struct {
		list string
		want Attr
		err  string
	}{
		{"", 0, ""},
		{"mode uid", Mode | UID, ""},
		{"all -btime -inode -dirtimes", Standard, ""},
		{"none", 0, ""},
		{"all none mode", All, ""},
		{"perms -perms content", Content, ""},
		{"modee", 0, `unknown attribute "modee"; did you mean "mode"?`},
		{"-conent", 0, `unknown attribute "conent"; did you mean "content"?`},
		{"sha256", 0, `unknown attribute "sha256"`},
	} {
		got, err := parseAttrs(0, strings.Fields(tc.list))
		if got != tc.want || (err == nil) != (tc.err == "") || err != nil && err.Error() != tc.err {
			t.Errorf("%q: %v, %v", tc.list, got, err)
		}
		if again, err := parseAttrs(0, got.Names()); again != got || err != nil {
			t.Errorf("%q: names %v give %v, %v", tc.list, got.Names(), again, err)
		}
	}
	if n := len(All.Names()); n != len(names) || All != 1<<n-1 {
		t.Errorf("%d names for the bits %b", n, All)
	}
	if got := Standard.ForDir(); got&(Size|Mtime|Ctime|Links|Content|DirTimes) != 0 || got&(Mode|ACL) != Mode|ACL {
		t.Errorf("of a directory: %v", got)
	}
	if got := All.ForDir(); got&(Size|Mtime|Ctime|Links) != Size|Mtime|Ctime|Links || got&DirTimes != 0 {
		t.Errorf("of a directory with dirtimes: %v", got)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "web.yaml")
	if err := os.WriteFile(file, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := Load(file); err != nil || p.Name != "web" {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := Load("system"); err != nil || p.Name != "system" {
		t.Errorf("%+v, %v", p, err)
	}
	_, err := Load("sytem")
	if err == nil || !strings.Contains(err.Error(), `did you mean "system"?`) || failure.KindOf(err) != failure.Usage {
		t.Errorf("%v", err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a directory is taken for a policy")
	}
}

func TestExtends(t *testing.T) {
	data := "rules:\n- \"!/usr/local\"\n- {path: /srv, severity: high}\nextends: system\npaths: [/srv]\n"
	p, err := Parse("site.yaml", []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/usr/local/bin/x": "site.yaml:2 excluded",
		"/srv/x":           "site.yaml:3 high",
		"/etc/adjtime":     "system.yaml:",
	} {
		e := p.Explain(path)
		got := fmt.Sprintf("%s:%d ", e.Decides.File, e.Decides.Line)
		if e.Covered {
			got += e.Severity.String()
		} else {
			got += "excluded"
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if q, err := Parse("x", p.Encode()); err != nil || !q.Equal(p) {
		t.Errorf("does not survive Encode: %v", err)
	}
	if _, err := Parse("p.yaml", []byte("extends: sytem\n")); err == nil || !strings.Contains(err.Error(), `p.yaml:1:10: extends: no built-in policy "sytem"; did you mean "system"?`) {
		t.Errorf("%v", err)
	}
	if p, err := Parse("p.yaml", []byte("extends: full\n")); err != nil || p.Name != "p" {
		t.Errorf("%v", err)
	}
}

func TestExplain(t *testing.T) {
	p := rulesPolicy(t, []string{"/var", "/etc"}, "/etc/ssh", "!/var/cache", "*.key", "!/var/**/tmp")
	for _, tc := range []struct{ path, start, matches, decides string }{
		{"/home", "", "", ""},
		{"/home/x.key", "", "*.key@/home/x.key", ""},
		{"/etc/passwd", "/etc", "", "default"},
		{"/etc/ssh/a.key/x", "/etc", "/etc/ssh@/etc/ssh *.key@/etc/ssh/a.key", "*.key"},
		{"/var/cache/a/b", "/var", "/var/cache@/var/cache", "/var/cache"},
		{"/var/cache/b.key", "/var", "/var/cache@/var/cache *.key@/var/cache/b.key", "*.key"},
		{"/var/a/tmp/b.key/../c.key", "/var", "*.key@/var/a/tmp/c.key /var/**/tmp@/var/a/tmp", "/var/**/tmp"},
	} {
		e := p.Explain(tc.path)
		var matches []string
		for _, m := range e.Matches {
			matches = append(matches, m.Rule.Pattern+"@"+m.At)
		}
		decides := ""
		if e.Decides != nil {
			if decides = e.Decides.Pattern; e.Decides == &p.Default {
				decides = "default"
			}
			if e.Covered == e.Decides.Exclude {
				t.Errorf("%s: covered %t by an excluding rule", tc.path, e.Covered)
			}
		}
		if e.Start != tc.start || strings.Join(matches, " ") != tc.matches || decides != tc.decides {
			t.Errorf("%s: start %q, matches %q, decided by %q", tc.path, e.Start, matches, decides)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	for _, name := range builtinNames {
		data, err := Source(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("paths: [/]\nrules: [!/x, {path: [a,b], class: growing}]\n"))
	f.Add([]byte("paths: ['/\\xff\\*']\nrules: ['[!a-\\xff]{a,{b,c}*}?', '\\!x']\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("fuzz.yaml", data)
		if err != nil {
			return
		}
		q, err := Parse("again.yaml", p.Encode())
		if err != nil {
			t.Fatalf("%v\n%s", err, p.Encode())
		}
		if !p.Equal(q) {
			t.Fatalf("%+v\n%+v\n%s", p, q, p.Encode())
		}
		m := p.Compile()
		for _, name := range []string{"/", "/a", "/etc/x.key", "/a/b\xff/c"} {
			if r, e := decide(t, m, name), p.Explain(name); (r != nil) != e.Covered || r != nil && !r.equal(*e.Decides) {
				t.Fatalf("%q: the matcher says %+v, Explain %+v", name, r, e)
			}
		}
	})
}
