package export

import (
	"bytes"
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/finding"
)

func TestJUnitIsValid(t *testing.T) {
	xmllint, err := exec.LookPath("xmllint")
	if err != nil {
		t.Skip("xmllint is not installed (package libxml2-utils): JUnit output was NOT checked against the schema")
	}
	validate := func(doc []byte) ([]byte, error) {
		file := filepath.Join(t.TempDir(), "junit.xml")
		if err := os.WriteFile(file, doc, 0o600); err != nil {
			t.Fatal(err)
		}
		return exec.Command(xmllint, "--nonet", "--noout", "--schema", "testdata/jenkins-junit.xsd", file).CombinedOutput()
	}
	for name, list := range map[string][]*finding.Record{"none": nil, "plain": records(20), "hostile": hostileRecords()} {
		doc := encode(t, JUnitFormat, list)
		if msg, err := validate(doc); err != nil {
			t.Errorf("%s: %v\n%.2000s", name, err, msg)
		}
	}
	// The check itself must be able to fail.
	bad := bytes.Replace(encode(t, JUnitFormat, records(1)), []byte("<testcase name="), []byte("<testcase title="), 1)
	if _, err := validate(bad); err == nil {
		t.Error("the schema accepts a test case without a name")
	}
}

func TestJUnitContent(t *testing.T) {
	var doc struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Suites   []struct {
			Name     string `xml:"name,attr"`
			Tests    int    `xml:"tests,attr"`
			Failures int    `xml:"failures,attr"`
			Skipped  int    `xml:"skipped,attr"`
			Cases    []struct {
				Name    string  `xml:"name,attr"`
				Failure *string `xml:"failure"`
				Skipped *string `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	list := hostileRecords()
	list = append(list, records(20)...)
	if err := xml.Unmarshal(encode(t, JUnitFormat, list), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Tests != len(list) || len(doc.Suites) != len(hostile)+1 {
		t.Fatalf("%d tests in %d suites", doc.Tests, len(doc.Suites))
	}
	tests, failures := 0, 0
	for _, s := range doc.Suites {
		f, sk := 0, 0
		for _, c := range s.Cases {
			if c.Failure != nil {
				f++
			}
			if c.Skipped != nil {
				sk++
			}
		}
		if f != s.Failures || sk != s.Skipped || len(s.Cases) != s.Tests {
			t.Errorf("%q: %d failures, %d skipped, %d tests; it says %d, %d, %d", s.Name, f, sk, len(s.Cases), s.Failures, s.Skipped, s.Tests)
		}
		tests, failures = tests+len(s.Cases), failures+f
		if s.Name != "integrity" {
			name := invisible(t, s.Name)
			want := strings.TrimSpace(Visible(name) + " " + Visible(name))
			if strings.TrimSpace(s.Cases[0].Name) != want {
				t.Errorf("case %q, want %q", s.Cases[0].Name, want)
			}
		}
	}
	if tests != doc.Tests || failures != doc.Failures {
		t.Errorf("%d tests, %d failures; it says %d, %d", tests, failures, doc.Tests, doc.Failures)
	}
}
