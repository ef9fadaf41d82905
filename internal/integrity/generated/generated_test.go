package generated

import (
	"os"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestCases(t *testing.T) {
	if _, err := rules(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("generated.cases.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct{ Path, Package, Severity string }
	if err := yaml.Unmarshal(b, &cases); err != nil || len(cases) < 10 {
		t.Fatalf("%d cases, %v", len(cases), err)
	}
	for _, c := range cases {
		name, severity, ok := By([]byte(c.Path), []string{"unrelated-package", c.Package})
		if c.Severity == "" && ok && name == c.Package || c.Severity != "" && (!ok || severity.String() != c.Severity) {
			t.Errorf("%s by %s: %v %s, want %q", c.Path, name, ok, severity, c.Severity)
		}
		if _, _, ok := By([]byte(c.Path), nil); ok {
			t.Errorf("%s is explained although no package has changed", c.Path)
		}
	}
}
