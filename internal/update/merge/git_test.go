package merge

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// gitMerge is git merge-file -p, which answers with the number of conflicts.
func gitMerge(t *testing.T, dir string, base, mine, theirs []byte) (content []byte, clean bool) {
	t.Helper()
	for name, data := range map[string][]byte{"base": base, "mine": mine, "theirs": theirs} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("git", "merge-file", "-p", "-q", "mine", "base", "theirs")
	cmd.Dir = dir
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 && exit.ExitCode() < 128 {
		return out, false
	}
	if err != nil {
		t.Fatalf("git merge-file: %v", err)
	}
	return out, true
}

// vocabularies are the lines that random files are made of: from those that
// are all different to those that nearly all are the same.
var vocabularies = []int{1000, 40, 12, 5, 2}

// randomLines returns n lines.
func randomLines(r *rand.Rand, words, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("key%d = %d\n", r.IntN(words), words)
	}
	return list
}

// randomEdits changes, removes, adds, doubles and moves lines.
func randomEdits(r *rand.Rand, words int, list []string) []string {
	list = append([]string(nil), list...)
	for range r.IntN(5) {
		i := 0
		if len(list) > 0 {
			i = r.IntN(len(list))
		}
		n := min(1+r.IntN(4), len(list)-i)
		block := append([]string(nil), list[i:i+n]...)
		rest := append([]string(nil), list[i+n:]...)
		switch r.IntN(5) {
		case 0:
			list = append(list[:i:i], rest...)
		case 1:
			list = append(append(list[:i:i], randomLines(r, words, 1+r.IntN(3))...), list[i:]...)
		case 2:
			list = append(append(list[:i:i], randomLines(r, words, n)...), rest...)
		case 3:
			list = append(append(list[:i:i], block...), list[i:]...)
		case 4:
			at := r.IntN(len(rest) + 1)
			rest = append(append(rest[:at:at], block...), rest[at:]...)
			list = append(list[:i:i], rest...)
		}
	}
	return list
}

// bytesOf joins lines; now and then with other ends, or without the last.
func bytesOf(r *rand.Rand, list []string) []byte {
	var b []byte
	for _, l := range list {
		b = append(b, l...)
	}
	if r.IntN(8) == 0 {
		b = bytes.TrimSuffix(b, []byte("\n"))
	}
	return b
}

// TestAsGit merges random edits, and compares with git.
func TestAsGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed: nothing to compare with")
	}
	rounds := 2000
	if testing.Short() {
		rounds = 200
	}
	dir := t.TempDir()
	var clean int
	for i := range rounds {
		r := rand.New(rand.NewPCG(6, uint64(i)))
		words := vocabularies[i%len(vocabularies)]
		lines := randomLines(r, words, r.IntN(40))
		base := bytesOf(r, lines)
		mine := bytesOf(r, randomEdits(r, words, lines))
		theirs := bytesOf(r, randomEdits(r, words, lines))
		want, wantClean := gitMerge(t, dir, base, mine, theirs)
		got := Merge(base, mine, theirs)
		if wantClean {
			clean++
		}
		if got.Clean != wantClean {
			t.Errorf("seed %d (%d words): clean is %v, of git %v\nbase %q\nmine %q\ntheirs %q\ngit %q\ngot %q", i, words, got.Clean, wantClean, base, mine, theirs, want, got.Content)
			continue
		}
		if got.Clean && !bytes.Equal(got.Content, want) {
			t.Errorf("seed %d (%d words):\nbase %q\nmine %q\ntheirs %q\ngit %q\ngot %q", i, words, base, mine, theirs, want, got.Content)
		}
	}
	if clean < rounds/10 || clean > rounds*9/10 {
		t.Errorf("%d of %d are clean: these edits show little", clean, rounds)
	}
}
