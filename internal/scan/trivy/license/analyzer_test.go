//go:build goexperiment.jsonv2

package license

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aquasecurity/trivy/pkg/fanal/analyzer"
	_ "github.com/aquasecurity/trivy/pkg/fanal/analyzer/licensing" // Trivy's own, to compare with
	"github.com/aquasecurity/trivy/pkg/fanal/applier"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/aquasecurity/trivy/pkg/types"
	xio "github.com/aquasecurity/trivy/pkg/x/io"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/mobileops/mobileops/internal/scan/license/survey"
	"github.com/mobileops/mobileops/internal/scan/memo"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// groups are Trivy's analyzer and ours, each as Trivy calls it.
var groups = sync.OnceValues(func() (trivy analyzer.AnalyzerGroup, err error) {
	o := analyzer.AnalyzerOptions{LicenseScannerOption: analyzer.LicenseScannerOption{Full: true, ClassifierConfidenceLevel: 0.9}}
	trivy, err = analyzer.NewAnalyzerGroup(o)
	analyzer.DeregisterAnalyzer(analyzer.TypeLicenseFile)
	return trivy, err
})

// group returns a group with nothing but ours.
func group(t *testing.T, ours *LicenseAnalyzer) analyzer.AnalyzerGroup {
	t.Helper()
	if _, err := groups(); err != nil {
		t.Fatal(err)
	}
	analyzer.RegisterAnalyzer(ours)
	defer analyzer.DeregisterAnalyzer(analyzer.TypeLicenseFile)
	g, err := analyzer.NewAnalyzerGroup(analyzer.AnalyzerOptions{LicenseScannerOption: analyzer.LicenseScannerOption{Full: true, ClassifierConfidenceLevel: 0.9}})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// analyze gives all files of a tree to a group, and returns the CPU time it took.
func analyze(t *testing.T, g analyzer.AnalyzerGroup, root string) (*analyzer.AnalysisResult, time.Duration) {
	t.Helper()
	before := cpu()
	result := analyzer.NewAnalysisResult()
	var eg errgroup.Group
	limit := semaphore.NewWeighted(2)
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		info, err := d.Info()
		if err != nil {
			return err
		}
		return g.AnalyzeFile(context.Background(), &eg, limit, result, root, filepath.ToSlash(rel), info, func() (xio.ReadSeekCloserAt, error) { return os.Open(p) }, nil, analyzer.AnalysisOptions{})
	})
	if err = cmp.Or(err, eg.Wait()); err != nil {
		t.Fatal(err)
	}
	result.Sort()
	return result, cpu() - before
}

func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// tree makes a tree of modules that are in the module cache.
func tree(t *testing.T) string {
	t.Helper()
	if root := os.Getenv("LICENSE_TREE"); root != "" { // to measure with another one by hand
		return root
	}
	out, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Skipf("no go command to ask for the module cache: %v", err)
	}
	cache := strings.TrimSpace(string(out))
	root := t.TempDir()
	n := 0
	for _, pattern := range []string{"github.com/google/licenseclassifier/v2@*", "github.com/spf13/*", "golang.org/x/text@*", "golang.org/x/net@*", "github.com/zeebo/*", "go.etcd.io/bbolt@*", "github.com/klauspost/*", "github.com/google/cel-go@*", "modernc.org/sqlite@*", "github.com/google/flatbuffers@*"} {
		dirs, _ := filepath.Glob(filepath.Join(cache, pattern))
		for _, dir := range dirs[:min(len(dirs), 3)] {
			if err := os.CopyFS(filepath.Join(root, "mod", filepath.Base(dir)), os.DirFS(dir)); err != nil {
				continue // a file of the module is written just now, or there twice
			}
			n++
		}
	}
	if n < 3 {
		t.Skipf("only %d modules in the module cache %s: too few to compare with", n, cache)
	}
	return root
}

// same turns the licences of a result into lines, without Trivy's "Copyright", which
// is no licence.
func same(r *analyzer.AnalysisResult) map[string]bool {
	out := map[string]bool{}
	for _, l := range r.Licenses {
		for _, f := range l.Findings {
			if f.Name != "Copyright" {
				out[fmt.Sprintf("%s: %s %s %.6f %s", l.FilePath, l.Type, f.Name, f.Confidence, f.Link)] = true
			}
		}
	}
	return out
}

// What ours finds is what Trivy's finds, save what docs/formats/scan-parity.md says:
// more names of files, and tags. A second run reads and hashes only.
func TestEqualToTrivy(t *testing.T) {
	root := tree(t)
	trivy, err := groups()
	if err != nil {
		t.Fatal(err)
	}
	theirs, theirTime := analyze(t, trivy, root)
	file := filepath.Join(t.TempDir(), "memo")
	run := func() (*analyzer.AnalysisResult, time.Duration, *LicenseAnalyzer) {
		m, err := memo.Open(file, 0)
		if err != nil {
			t.Fatal(err)
		}
		a := Analyzer(Options{Memo: m})
		g := group(t, a)
		r, took := analyze(t, g, root)
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		return r, took, a
	}
	first, firstTime, a := run()
	second, secondTime, b := run()
	want, got := same(theirs), same(first)
	if len(want) < 50 && os.Getenv("LICENSE_TREE") == "" {
		t.Errorf("Trivy finds only %d licences: the tree is too small to say anything", len(want))
	}
	for _, line := range sorted(want) {
		if !got[line] {
			t.Errorf("Trivy finds, ours does not: %s", line)
		}
	}
	more := 0
	for _, line := range sorted(got) {
		if want[line] {
			continue
		}
		path, rest, _ := strings.Cut(line, ": ")
		base := strings.ToLower(filepath.Base(path))
		byName := !slices.Contains([]string{"license", "licence", "copyright"}, base) && !trivyExtension(base)
		byTag := strings.Contains(rest, " 1.000000 ") && strings.HasPrefix(rest, "header ")
		if !byName && !byTag {
			t.Errorf("ours finds, Trivy does not: %s", line)
		}
		more++
	}
	if again := same(second); !slices.Equal(sorted(got), sorted(again)) {
		t.Errorf("the second run finds %d licences, the first %d", len(again), len(got))
	}
	if s := b.Stats(); s.Classified != 0 || s.Remembered != s.Files {
		t.Errorf("the second run classified %d files and remembered %d of %d", s.Classified, s.Remembered, s.Files)
	}
	t.Logf("CPU: Trivy's %v, ours %v, again %v (%.3f); %d licences, %d more; %+v", theirTime, firstTime, secondTime, float64(secondTime)/float64(theirTime), len(want), more, a.Stats())
	if secondTime*5 > theirTime && theirTime > 2*time.Second {
		t.Errorf("the second run took %v, more than a fifth of Trivy's %v", secondTime, theirTime)
	}
}

func trivyExtension(base string) bool {
	return survey.Wanted("x/y"+filepath.Ext(base)) && filepath.Ext(base) != ""
}

func sorted(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for s := range m {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// Notices go through the layers of an image, and texts reach the report.
func TestCollect(t *testing.T) {
	root := t.TempDir()
	for name, content := range map[string]string{
		"app/node_modules/left/LICENSE":      mit,
		"app/LICENSE-MIT":                    mit,
		"usr/share/doc/zlib1g/copyright":     "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nCopyright: 1995-2013 Jean-loup Gailly and Mark Adler\nLicense: Zlib\n",
		"usr/share/common-licenses/GPL-2":    "GNU GENERAL PUBLIC LICENSE\n",
		"src/main.c":                         "/* SPDX-License-Identifier: GPL-2.0-only OR MIT */\n/* Copyright 2024 A. Body */\nint main;\n",
		"src/plain.c":                        "int x;\n",
		"usr/share/doc/gone/copyright":       "Copyright 2020 Nobody\n",
		"src/vendor/NOTICE":                  "Copyright 2021 B. Body\nAll of it.\n",
		"usr/share/doc/zlib1g/changelog.txt": mit,
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a := Analyzer(Options{})
	r, _ := analyze(t, group(t, a), root)
	detail := applier.ApplyLayers([]ftypes.BlobInfo{
		{SchemaVersion: 2, DiffID: "sha256:lower", Licenses: r.Licenses, CustomResources: r.CustomResources},
		{SchemaVersion: 2, DiffID: "sha256:upper", WhiteoutFiles: []string{"usr/share/doc/gone/copyright"}},
	})
	report := &protocol.Report{Results: []protocol.Result{{Class: protocol.ClassLicenseFile}}}
	for _, l := range detail.Licenses {
		for _, f := range l.Findings {
			report.Results[0].Licenses = append(report.Results[0].Licenses, protocol.License{Name: f.Name, Path: l.FilePath})
		}
	}
	if err := a.Collect(types.Results{{Class: types.ClassCustom, CustomResources: detail.CustomResources}}, report); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range report.Notices {
		if n.Layer != "sha256:lower" {
			t.Errorf("%s is of layer %q", n.Path, n.Layer)
		}
		if n.Kind != protocol.NoticeHeader && report.Texts[n.Text] == "" {
			t.Errorf("%s has no text", n.Path)
		}
		got = append(got, fmt.Sprintf("%s %s %v %v", n.Path, n.Kind, n.Licenses, n.Copyright))
	}
	want := []string{
		"app/LICENSE-MIT license [MIT] [Copyright (c) 2024 A. Body]",
		"app/node_modules/left/LICENSE license [MIT] [Copyright (c) 2024 A. Body]",
		"src/main.c header [GPL-2.0-only OR MIT] [Copyright 2024 A. Body]",
		"src/vendor/NOTICE notice [] [Copyright 2021 B. Body]",
		"usr/share/common-licenses/GPL-2 common [GPL-2.0-only] []",
		"usr/share/doc/zlib1g/copyright copyright [Zlib] [1995-2013 Jean-loup Gailly and Mark Adler]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("notices:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	found := map[string]string{}
	for _, l := range report.Results[0].Licenses {
		found[l.Path] = l.Name
		if len(l.Copyright) == 0 {
			t.Errorf("%s says nobody's name", l.Path)
		}
	}
	if len(found) != 2 || found["app/LICENSE-MIT"] != "MIT" || found["src/main.c"] != "GPL-2.0-only OR MIT" {
		t.Errorf("licences %v", found)
	}
	if s := a.Stats(); s.Remembered != 1 {
		t.Errorf("%+v, want one file remembered: the same text twice", s)
	}
}

const mit = `MIT License

Copyright (c) 2024 A. Body

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
`
