package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// prompt is what the shells of these tests print when they are ready.
const prompt = "READY>"

// typist is a person at a shell in a terminal.
type typist struct {
	t    *testing.T
	term *os.File
	mu   sync.Mutex
	seen bytes.Buffer
}

func (p *typist) read() {
	buf := make([]byte, 4096)
	for {
		n, err := p.term.Read(buf)
		p.mu.Lock()
		p.seen.Write(buf[:n])
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *typist) screen() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.String()
}

// waits until the terminal shows what a pattern describes, behind an offset,
// and returns where it ends.
func (p *typist) waits(from int, pattern string) int {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		screen := p.screen()
		if at := re.FindStringIndex(screen[from:]); at != nil {
			return from + at[1]
		}
	}
	p.t.Fatalf("waited for %q and saw %q", pattern, p.screen()[from:])
	return 0
}

func (p *typist) types(text string) {
	p.t.Helper()
	if _, err := p.term.WriteString(text); err != nil {
		p.t.Fatal(err)
	}
}

// atShell starts a shell in a terminal, in a directory with a home of its own.
func atShell(t *testing.T, dir string, env []string, name string, args ...string) *typist {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("NOT RUN: completion in %s, which is not installed here (apt-get install %s; make test does)", name, name)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TERM=xterm", "LC_ALL=C.UTF-8", "PS1=" + prompt,
		"MOBILEOPS_CONFIG=" + filepath.Join(dir, "the-config.yaml"), "MOBILEOPS_STATE_DIR=" + filepath.Join(dir, "state"),
	}, env...)
	term, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 40, Cols: 200})
	if err != nil {
		t.Fatal(err)
	}
	p := &typist{t: t, term: term}
	go p.read()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGKILL)
		cmd.Wait()
		term.Close()
	})
	return p
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// completions generates the scripts as they are installed.
func completions(t *testing.T, dir string) {
	t.Helper()
	if out, err := exec.Command("mobileops", "docs", "completions", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// pressingTab types commands with Tab in them, runs them, and sees by their
// output that what was completed was right.
func pressingTab(t *testing.T, p *typist, dir string) {
	id := aFinding(t, dir)
	at := p.waits(0, prompt)
	for _, tc := range []struct{ typed, shows string }{
		{"mobileops config pa\t\r", `[\r\n]` + regexp.QuoteMeta(filepath.Join(dir, "the-config.yaml"))},
		{"mobileops versi\t--output te\t\r", `[\r\n]mobileops \S+ \(`},
		{"mobileops config show integrity.ret\t\r", `[\r\n]5\s`},
		{"mobileops config validate mine\t\r", `mine\.yaml: nothing is wrong`},
		{"mobileops config validate --conf\t./oth\t\r", `\./other\.yaml: nothing is wrong`},
		{"mobileops version --output=te\t\r", `[\r\n]mobileops \S+ \(`},
		{"mobileops docs markdown new-d\t\r", `files in new-directory`},
		{"mobileops no-such-command x\t\r", `unknown command`},
		// What is on this host: a baseline and a finding.
		{"mobileops integrity verify --name nigh\t\r", `baseline "nightly"`},
		{"mobileops finding show " + id[:3] + "\t\r", `(?s)` + id + `.*watched/file`},
	} {
		// Slower than the shell needs, faster than a person: a shell that
		// completes reads what was typed meanwhile afterwards.
		for i, part := range strings.SplitAfter(tc.typed, "\t") {
			if i > 0 {
				time.Sleep(300 * time.Millisecond)
			}
			p.types(part)
		}
		at = p.waits(at, tc.shows)
		at = p.waits(at, prompt)
	}
	// Everything there is to choose from is listed.
	p.types("mobileops config \t\t")
	for _, verb := range []string{"init", "path", "show", "validate"} {
		p.waits(at, verb)
	}
	p.types("\x03")
}

// aFinding takes a baseline called nightly, changes a file and returns the id
// of the finding that says so.
func aFinding(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "watched", "file")
	writeFile(t, file, "before")
	run := func(want int, args ...string) []byte {
		cmd := exec.Command("mobileops", args...)
		cmd.Env = append(os.Environ(), "MOBILEOPS_STATE_DIR="+filepath.Join(dir, "state"), "MOBILEOPS_CONFIG="+filepath.Join(dir, "the-config.yaml"))
		out, _ := cmd.Output()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Fatalf("%q: status %d, want %d", args, got, want)
		}
		return out
	}
	run(0, "integrity", "baseline", "--name", "nightly", filepath.Dir(file))
	writeFile(t, file, "after it")
	run(1, "integrity", "verify", "--name", "nightly")
	fields := strings.Fields(string(run(0, "__complete", "finding", "show", "")))
	if len(fields) == 0 {
		t.Fatal("no finding is offered")
	}
	return fields[0]
}

func prepare(t *testing.T) string {
	dir := t.TempDir()
	for _, name := range []string{"mine.yaml", "other.yaml", "the-config.yaml"} {
		writeFile(t, filepath.Join(dir, name), "root: /\n")
	}
	if err := os.Mkdir(filepath.Join(dir, "new-directory"), 0o755); err != nil {
		t.Fatal(err)
	}
	completions(t, filepath.Join(dir, "scripts"))
	return dir
}

func TestCompletionInBash(t *testing.T) {
	const library = "/usr/share/bash-completion/bash_completion"
	if _, err := os.Stat(library); err != nil {
		t.Skip("NOT RUN: completion in bash needs the package bash-completion (apt-get install bash-completion; make test does)")
	}
	dir := prepare(t)
	writeFile(t, filepath.Join(dir, ".bashrc"), fmt.Sprintf("source %s\nsource scripts/mobileops.bash\nbind 'set bell-style none'\nbind 'set enable-bracketed-paste off'\nPS1='%s'\n", library, prompt))
	pressingTab(t, atShell(t, dir, nil, "bash", "--noprofile", "-i"), dir)
}

// Minimal hosts have no bash-completion; the script brings what it needs.
func TestCompletionInBashAlone(t *testing.T) {
	dir := prepare(t)
	writeFile(t, filepath.Join(dir, ".bashrc"), "unset -f _init_completion _get_comp_words_by_ref _filedir 2>/dev/null\nsource scripts/mobileops.bash\nbind 'set bell-style none'\nbind 'set enable-bracketed-paste off'\nPS1='"+prompt+"'\n")
	pressingTab(t, atShell(t, dir, nil, "bash", "--noprofile", "-i"), dir)
}

func TestCompletionInZsh(t *testing.T) {
	dir := prepare(t)
	writeFile(t, filepath.Join(dir, ".zshrc"), "fpath=(~/scripts $fpath)\nautoload -U compinit\ncompinit -u -d ~/.zcompdump\nunsetopt beep\nPS1='"+prompt+"'\n")
	pressingTab(t, atShell(t, dir, []string{"ZDOTDIR=" + dir}, "zsh", "-d", "-i"), dir)
}

func TestCompletionInFish(t *testing.T) {
	dir := prepare(t)
	script, err := os.ReadFile(filepath.Join(dir, "scripts", "mobileops.fish"))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, ".config", "fish", "completions", "mobileops.fish"), string(script))
	writeFile(t, filepath.Join(dir, ".config", "fish", "config.fish"), "function fish_prompt; echo -n '"+prompt+"'; end\nset -g fish_greeting\nset -g fish_autosuggestion_enabled 0\n")
	pressingTab(t, atShell(t, dir, nil, "fish", "-i"), dir)
}

// There is no PowerShell for this system to run, so only the shape of its
// script is looked at.
func TestCompletionForPowerShellHasItsShape(t *testing.T) {
	t.Log("NOT RUN: the PowerShell script was not executed, since no PowerShell is to be had here; only its structure is checked")
	dir := t.TempDir()
	completions(t, dir)
	data, err := os.ReadFile(filepath.Join(dir, "mobileops.ps1"))
	if err != nil {
		t.Fatal(err)
	}
	script := string(data)
	for _, want := range []string{"Register-ArgumentCompleter -CommandName 'mobileops' -ScriptBlock ${__mobileopsCompleterBlock}", "$Program __complete $Arguments", "[System.Management.Automation.CompletionResult]::new"} {
		if !strings.Contains(script, want) {
			t.Errorf("no %q", want)
		}
	}
	// Brackets outside of strings and comments come in pairs.
	var open []rune
	quote, escaped, comment := rune(0), false, false
	for i, r := range script {
		switch {
		case comment:
			comment = r != '\n'
		case escaped:
			escaped = false
		case r == '`' && quote != '\'':
			escaped = true
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '"' || r == '\'':
			quote = r
		case r == '#':
			comment = true
		case strings.ContainsRune("({[", r):
			open = append(open, r)
		case strings.ContainsRune(")}]", r):
			if len(open) == 0 || strings.IndexRune(")}]", r) != strings.IndexRune("({[", open[len(open)-1]) {
				t.Fatalf("offset %d: %q closes nothing", i, r)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) != 0 || quote != 0 {
		t.Errorf("open at the end: %q %q", open, quote)
	}
}

// Completion is asked at every press of Tab: it says nothing but the answer,
// whatever state and configuration are like, and makes nothing.
func TestCompletionIsSilent(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "broken.yaml"), "[[[")
	writeFile(t, filepath.Join(dir, "state", "state.db"), "not a database")
	for _, words := range [][]string{{""}, {"config", ""}, {"finding", "show", ""}, {"integrity", ""}, {"integrity", "check", "--name", ""}, {"config", "show", "--output", ""}, {"nonsense", ""}} {
		for _, env := range []string{"MOBILEOPS_CONFIG=" + filepath.Join(dir, "broken.yaml"), "MOBILEOPS_STATE_DIR=" + filepath.Join(dir, "state"), "MOBILEOPS_STATE_DIR=" + filepath.Join(dir, "new"), "MOBILEOPS_STATE_DIR=/proc/nowhere"} {
			cmd := exec.Command("mobileops", append([]string{"__complete"}, words...)...)
			cmd.Env = append(os.Environ(), "HOME="+dir, "MOBILEOPS_CONFIG=", env)
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			if err := cmd.Run(); err != nil {
				t.Errorf("%q with %s: %v", words, env, err)
			}
			if !regexp.MustCompile(`(?m)^:\d+\n\z`).MatchString(out.String()) {
				t.Errorf("%q with %s: %q", words, env, out.String())
			}
			for line := range strings.Lines(errs.String()) {
				// The shells drop what cobra says; anything else is ours.
				if !strings.HasPrefix(line, "Completion ended with directive:") && !strings.HasPrefix(line, "[Debug] [Error]") {
					t.Errorf("%q with %s said %q", words, env, line)
				}
			}
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); err == nil {
		t.Error("completion made a state directory")
	}
}
