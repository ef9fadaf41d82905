package export

import (
	"bytes"
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

func TestJUnitIsValid(t *testing.T) {
	xmllint, err := exec.LookPath("xmllint")
	if err != nil {
		t.Skip("xmllint is not installed (package libxml2-utils): JUnit output was NOT checked against the schema")
	}
	check := func(doc []byte) ([]byte, error) {
		file := filepath.Join(t.TempDir(), "junit.xml")
		if err := os.WriteFile(file, doc, 0o600); err != nil {
			t.Fatal(err)
		}
		return exec.Command(xmllint, "--nonet", "--noout", "--schema", "../../finding/export/testdata/jenkins-junit.xsd", file).CombinedOutput()
	}
	for name, d := range documents() {
		if msg, err := check(encode(t, JUnitFormat, d)); err != nil {
			t.Errorf("%s: %v\n%.2000s", name, err, msg)
		}
	}
	// The check itself must be able to fail.
	bad := bytes.Replace(encode(t, JUnitFormat, sample(protocol.Image)), []byte("<testcase name="), []byte("<testcase title="), 1)
	if _, err := check(bad); err == nil {
		t.Error("the schema accepts a test case without a name")
	}
	golden(t, "sample.junit.xml", encode(t, JUnitFormat, sample(protocol.Image)))
}

func TestJUnitContent(t *testing.T) {
	type suite struct {
		Name     string `xml:"name,attr"`
		Tests    int    `xml:"tests,attr"`
		Failures int    `xml:"failures,attr"`
		Errors   int    `xml:"errors,attr"`
		Skipped  int    `xml:"skipped,attr"`
		Cases    []struct {
			Name    string  `xml:"name,attr"`
			Failure *string `xml:"failure"`
			Error   *string `xml:"error"`
			Skipped *string `xml:"skipped"`
		} `xml:"testcase"`
	}
	for name, d := range documents() {
		var doc struct {
			Tests    int     `xml:"tests,attr"`
			Failures int     `xml:"failures,attr"`
			Errors   int     `xml:"errors,attr"`
			Suites   []suite `xml:"testsuite"`
		}
		if err := xml.Unmarshal(encode(t, JUnitFormat, d), &doc); err != nil {
			t.Fatal(err)
		}
		var sum suite
		for _, s := range doc.Suites {
			f, e, sk := 0, 0, 0
			for _, c := range s.Cases {
				switch {
				case c.Failure != nil:
					f++
				case c.Error != nil:
					e++
				case c.Skipped != nil:
					sk++
				}
			}
			if f != s.Failures || e != s.Errors || sk != s.Skipped || len(s.Cases) != s.Tests || s.Tests == 0 {
				t.Errorf("%s, %s: %d failures, %d errors, %d skipped, %d cases; it says %+v", name, s.Name, f, e, sk, len(s.Cases), s)
			}
			sum.Tests, sum.Failures, sum.Errors = sum.Tests+s.Tests, sum.Failures+f, sum.Errors+e
		}
		if doc.Tests != sum.Tests || doc.Failures != sum.Failures || doc.Errors != sum.Errors || doc.Errors != len(d.problems()) {
			t.Errorf("%s: %d tests, %d failures, %d errors; there are %+v", name, doc.Tests, doc.Failures, doc.Errors, sum)
		}
		if want := map[string]int{"sample": 6, "clean": 0, "bare": 0}; name != "hostile" && doc.Failures != want[name] {
			t.Errorf("%s: %d failures", name, doc.Failures)
		}
		if len(doc.Suites) < len(d.Scanners) {
			t.Errorf("%s: %d suites", name, len(doc.Suites))
		}
	}
}
