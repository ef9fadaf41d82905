// Package supervise keeps long-running processes running.
//
// A Supervisor has services. Each is a process that it starts, waits for until
// it is ready, watches, starts again when it fails, and stops; what the process
// prints is kept in a log. The supervisor is asked over a unix socket, by a
// Client; Detach starts one as a daemon, and the package systemd beneath this
// one has systemd run it where that is the first process.
//
// # Nothing is left behind
//
// A service ends when its main process and everything that descends from it
// have ended: SIGTERM to all, and SIGKILL to whoever is left when the time is
// over. How descendants are found that made sessions of their own is told at
// family; a cgroup, where the process has one, misses none. Only when all are
// gone is the service started again.
//
// # When the supervisor is killed
//
// Three things keep services from running on without anybody. Programs that
// StartCommand starts get SIGTERM from the kernel (PR_SET_PDEATHSIG). The ends
// of their pipes, and whatever else connects them with their owner, close, and
// a service should end when they do. And for each process there is a record, by
// which the next supervisor ends what it finds, before it starts anything: a
// second copy never runs beside the first. A process is never adopted: its
// pipes are gone, and with them what it says.
//
// # Shape
//
// suture (github.com/thejerf/suture) runs a goroutine for each service, so that
// a panic is that service's alone; when a service is started again is decided
// here, since the back-off of suture is one for all. Functions of the owner
// (Start, Ready, Check) run in goroutines that nobody has to wait for.
//
// Sources: prctl(2), setsid(2), waitid(2), pidfd_open(2), proc_pid_stat(5),
// cgroups(7), unix(7), flock(2), sd_booted(3).
package supervise

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/thejerf/suture/v4"
	"golang.org/x/sys/unix"
)

// Errors that callers tell apart.
var (
	ErrUnknown = failure.New(failure.Usage, "no such service")
	ErrRunning = failure.New(failure.Busy, "runs already")
	ErrStopped = failure.New(failure.Busy, "does not run")
	ErrClosing = failure.New(failure.Busy, "the supervisor is ending")
	ErrHeld    = failure.New(failure.Busy, "another supervisor is running")
)

// maxServices of a supervisor.
const maxServices = 1000

// Options of a supervisor.
type Options struct {
	RunDir string // records of processes; made with mode 0700; one supervisor at a time
	LogDir string // NAME.log; made with mode 0700
	Socket string // of the control protocol; "": nobody can ask

	LogSize  int64 // bytes of a log file; 0: DefaultLogSize
	LogFiles int   // files of a log; 0: DefaultLogFiles

	// Subreaper makes descendants of services whose parents ended children of
	// this process, instead of the first process of the host, and ends those
	// that are left at the end (see reaper for what this asks of the process).
	Subreaper bool

	Version string                           // of the program, for clients
	Reload  func(ctx context.Context) error  // what a client asks for by reload; may be nil
	Warn    func(format string, args ...any) // told what goes wrong while nobody waits for an answer; may be nil
	Methods map[string]Method                // that clients can call beside those of the protocol
}

// Supervisor runs services.
type Supervisor struct {
	options Options
	boot    string
	locks   []*os.File
	socket  *socket
	tree    *suture.Supervisor
	census  *census
	reaper  *reaper
	watch   watchers

	shutdown chan struct{} // closed when a client asked for the end
	once     sync.Once
	ended    chan struct{} // closed when all services have been stopped
	gone     chan struct{} // closed when the locks are free

	mu      sync.Mutex
	units   map[string]*unit
	changed chan struct{} // closed at each change of a status
	running bool
	closing bool
}

// New makes a supervisor, and takes its directories and its socket. It fails
// with ErrHeld when another supervisor has them. Run has it work; Close gives
// everything back without.
func New(options Options) (*Supervisor, error) {
	if options.RunDir == "" || options.LogDir == "" {
		return nil, failure.New(failure.Usage, "a supervisor needs directories for records and logs")
	}
	if options.LogSize <= 0 {
		options.LogSize = DefaultLogSize
	}
	if options.LogFiles <= 0 {
		options.LogFiles = DefaultLogFiles
	}
	options.LogFiles = min(options.LogFiles, maxLogFiles)
	s := &Supervisor{
		options: options, boot: bootID(), census: newCensus(), reaper: newReaper(),
		units: map[string]*unit{}, changed: make(chan struct{}),
		shutdown: make(chan struct{}), ended: make(chan struct{}), gone: make(chan struct{}),
	}
	s.tree = suture.New("services", suture.Spec{
		FailureThreshold: math.Inf(1), // each service has its own back-off
		EventHook:        s.event,
		Timeout:          time.Minute,
	})
	if err := s.acquire(); err != nil {
		s.release()
		return nil, err
	}
	return s, nil
}

// acquire takes what only one supervisor can have.
func (s *Supervisor) acquire() error {
	if err := durable.MkdirAll(s.options.RunDir, 0o700); err != nil {
		return err
	}
	lock, err := lockFile(filepath.Join(s.options.RunDir, "lock"))
	if err != nil {
		return err
	}
	s.locks = append(s.locks, lock)
	if err := durable.MkdirAll(s.options.LogDir, 0o700); err != nil {
		return err
	}
	if s.options.Socket == "" {
		return nil
	}
	if s.socket, err = listen(s.options.Socket); err != nil {
		return err
	}
	return nil
}

func (s *Supervisor) release() {
	if s.socket != nil {
		s.socket.close()
	}
	for _, f := range s.locks {
		f.Close()
	}
	s.locks = nil
}

// Close gives back what New took, for a supervisor that is not run.
func (s *Supervisor) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running || s.closing {
		return
	}
	s.closing = true
	for _, u := range s.units {
		u.log.close()
	}
	s.release()
	close(s.ended)
	close(s.gone)
}

// event is told by suture what happened to the goroutine of a service.
func (s *Supervisor) event(e suture.Event) {
	if p, ok := e.(suture.EventServicePanic); ok {
		s.warn("service %s: panic: %s", p.ServiceName, p.PanicMsg)
		if u, err := s.unit(p.ServiceName); err == nil {
			u.log.remark("panic: %s", p.PanicMsg)
		}
	}
}

func (s *Supervisor) warn(format string, args ...any) {
	if s.options.Warn != nil {
		s.options.Warn(format, args...)
	}
}

// Add makes a service known. It does not start it.
func (s *Supervisor) Add(service Service) error {
	service, err := service.withDefaults()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return ErrClosing
	}
	if _, ok := s.units[service.Name]; ok {
		return failure.Errorf(failure.Usage, "service %s is there already", service.Name)
	}
	if len(s.units) >= maxServices {
		return failure.Errorf(failure.Usage, "service %s: a supervisor has at most %d", service.Name, maxServices)
	}
	if err := s.order(service); err != nil {
		return err
	}
	s.units[service.Name] = newUnit(s, service)
	return nil
}

// Replace changes a service that is known, from its next start on, a restart
// after a failure included.
func (s *Supervisor) Replace(service Service) error {
	service, err := service.withDefaults()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u, ok := s.units[service.Name]
	if !ok {
		return failure.Errorf(failure.Usage, "service %s: %w", service.Name, ErrUnknown)
	}
	if err := s.order(service); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.service = service
	return nil
}

// order refuses services that would wait for each other. Services that are not
// known (yet) are allowed in After, and mean nothing. The lock is held.
func (s *Supervisor) order(service Service) error {
	after := func(name string) []string {
		if name == service.Name {
			return service.After
		}
		u, ok := s.units[name]
		if !ok {
			return nil
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.service.After
	}
	seen := map[string]bool{}
	var reaches func(name string) bool
	reaches = func(name string) bool {
		if name == service.Name {
			return true
		}
		if seen[name] {
			return false
		}
		seen[name] = true
		for _, next := range after(name) {
			if reaches(next) {
				return true
			}
		}
		return false
	}
	for _, name := range service.After {
		if reaches(name) {
			return failure.Errorf(failure.Usage, "service %s is started after %s, which is started after it", service.Name, name)
		}
	}
	return nil
}

// Remove stops a service and forgets it. Its log stays.
func (s *Supervisor) Remove(ctx context.Context, name string) error {
	u, err := s.unit(name)
	if err != nil {
		return err
	}
	if err := u.take(ctx); err != nil {
		return err
	}
	defer u.give()
	if err := u.stop(ctx); err != nil && !errors.Is(err, ErrStopped) {
		return err
	}
	s.mu.Lock()
	if s.units[name] == u {
		delete(s.units, name)
	}
	s.mu.Unlock()
	u.log.close()
	return nil
}

func (s *Supervisor) unit(name string) (*unit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, ok := s.units[name]
	if !ok {
		return nil, failure.Errorf(failure.Usage, "service %s: %w", name, ErrUnknown)
	}
	return u, nil
}

// Start has a service run from now on, and returns at once; see Await. Before
// Run it is started by that. It fails with ErrRunning when it runs already.
func (s *Supervisor) Start(ctx context.Context, name string) error {
	return s.act(ctx, name, func(u *unit) error { return u.start() })
}

// Stop stops a service, and waits until nothing of it is left, or until ctx is
// done. It fails with ErrStopped when it does not run.
func (s *Supervisor) Stop(ctx context.Context, name string) error {
	return s.act(ctx, name, func(u *unit) error { return u.stop(ctx) })
}

// Restart stops a service if it runs, and starts it.
func (s *Supervisor) Restart(ctx context.Context, name string) error {
	return s.act(ctx, name, func(u *unit) error {
		if err := u.stop(ctx); err != nil && !errors.Is(err, ErrStopped) {
			return err
		}
		return u.start()
	})
}

func (s *Supervisor) act(ctx context.Context, name string, f func(*unit) error) error {
	u, err := s.unit(name)
	if err != nil {
		return err
	}
	if err := u.take(ctx); err != nil {
		return err
	}
	defer u.give()
	s.mu.Lock()
	closing := s.closing || s.units[name] != u
	s.mu.Unlock()
	if closing {
		return ErrClosing
	}
	return f(u)
}

// Await waits until a service is ready, and fails when it stopped, failed or
// backs off before that: the error says why.
func (s *Supervisor) Await(ctx context.Context, name string) (Status, error) {
	for {
		changed := s.changes()
		st, err := s.Status(name)
		if err != nil {
			return st, err
		}
		switch st.State {
		case Ready:
			return st, nil
		case BackingOff:
			return st, failure.Errorf(failure.Failed, "service %s: %s; it is tried again", name, st.Message)
		case Stopped, Failed:
			return st, failure.Errorf(failure.Failed, "service %s is %s: %s", name, st.State, st.Message)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return st, failure.Errorf(failure.Failed, "service %s is still %s: %w", name, st.State, ctx.Err())
		}
	}
}

// Status returns how a service is.
func (s *Supervisor) Status(name string) (Status, error) {
	u, err := s.unit(name)
	if err != nil {
		return Status{}, err
	}
	return u.now(), nil
}

// List returns how all services are, by name.
func (s *Supervisor) List() []Status {
	list := []Status{}
	for _, u := range s.all() {
		list = append(list, u.now())
	}
	return list
}

func (s *Supervisor) all() []*unit {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*unit
	for _, u := range s.units {
		list = append(list, u)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].name() < list[j].name() })
	return list
}

// SetHealth says how a service is beyond that it runs. It is forgotten when
// the service is started again.
func (s *Supervisor) SetHealth(name string, h Health) error {
	if err := h.check(); err != nil {
		return err
	}
	u, err := s.unit(name)
	if err != nil {
		return err
	}
	h = *Status{Health: &h}.copy().Health
	u.mu.Lock()
	same := u.status.Health != nil && u.status.Health.Status == h.Status && u.status.Health.Message == h.Message
	u.status.Health = &h
	u.mu.Unlock()
	if !same {
		s.publish(u)
	}
	return nil
}

// LogPath is where the log of a service is.
func (s *Supervisor) LogPath(name string) string {
	return filepath.Join(s.options.LogDir, name+".log")
}

// Tail gives the last lines of the log of a service, and those that come; see
// TailLog.
func (s *Supervisor) Tail(ctx context.Context, name string, lines int, follow bool) iter.Seq2[Line, error] {
	u, err := s.unit(name)
	if err != nil {
		return func(yield func(Line, error) bool) { yield(Line{}, err) }
	}
	return tailLog(ctx, u.log.path, lines, follow, u.log.wake)
}

// lockFile takes a lock by flock(2), which the kernel drops with the process.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, failure.Errorf(failure.Busy, "%w: it holds %s", ErrHeld, path)
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}
