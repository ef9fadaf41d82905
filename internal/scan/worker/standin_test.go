package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/scan/protocol"
	"golang.org/x/sys/unix"
)

// installed is the tests' program under the name of the worker, which it then is.
var installed string

func TestMain(m *testing.M) {
	switch {
	case filepath.Base(os.Args[0]) == Name:
		standIn()
	case os.Getenv("WORKER_TEST_ROLE") == "asker":
		ask()
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "worker-test-")
	check(err)
	defer os.RemoveAll(dir)
	check(os.Chmod(dir, 0o755))
	installed = filepath.Join(dir, Name)
	self, err := os.Executable()
	check(err)
	data, err := os.ReadFile(self)
	check(err)
	check(os.WriteFile(installed, data, 0o755))
	return m.Run()
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// ask is a mobileops that asks for a scan, and is killed.
func ask() {
	w, err := Find(Options{Path: os.Getenv("WORKER_TEST_PATH"), StateDir: os.Getenv("WORKER_TEST_STATE")})
	check(err)
	_, err = w.Scan(context.Background(), &protocol.Scan{Target: "/role/hold " + os.Getenv("WORKER_TEST_LOCK"), Temp: os.Getenv("WORKER_TEST_STATE")}, Limits{}, nil)
	check(err)
}

// lock holds a file for as long as the process lives.
func lock(path string) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	check(err)
	check(unix.Flock(int(f.Fd()), unix.LOCK_EX))
	runtime.KeepAlive(f)
	held = append(held, f)
}

var held []*os.File

// standIn is a worker whose target says what it is to do.
func standIn() {
	if len(os.Args) > 1 { // a child of one
		lock(os.Args[1])
		fmt.Println("locked")
		signal.Ignore(unix.SIGTERM, unix.SIGHUP)
		time.Sleep(time.Hour)
	}
	text, err := io.ReadAll(os.Stdin)
	check(err)
	var r protocol.Request
	check(json.Unmarshal(text, &r))
	progress := os.NewFile(protocol.ProgressDescriptor, "progress")
	tell := func(p protocol.Progress) {
		line, err := json.Marshal(p)
		check(err)
		_, _ = progress.Write(append(line, '\n'))
	}
	report := &protocol.Report{Schema: protocol.Schema, Version: r.Version, Engine: "stand-in"}
	if r.Build != nil {
		check(os.WriteFile(filepath.Join(r.Build.Output, "trivy.db"), []byte("x"), 0o600))
		check(json.NewEncoder(os.Stdout).Encode(&protocol.BuildReport{Schema: protocol.Schema, Version: r.Version, Vulnerabilities: 3, Sources: []protocol.SourceReport{}}))
		unix.Exit(0)
	}
	report.Target, report.Kind = r.Scan.Target, r.Scan.Kind
	say := func(format string, args ...any) {
		report.Problems = append(report.Problems, protocol.Problem{Detail: fmt.Sprintf(format, args...)})
	}
	fail := func(f protocol.Failure) {
		f.Schema = protocol.Schema
		check(json.NewEncoder(os.Stdout).Encode(f))
		unix.Exit(f.Status)
	}
	role, argument, _ := strings.Cut(strings.TrimPrefix(r.Scan.Target, "/role/"), " ")
	switch role {
	case "good":
		fmt.Fprintln(progress, "this is no progress")
		fmt.Fprintln(progress, strings.Repeat("x", 3*mostLine))
		tell(protocol.Progress{Stage: "walk", Files: 1})
		report.Results = append(report.Results, protocol.Result{Target: "a", Class: protocol.ClassSecret}, protocol.Result{Target: "b"})
		report.Document = "bom"
	case "look":
		for _, v := range os.Environ() {
			say("env %s", v)
		}
		dir, _ := os.Getwd()
		umask := unix.Umask(0)
		say("cwd %s", dir)
		say("umask %#o", umask)
		descriptors, _ := os.ReadDir("/proc/self/fd")
		for _, d := range descriptors {
			if target, err := os.Readlink("/proc/self/fd/" + d.Name()); err == nil {
				say("fd %s %s", d.Name(), target)
			}
		}
		nice, _ := unix.Getpriority(unix.PRIO_PROCESS, 0)
		say("nice %d", 20-nice)
		session, _ := unix.Getsid(0)
		say("leader %t", session == os.Getpid() || session == 0)
		status, _ := os.ReadFile("/proc/self/status")
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "Cap") || strings.HasPrefix(line, "NoNewPrivs") || strings.HasPrefix(line, "Seccomp:") {
				say("%s", strings.Join(strings.Fields(line), " "))
			}
		}
	case "slow":
		tell(protocol.Progress{Stage: "walk", Files: 1, Item: "usr/lib/slow.jar"})
		time.Sleep(time.Hour)
	case "hold":
		lock(argument)
		tell(protocol.Progress{Stage: "walk", Files: 1})
		time.Sleep(time.Hour)
	case "deaf":
		signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
		tell(protocol.Progress{Stage: "walk", Files: 1})
		time.Sleep(time.Hour)
	case "forks", "leaves":
		for i, session := range []bool{false, true} {
			child := exec.Command("/proc/self/exe", fmt.Sprintf("%s%d", argument, i))
			child.Args[0] = Name
			child.Stderr = os.Stderr
			child.SysProcAttr = &syscall.SysProcAttr{Setsid: session}
			out, err := child.StdoutPipe()
			check(err)
			check(child.Start())
			_, err = bufio.NewReader(out).ReadString('\n')
			check(err)
		}
		tell(protocol.Progress{Stage: "walk", Files: 1})
		if role == "forks" {
			time.Sleep(time.Hour)
		}
	case "crash":
		tell(protocol.Progress{Stage: "walk", Item: "usr/lib/evil\x1b[2J.jar"})
		time.Sleep(50 * time.Millisecond)
		fmt.Fprintln(os.Stderr, "something before")
		go func() {
			for range 200 { // pages of stacks
				go func() { select {} }()
			}
			time.Sleep(50 * time.Millisecond)
			panic("index \x1b[31mout of range")
		}()
		time.Sleep(time.Hour)
	case "complain":
		fmt.Fprint(os.Stderr, "first\nsecond\nthird\n\nlast \x1b[1mwords")
		os.Exit(3)
	case "killed":
		unix.RawSyscall(0x40000000|39, 0, 0, 0) // getpid by the number of the x32 interface
	case "slain":
		// As from outside: to itself it is the first process, which nothing kills.
		unix.Setrlimit(unix.RLIMIT_CPU, &unix.Rlimit{Cur: 1, Max: 1})
		for n := uint64(1); n != 0; n++ {
		}
	case "garbage":
		fmt.Print(`{"schema": "mobileops.scan.worker/v1", "results": [{"tar`)
		unix.Exit(0)
	case "nothing":
		unix.Exit(0)
	case "foreign":
		fmt.Print(`{"schema": "mobileops.scan.worker/v1", "version": "devel", "hello": 1}`)
		unix.Exit(0)
	case "endless":
		out := bufio.NewWriter(os.Stdout)
		fmt.Fprint(out, `{"results": [`)
		for {
			if _, err := fmt.Fprintf(out, `{"target": %q},`, strings.Repeat("x", 1000)); err != nil {
				os.Exit(3)
			}
		}
	case "hog":
		var all [][]byte
		for {
			b := make([]byte, 4<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			all = append(all, b)
			runtime.KeepAlive(all)
		}
	case "gulp":
		b := make([]byte, 8<<30)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
	case "bigfile":
		f, err := os.Create(filepath.Join(r.Scan.Temp, "big"))
		check(err)
		_, err = f.Write(make([]byte, 8<<20))
		check(err)
	case "old":
		fail(protocol.Failure{Version: "1.0.0", Status: 7, Message: "this is 1.0.0"})
	case "old report":
		report.Version = "1.0.0"
	case "corrupt":
		fail(protocol.Failure{Version: r.Version, Status: 5, Message: "the database is cor\x07rupt", Hint: "import it again"})
	case "escape":
		attempt := func(what string, err error) {
			if err == nil {
				say("did %s", what)
			} else {
				say("not %s: %v", what, err)
			}
		}
		var where struct{ Outside, Secret, Address, Memo, Unix string }
		check(json.Unmarshal([]byte(argument), &where))
		attempt("write outside", os.WriteFile(filepath.Join(where.Outside, "new"), nil, 0o600))
		_, err = os.OpenFile(where.Secret, os.O_WRONLY, 0)
		attempt("open to write", err)
		attempt("truncate", os.Truncate(where.Secret, 0))
		attempt("remove", os.Remove(where.Secret))
		attempt("rename", os.Rename(where.Secret, where.Secret+"2"))
		attempt("link", os.Link(where.Secret, filepath.Join(r.Scan.Temp, "link")))
		attempt("chmod", os.Chmod(where.Secret, 0o777))
		f, err := os.Open(where.Secret)
		check(err)
		_ = f.Chmod(0o777) // is told that it is done
		attempt("chown", os.Chown(where.Secret, os.Getuid(), os.Getgid()))
		attempt("touch", os.Chtimes(where.Secret, time.Now(), time.Now()))
		attempt("setxattr", unix.Setxattr(where.Secret, "user.x", []byte("x"), 0))
		attempt("set flags", unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0))
		_, err = net.DialTimeout("tcp", where.Address, time.Minute)
		attempt("connect", err)
		_, err = net.Dial("unix", where.Unix)
		attempt("connect to a socket of the system", err)
		_, err = net.Dial("udp", where.Address)
		attempt("make a socket", err)
		attempt("signal", kill(os.Getppid()))
		attempt("run", exec.Command("/bin/true").Run())
		user := exec.Command("/proc/self/exe", "/dev/null")
		user.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
		attempt("make a user namespace", user.Start())
		attempt("mount", unix.Mount("none", r.Scan.Temp, "tmpfs", 0, ""))
		attempt("trace", unix.PtraceSeize(1))
		_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
		if errno != unix.ENOSYS {
			say("did reach io_uring: %v", errno)
		}
		text, err := os.ReadFile(where.Secret)
		check(err)
		check(os.WriteFile(where.Memo, text, 0o600))
		check(os.MkdirAll(filepath.Join(r.Scan.Temp, "a", "b"), 0o700))
		check(os.WriteFile(filepath.Join(r.Scan.Temp, "a", "b", "c"), text, 0o600))
		check(os.Rename(filepath.Join(r.Scan.Temp, "a", "b", "c"), filepath.Join(r.Scan.Temp, "c")))
		check(os.RemoveAll(filepath.Join(r.Scan.Temp, "a")))
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		check(err)
		null.Close()
	default:
		fail(protocol.Failure{Version: r.Version, Status: 2, Message: "no such role"})
	}
	if report.Results == nil {
		report.Results = []protocol.Result{}
	}
	check(json.NewEncoder(os.Stdout).Encode(report))
	unix.Exit(0)
}

// kill sees whether a process could be signalled. In a namespace of its own a worker
// has no parent: 0 is its own group.
func kill(pid int) error {
	if pid == 0 {
		return errors.New("there is none")
	}
	return unix.Kill(pid, 0)
}
