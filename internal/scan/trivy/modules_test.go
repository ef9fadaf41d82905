//go:build goexperiment.jsonv2

package trivy

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// soon is run, with a limit of time.
func soon(t *testing.T, r *protocol.Scan) *protocol.Report {
	t.Helper()
	done := make(chan *protocol.Report, 1)
	go func() {
		report, err := Scan(t.Context(), r, nil)
		if err != nil {
			t.Error(err)
		}
		done <- report
	}()
	select {
	case report := <-done:
		if report == nil {
			t.FailNow()
		}
		return report
	case <-time.After(5 * time.Minute):
		t.Fatal("it does not end")
		return nil
	}
}

func TestModulesThatIncludeThemselvesAreAProblem(t *testing.T) {
	outside := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(outside, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := plant(t, map[string]string{
		"main.tf":     "module \"m\" {\n  source = \"./m\"\n}\n",
		"m/x.tf":      "module \"n\" {\n  source = \"../m/n/..\"\n}\n",
		"a/x.tf.json": `{"module":{"b":{"source":"../b"}}}`,
		"b/x.tf":      "module \"a\" {\n  source = \"../a\"\n}\n",
		"open/x.tf":   "resource \"aws_s3_bucket\" \"b\" {\n  bucket = \"b\"\n}\n",
		"pipe/x.tf":   "locals {\n  p = file(\"../" + strings.Repeat("../", 20) + strings.TrimPrefix(outside, "/") + "/pipe\")\n}\n",
	})
	report := soon(t, request(t, protocol.Filesystem, dir, protocol.Misconfigurations))
	for name, want := range map[string]bool{"main.tf": false, "m/x.tf": true, "a/x.tf.json": true, "b/x.tf": true, "open/x.tf": false} {
		if got := problem(report, protocol.Malformed, name) != nil; got != want {
			t.Errorf("%s: a problem %v, want %v; %+v", name, got, want, report.Problems)
		}
	}
	if !slices.ContainsFunc(report.Results, func(r protocol.Result) bool { return r.Target == "open/x.tf" && len(r.Misconfigurations) > 0 }) {
		t.Error("nothing is found in a module that does not include itself")
	}
}

func TestManyModulesAreLookedAtInNoTime(t *testing.T) {
	m := modules{files: map[string][]string{}, edges: map[string][]string{}}
	for i := range 200_000 {
		dir := fmt.Sprintf("d%d", i)
		m.files[dir] = []string{dir + "/x.tf"}
		m.edges[dir] = []string{fmt.Sprintf("d%d", i+1), fmt.Sprintf("d%d", i+2), "nowhere"}
	}
	m.edges["d7"] = append(m.edges["d7"], "d5")
	begin := time.Now()
	if got := m.endless(); !slices.Equal(got, []string{"d5/x.tf", "d6/x.tf", "d7/x.tf"}) {
		t.Errorf("endless: %q", got[:min(len(got), 10)])
	}
	if took := time.Since(begin); took > 2*time.Minute {
		t.Errorf("it took %s", took)
	}
}

func TestSecretsOfLayersThatClaimToBeThoseOfABaseImage(t *testing.T) {
	img := image(t, archive(t, entry{name: "srv/a.env", body: "TOKEN=" + githubToken()}), archive(t, entry{name: "srv/b", body: "b"}))
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.History = []v1.History{{CreatedBy: "COPY a"}, {CreatedBy: `CMD ["sh"]`, EmptyLayer: true}, {CreatedBy: "COPY b"}}
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	report := run(t, request(t, protocol.Image, saved(t, img), protocol.Secrets))
	if !slices.ContainsFunc(report.Results, func(r protocol.Result) bool { return r.Target == "/srv/a.env" && len(r.Secrets) == 1 }) {
		b, _ := json.Marshal(report.Results)
		t.Errorf("secrets %s", b)
	}
}
