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
	if start, state, ok := processStart(r.PID); !ok || start != r.Start || state == "Z" {
		return
	}
	n.phase("ending the hook that was left behind (process %d)", r.PID)
	err = unix.Kill(-r.PID, unix.SIGKILL)
	// Those that it started may end later than it does.
	for until := time.Now().Add(gone); err == nil && groupRuns(r.PID); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			err = errors.New("it does not end")
		}
	}
	if err != nil {
		n.problem(fmt.Errorf("process %d, of a hook that was left behind: %w", r.PID, err))
	}
}

// groupRuns reports whether a process of the group runs. One that ended and was not
// asked how, which whoever adopted it may never do, does not.
func groupRuns(group int) bool {
	if errors.Is(unix.Kill(-group, 0), unix.ESRCH) {
		return false
	}
	names, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range names {
		if f := statFields(name); f != nil && f[2] == strconv.Itoa(group) && f[0] != "Z" && f[0] != "X" {
			return true
		}
	}
	return false
}

// processStart returns when a process began, in ticks since the boot, and its
// state.
func processStart(pid int) (start uint64, state string, ok bool) {
	f := statFields(fmt.Sprintf("/proc/%d/stat", pid))
	if f == nil {
		return 0, "", false
	}
	start, err := strconv.ParseUint(f[19], 10, 64)
	return start, f[0], err == nil
}

// statFields returns what /proc/PID/stat says from the third field on, the state
// (proc_pid_stat(5)); nil when there is no such process.
func statFields(name string) []string {
	data, _ := os.ReadFile(name)
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // its name may have anything else
	if len(fields) < 20 {
		return nil
	}
	return fields
}
