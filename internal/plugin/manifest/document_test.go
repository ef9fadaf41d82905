package manifest

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentedFormat keeps docs/formats/plugin.md in step: its examples are a
// manifest and a configuration of it, and it speaks of every key, type and
// flag that is reserved.
func TestDocumentedFormat(t *testing.T) {
	data, err := os.ReadFile("../../../docs/formats/plugin.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	var examples []string
	for i, part := range strings.Split(page, "```") {
		if text, ok := strings.CutPrefix(part, "yaml\n"); ok && i%2 == 1 {
			examples = append(examples, text)
		}
	}
	if len(examples) != 2 {
		t.Fatalf("%d examples", len(examples))
	}
	m := parse(t, examples[0])
	if err := m.CheckPackaged(); err != nil {
		t.Error(err)
	}
	v, err := m.Config.Validate([]byte(examples[1]))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Permissions.Resolve(v); err != nil {
		t.Error(err)
	}

	source, err := os.ReadFile("parse.go")
	if err != nil {
		t.Fatal(err)
	}
	keys := regexp.MustCompile(`field\{"(\w+)"`).FindAllStringSubmatch(string(source), -1)
	if len(keys) < 50 {
		t.Fatalf("only %d keys in parse.go", len(keys))
	}
	words := []string{
		TypeString, TypeInt, TypeBool, TypeDuration, TypeSize, TypeList, TypeObject, FlagChoice, FlagFile, FlagDir,
		CompleteNone, CompleteFiles, CompleteDirs, CompleteWords, RestartAlways, RestartOnFailure, RestartNever,
		OnFinding, OnAudit, OnSchedule, OnBefore, OnAfter, RightRead, RightReport, RunAsRoot,
	}
	for _, k := range keys {
		words = append(words, k[1])
		if !regexp.MustCompile(`(?m)(^|[\s{-])`+k[1]+`:`).MatchString(examples[0]) && k[1] != "required" {
			t.Errorf("the example does not have the key %s", k[1])
		}
	}
	for _, w := range words {
		if !strings.Contains(page, "`"+w) && !strings.Contains(page, w+"`") {
			t.Errorf("%s is not told of", w)
		}
	}
	for name, short := range reservedFlags() {
		if !strings.Contains(page, "`--"+name+"`") || short != "" && !strings.Contains(page, "`-"+short+"`") {
			t.Errorf("--%s, -%s is not told of", name, short)
		}
	}
}
