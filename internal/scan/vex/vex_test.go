package vex

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	govex "github.com/openvex/go-vex/pkg/vex"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/mobileops/mobileops/internal/failure"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// document is a valid document with statements.
func document(statements string) string {
	return `{"@context":"https://openvex.dev/ns/v0.2.0","@id":"https://example.com/1","author":"a","timestamp":"2026-01-01T00:00:00Z","version":1,"statements":[` + statements + `]}`
}

const fine = `{"vulnerability":{"name":"CVE-1"},"products":[{"@id":"pkg:deb/debian/openssl@1"}],"status":"fixed"}`

func TestWhatIsRefused(t *testing.T) {
	if _, err := Parse([]byte(document(fine))); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ doc, says string }{
		{``, "it ends here"}, {`[]`, "no object"}, {`{`, "it ends here"}, {`{"a":}`, "byte"}, {document(fine) + "{}", "follows the document"}, {"\xff", "UTF-8"},
		{`{"@context":"https://openvex.dev/ns/v0.2.0"}`, "no @id"}, {`{"@context":"https://openvex.dev/ns/v0.0.1"}`, "another version"}, {`{"@context":"x"}`, "@context"},
		{strings.Replace(document(fine), `"author":"a"`, `"author":" "`, 1), "no author"}, {strings.Replace(document(fine), `"version":1`, `"version":0`, 1), "no version"},
		{strings.Replace(document(fine), `"2026-01-01T00:00:00Z"`, `"yesterday"`, 1), "RFC 3339"}, {strings.Replace(document(fine), `"version":1`, `"version":"1"`, 1), "cannot be"},
		{strings.Replace(document(fine), `"author":"a"`, `"author":"a","Author":"b"`, 1), "there twice"},
		{document(``), "no statements"}, {document(`{}`), "statement 1: it names no vulnerability"},
		{document(fine + `,{"vulnerability":{"name":"CVE-1"},"status":"fixed"}`), "statement 2: it names no product"},
		{document(`{"vulnerability":{"name":"CVE-1"},"products":[{}],"status":"fixed"}`), "product 1 has no @id"},
		{document(`{"vulnerability":{"name":"CVE-1"},"products":[{"@id":"x","subcomponents":[{}]}],"status":"fixed"}`), "subcomponent 1"},
		{document(strings.Replace(fine, "fixed", "fine", 1)), `its status is "fine"`},
		{document(strings.Replace(fine, "fixed", "not_affected", 1)), "without a justification"},
		{document(strings.Replace(fine, `"fixed"`, `"not_affected","justification":"because"`, 1)), `its justification is "because"`},
		{document(strings.Replace(fine, "CVE-1", strings.Repeat("x", MaxText+1), 1)), "a text has"},
		{strings.Repeat("[", 100), "no object"}, {`{"a":` + strings.Repeat("[", 100), "nested"},
		{`{"a":[` + strings.Repeat("1,", MaxStatements) + `1]}`, "entries"}, {strings.Repeat(" ", MaxSize+1), "larger"},
	} {
		_, err := Parse([]byte(c.doc))
		var parse *ParseError
		if !errors.As(err, &parse) || failure.KindOf(err) != failure.Untrustworthy || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%.200s: %v, not %q", c.doc, err, c.says)
		}
	}
}

func TestMatch(t *testing.T) {
	parse := func(doc string) *Document {
		d, err := Parse([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	statement := func(name, product, rest string) string {
		return fmt.Sprintf(`{"vulnerability":{"name":%q,"aliases":["GHSA-1"]},"products":[%s],%s}`, name, product, rest)
	}
	const image, pkg = "pkg:oci/app@sha256:123?repository_url=registry/app", "pkg:deb/debian/openssl@3.0.1?arch=amd64&distro=debian-12"
	for _, c := range []struct {
		product string
		want    bool
	}{
		{`{"@id":"pkg:deb/debian/openssl"}`, true}, {`{"@id":"pkg:deb/debian/openssl@3.0.1"}`, true}, {`{"@id":"pkg:deb/debian/openssl@3.0.2"}`, false},
		{`{"@id":"pkg:deb/debian/openssl@3.0.1?arch=arm64"}`, false}, {`{"@id":"pkg:deb/debian/openssl?distro=debian-12"}`, true},
		{`{"@id":"pkg:deb/ubuntu/openssl"}`, false}, {`{"@id":"pkg:DEB/debian/OpenSSL"}`, true}, {`{"@id":"x","identifiers":{"purl":"pkg:deb/debian/openssl"}}`, true},
		{`{"@id":"pkg:oci/app"}`, true}, {`{"@id":"pkg:oci/app@sha256%3A123"}`, true}, {`{"@id":"pkg:oci/app@sha256%3A124"}`, false},
		{`{"@id":"pkg:oci/app","subcomponents":[{"@id":"pkg:deb/debian/openssl@3.0.1"}]}`, true}, {`{"@id":"pkg:oci/app","subcomponents":[{"@id":"pkg:deb/debian/zlib"}]}`, false},
		{`{"@id":"pkg:oci/other","subcomponents":[{"@id":"pkg:deb/debian/openssl@3.0.1"}]}`, false}, {`{"@id":"host:web1"}`, true}, {`{"@id":"host:web2"}`, false},
		{`{"@id":"pkg:deb/debian/openssl","subcomponents":[{"@id":"pkg:deb/debian/openssl"}]}`, false},
		{`{"hashes":{"sha-256":"ABC"}}`, true}, {`{"hashes":{"sha-256":"def"}}`, false}, {`{"@id":"pkg:"}`, false}, {`{"@id":"pkg:deb"}`, false},
	} {
		d := parse(document(statement("CVE-1", c.product, `"status":"fixed"`)))
		for _, id := range []string{"CVE-1", "cve-1", "GHSA-1"} {
			_, s := Match([]*Document{d}, Query{Vulnerabilities: []string{id}, Products: []string{"host:web1", image, "abc"}, Package: pkg})
			if (s != nil) != c.want {
				t.Errorf("%s of %s: %v", id, c.product, s)
			}
		}
		if _, s := Match([]*Document{d}, Query{Vulnerabilities: []string{"CVE-2"}, Products: []string{"host:web1", image, "abc"}, Package: pkg}); s != nil {
			t.Errorf("another vulnerability: %v", s)
		}
	}
	// The newest wins, by the statement's own time or that of the document.
	openssl := `{"@id":"pkg:deb/debian/openssl"}`
	old := parse(document(statement("CVE-1", openssl, `"status":"not_affected","impact_statement":"no"`) + "," + statement("CVE-1", openssl, `"status":"affected","action_statement":"x","timestamp":"2026-05-01T00:00:00Z"`)))
	newer := parse(strings.Replace(document(statement("CVE-1", openssl, `"status":"fixed"`)), "2026-01-01", "2026-03-01", 1))
	for _, docs := range [][]*Document{{old, newer}, {newer, old}} {
		if d, s := Match(docs, Query{Vulnerabilities: []string{"CVE-1"}, Package: pkg}); s == nil || s.Status != Affected || d != old {
			t.Errorf("%+v", s)
		}
	}
}

func example() Document {
	product := []Product{{Component: Component{ID: "urn:mobileops:asset:host:web1"}, Subcomponents: []Component{{ID: "pkg:deb/debian/openssl@3.0.1"}}}}
	return Document{Author: "Operations <ops@example.com>", Role: "operator", Timestamp: noon, Tooling: "mobileops", Statements: []Statement{
		{Vulnerability: Vulnerability{Name: "CVE-4"}, Products: product, Status: NotAffected, Justification: "component_not_present", ImpactStatement: "not built"},
		{Vulnerability: Vulnerability{Name: "CVE-3", Aliases: []string{"DSA-1"}}, Products: product, Status: Fixed, Timestamp: noon.Add(time.Hour)},
		{Vulnerability: Vulnerability{Name: "CVE-2"}, Products: product, Status: Affected, ActionStatement: "update openssl <now>"},
		{Vulnerability: Vulnerability{Name: "CVE-1"}, Products: product, Status: UnderInvestigation, StatusNotes: "found by a scan"},
		{Vulnerability: Vulnerability{Name: "CVE-5"}, Products: product, Status: NotAffected, ImpactStatement: "never called"},
	}}
}

// schema is the JSON schema of the format.
func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile(filepath.Join("..", "..", "..", "testdata", "schema", "openvex.json"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEncode(t *testing.T) {
	b, err := example().Encode()
	if err != nil {
		t.Fatal(err)
	}
	shuffled := example()
	for i := range shuffled.Statements[:2] {
		j := len(shuffled.Statements) - 1 - i
		shuffled.Statements[i], shuffled.Statements[j] = shuffled.Statements[j], shuffled.Statements[i]
	}
	if again, err := shuffled.Encode(); err != nil || !bytes.Equal(b, again) {
		t.Errorf("another order became another document: %v", err)
	}
	other := example()
	other.Statements[0].StatusNotes = "x"
	if o, err := other.Encode(); err != nil || bytes.Contains(o, []byte(id(t, b))) {
		t.Errorf("another content has the same @id: %v", err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema(t).Validate(v); err != nil {
		t.Error(err)
	}
	d, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if d.Statements[0].Vulnerability.Name != "CVE-1" || len(d.Statements) != 5 || !d.Moment(&d.Statements[2]).Equal(noon.Add(time.Hour)) {
		t.Errorf("%+v", d)
	}
	empty := Document{Author: "x", Timestamp: noon}
	if _, err := empty.Encode(); err == nil {
		t.Error("a document without statements was written")
	}
}

func id(t *testing.T, b []byte) string {
	var head struct {
		ID string `json:"@id"`
	}
	if err := json.Unmarshal(b, &head); err != nil || !strings.HasPrefix(head.ID, IDPrefix) {
		t.Fatalf("%q, %v", head.ID, err)
	}
	return head.ID
}

// TestThePeer goes round with the library that defines the format: it reads and
// validates what is written here, and what it writes is read here, the same.
func TestThePeer(t *testing.T) {
	b, err := example().Encode()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := govex.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	for i := range doc.Statements {
		if err := doc.Statements[i].Validate(); err != nil {
			t.Error(err)
		}
	}
	if m := doc.Matches("CVE-3", "urn:mobileops:asset:host:web1", []string{"pkg:deb/debian/openssl@3.0.1"}); len(m) != 1 || m[0].Status != govex.StatusFixed {
		t.Errorf("%+v", m)
	}
	var out bytes.Buffer
	if err := doc.ToJSON(&out); err != nil {
		t.Fatal(err)
	}
	ours, err := Parse(out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	again, err := ours.Encode()
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("%v:\n%s\n%s", err, b, again)
	}
}

func TestTheSchemaRefuses(t *testing.T) {
	s := schema(t)
	for _, doc := range []string{
		`{}`, document(``), document(strings.Replace(fine, "fixed", "affected", 1)), document(strings.Replace(fine, "fixed", "not_affected", 1)), document(strings.Replace(fine, "name", "nome", 1)),
	} {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(doc))
		if err != nil {
			t.Fatal(err)
		}
		if s.Validate(v) == nil {
			t.Errorf("%s is valid", doc)
		}
	}
}

func FuzzParse(f *testing.F) {
	b, err := example().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(document(fine)))
	f.Add([]byte(document(`{"vulnerability":{"@id":"x"},"products":[{"hashes":{"md5":"1"}}],"status":"not_affected","impact_statement":"y"}`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Parse(b)
		if err != nil {
			if !errors.As(err, new(*ParseError)) {
				t.Fatalf("%v", err)
			}
			return
		}
		Match([]*Document{d}, Query{Vulnerabilities: []string{"CVE-1"}, Products: []string{"x"}, Package: "pkg:deb/debian/openssl@1"})
		out, err := d.Encode()
		if err != nil {
			return // a time that cannot be written
		}
		if _, err := Parse(out); err != nil && len(out) < MaxSize {
			t.Fatalf("what was written cannot be read: %v\n%s", err, out)
		}
	})
}

func FuzzPURL(f *testing.F) {
	for _, s := range []string{"pkg:deb/debian/openssl@1?arch=amd64#sub", "pkg:npm/%40scope/name@1.0", "pkg:npm/@scope/name@1.0", "pkg:golang/github.com/a/b@v1#x", "pkg:", "pkg://x/y@", "pkg:a/%zz"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, ok := parsePURL(s); ok && (p.kind == "" || p.name == "" || !p.covers(&p)) {
			t.Fatalf("%q: %+v", s, p)
		}
	})
}

func TestPURLs(t *testing.T) {
	for s, want := range map[string]string{
		"pkg:npm/%40scope/name@1.0":                 "npm|@scope|name|1.0||",
		"pkg:npm/@scope/name@1.0":                   "npm|@scope|name|1.0||",
		"pkg:npm/@scope/name":                       "npm|@scope|name|||",
		"pkg:pypi/Foo_Bar@2":                        "pypi||foo-bar|2||",
		"pkg:golang/github.com/A/b@v1.2.3#cmd/x":    "golang|github.com/A|b|v1.2.3|cmd/x|",
		"pkg:deb/debian/libc6@2.36-9%2Bdeb12u4?a=b": "deb|debian|libc6|2.36-9+deb12u4||b",
		"pkg:maven/org.x/y@1":                       "maven|org.x|y|1||",
	} {
		p, ok := parsePURL(s)
		if got := strings.Join([]string{p.kind, p.namespace, p.name, p.version, p.subpath, p.qualifiers["a"]}, "|"); !ok || got != want {
			t.Errorf("%s: %s", s, got)
		}
	}
	for _, s := range []string{"", "pkg:", "pkg:deb", "pkg:deb/", "deb/x", "pkg:/x", "pkg:deb/" + strings.Repeat("x", maxPURL)} {
		if p, ok := parsePURL(s); ok {
			t.Errorf("%.50q: %+v", s, p)
		}
	}
}
