package docs

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestFishRunsNoWords completes in fish behind a word that would be two commands
// if it were not quoted.
func TestFishRunsNoWords(t *testing.T) {
	fish, err := exec.LookPath("fish")
	if err != nil {
		t.Skip("NOT RUN: completion in fish, which is not installed here (apt-get install fish)")
	}
	root := &cobra.Command{Use: "mobileops"}
	root.AddCommand(&cobra.Command{Use: "scan", Run: func(*cobra.Command, []string) {}})
	script, err := CompletionScript(root, "fish")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"completion.fish": script,
		"mobileops":       "#!/bin/sh\nprintf '<%s>' \"$@\" >asked\nprintf 'offered\\n:4\\n'\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(fish, "--no-config", "-c", `source completion.fish; complete -C 'mobileops scan a\;touch\ ran\ $HOME "b  c" '`)
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + dir, "LANG=C.UTF-8"}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "offered" {
		t.Fatalf("%v, %q", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "ran")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a word was run as a command: %v", err)
	}
	asked, err := os.ReadFile(filepath.Join(dir, "asked"))
	if want := `<__complete><scan><a;touch ran $HOME><b  c><>`; err != nil || string(asked) != want {
		t.Errorf("it was asked %s, want %s; %v", asked, want, err)
	}
}
