package netstate

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/integrity/facts"
)

// childEnv names what a process that a test starts in a network namespace does
// instead of the tests.
const childEnv = "NETSTATE_TEST_CHILD"

func TestMain(m *testing.M) {
	switch what, arg, _ := strings.Cut(os.Getenv(childEnv), " "); what {
	case "":
		os.Exit(m.Run())
	case "collect":
		s, err := collect(Collector{Etc: arg})
		if err == nil {
			err = json.NewEncoder(os.Stdout).Encode(s)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "listen": // "listen tcp 127.0.0.1:22 udp …"
		for f := strings.Fields(arg); len(f) > 1; f = f[2:] {
			var err error
			if strings.HasPrefix(f[0], "tcp") {
				_, err = net.Listen(f[0], f[1])
			} else {
				_, err = net.ListenPacket(f[0], f[1])
			}
			if err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
		}
		fmt.Println("listening")
		time.Sleep(time.Hour)
	}
}

func collect(c Collector) (*facts.Snapshot, error) {
	sources, list, err := c.Collect(context.Background())
	if err != nil {
		return nil, err
	}
	return facts.New(time.Now(), []string{facts.Network}, sources, list), nil
}

// namespace is a network namespace of a test's own.
type namespace struct {
	testing.TB
	name string
	etc  string
}

func newNamespace(t testing.TB) *namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: needs root to make a network namespace")
	}
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT RUN: %s is not installed (see .ci/test-tools)", tool)
		}
	}
	n := &namespace{t, fmt.Sprintf("mobileops-test-%d-%d", os.Getpid(), time.Now().UnixNano()), t.TempDir()}
	if out, err := exec.Command("ip", "netns", "add", n.name).CombinedOutput(); err != nil {
		t.Skipf("NOT RUN: no network namespaces here: %s", out)
	}
	t.Cleanup(func() { exec.Command("ip", "netns", "del", n.name).Run() })
	n.run("ip", "link", "set", "lo", "up")
	n.put("passwd", "root:x:0:0::/root:/bin/sh\n")
	return n
}

func (n *namespace) put(name, text string) {
	n.Helper()
	if err := os.WriteFile(n.etc+"/"+name, []byte(text), 0o644); err != nil {
		n.Fatal(err)
	}
}

func (n *namespace) command(args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", n.name}, args...)...)
}

func (n *namespace) run(args ...string) {
	n.Helper()
	if out, err := n.command(args...).CombinedOutput(); err != nil {
		n.Fatalf("%q: %v: %s", args, err, out)
	}
}

// nft loads lines of nft's own language.
func (n *namespace) nft(text string) {
	n.Helper()
	c := n.command("nft", "-f", "-")
	c.Stdin = strings.NewReader(text)
	if out, err := c.CombinedOutput(); err != nil {
		n.Fatalf("nft: %v: %s\n%s", err, out, text)
	}
}

func (n *namespace) collect() *facts.Snapshot {
	n.Helper()
	self, err := os.Executable()
	if err != nil {
		n.Fatal(err)
	}
	c := n.command(self)
	c.Env = append(os.Environ(), childEnv+"=collect "+n.etc)
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		n.Fatalf("%v: %s", err, stderr.String())
	}
	s := new(facts.Snapshot)
	if err := json.Unmarshal(out, s); err != nil {
		n.Fatal(err)
	}
	for _, src := range s.Sources {
		if src.State != facts.OK && src.State != facts.Absent {
			n.Errorf("source %s is %s: %s", src.ID(), src.State, src.Detail)
		}
	}
	return s
}

// listen starts a program, a copy of the test at path, that listens.
func (n *namespace) listen(path string, what ...string) (stop func()) {
	n.Helper()
	self, err := os.Executable()
	if err != nil {
		n.Fatal(err)
	}
	if path == "" {
		path = self
	} else if b, err := os.ReadFile(self); err != nil {
		n.Fatal(err)
	} else if err := os.WriteFile(path, b, 0o755); err != nil {
		n.Fatal(err)
	}
	c := n.command(path)
	c.Env = append(os.Environ(), childEnv+"=listen "+strings.Join(what, " "))
	out, err := c.StdoutPipe()
	if err != nil {
		n.Fatal(err)
	}
	if err := c.Start(); err != nil {
		n.Fatal(err)
	}
	stop = func() { c.Process.Kill(); c.Wait() }
	n.Cleanup(stop)
	line := make([]byte, 64)
	if k, _ := out.Read(line); strings.TrimSpace(string(line[:k])) != "listening" {
		n.Fatalf("the listener said %q", line[:k])
	}
	return stop
}

// drift are the changes from one snapshot to the other, a line each.
func drift(old, now *facts.Snapshot) []string {
	changes, _ := facts.Diff(old, now)
	out := []string{}
	for _, c := range changes {
		s := string(c.Kind) + " " + c.Severity.String() + " " + strings.TrimPrefix(c.ID(), "network:")
		for _, a := range c.Attributes {
			if a.Name == "digest" {
				a.Old, a.New = "", ""
			}
			s += " " + strings.TrimRight(a.Name+" "+a.Old+">"+a.New, " >")
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

func expect(t testing.TB, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, append([]string{}, want...)) {
		t.Errorf("drift\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
