package block

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/threat"
)

// TestAnotherProcessOfTheSameNumberIsLetGo: between being looked up and being
// moved a process can end, and another one get its number.
func TestAnotherProcessOfTheSameNumberIsLetGo(t *testing.T) {
	if _, err := cgroupMount(); err != nil {
		t.Skip("NOT RUN: control groups of version 2 are not mounted on this machine")
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	pid := cmd.Process.Pid
	start, err := threat.ProcessStart(pid)
	if err != nil {
		t.Fatal(err)
	}
	before, err := cgroupOf(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := mayConfine(t, threat.Indicator{Type: threat.PID, Value: fmt.Sprintf("%d@%d", pid, start-1)}, pid); failure.KindOf(err) != failure.Usage {
		t.Errorf("%v", err)
	}
	if after, err := cgroupOf(pid); after != before || err != nil {
		t.Errorf("it was in %s, and is in %s: %v", before, after, err)
	}
}

// TestProcessesThatStartedEachOther: who is blocked beside a process that it
// started, or was started by, is let go alone.
func TestProcessesThatStartedEachOther(t *testing.T) {
	if _, err := cgroupMount(); err != nil {
		t.Skip("NOT RUN: control groups of version 2 are not mounted on this machine")
	}
	for _, order := range []string{"the child first", "the parent first"} {
		t.Run(order, func(t *testing.T) {
			cmd := exec.Command("sh", "-c", "sleep 1000 & echo $!; wait")
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			var child int
			if _, err := fmt.Fscan(out, &child); err != nil {
				t.Fatal(err)
			}
			defer func() {
				syscall.Kill(child, syscall.SIGKILL)
				cmd.Process.Kill()
				cmd.Wait()
			}()
			before, err := cgroupOf(child)
			if err != nil {
				t.Fatal(err)
			}
			c := &catalogue{blocks: map[string]*Block{}}
			block := func(pid int) {
				target := threat.Indicator{Type: threat.PID, Value: strconv.Itoa(pid)}
				list, err := confine(target, pid)
				if failure.KindOf(err) == failure.NotReady {
					t.Skip("NOT RUN: this process may not make control groups: ", err)
				} else if err != nil {
					t.Fatal(err)
				}
				c.blocks[target.Value] = &Block{Parts: Parts{Cgroups: list}}
			}
			lift := func(pid int) {
				name := strconv.Itoa(pid)
				b := c.blocks[name]
				delete(c.blocks, name)
				releaseAll(b, c)
			}
			// covered tells whether a block has a process: rules match what lies below, too.
			covered := func(by, pid int) bool {
				at, err := cgroupOf(pid)
				if err != nil {
					t.Fatal(err)
				}
				b := c.blocks[strconv.Itoa(by)]
				return b != nil && slices.ContainsFunc(b.Parts.Cgroups, func(g Cgroup) bool { return at == g.Path || strings.HasPrefix(at, g.Path+"/") })
			}
			parent := cmd.Process.Pid
			if order == "the child first" {
				block(child)
				block(parent)
			} else {
				block(parent)
				block(child)
			}
			if !covered(child, child) || !covered(parent, child) || !covered(parent, parent) || covered(child, parent) {
				t.Errorf("both are blocked: %+v", c.blocks)
			}
			lift(parent)
			if !covered(child, child) {
				t.Error("the child is free with its parent")
			}
			if at, err := cgroupOf(parent); err != nil || at != before {
				t.Errorf("the parent is in %s, and was in %s: %v", at, before, err)
			}
			block(parent)
			lift(child)
			if !covered(parent, child) {
				t.Error("what a process started is free when it is not blocked for itself any more")
			}
			lift(parent)
			for _, pid := range []int{parent, child} {
				if at, err := cgroupOf(pid); err != nil || at != before {
					t.Errorf("%d is in %s, and was in %s: %v", pid, at, before, err)
				}
			}
			mount, _ := cgroupMount()
			for _, pid := range []int{parent, child} { // others of that name are of tests that run at the same time
				if left, _ := filepath.Glob(filepath.Join(mount, before, fmt.Sprintf("%s%d*", madePrefix, pid))); len(left) > 0 {
					t.Errorf("left: %q", left)
				}
			}
		})
	}
}

func mayConfine(t *testing.T, target threat.Indicator, pid int) error {
	list, err := confine(target, pid)
	if failure.KindOf(err) == failure.NotReady {
		t.Skip("NOT RUN: this process may not make control groups: ", err)
	}
	for _, c := range list {
		release(c)
	}
	return err
}
