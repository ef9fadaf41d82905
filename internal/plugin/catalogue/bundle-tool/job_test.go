package main

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/plugin/catalogue/listing"
	"github.com/mobileops/mobileops/internal/plugin/pack"
	"github.com/mobileops/mobileops/internal/trust"
)

const demoManifest = `schema: mobileops.plugin/v1
name: demo-plugin
version: 1.2.0
summary: Say hello
licence: Apache-2.0
commands:
  - {name: hello, summary: say hello}
`

// repository is a small one with a plugin, beside which lies what go build needs.
func repository(t *testing.T) *job {
	t.Helper()
	j := &job{root: t.TempDir(), goos: runtime.GOOS, goarch: runtime.GOARCH, goTool: "go", names: []string{"demo-plugin"}, level: 1}
	for name, content := range map[string]string{
		"go.mod":                                     "module example.org/demo\n\ngo 1.26\n",
		"LICENSE":                                    "Do what you like.\n",
		"plugins/demo-plugin/main.go":                "package main\n\nfunc main() { println(\"hello\") }\n",
		"plugins/demo-plugin/plugin.yaml":            demoManifest,
		"plugins/demo-plugin/README.md":              "# demo\n",
		"plugins/demo-plugin/files/a/b":              "b\n",
		"internal/plugin/catalogue/bundle/" + readme: "what this is\n",
	} {
		write(t, filepath.Join(j.root, name), content)
	}
	return j
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// bundle is what the directory has, by name.
func bundle(t *testing.T, j *job) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(j.bundleDir())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(j.bundleDir(), e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(data)
	}
	return all
}

func mustRun(t *testing.T, j *job, wantMade bool, when string) {
	t.Helper()
	made, err := j.run(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	if made != wantMade {
		t.Fatalf("%s: made is %t", when, made)
	}
}

func signerOf(t *testing.T) trust.Signer {
	t.Helper()
	secret, _, err := trust.SecretKeyFile(nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "release.key")
	if err := os.WriteFile(path, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := trust.OpenSigner(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestABundleIsMadeOnce(t *testing.T) {
	j := repository(t)
	mustRun(t, j, true, "the first time")
	before := bundle(t, j)
	if len(before) != 5 || before[readme] != "what this is\n" {
		t.Errorf("it has %d files", len(before))
	}
	old := time.Now().Add(-time.Hour)
	for name := range before {
		if err := os.Chtimes(filepath.Join(j.bundleDir(), name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, j, false, "without a change")
	for name := range before {
		info, err := os.Stat(filepath.Join(j.bundleDir(), name))
		if err != nil {
			t.Fatal(err)
		}
		if !info.ModTime().Equal(old) && info.ModTime().Sub(old).Abs() > time.Second {
			t.Errorf("%s was written again", name)
		}
	}

	key, err := trust.ParsePublicKey([]byte(before[listing.KeyName]))
	if err != nil {
		t.Fatal(err)
	}
	p, err := pack.OpenReader(strings.NewReader(before[listing.Archive("demo-plugin")]))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Verify(trust.Pinned(key), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := p.Prove(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mobileops-demo-plugin", "LICENSE", "README.md", "files/a/b"} {
		if _, there := p.Manifest.Files[name]; !there {
			t.Errorf("%s is not in the package: %v", name, p.Manifest.Files)
		}
	}
	if len(p.Manifest.Files) != 4 || p.Release.Sequence != 1_002_000 {
		t.Errorf("%v, %+v", p.Manifest.Files, p.Release)
	}
}

func TestWhatChangedIsMadeAgain(t *testing.T) {
	j := repository(t)
	mustRun(t, j, true, "the first time")
	plugin := func(name string) string { return filepath.Join(j.root, "plugins/demo-plugin", name) }
	inBundle := func(name string) string { return filepath.Join(j.bundleDir(), name) }
	flip := func(name string, at int) {
		data, err := os.ReadFile(inBundle(name))
		if err != nil {
			t.Fatal(err)
		}
		if at < 0 {
			at += len(data)
		}
		data[at] ^= 1
		write(t, inBundle(name), string(data))
	}
	remove := func(name string) {
		if err := os.Remove(inBundle(name)); err != nil {
			t.Fatal(err)
		}
	}
	archive := listing.Archive("demo-plugin")
	for _, c := range []struct {
		what string
		do   func()
	}{
		{"the program", func() { write(t, plugin("main.go"), "package main\n\nfunc main() { println(\"hi\") }\n") }},
		{"the manifest", func() { write(t, plugin("plugin.yaml"), strings.Replace(demoManifest, "Say hello", "Say hi", 1)) }},
		{"the version", func() { write(t, plugin("plugin.yaml"), strings.Replace(demoManifest, "1.2.0", "1.3.0", 1)) }},
		{"a file", func() { write(t, plugin("files/a/b"), "c\n") }},
		{"a new file", func() { write(t, plugin("NOTICE"), "note\n") }},
		{"the licence", func() { write(t, filepath.Join(j.root, "LICENSE"), "Do nothing.\n") }},
		{"a bit of the package", func() { flip(archive, -100) }},
		{"the first bit of the package", func() { flip(archive, 0) }},
		{"a bit of the list", func() { flip(listing.FileName, 40) }},
		{"a bit of its signature", func() { flip(listing.SignatureName, -20) }},
		{"a bit of the key", func() { flip(listing.KeyName, 20) }},
		{"no package", func() { remove(archive) }},
		{"no key", func() { remove(listing.KeyName) }},
		{"no list, as after an interruption", func() { remove(listing.FileName) }},
		{"a stray file", func() { write(t, inBundle("gone-plugin.plugin.tar.zst"), "x") }},
	} {
		c.do()
		mustRun(t, j, true, c.what)
		mustRun(t, j, false, c.what+", the second time")
		if n := len(bundle(t, j)); n != 5 {
			t.Errorf("%s: %d files", c.what, n)
		}
	}
	j.goarch = "arm64"
	if runtime.GOARCH == "arm64" {
		j.goarch = "amd64"
	}
	mustRun(t, j, true, "another machine")
	mustRun(t, j, false, "another machine, the second time")
	if !strings.Contains(bundle(t, j)[listing.FileName], `"platform":"linux/`+j.goarch) {
		t.Error("the platform is not that of the programs")
	}
}

// TestAReleaseIsReproducible: with a key of its own, the same sources make the
// same bytes, wherever they are; without one, nobody can make them again.
func TestAReleaseIsReproducible(t *testing.T) {
	signer := signerOf(t)
	var bundles []map[string]string
	for range 2 {
		j := repository(t)
		j.signer = signer
		mustRun(t, j, true, "the first time")
		mustRun(t, j, false, "the second time")
		bundles = append(bundles, bundle(t, j))
	}
	for name, content := range bundles[0] {
		if bundles[1][name] != content {
			t.Errorf("%s is different", name)
		}
	}
	if got := bundles[0][listing.KeyName]; got != signer.Public().String()+"\n" {
		t.Errorf("the key is %q", got)
	}
	j := repository(t)
	mustRun(t, j, true, "without a key")
	first := bundle(t, j)[listing.KeyName]
	write(t, filepath.Join(j.root, "LICENSE"), "another\n")
	mustRun(t, j, true, "without a key, again")
	if bundle(t, j)[listing.KeyName] == first {
		t.Error("the key was kept")
	}
	j.signer = signer
	mustRun(t, j, true, "with a key at last")
	j.signer = signerOf(t)
	mustRun(t, j, true, "with another key")
}

func TestWhatCannotBeMade(t *testing.T) {
	for what, c := range map[string]struct {
		file, content, says string
	}{
		"a program with an error": {"plugins/demo-plugin/main.go", "package main\n\nfunc main() { nothing }\n", "undefined: nothing"},
		"a bad manifest":          {"plugins/demo-plugin/plugin.yaml", demoManifest + "colour: red\n", "colour"},
		"a pre-release":           {"plugins/demo-plugin/plugin.yaml", strings.Replace(demoManifest, "1.2.0", "1.2.0-rc.1", 1), "1.2.0-rc.1"},
		"another name":            {"plugins/demo-plugin/plugin.yaml", strings.Replace(demoManifest, "demo-plugin", "other-plugin", 1), "other-plugin"},
	} {
		j := repository(t)
		mustRun(t, j, true, "the first time")
		before := bundle(t, j)
		write(t, filepath.Join(j.root, c.file), c.content)
		if made, err := j.run(t.Context()); err == nil || made || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %t, %v", what, made, err)
		}
		for name, content := range bundle(t, j) {
			if before[name] != content {
				t.Errorf("%s: %s was changed", what, name)
			}
		}
	}
	j := repository(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := j.run(ctx); err == nil {
		t.Error("it is made though it was interrupted")
	}
}
