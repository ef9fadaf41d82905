package worker

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

const (
	// lookEvery is how often memory is looked at. A worker that fills it as fast as it
	// can gets some tens of MiB beyond the limit meanwhile; see limit for what bounds
	// that too.
	lookEvery = 20 * time.Millisecond
	// kernelTime is what the kernel may take to end a process that was killed, when
	// somebody waits for us: one before a network filesystem that doesn't answer, say,
	// ends when that does.
	kernelTime = 200 * time.Millisecond
	// patientTime is the same when nobody does.
	patientTime = 20 * time.Second
)

// running is a worker that runs, and why it has to end.
type running struct {
	worker  *Worker
	job     *job
	process *process
	news    *news
	words   *lastWords

	once      sync.Once
	end       chan struct{} // closed when it has to end
	why       error         // of us; read when end is closed
	abandoned chan struct{} // closed when it doesn't end, though it was killed
}

// stop says that it has to end, and why. The first reason counts.
func (r *running) stop(why error) {
	r.once.Do(func() {
		r.why = why
		close(r.end)
	})
}

func (r *running) stopped() bool {
	select {
	case <-r.end:
		return true
	default:
		return false
	}
}

// watch ends the worker when it must, and returns when it has ended.
func (r *running) watch(ctx context.Context) {
	l := r.job.limits
	var deadline, look <-chan time.Time
	if l.Time > 0 {
		t := time.NewTimer(l.Time)
		defer t.Stop()
		deadline = t.C
	}
	if l.Memory > 0 || l.Stall > 0 {
		t := time.NewTicker(lookEvery)
		defer t.Stop()
		look = t.C
	}
	for {
		select {
		case <-r.process.gone:
			return
		case <-ctx.Done():
			r.stop(ctx.Err())
		case <-deadline:
			r.stop(failure.Hint(failure.Errorf(failure.Failed, "it was not done after %s", l.Time), "give it more: scan.timeout; or scan less at a time"))
		case <-look:
			if used := ownMemory(r.process.pid); l.Memory > 0 && used > l.Memory {
				r.stop(failure.Hint(failure.Errorf(failure.Failed, "it used more memory than it may, %d of %d MiB%s", used>>20, l.Memory>>20, r.news.at()), "give it more: scan.memory; or leave out what it was at"))
				r.process.signal(unix.SIGKILL, nil)
			}
			if quiet := r.news.quiet(); l.Stall > 0 && quiet > l.Stall {
				r.stop(failure.Hint(failure.Errorf(failure.Failed, "it made no progress for %s%s", l.Stall, r.news.at()), "leave out what it was at, and scan again"))
			}
		case <-r.end:
			r.finish(ctx)
			return
		}
	}
}

// finish ends the worker: SIGTERM, and SIGKILL when that doesn't help.
func (r *running) finish(ctx context.Context) {
	p := r.process
	before := p.descendants() // they lose their parents when those end
	p.signal(unix.SIGTERM, before)
	select {
	case <-p.gone:
	case <-time.After(grace):
	}
	p.signal(unix.SIGKILL, append(p.descendants(), before...))
	patience := patientTime
	if ctx.Err() != nil {
		patience = kernelTime
	}
	select {
	case <-p.gone:
	case <-time.After(patience):
		close(r.abandoned)
	}
}

// limit puts limits on a process that has not yet got its request.
func limit(pid int, l Limits) error {
	set := func(resource int, value uint64) error {
		var now unix.Rlimit
		if err := unix.Prlimit(pid, resource, nil, &now); err == nil {
			value = min(value, now.Max) // we may be limited ourselves
		}
		return os.NewSyscallError("prlimit", unix.Prlimit(pid, resource, &unix.Rlimit{Cur: value, Max: value}, nil))
	}
	if err := set(unix.RLIMIT_CORE, 0); err != nil {
		return err
	}
	if l.File > 0 {
		if err := set(unix.RLIMIT_FSIZE, uint64(l.File)); err != nil {
			return err
		}
	}
	if l.Memory > 0 {
		// What is asked for, not what is used, and so above what may be used: a runtime
		// keeps the addresses of what it gave back. It stops who asks for very much at
		// once, between two looks, and each of the processes that a worker starts.
		if err := set(unix.RLIMIT_DATA, uint64(l.Memory+l.Memory/2)+256<<20); err != nil {
			return err
		}
	}
	// The kernel prefers it to others when memory runs out: proc_pid_oom_score_adj(5).
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("500"), 0)
	return nil
}

// ownMemory returns how many bytes of memory a process has for itself, in memory and
// swapped out, but no pages of files, such as those of a database that it maps:
// proc_pid_status(5). It returns 0 for one that has ended.
func ownMemory(pid int) (own int64) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(status) {
		key, value, _ := bytes.Cut(line, []byte(":"))
		switch string(key) {
		case "RssAnon", "RssShmem", "VmSwap":
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(string(value)), " kB"), 10, 64)
			if err == nil {
				own += kib << 10
			}
		}
	}
	return own
}

// oomKills returns how many processes the kernel ended because memory ran out, here
// or in a cgroup: /proc/vmstat. It is 0 where the kernel doesn't count them.
func oomKills() int64 {
	stat, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(stat) {
		if value, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			n, _ := strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
			return n
		}
	}
	return 0
}

// descendant is a process that the worker started, or one of those started.
type descendant struct {
	pid   int
	start string // in clock ticks since the boot, which tells it from a later one of that number
}

// descendants returns those of the process, where they don't end with it anyway. It
// finds none that lost its parents before.
func (p *process) descendants() (list []descendant) {
	if p.alls {
		return nil
	}
	for todo := []int{p.pid}; len(todo) > 0 && len(list) < 10000; todo = todo[1:] {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", todo[0]))
		for _, name := range tasks {
			text, _ := os.ReadFile(name)
			for field := range bytes.FieldsSeq(text) {
				if pid, err := strconv.Atoi(string(field)); err == nil {
					if start := startTime(pid); start != "" {
						list = append(list, descendant{pid, start})
						todo = append(todo, pid)
					}
				}
			}
		}
	}
	return list
}

// startTime reads field 22 of proc_pid_stat(5); the name before it may have spaces.
func startTime(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 20 {
		return ""
	}
	return f[19]
}

func (d descendant) signal(sig syscall.Signal) {
	fd, err := unix.PidfdOpen(d.pid, 0)
	if err == nil {
		defer unix.Close(fd)
	}
	switch {
	case startTime(d.pid) != d.start:
	case err == nil:
		_ = unix.PidfdSendSignal(fd, sig, nil, 0)
	default: // before Linux 5.3
		_ = unix.Kill(d.pid, sig)
	}
}
