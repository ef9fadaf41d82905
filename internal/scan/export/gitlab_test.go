package export

import (
	"bytes"
	"encoding/json"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

func gitlab(t *testing.T, d *Document, kind GitLabReport) ([]byte, []string) {
	t.Helper()
	var b bytes.Buffer
	notes, err := GitLab(&b, d, kind)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), notes
}

func TestGitLabIsValid(t *testing.T) {
	for _, kind := range []GitLabReport{ContainerScanning, DependencyScanning, SecretDetection, SAST} {
		schema := compile(t, "../../../testdata/schema/gitlab_"+string(kind)+".json")
		for name, d := range documents() {
			b, _ := gitlab(t, d, kind)
			if err := validate(t, schema, b); err != nil {
				t.Errorf("%s, %s: %v", kind, name, err)
			}
			ids := map[string]bool{}
			for _, v := range readGitLab(t, b).Vulnerabilities {
				if ids[v.ID] {
					t.Errorf("%s, %s: %s is there twice", kind, name, v.ID)
				}
				ids[v.ID] = true
			}
		}
		b, _ := gitlab(t, sample(protocol.Image), kind)
		golden(t, "sample."+string(kind)+".json", b)
		// The check itself must be able to fail.
		if validate(t, schema, bytes.Replace(b, []byte(`"severity":"High"`), []byte(`"severity":"high"`), 1)) == nil && bytes.Contains(b, []byte(`"severity":"High"`)) {
			t.Errorf("%s: the schema accepts an unknown severity", kind)
		}
		if validate(t, schema, bytes.Replace(b, []byte(`"location"`), []byte(`"place"`), 1)) == nil {
			t.Errorf("%s: the schema accepts a vulnerability without a place", kind)
		}
	}
}

type gitlabReport struct {
	Scan struct {
		Type     string
		Messages []struct{ Level, Value string }
	}
	Vulnerabilities []struct {
		ID, Name, Severity, Solution string
		Identifiers                  []struct{ Type, Value, URL string }
		Vectors                      []struct{ Vector string } `json:"cvss_vectors"`
		Location                     struct {
			File      string
			StartLine int `json:"start_line"`
			Image     string
			System    string `json:"operating_system"`
		}
	}
	DependencyFiles []struct {
		Path         string
		Dependencies []any
	} `json:"dependency_files"`
}

func readGitLab(t *testing.T, b []byte) (r gitlabReport) {
	t.Helper()
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestGitLabKindFollowsFromTheTarget(t *testing.T) {
	for _, c := range []struct {
		kind     protocol.Kind
		scanners []protocol.Scanner
		os       bool
		want     GitLabReport
	}{
		{protocol.Image, protocol.Scanners(), true, ContainerScanning},
		{protocol.Rootfs, protocol.Scanners(), true, ContainerScanning},
		{protocol.Filesystem, protocol.Scanners(), false, DependencyScanning},
		{protocol.Repository, []protocol.Scanner{protocol.Secrets, protocol.Vulnerabilities}, false, DependencyScanning},
		{protocol.SBOM, []protocol.Scanner{protocol.Vulnerabilities}, false, DependencyScanning},
		{protocol.SBOM, []protocol.Scanner{protocol.Vulnerabilities}, true, ContainerScanning},
		{protocol.Repository, []protocol.Scanner{protocol.Misconfigurations, protocol.Secrets}, false, SecretDetection},
		{protocol.Repository, []protocol.Scanner{protocol.Misconfigurations}, false, SAST},
	} {
		d := sample(c.kind)
		d.Scanners = c.scanners
		if !c.os {
			d.Scanned.OS = nil
		}
		b, notes := gitlab(t, d, "")
		if got := readGitLab(t, b).Scan.Type; got != string(c.want) {
			t.Errorf("%s %v: %s", c.kind, c.scanners, got)
		}
		if !strings.Contains(strings.Join(notes, "\n"), "no room for") {
			t.Errorf("%s: nobody is told what is left out: %q", c.kind, notes)
		}
	}
	d := clean(protocol.Repository)
	d.Scanners = []protocol.Scanner{protocol.Licenses}
	if _, err := GitLab(io.Discard, d, ""); failure.KindOf(err) != failure.Usage {
		t.Errorf("licences alone: %v", err)
	}
	if _, err := GitLab(io.Discard, d, SecretDetection); failure.KindOf(err) != failure.Usage || !strings.Contains(err.Error(), "--scanners secret") {
		t.Errorf("secrets that nobody looked for: %v", err)
	}
	if _, err := GitLab(io.Discard, d, "dast"); failure.KindOf(err) != failure.Usage {
		t.Errorf("an unknown kind: %v", err)
	}
}

func TestGitLabContent(t *testing.T) {
	d := sample(protocol.Image)
	b, notes := gitlab(t, d, "")
	r := readGitLab(t, b)
	if len(r.Vulnerabilities) != 3 || len(notes) != 4 || len(r.Scan.Messages) != 5 {
		t.Fatalf("%d vulnerabilities, notes %q, messages %+v", len(r.Vulnerabilities), notes, r.Scan.Messages)
	}
	v := r.Vulnerabilities[0]
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(v.ID) || v.Severity != "Critical" || v.Identifiers[0].Type != "cve" || v.Identifiers[0].Value != "CVE-2026-1111" || v.Identifiers[1].Type != "dsa" ||
		len(v.Vectors) != 1 || v.Location.Image != "registry.example.org/shop/web:2.1" || v.Location.System != "debian 12.11" || v.Solution != "Update openssl from 3.0.15-1~deb12u1 to 3.0.17-1~deb12u2" {
		t.Errorf("%+v", v)
	}
	if v := r.Vulnerabilities[1]; len(v.Vectors) != 1 || v.Identifiers[1].Type != "cwe" || v.Identifiers[1].Value != "94" {
		t.Errorf("%+v", v)
	}
	if v := r.Vulnerabilities[2]; v.Severity != "Unknown" {
		t.Errorf("%+v", v)
	}
	d.Items[0].Installed = []string{"3.0.16"}
	if b, _ := gitlab(t, d, ""); readGitLab(t, b).Vulnerabilities[0].ID != v.ID {
		t.Error("the id changed with the version")
	}

	b, _ = gitlab(t, sample(protocol.Filesystem), "")
	r = readGitLab(t, b)
	files := 0
	for _, v := range r.Vulnerabilities {
		if v.Identifiers[0].Value == "CVE-2021-23337" && strings.HasSuffix(v.Location.File, "/yarn.lock") {
			files++
		}
	}
	if files != 2 || len(r.DependencyFiles) != 1 || r.DependencyFiles[0].Path != "app/yarn.lock" || len(r.DependencyFiles[0].Dependencies) != 1 {
		t.Errorf("%d places, files %+v", files, r.DependencyFiles)
	}

	b, _ = gitlab(t, sample(protocol.Filesystem), SecretDetection)
	if v := readGitLab(t, b).Vulnerabilities[0]; v.Location.File != "app/config.env" || v.Location.StartLine != 7 || !bytes.Contains(b, []byte(`"raw_source_code_extract":"AWS_KEY=****`)) {
		t.Errorf("%+v", v)
	}
	if ledger.Classes()[0] != ledger.Vulnerability {
		t.Error("vulnerabilities are not the first class")
	}
}
