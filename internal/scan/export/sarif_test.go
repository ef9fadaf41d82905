package export

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math/rand"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// The schema of OASIS is beside the encoder of findings.
const sarifSchemaFile = "../../finding/export/testdata/sarif-schema-2.1.0.json"

func TestSARIFIsValid(t *testing.T) {
	schema := compile(t, sarifSchemaFile)
	for name, d := range documents() {
		if err := validate(t, schema, encode(t, SARIFFormat, d)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	repo := sample(protocol.Repository)
	repo.Scanned.Commit = &protocol.Commit{Remote: "https://git.example.org/shop.git", Branch: "main", Hash: "0123456789abcdef0123456789abcdef01234567"}
	if err := validate(t, schema, encode(t, SARIFFormat, repo)); err != nil {
		t.Error(err)
	}
	// The check itself must be able to fail.
	bad := bytes.Replace(encode(t, SARIFFormat, sample(protocol.Image)), []byte(`"level":"error"`), []byte(`"level":"worst"`), 1)
	if validate(t, schema, bad) == nil {
		t.Error("the schema accepts an unknown level")
	}
	golden(t, "sample.sarif", encode(t, SARIFFormat, sample(protocol.Image)))
}

type sarifLog struct {
	Runs []struct {
		Results []struct {
			RuleID, Level, BaselineState string
			RuleIndex                    int
			Message                      struct{ Text string }
			PartialFingerprints          map[string]string
			Suppressions                 []struct{ Status, Justification string }
			Locations                    []struct {
				PhysicalLocation struct {
					ArtifactLocation struct{ URI string }
					Region           struct{ StartLine, EndLine int }
				}
			}
		}
		Tool struct {
			Driver struct {
				Rules []struct {
					ID, HelpURI                             string
					ShortDescription, FullDescription, Help struct{ Text string }
					Properties                              struct {
						Tags     []string
						Severity string `json:"security-severity"`
					}
				}
			}
		}
		Invocations []struct {
			ExecutionSuccessful        bool
			ToolExecutionNotifications []struct{ Message struct{ Text string } }
		}
	}
}

func readSARIF(t *testing.T, b []byte) (log sarifLog) {
	t.Helper()
	if err := json.Unmarshal(b, &log); err != nil {
		t.Fatal(err)
	}
	return log
}

// TestSARIFIsTakenByGitHub holds what GitHub documents against each document: it
// refuses a file as a whole for one result without a place.
func TestSARIFIsTakenByGitHub(t *testing.T) {
	for name, d := range documents() {
		run := readSARIF(t, encode(t, SARIFFormat, d)).Runs[0]
		for i, r := range run.Tool.Driver.Rules {
			if len(r.ID) == 0 || len(r.ID) > 255 || r.Help.Text == "" || r.ShortDescription.Text == "" || len(r.ShortDescription.Text) > 1024 || len(r.FullDescription.Text) > 1024 || len(r.Properties.Tags) > 10 {
				t.Errorf("%s: rule %d: %+v", name, i, r)
			}
			if u, err := url.Parse(r.HelpURI); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
				t.Errorf("%s: rule %s: help at %q", name, r.ID, r.HelpURI)
			}
			if r.Properties.Severity != "" {
				if f, err := strconv.ParseFloat(r.Properties.Severity, 64); err != nil || f <= 0 || f > 10 {
					t.Errorf("%s: rule %s: security-severity %q", name, r.ID, r.Properties.Severity)
				}
			}
		}
		for i, r := range run.Results {
			if run.Tool.Driver.Rules[r.RuleIndex].ID != r.RuleID || r.Message.Text == "" || len(r.Locations) != 1 {
				t.Fatalf("%s: result %d: %+v", name, i, r)
			}
			at := r.Locations[0].PhysicalLocation
			u, err := url.Parse(at.ArtifactLocation.URI)
			if err != nil || u.Scheme != "" || u.Host != "" || u.Path == "" || strings.HasPrefix(u.Path, "/") || strings.HasPrefix(u.Path, "..") || u.RawQuery+u.Fragment != "" {
				t.Errorf("%s: result %d is at %q, %v", name, i, at.ArtifactLocation.URI, err)
			}
			if at.Region.StartLine < 1 || at.Region.EndLine < at.Region.StartLine {
				t.Errorf("%s: result %d: %+v", name, i, at.Region)
			}
			if !strings.HasSuffix(r.PartialFingerprints["primaryLocationLineHash"], ":1") {
				t.Errorf("%s: result %d: %v", name, i, r.PartialFingerprints)
			}
			// No text is a link or a placeholder, whatever was put into it.
			text := strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(r.Message.Text, "{{", ""), "}}", ""), `\]`, "")
			if strings.ContainsAny(text, "{}") || strings.Contains(text, "](") {
				t.Errorf("%s: result %d: message %q", name, i, r.Message.Text)
			}
		}
		if run.Invocations[0].ExecutionSuccessful != (len(d.problems()) == 0) {
			t.Errorf("%s: an incomplete scan is a success", name)
		}
	}
}

func TestSARIFContent(t *testing.T) {
	d := sample(protocol.Image)
	run := readSARIF(t, encode(t, SARIFFormat, d)).Runs[0]
	if len(run.Results) != 8 { // without what was resolved
		t.Fatalf("%d results", len(run.Results))
	}
	rules := run.Tool.Driver.Rules
	for i, want := range []struct{ rule, severity, level, uri, state, suppression string }{
		{"CVE-2026-1111", "9.8", "error", "registry.example.org/shop/web", "unchanged", ""},
		{"CVE-2021-23337", "7.2", "error", "app/yarn.lock", "unchanged", ""},
		{"CVE-2026-3333", "", "warning", "registry.example.org/shop/web", "new", ""},
		{"CVE-2026-4444", "5.5", "warning", "registry.example.org/shop/web", "unchanged", "accepted"},
		{"CVE-2026-5555", "2.0", "note", "registry.example.org/shop/web", "unchanged", "accepted"},
		{"secret/aws-access-key-id", "9.5", "error", "app/config.env", "unchanged", ""},
		{"DS-0002", "8.0", "error", "app/Dockerfile", "unchanged", ""},
		{"license/AGPL-3.0", "", "warning", "registry.example.org/shop/web", "unchanged", ""},
	} {
		r := run.Results[i]
		suppression := ""
		if len(r.Suppressions) > 0 {
			suppression = r.Suppressions[0].Status
		}
		if r.RuleID != want.rule || rules[r.RuleIndex].Properties.Severity != want.severity || r.Level != want.level || r.Locations[0].PhysicalLocation.ArtifactLocation.URI != want.uri || r.BaselineState != want.state || suppression != want.suppression {
			t.Errorf("result %d: %+v, rule %+v; want %+v", i, r, rules[r.RuleIndex], want)
		}
	}
	// Another version and another line are the same alert.
	before := run.Results[5].PartialFingerprints
	d.Items[5].StartLine, d.Items[0].Installed = 99, []string{"3.0.16"}
	after := readSARIF(t, encode(t, SARIFFormat, d)).Runs[0].Results
	if fmt.Sprint(before) != fmt.Sprint(after[5].PartialFingerprints) || fmt.Sprint(run.Results[0].PartialFingerprints) != fmt.Sprint(after[0].PartialFingerprints) {
		t.Error("a fingerprint changed with version and line")
	}
}

func TestSARIFKeepsToTheLimits(t *testing.T) {
	if sarifResults > 25_000 || sarifCompressed > 10_000_000 {
		t.Error("GitHub refuses more")
	}
	d := many(260)
	var b bytes.Buffer
	notes, err := writeSARIF(&b, d, 250, sarifCompressed)
	if err != nil {
		t.Fatal(err)
	}
	run := readSARIF(t, b.Bytes()).Runs[0]
	if len(run.Results) != 250 || len(notes) != 1 || !strings.Contains(notes[0], "the 10 least urgent") || run.Invocations[0].ToolExecutionNotifications[0].Message.Text != notes[0] {
		t.Errorf("%d results, notes %q", len(run.Results), notes)
	}
	if run.Results[0].PartialFingerprints["mobileopsScan/v1"] != d.Items[0].Key.String() {
		t.Error("the most urgent one is not the first")
	}

	// What does not compress is cut by its size.
	random := rand.New(rand.NewSource(1))
	noise := func(n int) string {
		out := make([]byte, n)
		for i := range out {
			out[i] = byte('!' + random.Intn(90))
		}
		return string(out)
	}
	d = many(1500)
	for i := range d.Items {
		d.Items[i].ID, d.Items[i].Title, d.Items[i].Why = noise(60), noise(1000), noise(1000)
	}
	const limit = 2 << 20
	b.Reset()
	if notes, err = writeSARIF(&b, d, sarifResults, limit); err != nil {
		t.Fatal(err)
	}
	var gz bytes.Buffer
	z := gzip.NewWriter(&gz)
	_, _ = z.Write(b.Bytes())
	_ = z.Close()
	results := len(readSARIF(t, b.Bytes()).Runs[0].Results)
	t.Logf("%d results, %d bytes, %d compressed, %q", results, b.Len(), gz.Len(), notes)
	if gz.Len() > limit || gz.Len() < limit/2 || results == len(d.Items) || len(notes) != 1 {
		t.Errorf("%d results in %d bytes, notes %q", results, gz.Len(), notes)
	}
}
