package block_test

import (
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// threadsEnv makes this binary a program that talks with "ADDRESS PORT" from
// its second thread, until it cannot any more: then its status is 7. The word
// before says what the threads do: "ended", the first one ends; "apart", the
// second one has descriptors of its own.
const threadsEnv = "MOBILEOPS_TEST_THREADS"

func init() {
	f := strings.Fields(os.Getenv(threadsEnv))
	if len(f) != 3 {
		return
	}
	runtime.LockOSThread() // this one is the first
	connected := make(chan bool)
	os.Pipe() // the runtime's own descriptors are made, so both tables have them
	go func() {
		runtime.LockOSThread()
		if f[0] == "apart" && unix.Unshare(unix.CLONE_FILES) != nil {
			os.Exit(1)
		}
		port, _ := strconv.Atoi(f[2])
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil || unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: netip.MustParseAddr(f[1]).As4()}) != nil {
			os.Exit(2)
		}
		close(connected)
		for {
			if _, err := unix.Write(fd, []byte("x")); err != nil {
				os.Exit(7)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	<-connected
	os.Stdout.WriteString("connected\n")
	if f[0] == "ended" {
		unix.Syscall(unix.SYS_EXIT, 0, 0, 0) // of this thread alone
	}
	select {}
}

// TestProcessesHideNothingBehindThreads: a connection ends with its process
// being cut off, whichever of its threads has it.
func TestProcessesHideNothingBehindThreads(t *testing.T) {
	t.Parallel()
	s := stage(t)
	cgroups(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var listener net.Listener
	if err := s.peer.Do(func() (err error) { listener, err = net.Listen("tcp", ":80"); return err }); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go io.Copy(io.Discard, c)
		}
	}()
	for _, how := range []string{"ended", "apart"} {
		cmd := s.host.Command(t.Context(), self)
		cmd.Env = append(cmd.Environ(), threadsEnv+"="+how+" "+s.peer.IPv4().String()+" 80")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if n, err := out.Read(make([]byte, 20)); n == 0 {
			t.Fatalf("%s: %v", how, err)
		}
		stat := "/proc/" + strconv.Itoa(cmd.Process.Pid) + "/stat"
		for how == "ended" {
			if b, _ := os.ReadFile(stat); strings.Contains(string(b), ") Z ") {
				break
			}
			time.Sleep(time.Millisecond)
		}
		s.cutOff(t, "--pid", strconv.Itoa(cmd.Process.Pid))
		timer := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
		if cmd.Wait(); cmd.ProcessState.ExitCode() != 7 {
			t.Errorf("%s: %v: its connection lives on", how, cmd.ProcessState)
		}
		timer.Stop()
		s.liftProcess(t)
	}
}

// TestEndedProcessesAreNotRunning: a process whose end nobody has asked for yet
// has nothing that could be cut off.
func TestEndedProcessesAreNotRunning(t *testing.T) {
	t.Parallel()
	s := stage(t)
	cgroups(t)
	cmd := s.host.Command(t.Context(), "true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	for stat := "/proc/" + strconv.Itoa(cmd.Process.Pid) + "/stat"; ; time.Sleep(time.Millisecond) {
		if b, err := os.ReadFile(stat); err != nil {
			t.Fatal(err)
		} else if strings.Contains(string(b), ") Z ") {
			break
		}
	}
	r := s.host.Mobileops("network", "isolate-threat", "--pid", strconv.Itoa(cmd.Process.Pid)).Is(t, 2)
	if !strings.Contains(r.Stderr, "is not running") {
		t.Error(r.Stderr)
	}
}
