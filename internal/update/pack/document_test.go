package pack

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/archive"
)

func formatDoc(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "formats", "package.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// block returns the first block of a language in the document.
func block(t *testing.T, language string) string {
	t.Helper()
	_, rest, _ := strings.Cut(formatDoc(t), "```"+language+"\n")
	text, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatalf("no block of %s", language)
	}
	return text
}

// TestDocumentedPackageIsAccepted runs what the document tells people to type.
func TestDocumentedPackageIsAccepted(t *testing.T) {
	for _, need := range []string{"tar", "zstd", "minisign"} {
		if _, err := exec.LookPath(need); err != nil {
			t.Skipf("%s is not installed", need)
		}
	}
	dir := t.TempDir()
	cmd := exec.Command("sh", "-eu")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(block(t, "sh"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "platform-2.4.1.tar.zst"))
	if err != nil {
		t.Fatal(err)
	}
	m, all, err := readPackage(t, data, archive.DefaultLimits())
	if err != nil || m.Version != "2.4.1" || len(all) != 6 {
		t.Errorf("%v, %+v, %d entries", err, m, len(all))
	}
}

func TestDocumentedManifestIsAccepted(t *testing.T) {
	if _, err := ParseManifest([]byte(block(t, "yaml")), archive.DefaultLimits()); err != nil {
		t.Error(err)
	}
}

func TestEveryCodeIsDocumented(t *testing.T) {
	_, table, _ := strings.Cut(formatDoc(t), "## Codes")
	for _, c := range Codes() {
		if !strings.Contains(table, "| `"+string(c)+"` |") {
			t.Errorf("%s is not in docs/formats/package.md", c)
		}
	}
	if documented := strings.Count(table, "\n| `"); documented != len(Codes()) {
		t.Errorf("%d codes in the document, %d in the program", documented, len(Codes()))
	}
}
