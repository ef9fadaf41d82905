package watch

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// Only the tmpfs of the test is ever marked: a mistake here must not keep the
// machine from starting programs.

// try runs a script and returns its exit status and what it printed. The shell
// is not on the filesystem that is looked at: this process, which answers the
// kernel, must not start a program that it would be asked for.
func (h *host) try(script string) (int, string) {
	h.t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = h.mnt
	out, _ := cmd.CombinedOutput()
	return cmd.ProcessState.ExitCode(), string(out)
}

func enforcing(e *Enforce) func(*Options) {
	if e.logins == nil {
		e.logins = []string{}
	}
	if e.Timeout == 0 {
		e.Timeout = patience // what takes longer would be allowed
	}
	return func(o *Options) { o.Enforce = e }
}

// programs puts programs into the mount, and takes the baseline. other/tool is
// not in it, but has the size of one that is: it differs in the padding of its
// header.
func (h *host) programs() {
	h.t.Helper()
	h.sh(`cp "$(command -v env)" etc/known
		cp "$(command -v env)" etc/old
		cp etc/known other/tool; printf x | dd of=other/tool bs=1 seek=8 conv=notrunc 2>/dev/null
		printf '#!/bin/sh\necho script ran\n' >etc/script; chmod 755 etc/script`)
	h.take()
}

func TestEnforcement(t *testing.T) {
	h := newHost(t)
	h.programs()
	w := h.watch(enforcing(&Enforce{}))

	if status, out := h.try("etc/known >/dev/null && etc/script"); status != 0 || out != "script ran\n" {
		t.Errorf("what is in the baseline: %d %s", status, out)
	}
	if status, out := h.try("cp etc/known other/copy && other/copy"); status != 0 {
		t.Errorf("the same content elsewhere: %d %s", status, out)
	}
	status, out := h.try("other/tool --version")
	if status != 126 || !strings.Contains(out, "not permitted") {
		t.Errorf("what is not in the baseline: %d %s", status, out)
	}
	r := w.await("the denial", func(r *Record) bool { return r.Kind == DeniedRecord })
	if string(r.Path) != h.mnt+"/other/tool" || r.Action != "denied" || !r.Process.Known() || len(r.Process.Parents) == 0 {
		t.Errorf("%+v %+v", r, r.Process)
	}
	// A script is asked for when it is executed by name, and not when it is an
	// argument.
	h.sh(`echo 'echo changed' >>etc/script`)
	if status, out := h.try("etc/script"); status != 126 {
		t.Errorf("a changed script: %d %s", status, out)
	}
	if status, out := h.try("sh etc/script"); status != 0 {
		t.Errorf("a changed script as an argument: %d %s", status, out)
	}
	// Changed after it was allowed, and back again.
	for range 3 {
		if status, _ := h.try("etc/old"); status != 0 {
			t.Error("denied")
		}
		h.sh(`cp etc/old other/keep; printf more >>etc/old`)
		if status, _ := h.try("etc/old"); status != 126 {
			t.Errorf("a changed program was executed: %d", status)
		}
		h.sh(`cp other/keep etc/old`)
	}
	// A new baseline counts at once.
	h.sh(`mv other/tool etc/tool`)
	h.take()
	w.await("the new baseline", func(r *Record) bool { return r.Kind == BaselineRecord })
	if status, out := h.try("etc/tool --version"); status != 0 {
		t.Errorf("in the new baseline: %d %s", status, out)
	}
	if f := h.findings()["watch-exec-denied "+h.mnt+"/other/tool"]; f == nil || !strings.HasPrefix(f.Evidence["by"], "pid ") || f.Severity.String() != "high" {
		t.Errorf("finding %+v", f)
	}
	if sum := w.end(); sum.Denied < 5 || w.err != nil {
		t.Errorf("%+v, %v", sum, w.err)
	}
	if status, out := h.try("cp etc/tool other/t2; echo x >>other/t2; other/t2 --version"); status != 0 {
		t.Errorf("after the watch: %d %s", status, out)
	}
}

func TestSharedLibrariesAreNotAskedFor(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("NOT RUN: a shared library of the test's own needs gcc (apt-get install gcc libc6-dev)")
	}
	h := newHost(t)
	h.sh(`cat >other/l.c <<-'END'
		int answer(void) { return 7; }
		END
		gcc -shared -fPIC -o etc/libanswer.so other/l.c
		echo 'int answer(void); int main(void) { return answer(); }' >other/m.c
		gcc -o etc/main other/m.c etc/libanswer.so -Wl,-rpath,` + h.dir)
	h.take()
	h.watch(enforcing(&Enforce{}))
	if status, out := h.try("etc/main"); status != 7 {
		t.Fatalf("%d %s", status, out)
	}
	h.sh(`echo 'int answer(void) { return 8; }' >other/l.c; gcc -shared -fPIC -o etc/libanswer.so other/l.c`)
	if status, out := h.try("etc/main"); status != 8 {
		t.Errorf("docs say that a changed library is not noticed by enforcement: %d %s", status, out)
	}
}

func TestAllowLists(t *testing.T) {
	h := newHost(t)
	h.programs()
	h.sh(`cp other/tool other/named; mkdir other/dir; cp other/tool other/dir/inside; printf a >>other/named; printf b >>other/dir/inside; printf c >>other/tool; chmod -R 755 other`)
	w := h.watch(enforcing(&Enforce{Allow: []string{h.mnt + "/other/named", h.mnt + "/other/dir"}}))
	for script, want := range map[string]int{"other/named --version": 0, "other/dir/inside --version": 0, "other/tool --version": 126} {
		if status, out := h.try(script); status != want {
			t.Errorf("%s: %d %s", script, status, out)
		}
	}
	w.end()

	// Learning denies nothing and notes what would have been denied.
	w = h.watch(enforcing(&Enforce{Learn: true}))
	if status, out := h.try("other/tool --version"); status != 0 {
		t.Errorf("while learning: %d %s", status, out)
	}
	r := w.await("what was learned", func(r *Record) bool { return r.Kind == DeniedRecord })
	if r.Action != "learned" || string(r.Path) != h.mnt+"/other/tool" {
		t.Errorf("%+v", r)
	}
	w.end()
	list, err := os.ReadFile(filepath.Join(h.e.Store.Dir(), AllowFile))
	if err != nil || bytes.Count(list, []byte("\n")) != 1 || !bytes.Contains(list, []byte(`/other/tool"`)) {
		t.Errorf("%s, %v", list, err)
	}
	h.watch(enforcing(&Enforce{}))
	for script, want := range map[string]int{"other/tool --version": 0, "other/named --version": 126} {
		if status, out := h.try(script); status != want {
			t.Errorf("with the list: %s: %d %s", script, status, out)
		}
	}
	// The list is read again when it changes.
	os.Remove(filepath.Join(h.e.Store.Dir(), AllowFile))
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		if status, _ := h.try("other/tool --version"); status == 126 {
			break
		} else if time.Now().After(deadline) {
			t.Fatal("the list that is gone still counts")
		}
	}
}

func TestWhatTakesTooLongIsAllowed(t *testing.T) {
	h := newHost(t)
	h.programs()
	answered := make(chan struct{})
	w := h.watch(enforcing(&Enforce{Timeout: 300 * time.Millisecond, slow: func(path string) {
		if strings.HasSuffix(path, "/tool") {
			select {
			case <-answered:
			case <-time.After(patience):
				t.Error("there is no answer before it is decided")
			}
		}
	}}))
	begun := time.Now()
	if status, out := h.try("other/tool --version"); status != 0 {
		t.Errorf("%d %s", status, out)
	}
	if d := time.Since(begun); d < 300*time.Millisecond {
		t.Errorf("answered after %v", d)
	}
	close(answered)
	r := w.await("the time-out", func(r *Record) bool { return r.Kind == DeniedRecord })
	if r.Action != "timed-out" {
		t.Errorf("%+v", r)
	}
}

func TestTrialEndsByItselfUnlessConfirmed(t *testing.T) {
	h := newHost(t)
	h.programs()
	control := filepath.Join(filepath.Dir(h.mnt), "run", "w.sock")
	denied := func() bool { status, _ := h.try("other/tool --version"); return status == 126 }

	over := func(r *Record) bool { return r.Kind == EnforceRecord && r.Action == "ended" }
	// On a busy machine a trial can be over before anything was tried. Then the next
	// one is longer.
	trial := time.Second
	var w *watching
	for ; ; trial *= 2 {
		w = h.watch(enforcing(&Enforce{Trial: trial, Control: control}))
		if denied() {
			break
		}
		w.await("the end, as it was not denied during the trial", over)
		if trial > patience {
			t.Fatal("not denied during the trial")
		}
		w.end()
	}
	r := w.await("the end", over)
	if denied() || !strings.Contains(r.Text, "nobody confirmed") {
		t.Errorf("denied after the trial; %+v", r)
	}
	if _, err := Command(control, "keep"); failure.KindOf(err) != failure.NotReady {
		t.Errorf("confirmed too late: %v", err)
	}
	// The watch itself goes on.
	h.sh(`echo x >etc/a; sleep 0.1`)
	w.file("a", Changed)
	w.end()
	if _, err := Command(control, "release"); failure.KindOf(err) != failure.NotReady {
		t.Errorf("without a watch: %v", err)
	}

	for ; ; trial *= 2 {
		w = h.watch(enforcing(&Enforce{Trial: trial, Control: control}))
		said, err := Command(control, "keep")
		if err == nil && strings.Contains(said, "stays in force") {
			break
		}
		if failure.KindOf(err) != failure.NotReady || trial > patience {
			t.Fatalf("%q, %v", said, err)
		}
		w.end()
	}
	time.Sleep(trial + 300*time.Millisecond)
	if !denied() {
		t.Error("not denied although the trial was confirmed")
	}
	if said, err := Command(control, "release"); err != nil || !strings.Contains(said, "enforcement ended") {
		t.Errorf("%q, %v", said, err)
	}
	if denied() {
		t.Error("denied after the release")
	}
	if _, err := Command(control, "nonsense"); err == nil {
		t.Error("an unknown word was taken")
	}
}

func TestNobodyIsLockedOut(t *testing.T) {
	h := newHost(t)
	h.programs()
	_, err := Run(t.Context(), h.e, Options{Name: "default", Report: func(*Record) error { return nil },
		Enforce: &Enforce{logins: []string{h.dir + "/kn*", h.mnt + "/other/t*"}}})
	if failure.KindOf(err) != failure.NotReady || !strings.Contains(err.Error(), "/other/tool") || strings.Contains(err.Error(), "known,") {
		t.Errorf("%v", err)
	}
	if status, _ := h.try("other/tool --version"); status != 0 {
		t.Error("it was refused, and denies all the same")
	}
	// This program itself is allowed wherever it stands.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h.watch(enforcing(&Enforce{}))
	if status, out := h.try("cp " + self + " other/self && other/self -test.run=NoSuchTest"); status != 0 {
		t.Errorf("%d %s", status, out)
	}
	_, err = Run(t.Context(), h.e, Options{Name: "default", Report: func(*Record) error { return nil }, Hook: &Hook{}, Enforce: &Enforce{}})
	if err == nil {
		t.Error("a hook and enforcement were taken together")
	}
}

func TestAllowListSyntax(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	got, err := parseAllowed(strings.NewReader("# comment\n\n" + sum + " \"/a b\"\n" + sum[:32] + "\n" + strings.Repeat("cd", 16) + "\n"))
	if err != nil || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	for text, line := range map[string]int{"zz\n": 1, sum + "\nabcd\n": 2, strings.Repeat("a", 70000): 1} {
		_, err := parseAllowed(strings.NewReader(text))
		if e, ok := err.(*AllowError); !ok || e.Line != line {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

func FuzzAllowList(f *testing.F) {
	f.Add([]byte(strings.Repeat("ab", 32) + " \"/path\"\n# x\n"))
	f.Fuzz(func(t *testing.T, data []byte) { parseAllowed(bytes.NewReader(data)) })
}
