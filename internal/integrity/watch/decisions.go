package watch

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"golang.org/x/sys/unix"
)

// written forgets what was decided about a file that somebody had open for
// writing and closed. The kernel tells that before the file can be executed.
func (e *enforcer) written(id fileID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.decisions, id)
	for x := range e.deciding {
		if x.state.fileID == id {
			x.stale.Store(true)
		}
	}
}

// openForWriting tells whether anybody has a file open for writing: then it gets
// no lease (F_SETLEASE of fcntl(2)). False where leases cannot be had.
func openForWriting(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
	if err == nil {
		unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	}
	return errors.Is(err, unix.EAGAIN)
}

// execution is one question of the kernel.
type execution struct {
	e     *enforcer
	fd    int
	state fileState
	path  string
	proc  *Process
	timer *time.Timer
	told  atomic.Bool // the kernel has its answer
	stale atomic.Bool // somebody wrote to the file while it was read
}

// answer answers, unless that was done. It reports whether it did.
func (x *execution) answer(allow bool) bool {
	if !x.told.CompareAndSwap(false, true) {
		return false
	}
	if x.e.o.Learn {
		return true
	}
	var b [8]byte // struct fanotify_response
	binary.NativeEndian.PutUint32(b[:], uint32(int32(x.fd)))
	response := uint32(unix.FAN_DENY)
	if allow {
		response = unix.FAN_ALLOW
	}
	binary.NativeEndian.PutUint32(b[4:], response)
	// It fails when the group is closed, and then the kernel has allowed it.
	x.e.group.use(func(fd int) error {
		_, err := unix.Write(fd, b[:])
		return err
	})
	return true
}

func (x *execution) close() { unix.Close(x.fd) }

// late allows what took too long to decide.
func (x *execution) late() {
	if x.answer(true) {
		x.e.report(x, "timed-out", "no decision within "+x.e.o.Timeout.String()+", so it was allowed")
	}
}

// decide reads the file, unless it is known, and answers.
func (x *execution) decide() {
	defer x.close() // only now: the number of the descriptor is what an answer is about
	defer x.timer.Stop()
	e := x.e
	defer func() {
		e.mu.Lock()
		delete(e.deciding, x)
		e.mu.Unlock()
	}()
	if e.allow.below(x.path) && itself(x.path, &x.state) {
		x.answer(true)
		return
	}
	if !e.o.Learn && !e.allow.mayBe(x.state.size) {
		if x.answer(false) {
			e.report(x, "denied", "its content is in neither the baseline nor the allow-list: nothing there has its size")
		}
		return
	}
	if e.o.slow != nil {
		e.o.slow(x.path)
	}
	e.reads <- struct{}{}
	sum, state, stable, err := x.read()
	<-e.reads
	if err != nil {
		if x.answer(true) {
			e.report(x, "timed-out", "it could not be read ("+err.Error()+"), so it was allowed")
		}
		return
	}
	ok := e.allow.permits(sum)
	if ok && stable {
		e.mu.Lock()
		if len(e.decisions) >= maxDecisions {
			clear(e.decisions)
		}
		if !x.stale.Load() { // said while e.mu is held
			e.decisions[state.fileID] = state
		}
		e.mu.Unlock()
	}
	if ok {
		x.answer(true)
		return
	}
	if e.o.Learn {
		if e.allow.learn(sum, state.size, x.path) {
			e.report(x, "learned", "its content is not in the baseline: it would be denied, and is in the allow-list now")
		}
		return
	}
	if x.answer(false) {
		e.report(x, "denied", "its content is in neither the baseline nor the allow-list")
	}
}

// soonRead is what is read to its end also while the watch ends, to be learned.
const soonRead = 64 << 20

// pointless tells whether nobody waits for what the file contains any more.
func (x *execution) pointless() bool {
	if x.e.o.Learn {
		return x.e.over.Load() && x.state.size > soonRead
	}
	return x.told.Load() || x.e.over.Load()
}

// read returns what the file contains. What it contained while somebody wrote to
// it counts for nothing.
func (x *execution) read() (sum digest, state fileState, stable bool, err error) {
	for range 3 {
		x.stale.Store(false)
		busy := openForWriting(x.fd)
		sum, state, stable, err = hashStable(x.fd, x.pointless)
		stable = stable && !busy
		if err != nil || !x.stale.Load() {
			return sum, state, stable, err
		}
	}
	return sum, state, false, errChanging
}

// report tells of an execution that was not simply allowed.
func (e *enforcer) report(x *execution, action, text string) {
	severity := finding.High
	if action != "denied" {
		severity = finding.Low
	}
	now := time.Now()
	e.say(&Record{Kind: DeniedRecord, Action: action, Severity: severity, Path: []byte(x.path), First: now, Last: now, Process: x.proc, Text: text})
	if action == "learned" {
		return
	}
	f := finding.Finding{
		Severity: severity, Title: "Execution denied: " + text, Evidence: map[string]string{},
		Remediation: "Find out where the file came from; when it belongs there, take a new baseline (mobileops integrity baseline) or allow it (--allow-exec)",
	}
	rule := "watch-exec-denied"
	if action != "denied" {
		rule, f.Title = "watch-exec-undecided", "Execution allowed without a decision: "+text
	}
	addProcess(f.Evidence, x.proc)
	e.w.ledger.event(rule, x.path, f)
}

func stateOf(st *unix.Stat_t) fileState {
	// They are 32 bits wide on some machines.
	mtime, ctime := [2]int64{}, [2]int64{}
	mtime[0], mtime[1] = st.Mtim.Unix()
	ctime[0], ctime[1] = st.Ctim.Unix()
	return fileState{fileID{st.Dev, st.Ino}, st.Size, mtime, ctime}
}
