package watch

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/state"
)

func TestWhoChangedWhat(t *testing.T) {
	h := newHost(t)
	w := h.watch()
	pid, letGo := h.held("sh", "-ec", `echo changed >etc/a; echo done; read line || true`)
	r := w.file("a", Changed)
	letGo()
	p := r.Process
	if p == nil || p.PID != pid || p.UID != 0 || p.Started.IsZero() || filepath.Base(p.Exe) == "" || p.Exited {
		t.Errorf("process %+v, want pid %d", p, pid)
	}
	if len(p.Args) != 3 || p.Args[0] != "sh" || !strings.Contains(p.Args[2], "echo changed") {
		t.Errorf("command %q", p.Args)
	}
	if len(p.Parents) == 0 || p.Parents[0].PID != os.Getpid() {
		t.Errorf("parents %+v, want this process first", p.Parents)
	}
	if r.Action != "changed" || r.Counts.Modified == 0 {
		t.Errorf("%s %+v", r.Action, r.Counts)
	}
	// A busy machine may let the shell wait before it closes the file: that is in
	// a record of its own then.
	w.await("the closing of a", func(r *Record) bool { return string(r.Path) == h.dir+"/a" && r.Counts.Closed > 0 })
	found := h.awaitFindings("watch-changed a")
	if by := found["watch-changed a"].Evidence["by"]; !strings.HasPrefix(by, "pid ") || !strings.Contains(by, filepath.Base(p.Exe)) {
		t.Errorf("the finding says %q", by)
	}
	if s := found["watch-changed a"].Scopes; len(s) != 1 || s[0] != "watch:default" {
		t.Errorf("scopes %q", s)
	}

	// As in the baseline again: its times are not, so the record still differs;
	// a new file that goes again leaves nothing.
	h.sh(`echo x >etc/new; sleep 0.1`)
	w.file("new", Added)
	h.awaitFindings("watch-changed a", "watch-added new")
	h.sh(`rm etc/new; sleep 0.1`)
	w.file("new", Transient)
	h.awaitFindings("watch-changed a")

	sum := w.end()
	if w.err != nil || sum.Mode != Fanotify || sum.Overflows != 0 || len(sum.Incomplete) != 0 {
		t.Errorf("%+v, %v", sum, w.err)
	}
}

func TestBackAsItWasResolvesTheFinding(t *testing.T) {
	h := newHost(t, "  - {path: "+`"/**/a"`+", attributes: [content, mode]}")
	w := h.watch()
	h.sh(`echo changed >etc/a; chmod 600 etc/a; sleep 0.1`)
	w.file("a", Changed)
	h.awaitFindings("watch-changed a")
	h.sh(`echo one >etc/a; chmod 644 etc/a; sleep 0.1`)
	w.file("a", Same)
	h.awaitFindings()
}

func TestABurstIsOneRecord(t *testing.T) {
	h := newHost(t)
	w := h.watch(func(o *Options) { o.Quiet, o.Longest = 5*time.Second, patience }) // a busy machine lets the shell wait
	h.sh(`i=0; while [ $i -lt 200 ]; do echo $i; i=$((i+1)); done >etc/log; sleep 0.1`)
	w.file("log", Added)
	w.end() // which tells what is left
	n := 0
	for _, r := range w.all() {
		if string(r.Path) == h.dir+"/log" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d records:\n%s", n, w.text())
	}
}

func TestExcludedTreesAreNotTold(t *testing.T) {
	h := newHost(t)
	w := h.watch()
	h.sh(`echo x >etc/skip/x; mkdir etc/skip/d; echo y >etc/skip/d/y; echo z >other/z; mv other/z etc/skip/z; echo seen >etc/seen; sleep 0.1`)
	w.file("seen", Added)
	for _, r := range w.all() {
		if string(r.Path) != h.dir+"/seen" {
			t.Errorf("told of %s", r.Path)
		}
	}
}

func TestRenames(t *testing.T) {
	h := newHost(t)
	w := h.watch()

	t.Run("within", func(t *testing.T) {
		h.sh(`mv etc/a etc/sub/moved; sleep 0.1`)
		r := w.file("sub/moved", Moved)
		if string(r.From) != h.dir+"/a" || r.Action != "renamed" || r.Counts.RenamedTo != 1 {
			t.Errorf("%+v", r)
		}
		w.file("a", Departed)
		h.awaitFindings("watch-moved sub/moved")
		// What is known of the move stays when the file is looked at again.
		h.sh(`chmod 600 etc/sub/moved; sleep 0.1`)
		w.await("chmod", func(r *Record) bool { return r.Counts.Attributes > 0 && r.Verdict == Moved })
		h.awaitFindings("watch-moved sub/moved")
		h.sh(`chmod 644 etc/sub/moved; mv etc/sub/moved etc/a; sleep 0.1`)
		w.await("back", func(r *Record) bool { return string(r.Path) == h.dir+"/a" && r.Action == "renamed" })
		h.awaitFindings("watch-changed a") // its ctime moved
	})
	t.Run("out and in", func(t *testing.T) {
		h.sh(`mv etc/b other/b; sleep 0.1`)
		w.file("b", Removed)
		h.awaitFindings("watch-changed a", "watch-removed b")
		h.sh(`echo bad >other/b; mv other/b etc/b; sleep 0.1`)
		r := w.file("b", Changed)
		if r.Action != "renamed" {
			t.Errorf("%+v", r)
		}
		h.awaitFindings("watch-changed a", "watch-changed b")
	})
	t.Run("directory", func(t *testing.T) {
		h.sh(`mv etc/sub other/sub; sleep 0.1`)
		w.file("sub/c", Removed)
		w.file("sub", Removed)
		h.sh(`echo unseen >other/sub/c; mv other/sub etc/sub2; echo more >etc/sub2/more; sleep 0.1`)
		w.file("sub2", Added)
		w.file("sub2/c", Added)
		w.file("sub2/more", Added)
		h.awaitFindings("watch-changed a", "watch-changed b", "watch-removed sub", "watch-removed sub/c",
			"watch-added sub2", "watch-added sub2/c", "watch-added sub2/more")
	})
}

func TestTwoFilesSwapped(t *testing.T) {
	h := newHost(t)
	w := h.watch()
	h.sh(`touch -r etc/a other/ref; mv etc/a etc/t; mv etc/b etc/a; mv etc/t etc/b; sleep 0.1`)
	w.file("a", Changed)
	w.file("b", Changed)
	h.awaitFindings("watch-changed a", "watch-changed b")
}

func TestHardLinks(t *testing.T) {
	h := newHost(t)
	h.sh(`ln etc/a other/linked`)
	h.take()
	w := h.watch()
	// Changed through a name that nobody watches.
	h.sh(`echo through >other/linked; sleep 0.1`)
	w.file("a", Changed)
	// A file that got such a name only now.
	h.sh(`ln etc/b other/late; sleep 0.1`)
	w.await("the link", func(r *Record) bool { return string(r.Path) == h.dir+"/b" })
	h.sh(`echo through >other/late; sleep 0.1`)
	w.await("b through its other name", func(r *Record) bool {
		return string(r.Path) == h.dir+"/b" && r.Counts.Modified > 0 && r.Verdict == Changed
	})
	h.awaitFindings("watch-changed a", "watch-changed b")
}

func TestUnnamedFilesAndMappings(t *testing.T) {
	py, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("NOT RUN: O_TMPFILE and mmap from another program need python3 (apt-get install python3)")
	}
	h := newHost(t)
	w := h.watch()
	_, letGo := h.held(py, "-c", `
import os, sys
os.chdir("etc")
fd = os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o644)
os.write(fd, b"from nowhere")
os.link("/proc/self/fd/%d" % fd, "linked", src_dir_fd=os.open("/", os.O_RDONLY), follow_symlinks=True)
os.close(fd)
print("done", flush=True)
sys.stdin.read()
`)
	w.file("linked", Added)
	letGo()
	_, letGo = h.held(py, "-c", `
import mmap, os, sys
fd = os.open("etc/b", os.O_RDWR)
m = mmap.mmap(fd, 0)
m[0:3] = b"TWO"
m.close()
os.close(fd)
print("done", flush=True)
sys.stdin.read()
`)
	r := w.file("b", Changed)
	letGo()
	if r.Counts.Closed == 0 {
		t.Errorf("%+v", r.Counts)
	}
	if !strings.Contains(r.Process.Exe, "python") {
		t.Errorf("%+v", r.Process)
	}
}

func TestHostileNames(t *testing.T) {
	h := newHost(t)
	w := h.watch()
	h.sh(`printf x >"etc/new
line"; printf x >"$(printf 'etc/\377bytes')"; sleep 0.1`)
	w.file("new\nline", Added)
	w.file("\xffbytes", Added)
	h.awaitFindings("watch-added new\nline", "watch-added \xffbytes")
}

func TestDirectoryGoneAndMadeAgain(t *testing.T) {
	h := newHost(t)
	w := h.watch()
	h.sh(`rm -r etc/sub; sleep 0.1`)
	r := w.file("sub/c", Removed)
	// On a busy machine rm can be gone before anything was read of it.
	if p := r.Process; p.PID <= 0 || p.Known() && filepath.Base(p.Program()) != "rm" || !p.Known() && !p.Exited {
		t.Errorf("%+v", p)
	}
	w.file("sub", Removed)
	h.awaitFindings("watch-removed sub", "watch-removed sub/c")
	h.sh(`mkdir etc/sub; echo other >etc/sub/c; sleep 0.1`)
	w.file("sub/c", Changed)
	h.awaitFindings("watch-changed sub/c")
	// The watched directory itself.
	h.sh(`rm -r etc; mkdir -p etc/sub; echo back >etc/a; sleep 0.1`)
	w.await("a after everything was removed", func(r *Record) bool {
		return string(r.Path) == h.dir+"/a" && r.Counts.Created > 0 && r.Verdict == Changed
	})
	h.awaitFindings("watch-changed a", "watch-removed b", "watch-removed sub/c")
}

func TestGap(t *testing.T) {
	h := newHost(t)
	w := h.watch()
	h.sh(`echo by-somebody >etc/b; sleep 0.1`)
	w.file("b", Changed)
	h.awaitFindings("watch-changed b")
	w.end()
	h.sh(`echo while nobody watched >etc/a`)
	w = h.watch()
	g := w.await("the gap", func(r *Record) bool { return r.Kind == GapRecord })
	if !g.Clean || g.Found != 1 || g.Since.IsZero() || !g.Until.After(g.Since) {
		t.Errorf("%+v", g)
	}
	r := w.file("a", Changed)
	if r.Action != "found" || r.Process != nil || !strings.Contains(r.Text, "while nobody watched") {
		t.Errorf("%+v", r)
	}
	found := h.awaitFindings("watch-changed a", "watch-changed b")
	if by := found["watch-changed b"].Evidence["by"]; !strings.HasPrefix(by, "pid ") {
		t.Errorf("who changed b is forgotten: %q", by)
	}
	gaps := 0
	for k, f := range h.findings() {
		if strings.HasPrefix(k, "watch-gap default: ") && f.Evidence["changes"] == "1" {
			gaps++
		}
	}
	if gaps != 1 {
		t.Errorf("%d findings of the gap", gaps)
	}
}

func TestNewBaselineIsTakenUp(t *testing.T) {
	h := newHost(t)
	w := h.watch()
	h.sh(`echo changed >etc/a; sleep 0.1`)
	w.file("a", Changed)
	h.awaitFindings("watch-changed a")
	h.take()
	w.await("the new baseline", func(r *Record) bool { return r.Kind == BaselineRecord })
	h.awaitFindings()
	h.sh(`echo again >etc/a; sleep 0.1`)
	w.await("a again", func(r *Record) bool {
		return string(r.Path) == h.dir+"/a" && r.Verdict == Changed && len(r.Attributes) > 0 && r.Last.After(w.all()[0].Last)
	})
	h.awaitFindings("watch-changed a")
}

func TestTwoWatchesOnOneBaseline(t *testing.T) {
	h := newHost(t)
	h.watch()
	_, err := Run(t.Context(), h.e, Options{Name: "default", Report: func(*Record) error { return nil }})
	if failure.KindOf(err) != failure.Busy || !strings.Contains(err.Error(), "integrity watch is under way") {
		t.Errorf("%v", err)
	}
	// A check goes on beside it.
	r, err := h.e.Compare(t.Context(), integrity.CompareOptions{Name: "default"})
	if err != nil || len(r.Changes) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestOverflowComparesEverything(t *testing.T) {
	h := newHost(t)
	// How long the kernel's queue is counts for the whole machine, other tests too,
	// so it is not made shorter but filled.
	const file = "/proc/sys/fs/fanotify/max_queued_events"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	length, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || length > 1<<17 {
		t.Skipf("NOT RUN: the kernel's queue is too long to be filled: %s is %.20q", file, text)
	}
	hold := make(chan struct{})
	w := h.watch(func(o *Options) { o.slow = func() { <-hold } })
	h.sh(fmt.Sprintf(`i=0; while [ $i -le %d ]; do : >other/$i; i=$((i+1)); done`, length))
	h.sh(`i=0; while [ $i -lt 300 ]; do echo x >etc/n$i; i=$((i+1)); done; rm etc/a`)
	close(hold)
	r := w.await("the overflow", func(r *Record) bool { return r.Kind == OverflowRecord })
	if r.Found < 200 || r.Since.IsZero() || r.Until.Before(r.Since) {
		t.Errorf("%+v", r)
	}
	w.file("n299", Added)
	lost := w.file("a", Removed)
	if lost.Action != "found" || lost.Process != nil || !strings.Contains(lost.Text, "events were lost") {
		t.Errorf("%+v", lost)
	}
	if sum := w.end(); sum.Overflows != 1 {
		t.Errorf("%+v", sum)
	}
	over := 0
	for k := range h.findings() {
		if strings.HasPrefix(k, "watch-overflow ") {
			over++
		}
	}
	if over != 1 {
		t.Errorf("%d findings of the overflow", over)
	}
}

func TestBoundedBurstsLoseNothing(t *testing.T) {
	h := newHost(t)
	w := h.watch(func(o *Options) { o.pending = 50 })
	h.sh(`i=0; while [ $i -lt 2000 ]; do : >etc/n$i; i=$((i+1)); done; sleep 0.1`)
	w.file("n1999", Added)
	w.end()
	seen := map[string]bool{}
	for _, r := range w.all() {
		if r.Kind == FileRecord && r.Verdict == Added {
			seen[string(r.Path)] = true
		}
	}
	if len(seen) != 2000 {
		t.Errorf("%d of 2000 files were told", len(seen))
	}
}

// Who makes links of files that nobody watches must not make the watch compare
// everything.
func TestManyLinksElsewhere(t *testing.T) {
	h := newHost(t)
	w := h.watch()
	h.sh(`cd other; mkdir from; i=0; while [ $i -lt 1500 ]; do : >from/$i; i=$((i+1)); done; cp -al from to; cp -al from to2; cp -al from to3; cd ..; echo x >etc/seen; sleep 0.1`)
	w.file("seen", Added)
	time.Sleep(calmTime + 500*time.Millisecond)
	if sum := w.end(); sum.Overflows != 0 {
		t.Errorf("%+v\n%s", sum, w.text())
	}
}

// A full disk ends no watch, and findings are stored when there is room again.
func TestFullDisk(t *testing.T) {
	h := newHost(t)
	disk := t.TempDir()
	mountTmpfs(t, disk)
	if out, err := exec.Command("cp", "-a", h.e.Store.Dir(), disk+"/state").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	h.e.Store = state.New(disk+"/state", state.Options{})
	w := h.watch(func(o *Options) { o.Beat = 200 * time.Millisecond })
	if out, err := exec.Command("sh", "-c", "cat /dev/zero >"+disk+"/filler").CombinedOutput(); err == nil {
		t.Fatalf("the disk is not full: %s", out)
	}
	h.sh(`i=0; while [ $i -lt 1000 ]; do : >etc/n$i; i=$((i+1)); done; sleep 0.1`)
	w.file("n999", Added)
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		w.mu.Lock()
		said := strings.Join(w.warned, "\n")
		w.mu.Unlock()
		if strings.Contains(said, "findings cannot be stored for now") {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("nothing is said of the full disk: %s", said)
		}
	}
	if err := os.Remove(disk + "/filler"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); len(h.findings()) < 1000; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d findings", len(h.findings()))
		}
	}
	w.end()
	if w.err != nil {
		t.Error(w.err)
	}
}
