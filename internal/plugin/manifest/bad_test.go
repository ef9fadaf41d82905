package manifest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/document"
	"github.com/mobileops/mobileops/internal/failure"
)

// bad are manifests that are refused. Each is the header of a good one, or an
// edited one, and a body; the line that the error must name ends with "#!".
// Without such a line the error is about the whole file.
var bad = []struct {
	name, text, want string
}{
	// The form of the document.
	{"empty", "", "it is empty"},
	{"only a comment", "# nothing\n", "it is empty"},
	{"a list", "- a #!\n", "the document must have keys"},
	{"a word", "plugin #!\n", "the document must have keys"},
	{"syntax", head + "commands: [ #!\n", "did not find expected node content"},
	{"tab", head + "service:\n\targs: [] #!\n", "cannot start any token"},
	{"not UTF-8", head + "description: \xff\n", "UTF-8"},
	{"second document", head + body + "--- #!\na: b\n", "a second YAML document"},
	{"alias", head + "description: &a text #!\nhomepage: *a\n", "an anchor"},
	{"alias alone", head + "description: *a #!\n", "an alias without an anchor"},
	{"merge key", head + "service: {<<: {args: []}} #!\n", "a merge key"},
	{"tag", head + "description: !!binary aGFsbG8= #!\n", "a tag"},
	{"own tag", head + "description: !x y #!\n", "a tag"},
	{"deep", head + "x: " + strings.Repeat("[", 200) + "#!\n", "nested more than 100 deep"},
	{"large", head + "description: " + strings.Repeat("x", MaxBytes) + "\n", "larger than 262144 bytes"},
	{"repeated key", head + body + "name: other #!\n", `"name" stands in line 2 already`},
	{"repeated inner key", head + "service:\n  args: []\n  args: [x] #!\n", `"args" stands in line 7 already`},
	{"key that is a list", head + "? [a] #!\n: b\n", "a key must be a word"},
	{"NUL", head + "description: \"a\\0b\" #!\n", "control character U+0000"},
	{"escape", head + "commands: [{name: x, summary: \"a\\x1b[31m\"}] #!\n", "control character U+001B"},
	{"C1 control", head + "commands: [{name: x, summary: \"a\\x9b\"}] #!\n", "control character U+009B"},
	{"bidi", head + "commands: [{name: x, summary: \"a\\u202eb\"}] #!\n", "U+202E, which turns or hides text"},
	{"line break in a line", head + "commands: [{name: x, summary: \"a\\nb\"}] #!\n", "commands[0].summary: has the control character U+000A"},

	// The top.
	{"schema", "schema: mobileops.plugin/v2 #!\nnew: thing\n", `schema is "mobileops.plugin/v2"; this version of mobileops reads mobileops.plugin/v1`},
	{"no schema", "name: small #!\n", `schema: is ""`},
	{"unknown field", head + body + "sumary: x #!\n", `unknown field "sumary"; did you mean "summary"?`},
	{"American licence", head + body + "license: MIT #!\n", `did you mean "licence"?`},
	{"unknown inner field", head + "service: {arg: [x]} #!\n", `unknown field "arg" in service; did you mean "args"?`},
	{"no value", head + "service: #!\n", "service must have keys"},
	{"null", head + body + "homepage: ~ #!\n", "homepage has no value"},
	{"list for a text", head + body + "homepage: [a] #!\n", "homepage must be a single value"},
	{"text for a list", head + "service: {args: serve} #!\n", "service.args must be a list"},
	{"nothing to do", head, "this one does nothing"},
	{"name in capitals", edit("name: small", "name: Small #!"), `name: "Small" is not 2 to 48 lower-case`},
	{"name of one letter", edit("name: small", "name: s #!"), "is not 2 to 48"},
	{"name with two hyphens", edit("name: small", "name: a--b #!"), "single hyphens"},
	{"name that ends with a hyphen", edit("name: small", "name: ab- #!"), "single hyphens"},
	{"name that climbs", edit("name: small", "name: ../../etc #!"), `"../../etc" is not`},
	{"long name", edit("name: small", "name: "+strings.Repeat("a", 49)+" #!"), "is not 2 to 48"},
	{"version of two parts", edit("version: 0.1.0", "version: 1.0 #!"), `version: "1.0" is not a version`},
	{"version with a zero before", edit("version: 0.1.0", "version: 1.02.0 #!"), "is not a version"},
	{"version with v", edit("version: 0.1.0", "version: v1.0.0 #!"), "is not a version"},
	{"long version", edit("version: 0.1.0", "version: 1.0.0-"+strings.Repeat("a", 60)+" #!"), "longer than 64"},
	{"no version", edit("version: 0.1.0\n", ""), "version: is missing"},
	{"long summary", edit("summary: A small one", "summary: "+strings.Repeat("é", 81)+" #!"), "summary: has 81 characters; 80 are allowed"},
	{"long description", head + body + "description: " + strings.Repeat("x", 20000) + " #!\n", "description: has 20000 bytes"},
	{"licence in words", edit("licence: MIT", "licence: do what you want #!"), `has "what" where AND, OR or WITH is expected`},
	{"licence in half", edit("licence: MIT", "licence: MIT AND #!"), "ends where a licence is expected"},
	{"licence with a parenthesis", edit("licence: MIT", "licence: (MIT OR ISC #!"), "a parenthesis that is not closed"},
	{"licence with a slash", edit("licence: MIT", "licence: MIT/ISC #!"), "no SPDX identifier"},
	{"no licence", edit("licence: MIT\n", ""), "licence: is missing"},
	{"homepage", head + body + "homepage: javascript:alert(1) #!\n", "is not a URL such as"},
	{"homepage with a password", head + body + "homepage: https://a:b@example.org #!\n", "is not a URL such as"},
	{"min_version", head + body + "min_version: '1' #!\n", `min_version: "1" is not a version`},

	// Commands.
	{"command help", head + "commands:\n  - name: help #!\n    summary: x\n", `commands[0].name: "help" is a command that mobileops makes itself`},
	{"command completion", head + "commands: [{name: completion, summary: x}] #!\n", "mobileops makes itself"},
	{"command twice", head + "commands:\n  - {name: a, summary: x}\n  - {name: a, summary: x} #!\n", `commands[1].name: "a" is there twice`},
	{"command with a space", head + "commands: [{name: a b, summary: x}] #!\n", `commands[0].name: "a b" is not`},
	{"command like a flag", head + "commands: [{name: --x, summary: x}] #!\n", `"--x" is not`},
	{"command without a summary", head + "commands:\n  - name: a #!\n", "commands[0].summary: is missing"},
	{"too many commands", head + "commands: #!\n" + strings.Repeat("  - {name: a, summary: x}\n", 65), "commands: has 65 items; 64 are allowed"},
	{"min above max", head + "commands: [{name: a, summary: x, args: {min: 2, max: 1}}] #!\n", "args.max: is 1, less than min (2)"},
	{"complete", head + "commands: [{name: a, summary: x, args: {complete: file}}] #!\n", `is "file"; it is one of none, files, dirs, words; did you mean "files"?`},
	{"complete words without", head + "commands: [{name: a, summary: x, args: {complete: words}}] #!\n", "words: is missing"},
	{"word that shells show as a hint", head + "commands: [{name: a, summary: x, args: {complete: words, words: ['_activeHelp_ press Enter']}}] #!\n", "begins with \"_activeHelp_\""},
	{"words without complete", head + "commands: [{name: a, summary: x, args: {words: [a]}}] #!\n", "is for complete: words"},
	{"number", head + "commands: [{name: a, summary: x, args: {min: 1.5}}] #!\n", `args.min: "1.5" is not a whole number`},
	{"example of something else", head + "commands: [{name: a, summary: x, examples: [rm -rf /]}] #!\n", "does not call mobileops small"},
	{"flag of every command", flag("name: output, type: string, summary: x"), "--output is a flag of every command"},
	{"flag help", flag("name: help, type: bool, summary: x"), "--help is a flag of every command"},
	{"letter of every command", flag("name: quick, short: q, type: bool, summary: x"), "-q is a flag of every command"},
	{"letter of help", flag("name: huge, short: h, type: bool, summary: x"), "-h is a flag of every command"},
	{"two letters", flag("name: since, short: si, type: bool, summary: x"), `"si" is not one letter`},
	{"flag with dashes", flag("name: --since, type: bool, summary: x"), "is not 2 to 32 lower-case"},
	{"flag twice", flag("name: since, type: bool, summary: x}, {name: since, type: bool, summary: x"), "--since is there twice"},
	{"letter twice", flag("name: since, short: s, type: bool, summary: x}, {name: size, short: s, type: bool, summary: x"), "-s is there twice"},
	{"type of a flag", flag("name: since, type: time, summary: x"), `is "time"; it is one of bool, string, int`},
	{"no type of a flag", flag("name: since, summary: x"), "type: is missing"},
	{"choice without choices", flag("name: since, type: choice, summary: x"), "choices: is missing"},
	{"default that is no choice", flag("name: since, type: choice, choices: [a], default: b, summary: x"), `default: "b" is not among the choices`},
	{"default that is no duration", flag("name: since, type: duration, default: 5, summary: x"), "is not a duration"},
	{"default of a required flag", flag("name: since, type: string, default: x, required: true, summary: x"), "makes no sense of a flag that is required"},
	{"bool that is required", flag("name: since, type: bool, required: true, summary: x"), "makes no sense of a bool"},
	{"bool", flag("name: since, type: bool, required: yes, summary: x"), `"yes" is neither true nor false`},

	// The service.
	{"long ready_timeout", head + "service: {ready_timeout: 1h} #!\n", "ready_timeout: is 1h; it is from 100ms to 5m"},
	{"no stop_timeout", head + "service: {stop_timeout: 0s} #!\n", "stop_timeout: is 0s; it is from"},
	{"negative time", head + "service: {stop_timeout: -5s} #!\n", "is not a duration"},
	{"time without a unit", head + "service: {stop_timeout: 10} #!\n", "is not a duration, such as 30s"},
	{"restart", head + "service: {restart: allways} #!\n", `did you mean "always"?`},
	{"short watchdog", head + "service: {watchdog: 10ms} #!\n", "watchdog: is 10ms; it is from 1s to 1h"},

	// Hooks.
	{"on", hook("on: findings"), `hooks[0].on: is "findings"; it is one of finding, audit, schedule, before, after; did you mean "finding"?`},
	{"slow before", hook(`on: before, commands: ["update apply"], timeout: 11s`), "timeout: is 11s; it is from 100ms to 10s"},
	{"slow after", hook(`on: after, commands: ["update apply"], timeout: 1m`), "it is from 100ms to 10s"},
	{"timeout of nothing", hook(`on: schedule, every: 1m, timeout: 0s`), "timeout: is 0s"},
	{"refuse after", hook(`on: after, commands: ["update apply"], refuse: true`), "refuse: is for hooks on before"},
	{"before nothing", hook("on: before"), "commands: is missing"},
	{"commands of a schedule", hook(`on: schedule, every: 1m, commands: [x]`), "commands: is for hooks on before and after; this one is on schedule"},
	{"command that is none", hook(`on: before, commands: ["update apply --now"]`), `"update apply --now" is not a command of mobileops`},
	{"hook on plugin", hook(`on: before, commands: ["plugin disable"], refuse: true`), `hooks[0].commands[0]: "plugin disable" never has hooks`},
	{"hook on version", hook(`on: after, commands: [version]`), `"version" never has hooks`},
	{"command of a hook twice", hook(`on: before, commands: [a, a]`), "is there twice"},
	{"schedule of never", hook("on: schedule"), "every: is 0s; it is from 1s to 744h"},
	{"schedule without end", hook("on: schedule, every: 1ms"), "every: is 1ms"},
	{"every of a finding", hook("on: finding, every: 1m"), "every: is for hooks on schedule"},
	{"severity", hook("on: finding, min_severity: severe"), `min_severity: "severe" is not info, low, medium, high or critical`},
	{"severity in capitals", hook("on: finding, min_severity: High"), "is not info"},
	{"severity of an audit record", hook("on: audit, min_severity: high"), "min_severity: is for hooks on finding"},
	{"no sources", hook("on: finding, sources: []"), "sources: is empty"},
	{"source", hook("on: finding, sources: ['../x']"), "is not a source of findings"},
	{"findings without the right", head + "hooks:\n  - {on: finding} #!\n", "the plugin needs permissions: {findings: [read]}"},
	{"audit without the right", head + "hooks:\n  - {on: audit} #!\n", "the plugin needs permissions: {audit: [read]}"},
	{"source without the right", head + "hooks:\n  - {on: finding, sources: [update]} #!\npermissions: {findings: [read], findings_from: [integrity]}\n", `"update" is not among permissions.findings_from`},
	{"long argument", hook("on: schedule, every: 1m, args: [" + strings.Repeat("x", 1025) + "]"), "args[0]: has 1025 characters"},

	// Configuration.
	{"option in capitals", option("Size: {type: size}"), "config.Size: the name of an option is"},
	{"option without a type", option("size: {summary: x}"), "config.size.type: is missing"},
	{"block option without a type", head + body + "config:\n  size: #!\n    summary: x\n", "config.size.type: is missing"},
	{"type of an option", option("size: {type: integer}"), `is "integer"; it is one of string, int`},
	{"default of another type", option("size: {type: int, default: many}"), `config.size.default: "many" is not a whole number`},
	{"default below min", option("size: {type: size, default: 1MiB, min: 2MiB}"), `default: "1MiB" is less than 2MiB`},
	{"default above max", option("wait: {type: duration, default: 2h, max: 1h}"), `"2h" is more than 1h`},
	{"default without a choice", option("kind: {type: string, choices: [alpha, beta], default: alhpa}"), `is not one of alpha, beta; did you mean "alpha"?`},
	{"default against a pattern", option(`kind: {type: string, pattern: "^a", default: b}`), `"b" does not match "^a"`},
	{"default of a list", option("kinds: {type: list, items: {type: int}, default: [1, x]}"), `default[1]: "x" is not a whole number`},
	{"default of a list of objects", option("kinds: {type: list, items: {type: object, properties: {a: {type: int}}}, default: [1]}"), "cannot be read"},
	{"default of an object", option("kind: {type: object, properties: {a: {type: int}}, default: x}"), "cannot be read"},
	{"default of a required option", option("kind: {type: int, required: true, default: 1}"), "makes no sense of an option that is required"},
	{"min above max of an option", option("kind: {type: int, min: 2, max: 1}"), "max: is 1, less than min (2)"},
	{"min of a bool", option("kind: {type: bool, min: 1}"), "min: is for numbers, strings and lists"},
	{"pattern", option(`kind: {type: string, pattern: "a("}`), "is no expression of RE2: missing closing )"},
	{"pattern that looks back", option(`kind: {type: string, pattern: "(?<=a)b"}`), "is no expression of RE2"},
	{"pattern that repeats", option(`kind: {type: string, pattern: "((a|bc|d){20}){20}"}`), "repeats"},
	{"pattern of a number", option(`kind: {type: int, pattern: a}`), "pattern: is for type: string"},
	{"secret number", option("kind: {type: int, secret: true}"), "secret: is for type: string"},
	{"secret with a default", option("kind: {type: string, secret: true, default: hunter2}"), "it has no default"},
	{"list of nothing", option("kinds: {type: list}"), "items: is missing"},
	{"items of a string", option("kind: {type: string, items: {type: int}}"), "items: is for type: list"},
	{"object of nothing", option("kind: {type: object}"), "properties: is missing"},
	{"required item", option("kinds: {type: list, items: {type: int, required: true}}"), "neither default nor required"},
	{"no choices", option("kind: {type: string, choices: []}"), "choices: is empty"},
	{"deep options", option("a: " + strings.Repeat("{type: list, items: ", 9) + "{type: int}" + strings.Repeat("}", 9)), "more than 8 deep"},
	{"many options", head + body + "config: #!\n" + manyOptions(513), "config: has 513 options; 512 are allowed"},

	// Permissions.
	{"no port", permission("network: [logs.example.org]"), "it has no port"},
	{"port zero", permission(`network: ["logs.example.org:0"]`), "a port is a number from 1 to 65535"},
	{"port too high", permission(`network: ["logs.example.org:65536"]`), "a port is a number from 1 to 65535"},
	{"all hosts", permission(`network: ["*:443"]`), "other characters than letters"},
	{"URL", permission(`network: ["https://logs.example.org"]`), "is not host:port"},
	{"host in capitals", permission(`network: ["Logs.example.org:443"]`), `is written "logs.example.org:443"`},
	{"host with a dot", permission(`network: ["logs.example.org.:443"]`), `is written "logs.example.org:443"`},
	{"half an address", permission(`network: ["127.1:443"]`), "it looks like an address, and is none"},
	{"IPv6 without brackets", permission(`network: ["2001:db8::1:443"]`), "an IPv6 address is in brackets"},
	{"IPv6 written long", permission(`network: ["[2001:0db8::1]:443"]`), `is written "[2001:db8::1]:443"`},
	{"IPv6 with a zone", permission(`network: ["[fe80::1%eth0]:443"]`), "without a zone"},
	{"host twice", permission(`network: ["a.example:1", "a.example:1"]`), "is there twice"},
	{"reference to nothing", permission(`network: ["config:adress"]`), `has "adress", which config does not have; did you mean "address"?`},
	{"reference to a list", permission(`network: ["config:list"]`), "leads to a list; write [] behind it"},
	{"reference to an object", permission(`network: ["config:object"]`), "leads to an object"},
	{"reference to a number", permission(`network: ["config:number"]`), "leads to a value of type int"},
	{"reference to a secret", permission(`network: ["config:secret"]`), "leads to a secret"},
	{"reference into a string", permission(`network: ["config:address.x"]`), "goes on at \"x\" behind a string"},
	{"reference with an index", permission(`network: ["config:list[0]"]`), "is no path of the configuration"},
	{"reference through no list", permission(`network: ["config:address[]"]`), `has [] behind "address", which is no list`},
	{"default that is no host", permission(`network: ["config:path"]`), `leads to the default "/x", which is not host:port`},
	{"relative path", permission("read: [etc/ssl]"), `"etc/ssl" is not absolute`},
	{"path that climbs", permission("read: [/etc/../root]"), `is not clean; write "/root"`},
	{"path with a slash", permission("write: [/srv/]"), `is not clean; write "/srv"`},
	{"home", permission("write: [~/x]"), "is not absolute"},
	{"empty path", permission(`exec: [""]`), "is empty"},
	{"long socket", permission("unix: [/" + strings.Repeat("s", 107) + "]"), "the path of a socket has at most 107"},
	{"abstract socket", permission(`unix: ["@x"]`), "is not absolute"},
	{"memory", permission("memory: 1MiB"), "memory: is 1MiB; it is from 16MiB to 1TiB"},
	{"memory in words", permission("memory: much"), "is not a size"},
	{"memory beyond numbers", permission("memory: 99999999TiB"), "is not a size"},
	{"negative memory", permission("memory: -1"), "is not a size"},
	{"cpu", permission("cpu: 500ms"), "cpu: is 500ms; it is from 1s to 24h"},
	{"half seconds", permission("cpu: 1.5s"), "the kernel counts whole seconds"},
	{"no processes", permission("processes: 0"), "processes: is 0; it is from 1 to 4096"},
	{"files open", permission("files: 1"), "files: is 1; it is from 16 to 65536"},
	{"file size", permission("file_size: 1"), "file_size: is 1; it is from 4KiB to 16TiB"},
	{"user", permission("run_as: 'root;id'"), "is not a user of the host"},
	{"right", permission("findings: [write]"), `findings[0]: is "write"; it is one of read, report`},
	{"right of audit", permission("audit: [report]"), "it is one of read"},
	{"right twice", permission("findings: [read, read]"), `"read" is there twice`},
	{"sources without read", permission("findings_from: [integrity]"), "write findings: [read]"},
	{"empty sources", permission("findings: [read], findings_from: []"), "findings_from: is empty"},

	// Files.
	{"no program", files("other: {digest: " + digest + ", size: 1}"), "mobileops-small is not among them"},
	{"program that cannot be run", files("mobileops-small: {digest: " + digest + ", size: 1}"), "it must be executable"},
	{"empty program", files("mobileops-small: {digest: " + digest + ", size: 0, executable: true}"), "it is empty"},
	{"no digest", more("a: {size: 1}"), "files.a.digest: is missing"},
	{"short digest", more("a: {digest: abc, size: 1}"), `"abc" is not 64 lower-case hexadecimal digits`},
	{"digest in capitals", more("a: {digest: " + strings.ToUpper(digest) + ", size: 1}"), "64 lower-case"},
	{"negative size", more("a: {digest: " + digest + ", size: -1}"), "files.a.size: is -1"},
	{"large file", more("a: {digest: " + digest + ", size: 1073741825}"), "a file has from 0 to 1073741824 bytes"},
	{"climbing file", more("../a: {digest: " + digest + ", size: 1}"), `has ".." as a part`},
	{"climbing directory", more("a/../../b: {digest: " + digest + ", size: 1}"), `has ".." as a part`},
	{"absolute file", more("/etc/passwd: {digest: " + digest + ", size: 1}"), "is absolute"},
	{"dot", more("./a: {digest: " + digest + ", size: 1}"), `has "." as a part`},
	{"two slashes", more("a//b: {digest: " + digest + ", size: 1}"), `has "" as a part`},
	{"backslash", more(`a\b: {digest: ` + digest + ", size: 1}"), "has a backslash"},
	{"empty file name", more(`"": {digest: ` + digest + ", size: 1}"), "is empty"},
	{"control in a file name", more(`"a\tb": {digest: ` + digest + ", size: 1}"), "control character U+0009"},
	{"the manifest", more("plugin.yaml: {digest: " + digest + ", size: 1}"), "it lists the others"},
	{"the signature", more("plugin.yaml.minisig: {digest: " + digest + ", size: 1}"), "it lists the others"},
	{"the manifest in capitals", more("Plugin.yaml: {digest: " + digest + ", size: 1}"), `differs from "plugin.yaml" by case alone`},
	{"case", more("MOBILEOPS-small: {digest: " + digest + ", size: 1}"), "by case alone"},
	{"long s", more("mobileop\u017f-small: {digest: " + digest + ", size: 1}"), "by case alone"},
	{"file in a file", more("mobileops-small/x: {digest: " + digest + ", size: 1}"), `it is a file, and "`},
	{"deep file", more(strings.Repeat("a/", 16) + "a: {digest: " + digest + ", size: 1}"), "is 17 directories deep"},
	{"long part", more(strings.Repeat("a", 256) + ": {digest: " + digest + ", size: 1}"), "a part of 256 bytes"},
}

const (
	head = `schema: mobileops.plugin/v1
name: small
version: 0.1.0
summary: A small one
licence: MIT
`
	body   = "commands: [{name: run, summary: Run it}]\n"
	digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

func edit(old, new string) string { return strings.Replace(head, old, new, 1) + body }
func flag(f string) string {
	return head + "commands:\n  - name: x\n    summary: x\n    flags:\n      [{" + f + "}] #!\n"
}
func hook(h string) string {
	return head + "hooks:\n  - {" + h + "} #!\npermissions: {findings: [read], audit: [read]}\n"
}
func option(o string) string { return head + body + "config:\n  " + o + " #!\n" }
func permission(p string) string {
	return head + body + `config:
  address: {type: string}
  path: {type: string, default: /x}
  number: {type: int}
  secret: {type: string, secret: true}
  list: {type: list, items: {type: string}}
  object: {type: object, properties: {address: {type: string}}}
permissions:
  {` + p + "} #!\n"
}
func files(f string) string { return head + body + "files: #!\n  " + f + " #!\n" }
func more(f string) string {
	return head + body + "files:\n  mobileops-small: {digest: " + digest + ", size: 1, executable: true} #!\n  " + f + " #!\n"
}
func manyOptions(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "  o%d: {type: int}\n", i)
	}
	return b.String()
}

func TestBadManifests(t *testing.T) {
	if len(bad) < 60 {
		t.Fatalf("only %d", len(bad))
	}
	for _, tc := range bad {
		t.Run(tc.name, func(t *testing.T) {
			var lines []int
			for i, l := range strings.Split(tc.text, "\n") {
				if strings.HasSuffix(l, "#!") {
					lines = append(lines, i+1)
				}
			}
			_, err := Parse([]byte(tc.text))
			var all *document.Error
			if !errors.As(err, &all) {
				t.Fatalf("%v is no *document.Error", err)
			}
			if kind := failure.KindOf(err); kind != failure.Untrustworthy {
				t.Errorf("kind %v", kind)
			}
			for _, p := range all.Problems {
				if strings.Contains(p.Text, tc.want) {
					at := len(lines) == 0
					for _, l := range lines {
						at = at || l == p.Line
					}
					if !at {
						t.Errorf("line %d, not one of %v: %v", p.Line, lines, p)
					}
					if !strings.HasPrefix(p.Error(), "plugin.yaml:") {
						t.Errorf("%q does not begin with the file", p.Error())
					}
					return
				}
			}
			t.Errorf("no problem has %q:\n%v", tc.want, err)
		})
	}
}

// TestEverythingIsReported: whoever writes a manifest sees all that is wrong at
// once, in the order of the file, and not more than can be read.
func TestEverythingIsReported(t *testing.T) {
	_, err := Parse([]byte("schema: mobileops.plugin/v1\nname: X\nversion: x\nsummary: x\nlicence: MIT\ncommands: [{name: y, summary: y}]\n"))
	var all *document.Error
	if !errors.As(err, &all) || len(all.Problems) != 2 || all.Problems[0].Line != 2 || all.Problems[1].Line != 3 {
		t.Errorf("%v", err)
	}
	_, err = Parse([]byte(head + strings.Repeat("x: y\n", 1000)))
	if !errors.As(err, &all) || len(all.Problems) > document.MaxProblems+1 {
		t.Errorf("%d problems", len(all.Problems))
	}
}
