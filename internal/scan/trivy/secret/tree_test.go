//go:build goexperiment.jsonv2

package secret

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aquasecurity/trivy/pkg/fanal/analyzer"
	"golang.org/x/sys/unix"

	"github.com/mobileops/mobileops/internal/scan/memo"
)

// walk does with a tree what a scan does, and returns the findings by path.
func walk(t testing.TB, root string, a *SecretAnalyzer) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	room := make(chan struct{}, 2)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || !a.Required(rel, info) {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			defer f.Close()
			r, err := a.Analyze(t.Context(), analyzer.AnalysisInput{Dir: root, FilePath: rel, Info: info, Content: f})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, s := range list(r) {
				found[rel] = append(found[rel], s.RuleID+" "+s.Match)
			}
		})
		return nil
	})
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func openMemo(t testing.TB, path string) *memo.Memo {
	t.Helper()
	m, err := memo.Open(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// scan walks with a memo that is closed afterwards.
func scan(t testing.TB, root, memory, config string) (map[string][]string, Stats) {
	t.Helper()
	m := openMemo(t, memory)
	a := mustAnalyzer(t, Options{Config: config, Memo: m})
	found := walk(t, root, a)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	return found, a.Stats()
}

// processorTime is what this process has used.
func processorTime(t testing.TB) time.Duration {
	t.Helper()
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkTree measures the processor time of a scan of the tree that is named by
// MOBILEOPS_SCAN_TREE, and of a second one that remembers the first. Without the
// variable it is the source of Go.
func BenchmarkTree(b *testing.B) {
	root := os.Getenv("MOBILEOPS_SCAN_TREE")
	if root == "" {
		out, err := filepath.EvalSymlinks("/usr/local/go/src")
		if err != nil {
			b.Skip("no tree to scan")
		}
		root = out
	}
	for b.Loop() {
		memory := filepath.Join(b.TempDir(), "memo")
		for _, run := range []string{"first", "second"} {
			start := processorTime(b)
			found, stats := scan(b, root, memory, "")
			used := processorTime(b) - start
			b.ReportMetric(used.Seconds(), run+"-cpu-s")
			b.Logf("%s: %v, %+v, findings in %d files", run, used, stats, len(found))
			if run == "second" && os.Getenv("MOBILEOPS_SCAN_TREE") != "" {
				for path, list := range found {
					b.Log(path, strings.Join(list, "; "))
				}
			}
		}
	}
}
