//go:build goexperiment.jsonv2

package trivy

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-git/go-git/v5"
	gitconfig "github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/scan/vulndb/vulndbtest"
)

// plant writes files beneath a new directory.
func plant(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range files {
		at := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func database(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "db")
	vulndbtest.Write(t, dir, vulndbtest.Sample()...)
	return dir
}

func request(t *testing.T, kind protocol.Kind, target string, scanners ...protocol.Scanner) *protocol.Scan {
	t.Helper()
	return &protocol.Scan{Kind: kind, Target: target, Scanners: scanners, Temp: t.TempDir()}
}

func run(t *testing.T, r *protocol.Scan) *protocol.Report {
	t.Helper()
	trace := new(bytes.Buffer)
	report, err := Scan(WithTrace(t.Context(), trace), r, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, trace)
	}
	if _, err := json.Marshal(report); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(r.Temp, "layer-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	return report
}

func refused(t *testing.T, r *protocol.Scan, kind failure.Kind, says string) {
	t.Helper()
	_, err := Scan(t.Context(), r, nil)
	if failure.KindOf(err) != kind || err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("error %v (%v), want one of status %d that says %q", err, failure.KindOf(err), kind.Status(), says)
	}
}

func vulnerabilities(r *protocol.Report) []string {
	var list []string
	for _, res := range r.Results {
		for _, v := range res.Vulnerabilities {
			list = append(list, v.ID+" "+v.Package+" "+v.Installed)
		}
	}
	slices.Sort(list)
	return list
}

func problem(r *protocol.Report, kind protocol.ProblemKind, path string) *protocol.Problem {
	for i, p := range r.Problems {
		if p.Kind == kind && p.Path == path {
			return &r.Problems[i]
		}
	}
	return nil
}

const lock = `{"name":"app","version":"1.0.0","lockfileVersion":3,"packages":{
"":{"name":"app","version":"1.0.0","dependencies":{"lodash":"4.17.20"}},
"node_modules/lodash":{"version":"4.17.20","license":"MIT"}}}`

const status = `Package: libssl3
Status: install ok installed
Priority: optional
Section: libs
Maintainer: Debian OpenSSL Team <pkg-openssl-devel@alioth-lists.debian.net>
Architecture: amd64
Source: openssl
Version: 3.0.11-1~deb12u2

`

const release = "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"

func system(t *testing.T) string {
	return plant(t, map[string]string{
		"etc/os-release": release, "etc/debian_version": "12.11\n", "etc/hostname": "web1\n", "var/lib/dpkg/status": status,
		"usr/share/doc/libssl3/copyright": "License: Apache-2.0\n", "proc/1/environ": "x", "srv/.git/config": "x",
	})
}

func TestLockFilesOfAProject(t *testing.T) {
	r := request(t, protocol.Filesystem, plant(t, map[string]string{"package-lock.json": lock, "sub/package-lock.json": "{ broken"}), protocol.Vulnerabilities, protocol.Licenses)
	r.Database, r.Packages = database(t), true
	report := run(t, r)
	if got := vulnerabilities(report); !slices.Equal(got, []string{"CVE-2024-0002 lodash 4.17.20"}) {
		t.Errorf("vulnerabilities %q", got)
	}
	for _, res := range report.Results {
		for _, v := range res.Vulnerabilities {
			if v.Severity != "CRITICAL" || v.Fixed != "4.17.21" || v.Status != "fixed" || v.PURL != "pkg:npm/lodash@4.17.20" || v.SeveritySource == "" || v.Title == "" {
				t.Errorf("vulnerability %+v", v)
			}
			if res.Target != "package-lock.json" || res.Class != protocol.ClassLanguage || res.Type != "npm" || len(res.Packages) == 0 {
				t.Errorf("result %+v", res)
			}
		}
	}
	if p := problem(report, protocol.Malformed, "sub/package-lock.json"); p == nil {
		t.Errorf("a broken lock file is no problem: %+v", report.Problems)
	}
	if report.Engine != Engine || report.Schema != protocol.Schema || report.Stats.Files != 2 || report.Stats.PeakMemory == 0 {
		t.Errorf("report %+v", report)
	}
}

func TestPackagesOfASystem(t *testing.T) {
	root := system(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := buildinfo.ReadFile(self); err != nil || info.GoVersion == "" {
		t.Fatalf("the test tells nothing of how it was built: %v", err)
	}
	if err := os.Symlink(self, filepath.Join(root, "usr/bin")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "opt"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(self, filepath.Join(root, "opt/program")); err != nil {
		copyFile(t, self, filepath.Join(root, "opt/program"))
	}
	r := request(t, protocol.Rootfs, root, protocol.Vulnerabilities)
	r.Database, r.Packages = database(t), true
	report := run(t, r)
	if got := vulnerabilities(report); len(got) == 0 || got[0] != "CVE-2024-0001 libssl3 3.0.11-1~deb12u2" {
		t.Errorf("vulnerabilities %q", got)
	}
	if report.OS == nil || report.OS.Family != "debian" || report.OS.Name != "12.11" {
		t.Errorf("system %+v", report.OS)
	}
	programs := 0
	for _, res := range report.Results {
		if res.Type == "gobinary" && res.Target == "opt/program" && slices.ContainsFunc(res.Packages, func(p protocol.Package) bool { return p.Name == "stdlib" }) {
			programs++
		}
		if res.Class == protocol.ClassOS && (res.Target != "web1 (debian 12.11)" || res.Packages[0].Source != "openssl") {
			t.Errorf("result %+v", res)
		}
	}
	if programs != 1 {
		t.Errorf("the modules of a Go program were found %d times", programs)
	}
	if report.Skipped.Special != 1 || len(report.Problems) > 0 {
		t.Errorf("skipped %+v, problems %+v", report.Skipped, report.Problems)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestASystemThatNobodyKnowsIsNotClean(t *testing.T) {
	root := system(t)
	for name, body := range map[string]string{"etc/os-release": strings.ReplaceAll(release, "12", "99"), "etc/debian_version": "99.1\n"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := request(t, protocol.Rootfs, root, protocol.Vulnerabilities)
	r.Database = database(t)
	if p := problem(run(t, r), protocol.Unknown, ""); p == nil || !strings.Contains(p.Detail, "debian 99") {
		t.Errorf("problem %+v", p)
	}
}

func TestPackagesOfALanguageThatNobodyKnowsAreNotClean(t *testing.T) {
	dir := plant(t, map[string]string{"package-lock.json": lock, "requirements.txt": "requests==2.0.0\n"})
	r := request(t, protocol.Filesystem, dir, protocol.Vulnerabilities)
	r.Database = database(t) // which has advisories of npm, and none of pip
	report := run(t, r)
	if p := problem(report, protocol.Unknown, ""); p == nil || !strings.Contains(p.Detail, "advisories of pip") {
		t.Errorf("problems %+v", report.Problems)
	}
	if len(report.Problems) != 1 {
		t.Errorf("problems %+v, want one", report.Problems)
	}
}

func TestAPipeInTheTreeHoldsNothingUp(t *testing.T) {
	dir := plant(t, map[string]string{"a.env": "TOKEN=" + githubToken() + "\n", "etc/x": "x"})
	if err := syscall.Mkfifo(filepath.Join(dir, "etc", "hostname"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []protocol.Kind{protocol.Filesystem, protocol.Rootfs} {
		done := make(chan *protocol.Report, 1)
		go func() {
			report, err := Scan(t.Context(), request(t, kind, dir, protocol.Secrets), nil)
			if err != nil {
				t.Error(err)
			}
			done <- report
		}()
		select {
		case <-done:
		case <-time.After(3 * time.Minute):
			t.Fatalf("a scan of %s waits for somebody to write into etc/hostname", kind)
		}
	}
}

func TestADirectoryCalledDevIsLookedAt(t *testing.T) {
	dir := plant(t, map[string]string{"dev/a.env": "TOKEN=" + githubToken() + "\n", "proc/a.env": "TOKEN=" + githubToken() + "\n"})
	found := map[string]bool{}
	for _, res := range run(t, request(t, protocol.Filesystem, dir, protocol.Secrets)).Results {
		found[res.Target] = len(res.Secrets) > 0
	}
	if !found["dev/a.env"] || !found["proc/a.env"] {
		t.Errorf("secrets in %v", found)
	}
}

// token looks like one of a Slack bot only once it is put together.
func token() string {
	return "xox" + "b-" + strings.Repeat("1234567890", 1) + "-" + "abcdefghij" + "klmnopqrst"
}

func githubToken() string { return "gh" + "p_" + "0123456789abcdefghijABCDEFGHIJ012345" }

func TestSecretsAndPatterns(t *testing.T) {
	dir := plant(t, map[string]string{
		"a.env": "TOKEN=" + githubToken() + "\n", "skip/b.env": "TOKEN=" + githubToken() + "\n", "c.skip": "TOKEN=" + githubToken() + "\n",
		"tiny": "x", "bin": "\x00\x01\x02" + githubToken(), "slack.txt": token(),
	})
	r := request(t, protocol.Filesystem, dir, protocol.Secrets)
	r.SkipDirs, r.SkipFiles = []string{"skip"}, []string{"**/*.skip"}
	r.Memo = filepath.Join(t.TempDir(), "memo")
	// A file is only remembered by its times once it has been left alone for a while.
	for deadline := time.Now().Add(3 * time.Minute); ; {
		report := run(t, r)
		var found []string
		for _, res := range report.Results {
			for _, s := range res.Secrets {
				found = append(found, res.Target+" "+s.Rule)
				if strings.Contains(s.Match, githubToken()) || s.StartLine != 1 {
					t.Errorf("secret %+v", s)
				}
			}
		}
		if !slices.Contains(found, "a.env github-pat") || slices.ContainsFunc(found, func(s string) bool { return strings.Contains(s, "skip") }) {
			t.Errorf("secrets %q", found)
		}
		if s := report.Skipped; s.Binary != 1 || s.Small != 1 || s.Pattern < 2 {
			t.Errorf("skipped %+v", s)
		}
		if t.Failed() || report.Stats.Remembered > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing is remembered")
		}
	}
	r.SkipDirs = []string{"[a"}
	refused(t, r, failure.Usage, "[a")
}

func TestMisconfigurationsAndWhatCannotBeParsed(t *testing.T) {
	dir := plant(t, map[string]string{
		"Dockerfile":     "FROM debian:latest\nRUN apt-get update\nUSER root\n",
		"bad/Dockerfile": "FROM scratch\nRUN [\"unfinished\nFORM x\n",
		"pod.yaml":       "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: x, securityContext: {privileged: true}}]}\n",
		"broken.yaml":    "apiVersion: v1\nkind: Pod\nmetadata: {name: [\n",
		"broken.json":    `{"AWSTemplateFormatVersion": "2010-09-09", "Resources": {`,
		"comments.json":  "// fine\n{\"a\": [1,],}\n",
		"tf/main.tf":     "resource \"aws_s3_bucket\" {\n  bucket = \n",
	})
	report := run(t, request(t, protocol.Filesystem, dir, protocol.Misconfigurations))
	found := map[string]int{}
	for _, res := range report.Results {
		found[res.Target] += len(res.Misconfigurations)
		for _, m := range res.Misconfigurations {
			if m.ID == "" || m.Title == "" || m.Severity == "" || m.Message == "" || m.URL == "" {
				t.Errorf("misconfiguration %+v", m)
			}
		}
		if res.Checks < len(res.Misconfigurations) {
			t.Errorf("%s: %d checks", res.Target, res.Checks)
		}
	}
	if found["Dockerfile"] == 0 || found["pod.yaml"] == 0 {
		t.Errorf("found %v", found)
	}
	for _, path := range []string{"bad/Dockerfile", "broken.yaml", "broken.json", "tf/main.tf"} {
		if problem(report, protocol.Malformed, path) == nil {
			t.Errorf("%s is no problem: %+v", path, report.Problems)
		}
	}
	if problem(report, protocol.Malformed, "comments.json") != nil {
		t.Error("JSON with comments is a problem")
	}
}

func TestLicensesOfFilesAndPackages(t *testing.T) {
	mit, err := os.ReadFile("testdata/MIT.txt")
	if err != nil {
		t.Fatal(err)
	}
	dir := plant(t, map[string]string{"package-lock.json": lock, "LICENSE": string(mit)})
	report := run(t, request(t, protocol.Filesystem, dir, protocol.Licenses))
	classes := map[protocol.Class]string{}
	for _, res := range report.Results {
		for _, l := range res.Licenses {
			classes[res.Class] += l.Name + " " + l.Category + ";"
		}
	}
	if classes[protocol.ClassLicense] != "MIT notice;" || classes[protocol.ClassLicenseFile] != "MIT notice;" {
		t.Errorf("licences %v", classes)
	}
}

func TestDocumentsAreSBOMsThatCanBeScanned(t *testing.T) {
	root := system(t)
	for _, kind := range []protocol.Document{protocol.CycloneDX, protocol.SPDXJSON, protocol.SPDX} {
		r := request(t, protocol.Rootfs, root)
		r.Document = kind
		report := run(t, r)
		if kind == protocol.CycloneDX && !strings.Contains(report.Document, `"specVersion": "1.6"`) && !strings.Contains(report.Document, `"specVersion": "1.7"`) {
			t.Errorf("document %.200s", report.Document)
		}
		file := filepath.Join(t.TempDir(), "sbom")
		if err := os.WriteFile(file, []byte(report.Document), 0o600); err != nil {
			t.Fatal(err)
		}
		s := request(t, protocol.SBOM, file, protocol.Vulnerabilities)
		s.Database = database(t)
		if got := vulnerabilities(run(t, s)); !slices.Equal(got, []string{"CVE-2024-0001 libssl3 3.0.11-1~deb12u2"}) {
			t.Errorf("%s: vulnerabilities %q", kind, got)
		}
	}
	s := request(t, protocol.SBOM, filepath.Join(root, "etc/os-release"), protocol.Vulnerabilities)
	s.Database = database(t)
	refused(t, s, failure.Untrustworthy, "no SBOM")
	s.Target = root
	refused(t, s, failure.Usage, "directory")
	s.Scanners = []protocol.Scanner{protocol.Secrets}
	refused(t, s, failure.Usage, "secret")
}

func TestAWorkTreeTellsItsCommit(t *testing.T) {
	dir := plant(t, map[string]string{"package-lock.json": lock, "untracked": "x"})
	repo, err := git.PlainInit(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repo.CreateRemote(&gitconfig.RemoteConfig{Name: "origin", URLs: []string{"https://somebody:word@git.example.org/app.git"}}); err != nil {
		t.Fatal(err)
	}
	w, err := repo.Worktree()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Add("package-lock.json"); err != nil {
		t.Fatal(err)
	}
	hash, err := w.Commit("x", &git.CommitOptions{Author: &object.Signature{Name: "n", Email: "e"}})
	if err != nil {
		t.Fatal(err)
	}
	r := request(t, protocol.Repository, dir, protocol.Vulnerabilities)
	r.Database = database(t)
	report := run(t, r)
	want := protocol.Commit{Remote: "https://git.example.org/app.git", Branch: "master", Hash: hash.String()}
	if report.Commit == nil || *report.Commit != want {
		t.Errorf("commit %+v, want %+v", report.Commit, want)
	}
	if got := vulnerabilities(report); len(got) != 1 {
		t.Errorf("vulnerabilities %q", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "package-lock.json"), []byte(lock+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if report = run(t, r); !report.Commit.Dirty {
		t.Error("a changed file is not told")
	}
	r.Target = "https://git.example.org/app.git"
	refused(t, r, failure.Usage, "clone it first")
	r.Target = t.TempDir()
	refused(t, r, failure.Usage, "no git work tree")
}

func TestDatabasesThatCannotBeUsed(t *testing.T) {
	dir := plant(t, map[string]string{"package-lock.json": lock})
	r := request(t, protocol.Filesystem, dir, protocol.Vulnerabilities)
	refused(t, r, failure.NotReady, "no vulnerability database")
	r.Database = filepath.Join(t.TempDir(), "none")
	refused(t, r, failure.NotReady, "vulndb import")
	if _, err := os.Stat(r.Database); !errors.Is(err, os.ErrNotExist) {
		t.Error("the directory was made")
	}

	damage := func(change func(path string, size int64) error) string {
		t.Helper()
		db := database(t)
		path := filepath.Join(db, "trivy.db")
		info, err := os.Stat(path)
		if err == nil {
			err = change(path, info.Size())
		}
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	for name, change := range map[string]func(string, int64) error{
		"empty": func(p string, _ int64) error { return os.Truncate(p, 0) },
		"cut":   func(p string, size int64) error { return os.Truncate(p, size/2) },
		"foreign": func(p string, _ int64) error {
			return os.WriteFile(p, bytes.Repeat([]byte("no database "), 5000), 0o600)
		},
		"pages": func(p string, size int64) error {
			f, err := os.OpenFile(p, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, int(size)-3*4096), 2*4096) // all but the two meta pages
			return err
		},
		"metadata": func(p string, _ int64) error {
			return os.WriteFile(filepath.Join(filepath.Dir(p), "metadata.json"), []byte("{"), 0o600)
		},
	} {
		r.Database = damage(change)
		_, err := Scan(t.Context(), r, nil)
		if failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("%s: %v (%v)", name, err, failure.KindOf(err))
		}
		if _, err := os.Stat(filepath.Join(r.Database, "trivy.db")); err != nil {
			t.Errorf("%s: the database is gone: %v", name, err)
		}
	}
	r.Database = damage(func(p string, _ int64) error {
		return os.WriteFile(filepath.Join(filepath.Dir(p), "metadata.json"), []byte(`{"Version":3}`), 0o600)
	})
	refused(t, r, failure.NotReady, "schema 3")
}

func TestWhatIsNoRequest(t *testing.T) {
	dir := t.TempDir()
	refused(t, request(t, "x", dir, protocol.Secrets), failure.Usage, "kind of target")
	refused(t, request(t, protocol.Filesystem, dir, "x"), failure.Usage, "scanner")
	refused(t, request(t, protocol.Filesystem, dir), failure.Usage, "nothing")
	refused(t, request(t, protocol.Filesystem, "", protocol.Secrets), failure.Usage, "no target")
	refused(t, request(t, protocol.Filesystem, filepath.Join(dir, "none"), protocol.Secrets), failure.Failed, "no such file")
}

func TestAScanEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Scan(ctx, request(t, protocol.Filesystem, plant(t, map[string]string{"a": "0123456789ab"}), protocol.Secrets), nil)
	if failure.KindOf(err) != failure.Interrupted {
		t.Errorf("error %v", err)
	}
}
