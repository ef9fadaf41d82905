package license

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/document"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

const head = "schema: " + PolicySchema + "\n"

func mustPolicy(t *testing.T, text string) *Policy {
	t.Helper()
	p, err := ParsePolicy("p.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The example that is packaged is the built-in policy, word for word.
func TestExample(t *testing.T) {
	example, err := os.ReadFile("../../../packaging/examples/license-policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if string(example) != string(defaultPolicy) {
		t.Error("packaging/examples/license-policy.yaml differs from internal/scan/license/default-policy.yaml: copy it")
	}
	if DefaultPolicy().Name != "built-in" {
		t.Error("the built-in policy has another name")
	}
	// What it shows as comments can be used.
	text := strings.NewReplacer("\n#", "\n", "exceptions: []\n", "", "licensed: []\n", "").Replace(string(defaultPolicy))
	_, tail, _ := strings.Cut(text, "\nexceptions:")
	exceptions, licensed, _ := strings.Cut(tail, "\n Software")
	_, licensed, _ = strings.Cut(licensed, "licensed:")
	p := mustPolicy(t, head+"allow: {categories: [notice]}\nexceptions:"+exceptions+"\nlicensed:"+licensed)
	if len(p.exceptions) != 1 || len(p.licensed) != 1 {
		t.Errorf("%d exceptions and %d grants in the example", len(p.exceptions), len(p.licensed))
	}
}

func TestPolicyErrors(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"empty":            {"", "is empty"},
		"no schema":        {"allow: {licenses: [MIT]}\n", "schema"},
		"schema":           {"schema: other/v9\nallow: {}\n", "p.yaml:1:9: the schema is"},
		"nothing":          {head, "says nothing"},
		"unknown key":      {head + "\nalow: {}\n", `p.yaml:3:1: unknown key "alow"`},
		"like a known key": {head + "Attribution_Required: {}\n", `did you mean "attribution-required"`},
		"licence":          {head + "allow:\n  licenses:\n    - Apache 2\n", "p.yaml:4:7: \"Apache 2\" is not one licence"},
		"spelling":         {head + "allow:\n  licenses:\n    - Expat\n", "p.yaml:4:7: \"Expat\" is no identifier of SPDX; do you mean MIT?"},
		"nonsense":         {head + "allow: {licenses: [Nonsense-9]}\n", "LicenseRef-"},
		"expression":       {head + "allow: {licenses: [MIT OR ISC]}\n", "one by one"},
		"pattern":          {head + "allow: {licenses: ['CC-XX-*']}\n", "no licence is called like"},
		"category":         {head + "allow: {categories: [free]}\n", `"free" is no category`},
		"twice":            {head + "allow: {}\nallow: {}\n", "allow"},
		"verdict":          {head + "allow: {}\nunknown: maybe\n", "p.yaml:3:10: unknown must be allow, review or deny"},
		"not a list":       {head + "deny: {licenses: MIT}\n", "must be a list"},
		"exception":        {head + "allow: {}\nexceptions:\n  - package: x\n", `an exception needs "owner"`},
		"day":              {head + "allow: {}\nexceptions:\n  - {package: x, verdict: allow, reason: r, owner: o, expires: tomorrow}\n", "must be a day"},
		"licensed":         {head + "allow: {}\nlicensed:\n  - {package: x, owner: o, expires: 2030-01-01}\n", `needs "contract"`},
		"with":             {head + "allow: {licenses: [GPL-2.0-only WITH Nothing-exception]}\n", "no exception that SPDX has"},
		"documents":        {head + "allow: {}\n---\nallow: {}\n", "second YAML document"},
		"alias":            {head + "allow: &a {}\ndeny: *a\n", "an alias (*name)"},
		"syntax":           {head + "allow: [\n", "p.yaml:"},
		"deep":             {head + "allow: " + strings.Repeat("[", 100) + "\n", "nested"},
		"large":            {strings.Repeat("#", maxPolicyBytes+1), "larger"},
		"entries":          {head + "allow: {licenses: [" + strings.Repeat("MIT,", maxPolicyEntries+1) + "]}\n", "more than"},
	} {
		_, err := ParsePolicy("p.yaml", []byte(c.text))
		var e *document.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) || failure.KindOf(err) != failure.Usage {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add(string(defaultPolicy))
	f.Add(head + "allow: {licenses: ['CC-*', MIT]}\nexceptions:\n- {package: '[', verdict: allow}\n")
	f.Add("a: &a [*a]")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePolicy("x", []byte(text))
		if err == nil {
			p.Judge(target(), time.Unix(0, 0))
		}
	})
}

var day = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// target has packages of every kind there is.
func target() *protocol.Report {
	pkg := func(name string, licenses ...string) protocol.Package {
		return protocol.Package{Name: name, Version: "1.0", Licenses: licenses, PURL: "pkg:x/" + name + "@1.0"}
	}
	perl := pkg("perl-base", "Artistic-1.0-Perl", "GPL-1.0-or-later") // as Trivy splits "or"
	perl.Source = "perl"
	doc := pkg("perl-doc-link") // its directory is a link to that of perl-base
	doc.Source = "perl"
	return &protocol.Report{
		Kind: protocol.Image, Target: "app.tar", Image: &protocol.ImageID{ID: "sha256:1234"},
		Results: []protocol.Result{
			{Target: "app.tar (debian 12)", Class: protocol.ClassOS, Type: "debian", Packages: []protocol.Package{perl, doc, pkg("zlib1g", "Zlib"), pkg("strange", "LicenseRef-strange"), pkg("bare", "GPL-2.0-only")}},
			{Target: "app/package-lock.json", Class: protocol.ClassLanguage, Type: "npm", Packages: []protocol.Package{
				pkg("left", "MIT"), pkg("right", "MIT OR GPL-3.0-only"), pkg("agpl", "AGPL-3.0-only"), pkg("both", "MIT AND CC-BY-NC-4.0"), pkg("none"), pkg("odd", "Nobody's License"), pkg("free", "CC0-1.0"), pkg("@scope/deep", "ISC"),
			}},
			{Target: "Python", Class: protocol.ClassLanguage, Type: "python-pkg", Packages: []protocol.Package{{Name: "six", Version: "1.16", Path: "usr/lib/python3/six-1.16.dist-info/METADATA", Licenses: []string{"MIT"}}}},
			{Target: "bin/app", Class: protocol.ClassLanguage, Type: "gobinary", Packages: []protocol.Package{{Name: "github.com/BurntSushi/toml", Version: "v1.2.3"}}},
		},
		Notices: []protocol.Notice{
			{Path: "usr/share/doc/perl-base/copyright", Kind: protocol.NoticeCopyright, Text: "d-perl", Licenses: []string{"Artistic-1.0-Perl OR GPL-1.0-or-later"}, Copyright: []string{"1987 Larry Wall"}},
			{Path: "usr/share/doc/zlib1g/copyright", Kind: protocol.NoticeCopyright, Text: "d-zlib", Licenses: []string{"Zlib"}},
			{Path: "usr/share/doc/strange/copyright", Kind: protocol.NoticeCopyright, Text: "d-strange", Licenses: []string{"LicenseRef-strange"}},
			{Path: "usr/share/common-licenses/Artistic", Kind: protocol.NoticeCommon, Text: "d-artistic", Licenses: []string{"Artistic-1.0-Perl"}},
			{Path: "usr/share/common-licenses/GPL-3", Kind: protocol.NoticeCommon, Text: "d-gpl3", Licenses: []string{"GPL-3.0-only"}},
			{Path: "app/node_modules/left/LICENSE", Kind: protocol.NoticeLicense, Text: "d-mit", Licenses: []string{"MIT"}, Copyright: []string{"Copyright (c) 2020 A. Body"}},
			{Path: "app/node_modules/right/LICENSE", Kind: protocol.NoticeLicense, Text: "d-mit", Licenses: []string{"MIT"}, Copyright: []string{"Copyright (c) 2020 A. Body"}},
			{Path: "app/node_modules/odd/LICENSE", Kind: protocol.NoticeLicense, Text: "d-odd"},
			{Path: "usr/lib/python3/six-1.16.dist-info/licenses/LICENSE", Kind: protocol.NoticeLicense, Text: "d-six", Licenses: []string{"MIT"}},
			{Path: "root/go/pkg/mod/github.com/!burnt!sushi/toml@v1.2.3/COPYING", Kind: protocol.NoticeLicense, Text: "d-toml", Licenses: []string{"MIT"}},
			{Path: "app/vendored/COPYING", Kind: protocol.NoticeLicense, Text: "d-sspl", Licenses: []string{"SSPL-1.0"}},
			{Path: "app/x.c", Kind: protocol.NoticeHeader, Licenses: []string{"BSD-3-Clause"}, Copyright: []string{"Copyright 2001 X"}},
			{Path: "app/y.c", Kind: protocol.NoticeHeader, Licenses: []string{"BSD-3-Clause"}},
			{Path: "app/EULA.txt", Kind: protocol.NoticeLicense, Text: "d-eula"},
		},
		Texts: map[string]string{
			"d-perl": "Perl is free.\nSee /usr/share/common-licenses/Artistic, and /usr/share/common-licenses/GPL-1.\n", "d-zlib": "zlib text\n", "d-strange": "strange\x1b[31m text\n", "d-artistic": "The Artistic License\n",
			"d-gpl3": "GPL 3\n", "d-mit": "MIT License\r\n\r\nPermission …\r\n", "d-odd": "odd\n", "d-six": "six\n", "d-toml": "toml\n", "d-sspl": "sspl\n",
		},
	}
}

func verdicts(t *testing.T, v *Verdicts) map[string]Verdict {
	t.Helper()
	out := map[string]Verdict{}
	for _, x := range v.Verdicts {
		name := x.Package
		if name == "" {
			name = strings.Join(x.Places, ",")
		}
		if _, ok := out[name]; ok {
			t.Errorf("%s is judged twice", name)
		}
		out[name] = x
	}
	return out
}

func TestJudge(t *testing.T) {
	v := DefaultPolicy().Judge(target(), day)
	got := verdicts(t, v)
	for name, want := range map[string]struct {
		outcome     Outcome
		license     string
		reason      string
		rule        string
		attribution string
	}{
		"perl-base":                  {Allow, "Artistic-1.0-Perl OR GPL-1.0-or-later", "Artistic-1.0-Perl is allowed (notice)", "allow.categories: notice", "target"},
		"perl-doc-link":              {Allow, "Artistic-1.0-Perl OR GPL-1.0-or-later", "is allowed", "allow.categories", "target"},
		"zlib1g":                     {Allow, "Zlib", "is allowed", "allow.categories: notice", "target"},
		"strange":                    {Review, "LicenseRef-strange", "has a text to read", "unknown-with-text: review", ""},
		"bare":                       {AttributionMissing, "GPL-2.0-only", "neither the target nor the attribution file", "attribution-required.categories: restricted", "missing"},
		"left":                       {Allow, "MIT", "is allowed", "", "target"},
		"right":                      {Allow, "MIT OR GPL-3.0-only", "is allowed", "", "target"},
		"agpl":                       {Review, "AGPL-3.0-only", "must be looked at", "review.licenses: AGPL-3.0", ""},
		"both":                       {Deny, "MIT AND CC-BY-NC-4.0", "CC-BY-NC-4.0 is denied (forbidden)", "deny.categories: forbidden", "missing"},
		"none":                       {Deny, "", "nothing says", "no-license: deny", ""},
		"odd":                        {Review, "LicenseRef-Nobody-s-License", "text to read", "unknown-with-text", ""},
		"free":                       {Allow, "CC0-1.0", "is allowed (unencumbered)", "allow.categories: unencumbered", ""},
		"@scope/deep":                {AttributionMissing, "ISC", "wants to be attributed", "attribution-required", "missing"},
		"six":                        {Allow, "MIT", "is allowed", "", "target"},
		"github.com/BurntSushi/toml": {Allow, "MIT", "is allowed", "", "target"},
		"app/vendored/COPYING":       {Deny, "SSPL-1.0", "is denied", "", ""},
		"app/x.c,app/y.c":            {Allow, "BSD-3-Clause", "is allowed", "", "target"},
		"app/EULA.txt":               {Review, "LicenseRef-not-recognised", "text to read", "", ""},
	} {
		g, ok := got[name]
		if !ok {
			t.Errorf("%s is not judged", name)
			continue
		}
		if g.Outcome != want.outcome || g.License != want.license || !strings.Contains(g.Reason, want.reason) || !strings.Contains(g.Rule.Text, want.rule) || g.Attribution != want.attribution {
			t.Errorf("%s: %s, %q, %q, %+v, attribution %q\nwant %+v", name, g.Outcome, g.License, g.Reason, g.Rule, g.Attribution, want)
		}
		if g.Rule.Policy != "built-in" || g.Rule.Line == 0 {
			t.Errorf("%s: rule %+v has no line", name, g.Rule)
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("%s is judged, and nobody expects it", name)
	}
	for i := 1; i < len(v.Verdicts); i++ {
		if v.Verdicts[i].Outcome > v.Verdicts[i-1].Outcome {
			t.Error("the worst do not come first")
		}
	}
	if v.Counts["deny"] != 3 || v.Counts["review"] != 4 || v.Counts["attribution-missing"] != 2 || v.Counts["allow"] != 9 {
		t.Errorf("counts %v", v.Counts)
	}
}

// A package whose text nobody recognises is one that somebody can look at.
func TestTextWithoutName(t *testing.T) {
	r := &protocol.Report{
		Results: []protocol.Result{{Class: protocol.ClassOS, Type: "debian", Packages: []protocol.Package{{Name: "unzip", Version: "6"}}}},
		Notices: []protocol.Notice{{Path: "usr/share/doc/unzip/copyright", Kind: protocol.NoticeCopyright, Text: "d"}},
	}
	if g := verdicts(t, DefaultPolicy().Judge(r, day))["unzip"]; g.Outcome != Review || !strings.Contains(g.Reason, "a text to read") || g.Rule.Line == 0 {
		t.Errorf("%+v", g)
	}
}

// A list of authors is passed on, and is no licence.
func TestAuthorsAlone(t *testing.T) {
	r := &protocol.Report{
		Results: []protocol.Result{{Target: "a/package-lock.json", Class: protocol.ClassLanguage, Type: "npm", Packages: []protocol.Package{{Name: "x", Version: "1", Licenses: []string{"MIT"}}}}},
		Notices: []protocol.Notice{{Path: "a/node_modules/x/AUTHORS", Kind: protocol.NoticeNotice, Text: "d"}},
		Texts:   map[string]string{"d": "A. Body"},
	}
	if g := verdicts(t, DefaultPolicy().Judge(r, day))["x"]; g.Outcome != AttributionMissing {
		t.Errorf("%+v", g)
	}
	if n := Attribution(r); !n.Packages[0].Missing || len(n.Texts) != 1 {
		t.Errorf("%+v", n)
	}
}

// The line of a rule is the line of the file.
func TestRuleLine(t *testing.T) {
	p := mustPolicy(t, head+"allow:\n  licenses:\n    - MIT\n    - Zlib\ndeny:\n  licenses: [ISC]\n")
	for name, line := range map[string]int{"left": 4, "zlib1g": 5, "@scope/deep": 7, "none": 0} {
		if g := verdicts(t, p.Judge(target(), day))[name]; g.Rule.Line != line || g.Rule.Policy != "p.yaml" {
			t.Errorf("%s: %+v, want line %d", name, g.Rule, line)
		}
	}
}

// What is more particular decides, and of what is as particular the strictest.
func TestParticular(t *testing.T) {
	p := mustPolicy(t, head+`
allow:
  categories: [restricted, notice]
  licenses: [GPL-2.0-only WITH Classpath-exception-2.0, LGPL-3.0-only, Apache-1.1+]
review:
  licenses: ["GPL-*", "MIT-0"]
deny:
  licenses: [GPL-2.0, LGPL-3.0, Apache-1.1, "LicenseRef-our-*", MIT-0]
`)
	for in, want := range map[string]Outcome{
		"GPL-2.0-only WITH Classpath-exception-2.0": Allow,
		"GPL-2.0-only": Deny, "GPL-2.0-or-later": Deny, "GPL-3.0-only": Review, "GPL-3.0-or-later": Review, "GPL-3.0-only WITH GCC-exception-3.1": Review,
		"LGPL-3.0-only": Allow, "LGPL-3.0-or-later": Deny, "LGPL-2.1-only": Allow,
		"Apache-1.1+": Allow, "Apache-1.1": Deny, "Apache-2.0": Allow, "LicenseRef-our-thing": Deny, "MIT-0": Deny,
		"GPL-2.0-only OR MIT": Allow, "GPL-2.0-only AND MIT": Deny, "(GPL-2.0-only OR GPL-3.0-only) AND MIT": Review,
		"Nothing-1.0": Deny,
	} {
		e, err := Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if d := p.weigh(e, false); d.outcome != want {
			t.Errorf("%s: %s (%+v), want %s", in, d.outcome, d.rule, want)
		}
	}
}

func TestExceptionsAndGrants(t *testing.T) {
	p := mustPolicy(t, head+`
allow: {categories: [notice]}
attribution-required: {categories: [notice, restricted]}
exceptions:
  - {package: "pkg:x/ba*", verdict: allow, reason: we wrote it, owner: ops, expires: 2026-11-22}
  - {package: agpl, verdict: review, reason: r, owner: ops, expires: 2026-11-21}
  - {package: "@scope/*", verdict: allow, attribution: false, reason: r, owner: ops, expires: 2027-01-01, licenses: [ISC]}
  - {package: left, verdict: deny, reason: r, owner: ops, expires: 2027-01-01, licenses: [ISC]}
  - {package: nothing-like-it, verdict: deny, reason: r, owner: ops, expires: 2027-01-01}
licensed:
  - {package: both, version: "1.*", licensor: Creative, contract: C-17, owner: legal, expires: 2027-01-31}
  - {package: none, contract: C-18, owner: legal, expires: 2020-01-31}
`)
	v := p.Judge(target(), day)
	got := verdicts(t, v)
	if g := got["bare"]; g.Outcome != AttributionMissing || !strings.Contains(g.Reason, "wants to be attributed") {
		t.Errorf("bare: %+v", g)
	}
	if g := got["agpl"]; g.Outcome != Deny {
		t.Errorf("agpl: %+v", g)
	}
	if g := got["@scope/deep"]; g.Outcome != Allow || g.Attribution != "" || !strings.Contains(g.Reason, "exception of ops until 2027-01-01: r") {
		t.Errorf("@scope/deep: %+v", g)
	}
	if g := got["left"]; g.Outcome != Allow {
		t.Errorf("left: %+v", g)
	}
	if g := got["both"]; g.Outcome != Allow || g.Reason != "licensed by contract C-17 with Creative, until 2027-01-31" || g.Rule.Line == 0 {
		t.Errorf("both: %+v", g)
	}
	if g := got["none"]; g.Outcome != Deny {
		t.Errorf("none: %+v", g)
	}
	if len(v.Expired) != 2 || v.Expired[0].Text != "agpl" || v.Expired[1].Text != "none" {
		t.Errorf("expired %+v", v.Expired)
	}
	if len(v.Unused) != 2 || v.Unused[0].Text != "left" || v.Unused[1].Text != "nothing-like-it" {
		t.Errorf("unused %+v", v.Unused)
	}
}

// A report without packages is judged by the licences that it names.
func TestJudgeWithoutPackages(t *testing.T) {
	r := &protocol.Report{Results: []protocol.Result{
		{Class: protocol.ClassOS, Type: "debian"},
		{Target: "OS Packages", Class: protocol.ClassLicense, Licenses: []protocol.License{{Package: "a", Name: "MIT"}, {Package: "a", Name: "SSPL-1.0"}, {Package: "b", Name: "CC0-1.0"}}},
	}}
	got := verdicts(t, DefaultPolicy().Judge(r, day))
	if len(got) != 2 || got["a"].Outcome != Deny || got["a"].License != "MIT AND SSPL-1.0" || got["b"].Outcome != Allow {
		t.Errorf("%+v", got)
	}
}
