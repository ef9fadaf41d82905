package watch

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// A file can be made so large that reading it takes longer than an answer may,
// and what is not answered in time is allowed.
func TestAFileOfAnotherSizeIsNotRead(t *testing.T) {
	h := newHost(t)
	h.programs()
	h.sh(`truncate -s 200G other/tool`)
	w := h.watch(enforcing(&Enforce{Timeout: 20 * time.Second})) // less than the reading would take
	if status, out := h.try("other/tool --version"); status != 126 {
		t.Errorf("%d %s", status, out)
	}
	if r := w.await("the denial", func(r *Record) bool { return r.Kind == DeniedRecord }); r.Action != "denied" {
		t.Errorf("%+v", r)
	}
}

// What is read for nobody any more keeps neither the end nor other executions
// waiting.
func TestReadingEndsWithTheTimeOut(t *testing.T) {
	h := newHost(t)
	h.programs()
	h.sh(`truncate -s 20T other/tool`)
	list := filepath.Join(h.e.Store.Dir(), AllowFile)
	if err := os.MkdirAll(filepath.Dir(list), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(list, []byte(strings.Repeat("ab", 16)+` "/something" 21990232555520`), 0o600); err != nil {
		t.Fatal(err)
	}
	w := h.watch(enforcing(&Enforce{Timeout: 500 * time.Millisecond}))
	if status, out := h.try("other/tool --version"); status != 0 {
		t.Errorf("%d %s", status, out)
	}
	w.end() // which would take hours if it waited for the reading
}

const mapped = `
import mmap, os, sys, subprocess, time
path, evil = sys.argv[1], open(sys.argv[2], "rb").read()
size = os.path.getsize(path)
old = open(path, "rb").read()
fd = os.open(path, os.O_RDWR)
m = mmap.mmap(fd, size)
m[:] = old
time.sleep(4)
before = os.stat(path).st_ctime_ns
try:
    subprocess.run([path])
    print("executed while it is open for writing")
except OSError as e:
    pass
m[:] = evil[:size].ljust(size, b"\0")
m.close()
os.close(fd)
print("same times" if os.stat(path).st_ctime_ns == before else "other times")
try:
    print("status", subprocess.run([path]).returncode)
except OSError as e:
    print("denied", e.errno)
`

// Through a mapping that was written to before, content changes without the
// times: a decision counts only until whoever had the file open closes it.
func TestADecisionDoesNotOutliveAMapping(t *testing.T) {
	py, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("NOT RUN: mmap from another program needs python3 (apt-get install python3)")
	}
	h := newHost(t)
	h.programs()
	h.sh(`printf '#!/bin/sh\nexit 0\n' >etc/good; printf '#!/bin/sh\nexit 7\n' >other/bad; chmod 755 etc/good`)
	h.take()
	h.sh(`cp etc/good other/mine`)
	h.watch(enforcing(&Enforce{}))
	cmd := exec.Command(py, "-c", mapped, h.mnt+"/other/mine", h.mnt+"/other/bad")
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "same times\ndenied 1\n" {
		t.Errorf("%v\n%s", err, out)
	}
}

// In a namespace of its own any process can mount what it likes over a
// directory whose files are allowed.
func TestAnAllowedDirectoryIsThatOfThisNamespace(t *testing.T) {
	h := newHost(t)
	h.programs()
	h.sh(`mkdir other/allowed other/mine; cp other/tool other/allowed/right; mv other/tool other/mine/wrong; printf x >>other/allowed/right; printf y >>other/mine/wrong`)
	w := h.watch(enforcing(&Enforce{Allow: []string{h.mnt + "/other/allowed"}}))
	if status, out := h.try("other/allowed/right --version"); status != 0 {
		t.Errorf("%d %s", status, out)
	}
	if status, out := h.try("unshare -m sh -c 'mount --bind other/mine other/allowed && exec other/allowed/wrong --version'"); status != 126 {
		t.Errorf("%d %s", status, out)
	}
	w.await("the denial", func(r *Record) bool { return r.Kind == DeniedRecord && r.Action == "denied" })
}

// A reader of the records who does not read must not keep programs waiting when
// the watch is to end.
func TestEnforcementEndsThoughNobodyReads(t *testing.T) {
	h := newHost(t)
	h.programs()
	stuck, reading := make(chan struct{}), make(chan struct{}, 1)
	w := h.watch(enforcing(&Enforce{}), func(o *Options) {
		o.Report = func(*Record) error {
			select {
			case reading <- struct{}{}:
			default:
			}
			<-stuck
			return nil
		}
	})
	<-reading
	if status, _ := h.try("other/tool --version"); status != 126 {
		t.Errorf("%d", status)
	}
	w.cancel()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if status, _ := h.try("other/tool --version"); status == 0 {
			break
		} else if time.Now().After(deadline) {
			t.Error("it still denies")
			break
		}
	}
	close(stuck)
	w.end()
}

func TestEnforcementNeedsDescriptors(t *testing.T) {
	h := newHost(t)
	h.programs()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	few := old
	few.Cur = 512
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	_, err := Run(t.Context(), h.e, Options{Name: "default", Report: func(*Record) error { return nil }, Enforce: &Enforce{logins: []string{}}})
	if failure.KindOf(err) != failure.NotReady || !strings.Contains(err.Error(), "descriptors") {
		t.Errorf("%v", err)
	}
}

func TestSizesOfAllowedContents(t *testing.T) {
	sum := strings.Repeat("ab", 16)
	for line, want := range map[string]int64{sum: sizeUnknown, sum + ` "/a 7"`: sizeUnknown, sum + ` "/a \" 7" 12`: 12, sum + " /bin/x 7": sizeUnknown, sum + ` "/a" -3`: sizeUnknown} {
		got, err := parseAllowed(strings.NewReader(line))
		if err != nil || len(got) != 1 {
			t.Fatalf("%q: %v, %v", line, got, err)
		}
		for _, size := range got {
			if size != want {
				t.Errorf("%q: %d, want %d", line, size, want)
			}
		}
	}
	a := &allowed{sizes: []int64{10, 20}, listed: map[digest]int64{{1}: 30}, always: map[digest]int64{{2}: 40}}
	for size, want := range map[int64]bool{10: true, 11: false, 30: true, 40: true, maxUnsized: false} {
		if a.mayBe(size) != want {
			t.Errorf("%d: %v", size, !want)
		}
	}
	a.anySize = true
	if !a.mayBe(maxUnsized) || a.mayBe(maxUnsized+1) {
		t.Error("a list without sizes allows files of any size, or of none")
	}
}
