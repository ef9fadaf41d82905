package pack

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/archive"
)

func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "formats", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestEveryCodeIsDocumented: here, or among the codes of any archive.
func TestEveryCodeIsDocumented(t *testing.T) {
	_, own, _ := strings.Cut(document(t, "plugin-package.md"), "## Codes")
	_, general, _ := strings.Cut(document(t, "package.md"), "## Codes")
	n := 0
	for _, c := range Codes() {
		table := own
		if slices.Contains(archive.Codes(), c) {
			table = general
		} else {
			n++
		}
		if !strings.Contains(table, "| `"+string(c)+"` |") {
			t.Errorf("%s is not documented", c)
		}
	}
	if documented := strings.Count(own, "\n| `"); documented != n {
		t.Errorf("%d codes in the document, %d in the program", documented, n)
	}
}

// TestDocumentedPackageIsAccepted runs what the document tells people to type,
// with a key of minisign.
func TestDocumentedPackageIsAccepted(t *testing.T) {
	for _, need := range []string{"tar", "zstd", "minisign"} {
		if _, err := exec.LookPath(need); err != nil {
			t.Skipf("%s is not installed", need)
		}
	}
	blocks := strings.Split(document(t, "plugin-package.md"), "```sh\n")
	script, _, _ := strings.Cut(blocks[len(blocks)-1], "```")
	p := newPublisher(t)
	dir := t.TempDir()
	for _, e := range append(three(), forge(t, p, three()...).manifest) {
		put(t, dir, filepath.Join("demo", e.Name), e.Body, os.FileMode(max(e.Mode, 0o644)))
	}
	put(t, dir, "demo/release.key", secretKey(t, p), 0o600)
	cmd := exec.Command("sh", "-eu")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "demo-1.2.0.plugin.tar.zst"))
	if err != nil {
		t.Fatal(err)
	}
	if err := take(t, p, data); err != nil {
		t.Error(err)
	}
	if bytes.Contains(data, []byte("release.key")) {
		t.Error("the key is packed")
	}
}

// secretKey is the key of a publisher as minisign reads it.
func secretKey(t *testing.T, p *publisher) string {
	t.Helper()
	text, err := os.ReadFile(p.signer.String())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
