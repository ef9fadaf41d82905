package update

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// running is the process group of a hook, or of the command of a health check,
// while it runs. Its number alone would not do: it is given anew.
type running struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // field 22 of /proc/PID/stat: ticks since the boot
	Boot  string `json:"boot"`
}

const (
	nameRunning = "hook"
	// gone is how long is waited for a group that was killed.
	gone = 5 * time.Second
)

func (e *Engine) runningPath() string { return filepath.Join(e.o.Dir, nameRunning) }

// started notes which group runs, for whoever finds it without us. It is not
// synced: no process outlives a power cut. It is no part of the note about the
// trial, which has to be whole after one. Where it cannot be written, as on a full
// disk, the hook is worth more.
func (e *Engine) started(pid int) {
	start, _, ok := processStart(pid)
	if !ok {
		return
	}
	data, err := json.Marshal(running{pid, start, bootID()})
	if err != nil || os.WriteFile(e.runningPath(), append(data, '\n'), 0o644) != nil {
		_ = os.Remove(e.runningPath())
	}
}

// ended forgets it.
func (e *Engine) ended() { _ = os.Remove(e.runningPath()) }

// endOrphan ends what the hook of somebody runs who had the lock of the store and
// was killed: nothing of it is to go on beside what comes next.
func (e *Engine) endOrphan(n *Notice) {
	data, err := os.ReadFile(e.runningPath())
	if err != nil {
		return
	}
	defer e.ended()
	var r running
	if err := json.Unmarshal(data, &r); err != nil || r.PID < 2 || r.Boot != bootID() {
		return
	}
	there := func() bool {
		start, state, ok := processStart(r.PID)
		return ok && start == r.Start && state != "Z"
	}
	if !there() {
		return
	}
	n.phase("ending the hook that was left behind (process %d)", r.PID)
	err = unix.Kill(-r.PID, unix.SIGKILL)
	for until := time.Now().Add(gone); there() && err == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			err = errors.New("it does not end")
		}
	}
	if err != nil {
		n.problem(fmt.Errorf("process %d, of a hook that was left behind: %w", r.PID, err))
	}
}

// processStart returns when a process began, in ticks since the boot, and its
// state (proc_pid_stat(5)).
func processStart(pid int) (start uint64, state string, ok bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, "", false
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // its name may have anything else
	if len(fields) < 20 {
		return 0, "", false
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0], err == nil
}
