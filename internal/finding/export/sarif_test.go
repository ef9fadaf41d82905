package export

import (
	"bytes"
	"encoding/json"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// sarifSchemaFile compiles the published schema, with its formats (uri,
// date-time) checked too.
func sarifSchemaFile(t *testing.T) *jsonschema.Schema {
	t.Helper()
	b, err := os.ReadFile("testdata/sarif-schema-2.1.0.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(sarifSchema, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(sarifSchema)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSARIFIsValid(t *testing.T) {
	schema := sarifSchemaFile(t)
	for name, list := range map[string][]*finding.Record{"none": nil, "plain": records(20), "hostile": hostileRecords()} {
		out := encode(t, SARIFFormat, list)
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(out))
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		if err := schema.Validate(doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The check itself must be able to fail.
	bad := strings.Replace(string(encode(t, SARIFFormat, records(1))), `"level":"note"`, `"level":"notice"`, 1)
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(bad))
	if err != nil {
		t.Fatal(err)
	}
	if schema.Validate(doc) == nil {
		t.Error("the schema accepts an unknown level")
	}
}

func TestSARIFContent(t *testing.T) {
	list := append(records(5), hostileRecords()...)
	var log struct {
		Runs []struct {
			Results []struct {
				RuleID, Level, BaselineState string
				RuleIndex                    int
				Message                      struct{ Text string }
				PartialFingerprints          map[string]string
				Suppressions                 []struct{ Status, Justification string }
				Locations                    []struct {
					PhysicalLocation struct{ ArtifactLocation struct{ URI string } }
					LogicalLocations []struct{ FullyQualifiedName string }
				}
			}
			Tool struct {
				Driver struct {
					Version string
					Rules   []struct {
						ID, HelpURI          string
						DefaultConfiguration struct{ Level string }
					}
				}
			}
			Invocations []struct{ Machine string }
		}
	}
	if err := json.Unmarshal(encode(t, SARIFFormat, list), &log); err != nil {
		t.Fatal(err)
	}
	run := log.Runs[0]
	if len(run.Results) != len(list) || run.Tool.Driver.Version != "1.2.3" || run.Invocations[0].Machine != "web-1" {
		t.Fatalf("%d results, %+v", len(run.Results), run.Invocations)
	}
	if r := run.Tool.Driver.Rules[0]; r.ID != "integrity/file-changed" || r.HelpURI == "" || r.DefaultConfiguration.Level != "error" {
		t.Errorf("rule %+v", r)
	}
	suppression := map[finding.State]string{finding.Waived: "accepted", finding.Acknowledged: "underReview"}
	for i, res := range run.Results {
		r := list[i]
		if run.Tool.Driver.Rules[res.RuleIndex].ID != res.RuleID {
			t.Errorf("result %d: index %d is not rule %s", i, res.RuleIndex, res.RuleID)
		}
		if res.PartialFingerprints["mobileopsFinding/v1"] != r.Fingerprint.String() {
			t.Errorf("result %d: %v", i, res.PartialFingerprints)
		}
		status := ""
		if len(res.Suppressions) > 0 {
			status = res.Suppressions[0].Status
		}
		if status != suppression[r.State] || (res.BaselineState == "absent") != (r.State == finding.Resolved) {
			t.Errorf("result %d, %s: suppression %q, baseline state %s", i, r.State, status, res.BaselineState)
		}
		// No text is a link or a placeholder, whatever was put into it.
		if strings.Contains(strings.ReplaceAll(res.Message.Text, `\]`, ""), "](") || strings.Contains(strings.ReplaceAll(res.Message.Text, "{{", ""), "{") {
			t.Errorf("result %d: message %q", i, res.Message.Text)
		}
		if !strings.HasPrefix(r.Subject, "/") {
			if got := invisible(t, res.Locations[0].LogicalLocations[0].FullyQualifiedName); got != r.Subject {
				t.Errorf("%q became %q", r.Subject, got)
			}
			continue
		}
		u, err := url.Parse(res.Locations[0].PhysicalLocation.ArtifactLocation.URI)
		if err != nil || u.Scheme != "file" || u.Host != "" || u.Path != r.Subject || u.RawQuery+u.Fragment != "" {
			t.Errorf("%q became %+v, %v", r.Subject, u, err)
		}
	}
}
