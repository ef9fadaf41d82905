//go:build goexperiment.jsonv2

package secret

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aquasecurity/trivy/pkg/fanal/analyzer"
)

func TestZerosWithoutEndAreNotSearched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.txt")
	if err := os.WriteFile(path, []byte(strings.Repeat("a line of a log\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<42); err != nil {
		t.Skipf("the file system has no files of 4 TiB: %v", err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := mustAnalyzer(t, Options{}).Analyze(t.Context(), analyzer.AnalysisInput{Dir: "/", FilePath: "log.txt", Info: info, Content: f})
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "not searched") {
			t.Errorf("error %v", err)
		}
	case <-time.After(4 * time.Minute):
		t.Fatal("it reads all of them")
	}
}
