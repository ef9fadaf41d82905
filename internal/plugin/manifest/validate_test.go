package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/document"
	"github.com/mobileops/mobileops/internal/failure"
)

// config is what most tests of configurations have as options.
func config(t testing.TB) Options { t.Helper(); return parse(t, string(readFull(t))).Config }

const goodConfig = `
queue_size: 2GB
interval: 1m30s
labels: []
tls: {verify: false}
destinations:
  - address: logs.example:6514
    token: hunter2
  - address: siem.example:8088
    format: cef
    token: {file: /etc/mobileops/plugins/siem.token}
  - {address: "other.example:1"}
`

func TestValues(t *testing.T) {
	v, err := config(t).Validate([]byte(goodConfig))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"queue_size":2000000000,"interval":"1m30s","workers":4,"compress":true,"labels":[],` +
		`"tls":{"ca":"/etc/ssl/certs/ca-certificates.crt","verify":false},"destinations":[` +
		`{"address":"logs.example:6514","format":"rfc5424"},{"address":"siem.example:8088","format":"cef"},{"address":"other.example:1","format":"rfc5424"}]}`
	if got := string(v.JSON()); got != want {
		t.Errorf("\n%s\nwant\n%s", got, want)
	}
	if got := v.Secrets(); !slices.Equal(got, []string{"destinations[0].token", "destinations[1].token"}) {
		t.Errorf("secrets %q", got)
	}
	if s, ok := v.Secret("destinations[0].token"); !ok || s.Literal != "hunter2" || s.File != "" {
		t.Errorf("%t, literal %q, file %q", ok, s.Literal, s.File)
	}
	if s, ok := v.Secret("destinations[1].token"); !ok || s.Literal != "" || s.File != "/etc/mobileops/plugins/siem.token" {
		t.Errorf("%t, literal %q, file %q", ok, s.Literal, s.File)
	}
	for _, name := range []string{"destinations[2].token", "destinations[].token", "destinations[0].address", "token", ""} {
		if s, ok := v.Secret(name); ok {
			t.Errorf("%s is a secret: %v", name, s)
		}
	}
	for path, want := range map[string][]string{
		"destinations[].address": {"logs.example:6514", "siem.example:8088", "other.example:1"},
		"destinations[].format":  {"rfc5424", "cef", "rfc5424"},
		"tls.ca":                 {"/etc/ssl/certs/ca-certificates.crt"},
		"labels[]":               {},
		"queue_size":             {"2GB"},
		"interval":               {"1m30s"},
		"socket":                 {},
		"destinations[].token":   nil,
		"destinations":           nil,
		"nothing":                nil,
		"":                       nil,
	} {
		if got := v.Lookup(path); !slices.Equal(got, want) {
			t.Errorf("Lookup(%q) = %q, want %q", path, got, want)
		}
	}
	var none Values
	if string(none.JSON()) != "{}" || none.Lookup("a") != nil || none.Secrets() != nil {
		t.Errorf("no values: %s", none.JSON())
	}
}

// TestSecretsAreNeverPrinted tries the ways by which a value ends up in a log.
func TestSecretsAreNeverPrinted(t *testing.T) {
	v, err := config(t).Validate([]byte(goodConfig))
	if err != nil {
		t.Fatal(err)
	}
	s, _ := v.Secret("destinations[0].token")
	inJSON, _ := json.Marshal(map[string]any{"secret": s, "pointer": &s, "values": v})
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", s, "values", v)
	for _, text := range []string{
		string(v.JSON()), v.String(), string(inJSON), log.String(), s.String(),
		fmt.Sprintf("%v %+v %#v %s %q", s, s, s, s, s), fmt.Sprintf("%v %+v %s", &s, v, v), fmt.Sprintf("%#v", v),
		fmt.Sprintf("%v %+v %#v", struct{ v Values }{v}, struct{ v *Values }{&v}, []any{v, struct{ v Values }{v}}),
	} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("the secret is in %s", text)
		}
	}
	// Nor is what was refused.
	for _, text := range []string{
		"destinations: [{address: 'a:1', token: [hunter2]}]",
		"destinations: [{address: 'a:1', token: {hunter2: x}}]",
		"destinations: [{address: 'a:1', token: {file: [hunter2]}}]",
		"destinations: [{address: 'a:1', token: *hunter2}]",
		"destinations: [{address: 'a:1', token: &hunter2 x}]",
		"destinations: [{address: 'a:1', token: !hunter2 x}]",
		"destinations: [{address: 'a:1', token: \"hunter2\\0\"}]",
		"destinations: [{address: 'a:1', token: \"hunter2\\z\"}]",
		"destinations: [{address: 'a:1', token: hunter2" + strings.Repeat("x", maxValue) + "}]",
		"destinations: [{address: 'a:1', token: hunter2]",
		"destinations: [{address: 'a:1', token: @hunter2}]",
		"destinations: [{address: 'a:1', token: %hunter2}]",
		"destinations:\n  - address: 'a:1'\n    token: hunter2: x\n",
		"destinations:\n  - address: 'a:1'\n    token: 'hunter2\n",
	} {
		if _, err := config(t).Validate([]byte(text)); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%.80s\n%v", text, err)
		}
	}
}

func TestBadConfigurations(t *testing.T) {
	const dest = "destinations: [{address: 'a.example:1'}]\n"
	for _, tc := range []struct{ name, text, want string }{
		{"nothing", "", "destinations: is required, and not there"},
		{"unknown key", dest + "queue_sise: 1GiB #!\n", `unknown field "queue_sise"; did you mean "queue_size"?`},
		{"unknown inner key", "destinations:\n  - address: 'a:1'\n    formt: cef #!\n", `unknown field "formt" in destinations[0]; did you mean "format"?`},
		{"twice", dest + "compress: true\ncompress: false #!\n", `"compress" stands in line 2 already`},
		{"alias", dest + "tls: &x {} #!\n", "an anchor"},
		{"a list", "- a #!\n", "the document must have keys"},
		{"required item", "destinations:\n  - format: cef #!\n", "destinations[0].address: is required"},
		{"required item of nothing", "destinations:\n  - #!\n", "destinations[0].address: is required"},
		{"required without a value", "destinations:\n  - address: #!\n", "destinations[0].address has no value; it is required"},
		{"without a value", dest + "socket: #!\n", "socket has no value; write one, or comment the line out"},
		{"no items", "destinations: [] #!\n", "destinations has 0 items; at least 1 are needed"},
		{"no list", "destinations: {address: x} #!\n", "destinations must be a list"},
		{"too many", dest + "labels: [a, b, c, d, e, f, g, h, i] #!\n", "labels has 9 items; 8 are allowed"},
		{"item against the pattern", dest + "labels:\n  - good\n  - BAD #!\n", `labels[1]: "BAD" does not match "^[a-z]+$"`},
		{"size", dest + "queue_size: big #!\n", `queue_size: "big" is not a size, such as 4096`},
		{"small size", dest + "queue_size: 1kB #!\n", "is less than 1MiB"},
		{"duration", dest + "interval: 30 #!\n", "is not a duration"},
		{"long duration", dest + "interval: 2d #!\n", "is more than 24h"},
		{"number", dest + "workers: many #!\n", "is not a whole number"},
		{"octal", dest + "workers: 010 #!\n", "is not a whole number"},
		{"bool", dest + "compress: yes #!\n", `"yes" is neither true nor false`},
		{"choice", "destinations: [{address: 'a:1', format: leaf}] #!\n", `"leaf" is not one of rfc5424, cef, leef; did you mean "leef"?`},
		{"pattern", "destinations: [{address: nowhere}] #!\n", `"nowhere" does not match "^.+:[0-9]+"`},
		{"object", dest + "tls: true #!\n", "tls must have keys"},
		{"list for a value", dest + "socket: [a] #!\n", "socket must be a single value"},
		{"control", dest + "socket: \"a\\e\" #!\n", "control character U+001B"},
		{"secret in a relative file", "destinations:\n  - address: 'a:1'\n    token: {file: token} #!\n", `token.file: "token" is not absolute`},
		{"secret in two", "destinations:\n  - address: 'a:1'\n    token: {file: /a, value: b} #!\n", "a secret is its value, or {file: /path/to/it}"},
		{"empty secret", "destinations:\n  - address: 'a:1'\n    token: '' #!\n", "token is empty"},
		{"large", dest + "socket: " + strings.Repeat("x", maxValue+1) + " #!\n", "65536 are allowed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			line := 0
			for i, l := range strings.Split(tc.text, "\n") {
				if strings.HasSuffix(l, "#!") {
					line = i + 1
				}
			}
			_, err := config(t).ValidateFile("/etc/x.yaml", []byte(tc.text))
			var all *document.Error
			if !errors.As(err, &all) || failure.KindOf(err) != failure.Usage {
				t.Fatalf("%v", err)
			}
			i := slices.IndexFunc(all.Problems, func(p *document.Problem) bool { return strings.Contains(p.Text, tc.want) })
			if i < 0 {
				t.Fatalf("no problem has %q:\n%v", tc.want, err)
			}
			if p := all.Problems[i]; p.Line != line || !strings.HasPrefix(p.Error(), "/etc/x.yaml:") {
				t.Errorf("line %d, want %d: %v", p.Line, line, p)
			}
		})
	}
}

func TestDefaultsOfObjects(t *testing.T) {
	os := parse(t, head+body+`config:
  plain: {type: object, properties: {a: {type: int, default: 1}, b: {type: int}}}
  needy: {type: object, properties: {a: {type: int, default: 1}, b: {type: int, required: true}}}
  bare: {type: object, properties: {a: {type: int}}}
  outer: {type: object, properties: {inner: {type: object, properties: {a: {type: size, default: 1KiB}}}}}
`).Config
	v, err := os.Validate(nil)
	if want := `{"plain":{"a":1},"outer":{"inner":{"a":1024}}}`; err != nil || string(v.JSON()) != want {
		t.Errorf("%v, %s, want %s", err, v.JSON(), want)
	}
	// An object of which everything is commented out is there, and empty.
	v, err = os.Validate([]byte("plain:\n  # a: 2\nbare:\n"))
	if want := `{"plain":{"a":1},"bare":{},"outer":{"inner":{"a":1024}}}`; err != nil || string(v.JSON()) != want {
		t.Errorf("%v, %s, want %s", err, v.JSON(), want)
	}
	if _, err = os.Validate([]byte("needy: {}\n")); err == nil || !strings.Contains(err.Error(), "needy.b: is required") {
		t.Errorf("%v", err)
	}
}

func TestSecretsInLists(t *testing.T) {
	os := parse(t, head+body+"config: {tokens: {type: list, items: {type: string, secret: true}}}\n").Config
	v, err := os.Validate([]byte("tokens: [one, {file: /two}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := v.Secrets(); string(v.JSON()) != "{}" || !slices.Equal(got, []string{"tokens[0]", "tokens[1]"}) {
		t.Errorf("%q %s", got, v.JSON())
	}
}

// TestExample: what Example writes is a configuration in which only what is
// required is missing, and what it has commented out is one, too.
func TestExample(t *testing.T) {
	os := config(t)
	example := string(os.Example())
	_, err := os.Validate([]byte(example))
	var all *document.Error
	if !errors.As(err, &all) || len(all.Problems) != 1 || !strings.Contains(all.Problems[0].Text, "destinations[0].address has no value; it is required") {
		t.Errorf("%v", err)
	}
	filled := strings.Replace(example, "    address:\n", "    address: a.example:1\n", 1)
	v, err := os.Validate([]byte(filled))
	if err != nil {
		t.Fatal(err)
	}
	byHand, err := os.Validate([]byte("destinations: [{address: 'a.example:1'}]"))
	if err != nil || string(v.JSON()) != string(byHand.JSON()) {
		t.Errorf("%v: %s, want %s", err, v.JSON(), byHand.JSON())
	}

	// Without the # before an option, twice for what is within an object that
	// is commented out, all of it counts.
	lines := strings.Split(filled, "\n")
	for range 2 {
		for i, l := range lines {
			trimmed := strings.TrimLeft(l, " ")
			if rest, ok := strings.CutPrefix(trimmed, "#"); ok && (rest == "" || rest[0] != ' ' || strings.HasPrefix(rest, "  ")) {
				lines[i] = l[:len(l)-len(trimmed)] + rest
			}
		}
	}
	whole := strings.Join(lines, "\n")
	v, err = os.Validate([]byte(whole))
	if err != nil {
		t.Fatalf("%v\n%s", err, whole)
	}
	if got := v.Secrets(); !slices.Equal(got, []string{"destinations[0].token"}) {
		t.Errorf("secrets %q of\n%s", got, whole)
	}
	for _, word := range []string{"How connections are protected", "default 1GiB", "one of rfc5424, cef, leef", "at least 1 item;", "required"} {
		if !strings.Contains(example, word) {
			t.Errorf("%q is not in\n%s", word, example)
		}
	}
	if got := (Options)(nil).Example(); len(got) != 0 {
		t.Errorf("of no options: %q", got)
	}
}

func TestExampleOfRequired(t *testing.T) {
	os := parse(t, head+body+`config:
  names: {type: list, required: true, items: {type: string, min: 1}, summary: "Of hosts: # one each"}
  object: {type: object, required: true, properties: {a: {type: int, required: true}, b: {type: bool}}}
  odd: {type: string, default: "yes: # it's \"odd\""}
  low: {type: int, max: -5}
  high: {type: duration, min: 1h}
`).Config
	example := string(os.Example())
	_, err := os.Validate([]byte(example))
	var all *document.Error
	if !errors.As(err, &all) || len(all.Problems) != 2 {
		t.Errorf("%v\n%s", err, example)
	}
	filled := strings.NewReplacer("\n  -\n", "\n  - x\n", "\n  a:\n", "\n  a: 1\n", "\n#odd", "\nodd", "\n#low", "\nlow", "\n#high", "\nhigh").Replace(example)
	v, err := os.Validate([]byte(filled))
	if want := `{"names":["x"],"object":{"a":1},"odd":"yes: # it's \"odd\"","low":-5,"high":"1h0m0s"}`; err != nil || string(v.JSON()) != want {
		t.Errorf("%v: %s, want %s\n%s", err, v.JSON(), want, filled)
	}
}
