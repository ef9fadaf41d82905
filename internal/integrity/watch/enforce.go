package watch

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity"
	"golang.org/x/sys/unix"
)

// Enforce says how the execution of files is looked at.
//
// The kernel asks (FAN_OPEN_EXEC_PERM) when a file is opened to be executed:
// by execve(2), which also opens a script's interpreter and a program's dynamic
// loader in the same way. It does not ask for shared libraries, for a script
// that is given to its interpreter as an argument, or for what is executed from
// memory (memfd_create(2)) and from filesystems that are not marked.
//
// Nothing in this process may start a program while it enforces: between fork
// and exec the Go runtime cannot stop the world, and answering could wait for
// that. So a Hook and Enforce exclude each other.
type Enforce struct {
	Learn   bool          // deny nothing, and note what would be denied in the allow-list
	Trial   time.Duration // it ends after so long unless somebody confirms it; 0: it needs no confirmation
	Control string        // the socket through which it is confirmed and released
	Allow   []string      // files whose content, and directories below which everything, may be executed
	Also    []string      // directories whose filesystems are looked at too
	Timeout time.Duration // what takes longer is allowed; 0: 2 s
	slow    func(path string)
	logins  []string // instead of loginPrograms, in tests
}

const (
	decisionTime = 2 * time.Second
	learnTime    = time.Second // for executions that were not looked at when learning ends
	maxHashing   = 4           // files that are read at once
	maxDecisions = 1 << 16
	maxDeciding  = 256  // executions that wait for an answer; beyond them everything is allowed
	minFiles     = 4096 // descriptors that this process needs for all that
	maxSaid      = 1024 // records about executions that wait to be told
	racyWindow   = 2    // as in package integrity: seconds in which times prove nothing
)

// enforcer answers the kernel.
type enforcer struct {
	w     *watcher
	o     Enforce
	group *group
	self  int32
	procs *processes
	allow *allowed
	said  chan *Record
	lost  atomic.Int64
	done  chan struct{}
	quit  chan struct{}
	quiet chan struct{} // everything was told
	ended sync.Once
	over  atomic.Bool // nobody waits for an answer any more
	shut  *control
	reads chan struct{} // tokens of those that read files

	mu        sync.Mutex
	decisions map[fileID]fileState // what was allowed, and in which state
	deciding  map[*execution]bool
	until     time.Time // end of the trial; zero: none
	active    bool
	pending   sync.WaitGroup
}

// fileID tells files apart while they exist.
type fileID struct{ dev, ino uint64 }

// fileState is what a file is known by while it does not change. Somebody who
// has it open for writing can change its content without changing its times
// (mmap(2)): that he closes it is what the kernel tells (FAN_CLOSE_WRITE).
type fileState struct {
	fileID
	size         int64
	mtime, ctime [2]int64
}

func newEnforcer(w *watcher, t *mounts) (*enforcer, error) {
	if w.o.Hook != nil && !w.o.Enforce.Learn {
		return nil, failure.New(failure.Usage, "a command for each record and enforcement exclude each other: the program that answers the kernel must not start programs")
	}
	e := &enforcer{
		w: w, o: *w.o.Enforce, self: int32(os.Getpid()), procs: newProcesses(), decisions: map[fileID]fileState{}, deciding: map[*execution]bool{},
		said: make(chan *Record, maxSaid), done: make(chan struct{}), quit: make(chan struct{}), quiet: make(chan struct{}), reads: make(chan struct{}, maxHashing), active: true,
	}
	if e.o.Timeout == 0 {
		e.o.Timeout = decisionTime
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < minFiles && !e.o.Learn {
		// Without a descriptor the kernel cannot ask, and then it denies.
		return nil, failure.Hint(failure.Errorf(failure.NotReady, "enforcement needs %d descriptors, and this process may have %d", minFiles, limit.Cur),
			"raise the limit: ulimit -n "+strconv.Itoa(minFiles)+", or LimitNOFILE= of the service")
	}
	var err error
	if e.allow, err = newAllowed(w.engine, w.opened, e.o.Allow); err != nil {
		return nil, err
	}
	class := uint(unix.FAN_CLASS_CONTENT)
	if e.o.Learn {
		class = unix.FAN_CLASS_NOTIF
	}
	fd, err := unix.FanotifyInit(class|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|unix.FAN_UNLIMITED_QUEUE|unix.FAN_REPORT_PIDFD,
		unix.O_RDONLY|unix.O_LARGEFILE|unix.O_CLOEXEC|unix.O_NOATIME)
	if err != nil {
		return nil, failure.Errorf(failure.NotReady, "execution cannot be looked at: %w", explain(err))
	}
	if e.group, err = newGroup(fd); err != nil {
		return nil, err
	}
	points := e.points(t)
	if !e.o.Learn {
		err = e.preflight(points)
	}
	if err == nil && e.o.Control != "" {
		e.shut, err = newControl(e.o.Control, e.command)
	}
	if err == nil {
		err = e.mark(points)
	}
	if err != nil {
		e.group.close()
		e.shut.close()
		return nil, err
	}
	text := "what would be denied is noted in " + e.allow.file
	if !e.o.Learn {
		text = "from now on only files whose content is in the baseline or in the allow-list are executed"
		if e.o.Trial > 0 {
			e.until = time.Now().Add(e.o.Trial)
			text += "; this is a trial that ends by itself at " + stamp(e.until) + " unless it is confirmed: mobileops integrity watch --keep"
			time.AfterFunc(e.o.Trial, e.trialOver)
		}
	}
	e.say(&Record{Kind: EnforceRecord, Action: "began", Text: text})
	go e.speak()
	return e, nil
}

// points returns the mount points of the filesystems that are looked at.
func (e *enforcer) points(t *mounts) (out []*mount) {
	have := map[string]bool{}
	add := func(m *mount) {
		if !have[m.dev] {
			have[m.dev] = true
			out = append(out, m)
		}
	}
	for _, m := range t.list {
		if m.covered && t.owner(m.point) == m {
			add(m)
		}
	}
	for _, dir := range e.o.Also {
		add(t.owner([]byte(dir)))
	}
	return out
}

func (e *enforcer) mark(points []*mount) error {
	mask := uint64(unix.FAN_OPEN_EXEC_PERM | unix.FAN_CLOSE_WRITE)
	if e.o.Learn {
		mask = unix.FAN_OPEN_EXEC
	}
	for _, m := range points {
		err := e.group.use(func(fd int) error {
			return unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, mask, unix.AT_FDCWD, string(m.point))
		})
		if err != nil {
			return failure.Errorf(failure.NotReady, "execution on %s (%s) cannot be looked at: %w", m.point, m.kind, err)
		}
	}
	return nil
}

// adopt looks at filesystems that were mounted since.
func (e *enforcer) adopt(t *mounts) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.active {
		if err := e.mark(e.points(t)); err != nil {
			e.w.incomplete("%v", err)
		}
	}
}

// reload takes another baseline's content for what may be executed.
func (e *enforcer) reload(o *integrity.Opened) error {
	err := e.allow.reload(o)
	e.mu.Lock()
	clear(e.decisions)
	e.mu.Unlock()
	return err
}

// run answers until the group is closed. It has a thread of its own, so that
// nothing else in this process can keep it waiting.
func (e *enforcer) run() {
	runtime.LockOSThread()
	hurry()
	defer close(e.done)
	defer e.procs.close()
	buf := make([]byte, readBytes/4) // each event brings two descriptors
	for {
		n, err := e.group.read(buf)
		if errors.Is(err, os.ErrClosed) {
			break
		}
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENXIO) {
			// What the kernel could not tell, it denied. What is known of
			// processes can be read again.
			e.procs.close()
			continue
		}
		if err == nil {
			e.procs.next()
			err = parseEvents(buf[:n], e.event)
		}
		if err != nil {
			e.w.fail(fmt.Errorf("read executions: %w", err))
			e.finish("it failed: " + err.Error())
			break
		}
	}
	e.pending.Wait()
}

// event looks at one execution.
func (e *enforcer) event(ev *event) {
	x := &execution{e: e, fd: ev.fd}
	done := func() {
		if ev.fd >= 0 {
			x.close()
		}
		if ev.pidfd >= 0 {
			unix.Close(ev.pidfd)
		}
	}
	if ev.fd < 0 {
		done()
		return
	}
	var st unix.Stat_t
	err := unix.Fstat(ev.fd, &st)
	x.state = stateOf(&st)
	if ev.mask&(unix.FAN_OPEN_EXEC_PERM|unix.FAN_OPEN_EXEC) == 0 {
		e.written(x.state.fileID)
		done()
		return
	}
	if ev.pid == e.self {
		x.answer(true)
		done()
		return
	}
	e.mu.Lock()
	state, known := e.decisions[x.state.fileID]
	many := len(e.deciding) >= maxDeciding
	e.mu.Unlock()
	if err == nil && known && state == x.state && !openForWriting(ev.fd) {
		x.answer(true)
		done()
		return
	}
	x.path = readLink("/proc/self/fd/" + strconv.Itoa(ev.fd))
	x.proc = e.procs.look(ev.pid, ev.pidfd)
	if many {
		if x.answer(true); !e.o.Learn {
			e.report(x, "timed-out", "too many executions wait for a decision, so it was allowed")
		}
		x.close()
		return
	}
	e.mu.Lock()
	e.deciding[x] = true
	e.mu.Unlock()
	x.timer = time.AfterFunc(e.o.Timeout, x.late)
	e.pending.Go(x.decide)
}

// keep is called every second.
func (e *enforcer) keep() {
	changed, err := e.allow.keep()
	if err != nil {
		e.w.incomplete("the allow-list: %v", err)
	}
	if changed {
		e.mu.Lock()
		clear(e.decisions)
		e.mu.Unlock()
	}
	if n := e.lost.Swap(0); n > 0 {
		e.say(&Record{Kind: LostRecord, Severity: finding.Low, Found: int(n), Text: fmt.Sprintf("%d executions were decided, but could not be told: too many came at once", n)})
	}
}

// say hands a record over without ever waiting: a reader of the records that is
// stopped must not stop the answers.
func (e *enforcer) say(r *Record) {
	select {
	case e.said <- r:
	default:
		e.lost.Add(1)
	}
}

func (e *enforcer) speak() {
	for {
		select {
		case r := <-e.said:
			e.w.tell(r)
		case <-e.quit:
			for {
				select {
				case r := <-e.said:
					e.w.tell(r)
				default:
					close(e.quiet)
					return
				}
			}
		}
	}
}

// command does what was asked for through the control socket.
func (e *enforcer) command(word string) (reply string, ok bool) {
	switch word {
	case "keep":
		e.mu.Lock()
		defer e.mu.Unlock()
		if !e.active {
			return "enforcement has ended already", false
		}
		if e.until.IsZero() {
			return "enforcement is in force without a trial", true
		}
		e.until = time.Time{}
		e.say(&Record{Kind: EnforceRecord, Action: "kept", Text: "the trial was confirmed: enforcement stays in force"})
		return "the trial is over: enforcement stays in force", true
	case "release":
		e.finish("it was released by an admin")
		return "enforcement ended; the watch goes on", true
	}
	return "unknown word", false
}

func (e *enforcer) trialOver() {
	e.mu.Lock()
	over := e.active && !e.until.IsZero()
	e.mu.Unlock()
	if over {
		e.finish("nobody confirmed the trial (mobileops integrity watch --keep)")
	}
}

// finish ends enforcement: once the group is closed, the kernel allows all that
// waits for an answer.
func (e *enforcer) finish(why string) {
	e.ended.Do(func() {
		e.mu.Lock()
		e.active = false
		e.mu.Unlock()
		e.over.Store(true)
		if e.o.Learn { // nobody waits, and what was executed is to be learned
			e.group.drain(learnTime)
		} else {
			e.group.close()
		}
		e.say(&Record{Kind: EnforceRecord, Action: "ended", Text: why})
	})
}

// close ends everything, when the watch does.
func (e *enforcer) close(why string) {
	e.finish(why)
	<-e.done
	if _, err := e.allow.keep(); err != nil {
		e.w.incomplete("the allow-list: %v", err)
	}
	e.shut.close()
	close(e.quit)
	<-e.quiet
}
