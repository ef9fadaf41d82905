package pack

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/archive/rawtar"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/pkg/filehash"
)

var (
	now     = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	expires = time.Date(2027, 11, 22, 0, 0, 0, 0, time.UTC)
)

// publisher has a key, and hosts that trust it.
type publisher struct {
	signer trust.Signer
	keys   *trust.Keys
}

func newPublisher(t testing.TB) *publisher {
	t.Helper()
	dir := t.TempDir()
	secret, public, err := trust.SecretKeyFile(nil)
	if err != nil {
		t.Fatal(err)
	}
	keyPath := filepath.Join(dir, "secret.key")
	if err := os.WriteFile(keyPath, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := trust.OpenSigner(t.Context(), keyPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	keyDir := filepath.Join(dir, "keys")
	if err := os.Mkdir(keyDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(keyDir, "publisher.pub"), public.File(), 0o644); err != nil {
		t.Fatal(err)
	}
	keys, err := trust.OpenKeys(keyDir)
	if err != nil {
		t.Fatal(err)
	}
	return &publisher{signer, keys}
}

func (p *publisher) options() BuildOptions {
	return BuildOptions{Signer: p.signer, Sequence: 7, Expires: expires}
}

// sign signs a manifest as a release.
func (p *publisher) sign(t testing.TB, raw []byte, rel trust.Release) []byte {
	t.Helper()
	signature, err := trust.SignPackage(context.Background(), p.signer, bytes.NewReader(raw), rel, "")
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

func release(name, version string) trust.Release {
	return trust.Release{Name: name, Version: version, Sequence: 7, Channel: DefaultChannel, Expires: expires}
}

const source1 = `schema: mobileops.plugin/v1
name: demo
version: 1.2.0
summary: A plugin for tests
licence: Apache-2.0
commands:
  - {name: status, summary: Say something}
`

const program = "#!/bin/sh\necho hello\n"

// sourceDir makes the directory that a plugin is built from.
func sourceDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "plugin.yaml", source1, 0o644)
	put(t, dir, "mobileops-demo", program, 0o755)
	put(t, dir, "README.md", "# demo\n", 0o644)
	put(t, dir, "LICENSE", "Apache-2.0\n", 0o644)
	put(t, dir, "main.go", "package main\n", 0o644)
	put(t, dir, ".git/config", "[core]\n", 0o644)
	put(t, dir, "secret.minisig", "x", 0o600)
	put(t, dir, "files/rules/a.yaml", "a: 1\n", 0o644)
	put(t, dir, "files/rules/b.yaml", strings.Repeat("b: 2\n", 100_000), 0o644)
	put(t, dir, "files/helper", "#!/bin/sh\n", 0o755)
	put(t, dir, "files/empty", "", 0o644)
	return dir
}

var packedNames = []string{"LICENSE", "README.md", "files/empty", "files/helper", "files/rules/a.yaml", "files/rules/b.yaml", "mobileops-demo"}

func put(t testing.TB, dir, name, content string, mode os.FileMode) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(p, mode); err != nil {
		t.Fatal(err)
	}
}

// built packs the source directory.
func built(t testing.TB, p *publisher) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := Build(context.Background(), sourceDir(t), &b, p.options()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// installed unpacks a package and opens it again, as a host does at each start.
func installed(t testing.TB, p *publisher) (dir string, m *manifest.Manifest) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "1.2.0-7")
	pkg, err := OpenReader(bytes.NewReader(built(t, p)))
	if err != nil {
		t.Fatal(err)
	}
	defer pkg.Close()
	if err := pkg.Verify(p.keys, now); err != nil {
		t.Fatal(err)
	}
	if err := pkg.Unpack(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	return dir, pkg.Manifest
}

// forged is a package as a test writes it by hand: signed well, or not.
type forged struct {
	manifest, signature rawtar.Entry
	files               []rawtar.Entry
}

// forge makes a package of files, which a test then spoils.
func forge(t testing.TB, p *publisher, files ...rawtar.Entry) *forged {
	t.Helper()
	m, err := manifest.Parse([]byte(source1))
	if err != nil {
		t.Fatal(err)
	}
	m.Files = map[string]manifest.File{}
	for _, f := range files {
		m.Files[f.Name] = manifest.File{Digest: filehash.SumBytes([]byte(f.Body)).String(), Size: int64(len(f.Body)), Executable: f.Mode == 0o755}
	}
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return &forged{
		manifest:  rawtar.Entry{Name: manifest.FileName, Body: string(raw)},
		signature: rawtar.Entry{Name: manifest.SignatureName, Body: string(p.sign(t, raw, release("demo", "1.2.0")))},
		files:     files,
	}
}

func (f *forged) entries() []rawtar.Entry {
	return append([]rawtar.Entry{f.manifest, f.signature}, f.files...)
}

func (f *forged) packed() []byte { return rawtar.Zstd(rawtar.Archive(f.entries()...)) }

// three are the files of a small package.
func three() []rawtar.Entry {
	return []rawtar.Entry{{Name: "LICENSE", Body: "licence"}, {Name: "files/a", Body: "aaa"}, {Name: "mobileops-demo", Body: program, Mode: 0o755}}
}

// take installs a package as a host does, and sees that after a refusal
// nothing is left.
func take(t testing.TB, p *publisher, data []byte) error {
	t.Helper()
	parent := t.TempDir()
	dst := filepath.Join(parent, "partial")
	err := func() error {
		pkg, err := OpenReader(bytes.NewReader(data))
		if err != nil {
			return err
		}
		defer pkg.Close()
		if err := pkg.Verify(p.keys, now); err != nil {
			return err
		}
		return pkg.Unpack(context.Background(), dst)
	}()
	left, readErr := os.ReadDir(parent)
	if readErr != nil {
		t.Fatal(readErr)
	}
	if err != nil && len(left) > 0 {
		t.Errorf("after %v there is still %s", err, left[0].Name())
	}
	return err
}

// refusedAs sees that an error has a code, and is of the kind that it must be.
func refusedAs(t testing.TB, what string, err error, code archive.Code) {
	t.Helper()
	if got := CodeOf(err); got != code {
		t.Errorf("%s: %q, want %q: %v", what, got, code, err)
	}
	if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f || r == 0x202e }) {
		t.Errorf("%s: the message has control characters: %q", what, err.Error())
	}
}
