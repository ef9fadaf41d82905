package block

import (
	"fmt"
	"os/exec"
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

func mayConfine(t *testing.T, target threat.Indicator, pid int) error {
	c, err := confine(target, pid)
	if failure.KindOf(err) == failure.NotReady {
		t.Skip("NOT RUN: this process may not make control groups: ", err)
	}
	if err == nil {
		release(c)
	}
	return err
}
