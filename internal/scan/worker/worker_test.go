package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"golang.org/x/sys/unix"
)

func found(t *testing.T, o Options) *Worker {
	t.Helper()
	o.Path = installed
	if o.StateDir == "" {
		o.StateDir = t.TempDir()
	}
	w, err := Find(o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// play has the stand-in play a role.
func play(t *testing.T, role string, l Limits) (*protocol.Report, error) {
	t.Helper()
	return found(t, Options{}).Scan(t.Context(), &protocol.Scan{Kind: protocol.Rootfs, Target: "/role/" + role}, l, nil)
}

func wantFailure(t *testing.T, err error, kind failure.Kind, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if failure.KindOf(err) != kind {
		t.Errorf("kind %d, not %d: %v", failure.KindOf(err), kind, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is missing in %q", w, err)
		}
	}
	for _, c := range err.Error() {
		if c < ' ' {
			t.Errorf("a control character in %q", err)
		}
	}
}

func TestGood(t *testing.T) {
	var told []protocol.Progress
	w := found(t, Options{Version: "v1.2.3"})
	r, err := w.Scan(t.Context(), &protocol.Scan{Kind: protocol.Rootfs, Target: "/role/good"}, Limits{}, func(p protocol.Progress) { told = append(told, p) })
	if err != nil {
		t.Fatal(err)
	}
	if r.Target != "/role/good" || r.Kind != protocol.Rootfs || r.Version != "v1.2.3" || len(r.Results) != 2 || r.Results[0].Class != protocol.ClassSecret || r.Document != "bom" {
		t.Errorf("%+v", r)
	}
	if len(told) != 1 || told[0].Stage != "walk" || told[0].Files != 1 {
		t.Errorf("progress %v", told)
	}
	// Nothing is left of the directory for what is unpacked.
	if left, err := os.ReadDir(filepath.Join(w.options.StateDir, "scan", "temp")); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
}

func TestBuild(t *testing.T) {
	dir := t.TempDir()
	r, err := found(t, Options{}).Build(t.Context(), &protocol.Build{Output: dir}, Limits{}, nil)
	if err != nil || r.Vulnerabilities != 3 {
		t.Fatal(r, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "trivy.db")); err != nil {
		t.Error(err)
	}
}

func TestBadWorkers(t *testing.T) {
	if runtime.GOARCH == "amd64" && detect().seccomp {
		_, err := play(t, "killed", Limits{})
		wantFailure(t, err, failure.Failed, "crashed", "SIGSYS")
	}
	for _, c := range []struct {
		role   string
		limits Limits
		kind   failure.Kind
		words  []string
	}{
		{"crash", Limits{}, failure.Failed, []string{"scan of /role/crash: mobileops-scan crashed, at usr/lib/evil\\x1b[2J.jar: panic: index \\x1b[31mout of range", "scan again"}},
		{"complain", Limits{}, failure.Failed, []string{"crashed", "status 3", "second / third / last \\x1b[1mwords"}},
		{"garbage", Limits{}, failure.Failed, []string{"cannot be read: offset ", "results"}},
		{"nothing", Limits{}, failure.Failed, []string{"it wrote nothing"}},
		{"foreign", Limits{}, failure.Failed, []string{"no report"}},
		{"endless", Limits{Output: 1 << 20}, failure.Failed, []string{"its report is larger than 1048576 bytes"}},
		{"slow", Limits{Time: 300 * time.Millisecond}, failure.Failed, []string{"not done after 300ms", "scan.timeout"}},
		{"deaf", Limits{Time: 300 * time.Millisecond}, failure.Failed, []string{"not done after 300ms"}},
		{"bigfile", Limits{File: 1 << 20}, failure.Failed, []string{"file too large"}},
		{"old", Limits{}, failure.NotReady, []string{installed + " is of version 1.0.0, and this mobileops of devel"}},
		{"old report", Limits{}, failure.NotReady, []string{"is of version 1.0.0, and this mobileops of devel"}},
		{"corrupt", Limits{}, failure.Untrustworthy, []string{`the database is cor\arupt (import it again)`}},
		{"unheard of", Limits{}, failure.Usage, []string{"no such role"}},
	} {
		t.Run(c.role, func(t *testing.T) {
			_, err := play(t, c.role, c.limits)
			wantFailure(t, err, c.kind, c.words...)
		})
	}
	// The kernel counts for the whole machine, where memory may run out meanwhile.
	words, before := []string{"crashed", "memory", "scan.memory"}, oomKills()
	_, err := play(t, "slain", Limits{})
	if oomKills() == before {
		words = append(words, "for want of memory, killed it")
	}
	wantFailure(t, err, failure.Failed, words...)
	// On a busy machine a worker can take longer than that to begin.
	for stall := 300 * time.Millisecond; ; stall *= 3 {
		_, err := play(t, "slow", Limits{Stall: stall})
		if stall < time.Minute && err != nil && !strings.Contains(err.Error(), "slow.jar") {
			continue
		}
		wantFailure(t, err, failure.Failed, "no progress for "+stall.String()+", at usr/lib/slow.jar")
		break
	}
}

// TestMemory holds a worker that fills memory as fast as it can to its limit, and
// one that asks for all at once.
func TestMemory(t *testing.T) {
	if raceDetector {
		t.Skip("NOT RUN: the race detector needs memory of its own, and tells of a lack in its own words")
	}
	const most = 256 << 20
	for _, role := range []string{"hog", "gulp"} {
		t.Run(role, func(t *testing.T) {
			peak := make(chan int64, 1)
			done := make(chan struct{})
			go func() { // looks at all children, of which there is one
				var highest int64
				for {
					select {
					case <-done:
						peak <- highest
						return
					case <-time.After(time.Millisecond):
					}
					for _, d := range (&process{pid: os.Getpid()}).descendants() {
						highest = max(highest, ownMemory(d.pid))
					}
				}
			}()
			begun := time.Now()
			_, err := play(t, role, Limits{Memory: most})
			close(done)
			highest := <-peak
			wantFailure(t, err, failure.Failed, "memory", "scan.memory")
			t.Logf("%s: %d MiB of %d at most, after %s: %v", role, highest>>20, most>>20, time.Since(begun).Round(time.Millisecond), err)
			if highest > most+most/2+256<<20 {
				t.Errorf("it had %d MiB", highest>>20)
			}
		})
	}
}

// TestCancel ends workers of all sorts. Whoever waits has to know within a second,
// which is given much more here, as tests run on machines that do other things.
func TestCancel(t *testing.T) {
	for _, role := range []string{"slow", "deaf", "forks"} {
		for _, alls := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s %t", role, alls), func(t *testing.T) {
				w := found(t, Options{})
				w.support.pids = w.support.pids && alls
				temp := t.TempDir()
				ctx, cancel := context.WithCancel(t.Context())
				var cancelled time.Time
				var once sync.Once
				_, err := w.Scan(ctx, &protocol.Scan{Target: "/role/" + role + " " + temp + "/lock", Temp: temp}, Limits{}, func(protocol.Progress) {
					once.Do(func() { cancelled = time.Now(); cancel() })
				})
				took := time.Since(cancelled)
				wantFailure(t, err, failure.Interrupted)
				t.Logf("ended after %s", took.Round(time.Millisecond))
				if took > 30*time.Second {
					t.Errorf("ended after %s", took)
				}
				if role == "forks" {
					waitFree(t, temp+"/lock0")
					waitFree(t, temp+"/lock1")
				}
			})
		}
	}
}

// waitFree waits until nobody holds a lock: the kernel takes a moment to end a process.
func waitFree(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(path, err, "somebody still lives")
		}
	}
}

// TestChildrenEndWithIt has a worker leave children behind when it is done.
func TestChildrenEndWithIt(t *testing.T) {
	temp := t.TempDir()
	w := found(t, Options{})
	if _, err := w.Scan(t.Context(), &protocol.Scan{Target: "/role/leaves " + temp + "/lock", Temp: temp}, Limits{}, nil); err != nil {
		t.Fatal(err)
	}
	waitFree(t, temp+"/lock0")
	if w.support.pids {
		waitFree(t, temp+"/lock1") // of a session of its own
	}
}

// TestEndsWithUs kills who asked.
func TestEndsWithUs(t *testing.T) {
	state := t.TempDir()
	path := filepath.Join(state, "lock")
	asker := exec.Command(os.Args[0])
	asker.Env = append(os.Environ(), "WORKER_TEST_ROLE=asker", "WORKER_TEST_PATH="+installed, "WORKER_TEST_STATE="+state, "WORKER_TEST_LOCK="+path)
	asker.Stderr = os.Stderr
	if err := asker.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if f, err := os.Open(path); err == nil {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				break
			}
		}
		if time.Now().After(end) {
			asker.Process.Kill()
			t.Fatal("it does not start")
		}
	}
	asker.Process.Kill()
	asker.Wait()
	waitFree(t, path)
}

func TestEight(t *testing.T) {
	w := found(t, Options{})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 5 {
				if r, err := w.Scan(t.Context(), &protocol.Scan{Target: "/role/good"}, Limits{Memory: 1 << 30}, nil); err != nil || len(r.Results) != 2 {
					t.Error(r, err)
				}
			}
		})
	}
	all.Wait()
}

func details(r *protocol.Report) (list []string) {
	for _, p := range r.Problems {
		list = append(list, p.Detail)
	}
	return list
}

// TestSurroundings looks at what a worker sees of us.
func TestSurroundings(t *testing.T) {
	w := found(t, Options{Environ: []string{"HTTPS_PROXY=http://proxy", "HOME=/home/somebody", "DOCKER_CONFIG=/docker", "SSH_AUTH_SOCK=/agent"}})
	open, err := os.Open("/") // which it must not inherit
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if _, err := unix.FcntlInt(open.Fd(), unix.F_SETFD, 0); err != nil {
		t.Fatal(err)
	}
	look := func(remote bool) []string {
		temp := t.TempDir()
		r, err := w.Scan(t.Context(), &protocol.Scan{Target: "/role/look", Temp: temp, Remote: remote, Parallel: 3}, Limits{Memory: 1000 << 20, Background: remote}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, d := range details(r) {
			list = append(list, strings.ReplaceAll(d, temp, "TEMP"))
		}
		return list
	}
	local, remote := look(false), look(true)
	for _, want := range []string{"env TMPDIR=TEMP", "env HOME=TEMP", "env GOMEMLIMIT=943718400", "env GOMAXPROCS=3", "cwd /", "umask 077", "nice 0", "leader true"} {
		if !slices.Contains(local, want) {
			t.Errorf("%q is missing in %q", want, local)
		}
	}
	for _, want := range []string{"env HTTPS_PROXY=http://proxy", "env HOME=/home/somebody", "env DOCKER_CONFIG=/docker", "nice 10"} {
		if !slices.Contains(remote, want) {
			t.Errorf("%q is missing in %q", want, remote)
		}
	}
	for _, d := range slices.Concat(local, remote) {
		if strings.Contains(d, "SSH_AUTH_SOCK") {
			t.Error(d)
		}
		if f := strings.Fields(d); f[0] == "fd" && f[1] > "3" && !strings.Contains(d, "eventpoll") && !strings.Contains(d, "eventfd") && !strings.Contains(d, "/proc/") && !strings.Contains(d, "/sys/fs/cgroup/") {
			t.Errorf("it has a descriptor: %s", d)
		}
	}
	for _, d := range local {
		if strings.Contains(d, "PROXY") || strings.Contains(d, "DOCKER") || strings.Contains(d, "somebody") {
			t.Error(d)
		}
	}
	if os.Geteuid() == 0 {
		for _, want := range []string{"CapInh: 0000000000000000", "CapPrm: 0000000000000004", "CapEff: 0000000000000004", "CapBnd: 0000000000000004", "CapAmb: 0000000000000000", "NoNewPrivs: 1"} {
			if !slices.Contains(local, want) {
				t.Errorf("%q is missing in %q", want, local)
			}
		}
	}
}

// TestEscapes has a worker try what it must not, and read what it must.
func TestEscapes(t *testing.T) {
	w := found(t, Options{})
	if w.support.landlock < 3 || !w.support.seccomp {
		t.Skip("NOT RUN: this kernel lacks Landlock or seccomp")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	outside, memo, temp := t.TempDir(), t.TempDir(), t.TempDir()
	local, err := net.Listen("unix", filepath.Join(memo, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("of root"), 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		// Nobody but this account, or who reads everything, can read it.
		if err := errors.Join(os.Chmod(secret, 0), os.Chown(secret, 4711, 4711), os.Chmod(outside, 0o700), os.Chown(outside, 4711, 4711)); err != nil {
			t.Fatal(err)
		}
	}
	before, err := os.Stat(secret)
	if err != nil {
		t.Fatal(err)
	}
	where, _ := json.Marshal(map[string]string{"Outside": outside, "Secret": secret, "Address": listener.Addr().String(), "Memo": memo + "/memo", "Unix": memo + "/s"})
	r, err := w.Scan(t.Context(), &protocol.Scan{Target: "/role/escape " + string(where), Temp: temp, Memo: memo + "/memo"}, Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range details(r) {
		if strings.HasPrefix(d, "did ") {
			t.Error(d)
		}
	}
	if len(r.Problems) < 15 {
		t.Errorf("it tried only %q", details(r))
	}
	after, err := os.Stat(secret)
	if err != nil || after.Mode() != before.Mode() || !after.ModTime().Equal(before.ModTime()) {
		t.Error(before, after, err)
	}
	for _, path := range []string{memo + "/memo", temp + "/c"} {
		if text, err := os.ReadFile(path); err != nil || string(text) != "of root" {
			t.Error(path, string(text), err)
		}
	}
	for _, l := range w.Confinement() {
		t.Logf("%+v", l)
	}
}

func TestPathsAreAbsolute(t *testing.T) {
	w := found(t, Options{})
	for _, s := range []*protocol.Scan{{Target: "a"}, {Target: "/a", Memo: "memo"}, {Target: "/a", Temp: "temp"}} {
		_, err := w.Scan(t.Context(), s, Limits{}, nil)
		wantFailure(t, err, failure.Usage, "absolute")
	}
	_, err := w.Build(t.Context(), &protocol.Build{Output: "a"}, Limits{}, nil)
	wantFailure(t, err, failure.Usage, "absolute")
}

// TestMemoIsAlone keeps what is trusted out of the reach of what is not.
func TestMemoIsAlone(t *testing.T) {
	w := found(t, Options{})
	scan := filepath.Join(w.options.StateDir, "scan")
	_, err := w.Scan(t.Context(), &protocol.Scan{Target: "/role/good", Database: scan + "/vulndb/1", Memo: scan + "/memo"}, Limits{}, nil)
	wantFailure(t, err, failure.Usage, "the memo needs a directory of its own", scan)
	if _, err = w.Scan(t.Context(), &protocol.Scan{Target: "/role/good", Database: scan + "/vulndb/1", Memo: scan + "/memo/memo"}, Limits{}, nil); err != nil {
		t.Error(err)
	}
}

// TestWithoutLayers runs workers on kernels that have less than this one.
func TestWithoutLayers(t *testing.T) {
	has := detect()
	for _, s := range []support{{}, {landlock: 1}, {landlock: 3, seccomp: true}, {seccomp: true}, {root: true, pids: true}} {
		s = support{s.root && has.root, min(s.landlock, has.landlock), s.seccomp && has.seccomp, s.pids && has.pids}
		w := found(t, Options{})
		w.support = s
		for _, remote := range []bool{false, true} {
			if _, err := w.Scan(t.Context(), &protocol.Scan{Target: "/role/good", Remote: remote}, Limits{}, nil); err != nil {
				t.Errorf("%+v: %v", s, err)
			}
		}
		gaps := 0
		for _, l := range w.Confinement() {
			if l.Gap != "" {
				gaps++
			}
		}
		if gaps == 0 {
			t.Errorf("%+v: nothing is said to be missing", s)
		}
	}
}

// TestRemote lets who fetches an image connect, and write no more than others.
func TestRemote(t *testing.T) {
	w := found(t, Options{})
	if w.support.landlock < 3 || !w.support.seccomp {
		t.Skip("NOT RUN: this kernel lacks Landlock or seccomp")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	outside, memo := t.TempDir(), t.TempDir()
	local, err := net.Listen("unix", filepath.Join(outside, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("of root"), 0o600); err != nil {
		t.Fatal(err)
	}
	where, _ := json.Marshal(map[string]string{"Outside": outside, "Secret": secret, "Address": listener.Addr().String(), "Memo": memo + "/memo", "Unix": outside + "/s"})
	r, err := w.Scan(t.Context(), &protocol.Scan{Target: "/role/escape " + string(where), Memo: memo + "/memo", Remote: true}, Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var did []string
	for _, d := range details(r) {
		if strings.HasPrefix(d, "did ") {
			did = append(did, d)
		}
	}
	// A datagram socket is made for names, and credentials are asked of programs.
	if want := []string{"did connect", "did connect to a socket of the system", "did make a socket", "did run"}; !slices.Equal(did, want) {
		t.Errorf("%q", did)
	}
}

func TestSpoken(t *testing.T) {
	for version, want := range map[string]string{
		"1.2.3": "1.2.3", "v1.2.3": "v1.2.3", "1.2.3-rc.1": "1.2.3-rc.1", "devel": "devel", "": "devel",
		"v0.0.0-20261122190000-0123456789ab": "devel", "v1.2.4-0.20261122190000-0123456789ab+dirty": "devel", "v1.2.3+dirty": "devel",
	} {
		if got := spoken(version); got != want {
			t.Errorf("%q: %q, not %q", version, got, want)
		}
	}
}

// TestAbandoned removes what jobs of killed processes left, and nothing else.
func TestAbandoned(t *testing.T) {
	w := found(t, Options{})
	left := filepath.Join(w.options.StateDir, "scan", "temp", "job-1")
	if err := os.MkdirAll(filepath.Join(left, "layers"), 0o700); err != nil {
		t.Fatal(err)
	}
	var first, second string
	release, err := w.temp(&first)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	releaseSecond, err := w.temp(&second)
	if err != nil {
		t.Fatal(err)
	}
	releaseSecond()
	if _, err := os.Stat(left); err == nil {
		t.Error("it is still there")
	}
	if _, err := os.Stat(first); err != nil {
		t.Error(err)
	}
}
