//go:build goexperiment.jsonv2

package secret

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aquasecurity/trivy/pkg/fanal/secret"

	"github.com/mobileops/mobileops/internal/scan/memo"
)

// token makes a secret up.
func token(g generator) string { return g.sample(`ghp_[0-9a-zA-Z]{36}`) }

// TestRemembers: an unchanged tree isn't read a second time, what changed is, and the
// memo holds no secret.
func TestRemembers(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(1, 1))}
	root, memory := t.TempDir(), filepath.Join(t.TempDir(), "memo")
	first, second := token(g), token(g)
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("clean.go", "package clean, nothing to see")
	write("secret.go", "above\ntoken = "+first+"\nbelow\n")
	write("binary", "\x00\x01\x02\x03\x04 something")
	write("text.pyc", "\x00\x01 marker "+second+" \x00\x02")
	write("fresh.go", "written while it is scanned")
	time.Sleep(memo.Settled + 200*time.Millisecond) // what is tested is this wait
	var found map[string][]string
	var s Stats
	// On a busy machine the scan can begin so late that this file is settled too.
	for begun := (time.Time{}); time.Since(begun) >= memo.Settled; {
		if err := os.RemoveAll(memory); err != nil {
			t.Fatal(err)
		}
		begun = time.Now()
		write("fresh.go", "written while it is scanned, and again")
		found, s = scan(t, root, memory, "")
	}
	if len(found) != 2 || s.Searched != 4 || s.Binary != 1 || s.Remembered != 0 {
		t.Fatalf("%v %+v", found, s)
	}
	again, s := scan(t, root, memory, "")
	if !reflect.DeepEqual(found, again) || s.Remembered != 4 || s.Searched != 1 || s.Binary != 1 {
		t.Fatalf("%v instead of %v, %+v", again, found, s)
	}
	raw, err := os.ReadFile(memory)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{first, second} {
		if bytes.Contains(raw, []byte(token[4:20])) {
			t.Fatal("the memo holds a secret")
		}
	}
	// The same size and, by utimes, the same time: only ctime tells.
	info, err := os.Stat(filepath.Join(root, "clean.go"))
	if err != nil {
		t.Fatal(err)
	}
	write("clean.go", (token(g) + strings.Repeat(" ", 100))[:info.Size()])
	if err := os.Chtimes(filepath.Join(root, "clean.go"), info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(filepath.Join(root, "secret.go"))
	if err := os.Link(filepath.Join(root, "text.pyc"), filepath.Join(root, "other.pyc")); err != nil {
		t.Fatal(err)
	}
	found, _ = scan(t, root, memory, "")
	if info.Size() < 40 && len(found["clean.go"]) != 0 || len(found["secret.go"]) != 0 || len(found["text.pyc"]) != 1 || !strings.Contains(found["other.pyc"][0], "other.pyc") {
		t.Fatalf("%v", found)
	}
	// Other rules know nothing of it. (Of one file with two names, the same scan does.)
	if err := os.Remove(filepath.Join(root, "other.pyc")); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(config, []byte("rules: [{id: see, category: c, title: t, severity: low, regex: 'some[a-z]+'}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, s = scan(t, root, memory, config); s.Remembered != 0 {
		t.Fatalf("%+v", s)
	}
}

// TestRemembersContent: where rules must be run on everything, the content is enough.
func TestRemembersContent(t *testing.T) {
	config := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(config, []byte("rules: [{id: any, category: c, title: t, severity: low, regex: '[a-z]+[0-9]'}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := openMemo(t, filepath.Join(t.TempDir(), "memo"))
	defer m.Close()
	a := mustAnalyzer(t, Options{Config: config, Memo: m})
	content := []byte("some text with name7 in it")
	one := find(t, a, "a.txt", bytes.Clone(content))
	hits := m.Stats().Hits
	two := find(t, a, "b.txt", bytes.Clone(content))
	if len(one) != 1 || !reflect.DeepEqual(one, two) || m.Stats().Hits != hits+1 {
		t.Fatalf("%v %v %+v", one, two, m.Stats())
	}
}

// TestRemembersFilesWithoutIdentity: in archives, and where the kernel cannot vouch for
// a file, by its content and the rules that apply to its path.
func TestRemembersFilesWithoutIdentity(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(4, 4))}
	path := filepath.Join(t.TempDir(), "memo")
	clean, secret := []byte("package clean, nothing to see"), []byte("token = "+token(g)+"\n")
	compiled := []byte("\x00\x01 marker " + token(g) + " \x00\x02")
	for round := range 3 {
		m := openMemo(t, path)
		a, without := mustAnalyzer(t, Options{Memo: m}), mustAnalyzer(t, Options{})
		for _, f := range []struct {
			name    string
			content []byte
		}{{"a.go", clean}, {"b.go", secret}, {"copy.go", secret}, {"c.pyc", compiled}, {"c.md", secret}} {
			got, want := find(t, a, f.name, bytes.Clone(f.content)), find(t, without, f.name, bytes.Clone(f.content))
			if !reflect.DeepEqual(got, want) {
				t.Errorf("round %d: %s: %v instead of %v", round, f.name, got, want)
			}
		}
		s := a.Stats()
		if round == 0 && (s.Remembered != 1 || s.Searched != 3) || round > 0 && (s.Remembered != 4 || s.Searched != 0) {
			t.Errorf("round %d: %+v", round, s)
		}
		changed := bytes.Replace(secret, []byte("="), []byte(":"), 1)
		if round > 0 {
			changed = append(changed, byte('0'+round))
		}
		if got := find(t, a, "b.go", changed); len(got) != 1 || a.Stats().Searched != s.Searched+1 {
			t.Errorf("round %d: what was changed: %v", round, got)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLargeFiles: secrets across the borders of Trivy's parts and of our windows are
// found once, whole, with the right lines.
func TestLargeFiles(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(2, 2))}
	key := "-----BEGIN RSA PRIV" + "ATE KEY-----\n" + strings.Repeat(strings.Repeat("Ab1+", 16)+"\n", 200) + "-----END RSA PRIV" + "ATE KEY-----"
	line := strings.Repeat("some text ", 9) + "\n"
	var b bytes.Buffer
	var want []string
	put := func(at int, secret, id string) {
		for b.Len()+len(line) < at {
			b.WriteString(line)
		}
		for b.Len() < at-1 {
			b.WriteByte(' ')
		}
		b.WriteByte(' ')
		n := bytes.Count(b.Bytes(), []byte("\n"))
		want = append(want, fmt.Sprintf("%s %d-%d at %d", id, n+1, n+1+strings.Count(secret, "\n"), b.Len()+strings.Index(secret, "\n")*0))
		b.WriteString(secret + " \n")
	}
	put(secret.DefaultBufferSize-20, token(g), "github-pat")
	put(2*secret.DefaultBufferSize-10_000, key, "private-key")
	for _, border := range []int{windowBytes - overlapBytes, windowBytes - overlapBytes/2, windowBytes, 2*(windowBytes-overlapBytes) + overlapBytes/2} {
		put(border-20, token(g), "github-pat")
		put(border+100, token(g), "github-pat")
	}
	put(windowBytes*2+5000, key, "private-key")
	b.WriteString(line)
	got := map[string]bool{}
	list := find(t, mustAnalyzer(t, Options{}), "large.txt", b.Bytes())
	for _, f := range list {
		offset := f.Offset
		if f.RuleID == "private-key" {
			offset -= len("-----BEGIN RSA PRIVATE KEY-----\n")
			f.StartLine--
			f.EndLine++
		}
		got[fmt.Sprintf("%s %d-%d at %d", f.RuleID, f.StartLine, f.EndLine, offset)] = true
		if strings.Contains(f.Match, "Ab1+") || strings.Contains(f.Match, "ghp_") {
			t.Errorf("a secret is shown: %q", f.Match)
		}
	}
	for _, w := range want {
		if !got[w] {
			t.Errorf("missing: %s", w)
		}
	}
	if len(list) != len(want) {
		t.Errorf("%d findings, not %d", len(list), len(want))
	}
}

// TestGrowing: a file that is larger than its size said is searched to its end.
func TestGrowing(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(3, 3))}
	for _, n := range []int{50, 70_000, 3 << 20} {
		content := append(bytes.Repeat([]byte("text\n"), n/5), token(g)+"\n"...)
		for _, size := range []int{20, len(content) - 5, len(content), len(content) + 1000} {
			in := input("a.txt", content)
			in.Info = file{"a.txt", size}
			a := mustAnalyzer(t, Options{})
			r, err := a.Analyze(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			if size >= len(content) && len(list(r)) != 1 || size > firstBytes && len(list(r)) != 1 {
				t.Errorf("%d bytes of %d: %v", size, len(content), list(r))
			}
		}
	}
}
