package plugin

import (
	"context"
	"errors"
	"sync"
	"syscall"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/host"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/supervise"
)

// SuperviseOptions say where the supervisor of plugins keeps what it needs.
type SuperviseOptions struct {
	RunDir string // records of processes
	LogDir string // NAME.log of each service
	Socket string // of the control protocol
	Ready  func() // called when services were started and clients are answered; may be nil
	Warn   func(format string, args ...any)
}

// Supervise keeps the services of plugins running that are to run, and gives
// hooks their events, until ctx is done or a client asks for the end.
func (e *Engine) Supervise(ctx context.Context, opts SuperviseOptions) error {
	w := &warden{engine: e, warn: opts.Warn, known: map[string]string{}, hooks: map[string]*hooked{}}
	sup, err := supervise.New(supervise.Options{
		RunDir: opts.RunDir, LogDir: opts.LogDir, Socket: opts.Socket, Subreaper: true, Version: e.opts.Product, Reload: w.reload, Warn: opts.Warn,
	})
	if err != nil {
		return err
	}
	w.sup = sup
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.ctx = ctx
	if err := w.reload(ctx); err != nil {
		sup.Close()
		return err
	}
	list, err := e.List(ctx)
	if err != nil {
		sup.Close()
		return err
	}
	for _, r := range list {
		if _, serves := w.known[r.Name]; serves && r.Start && r.Enabled {
			if err := sup.Start(ctx, r.Name); err != nil {
				opts.Warn("plugin %s: %v", r.Name, err)
			}
		}
	}
	if opts.Ready != nil {
		opts.Ready()
	}
	err = sup.Run(ctx)
	cancel()
	w.wait()
	return err
}

// warden keeps what the supervisor runs as the records say.
type warden struct {
	engine *Engine
	sup    *supervise.Supervisor
	warn   func(format string, args ...any)
	ctx    context.Context // of the whole supervision

	mu    sync.Mutex
	known map[string]string  // name → manifest digest of its service
	hooks map[string]*hooked // name → its hooks
}

// hooked are the hooks of one plugin, as of one version.
type hooked struct {
	digest string
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// reload looks at what is installed: services come, change and go. One that runs
// goes on as it is, and is the new version from its next start on.
func (w *warden) reload(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	list, err := w.engine.List(ctx)
	if err != nil {
		return err
	}
	here := map[string]bool{}
	for _, r := range list {
		m, err := w.engine.manifestOf(r)
		if err != nil {
			w.warn("plugin %s: %v", r.Name, err)
			continue
		}
		if r.Enabled {
			here[r.Name] = true
			w.follow(r, m)
		}
		if !r.Enabled || m.Service == nil {
			continue
		}
		switch digest, ok := w.known[r.Name]; {
		case !ok:
			err = w.sup.Add(w.service(m))
		case digest != r.Manifest:
			err = w.sup.Replace(w.service(m))
		}
		if err != nil {
			return err
		}
		w.known[r.Name] = r.Manifest
	}
	for name := range w.known {
		if !here[name] {
			if err := w.sup.Remove(ctx, name); err != nil {
				return err
			}
			delete(w.known, name)
		}
	}
	for name, h := range w.hooks {
		if !here[name] {
			h.cancel()
			delete(w.hooks, name)
		}
	}
	return nil
}

// follow gives the hooks of a plugin their events.
func (w *warden) follow(r *Record, m *manifest.Manifest) {
	if h := w.hooks[r.Name]; h != nil {
		if h.digest == r.Manifest {
			return
		}
		h.cancel()
		h.done.Wait() // two versions must not take from one cursor
	}
	ctx, cancel := context.WithCancel(w.ctx)
	h := &hooked{digest: r.Manifest, cancel: cancel}
	warn := func(err error) { w.warn("plugin %s: %v", r.Name, err) }
	for i := range m.Hooks {
		hook := &m.Hooks[i]
		switch hook.On {
		case manifest.OnFinding, manifest.OnAudit:
			h.done.Go(func() {
				if err := w.engine.pump(ctx, r.Name, i, hook, warn); err != nil && ctx.Err() == nil {
					warn(err)
				}
			})
		case manifest.OnSchedule:
			h.done.Go(func() { w.engine.schedule(ctx, r.Name, hook, warn) })
		}
	}
	w.hooks[r.Name] = h
}

// wait waits until no hook runs any more.
func (w *warden) wait() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.hooks {
		h.cancel()
		h.done.Wait()
	}
}

// service is the service of a plugin as the supervisor knows it.
func (w *warden) service(m *manifest.Manifest) supervise.Service {
	s := m.Service
	return supervise.Service{
		Name: m.Name, ReadyTimeout: s.ReadyTimeout, StopTimeout: s.StopTimeout, Restart: supervise.Restart(s.Restart),
		Start: func(ctx context.Context, setup supervise.Setup) (supervise.Process, error) {
			p := &served{ready: make(chan struct{}), ended: make(chan struct{})}
			run, err := w.engine.Start(ctx, m.Name, Call{
				Role: host.RoleService, Args: s.Args, Stdout: setup.Stdout, Stderr: setup.Stderr, Env: []string{setup.Mark}, Group: true,
				OnReady: sync.OnceFunc(func() { close(p.ready) }),
				OnHealth: func(h host.Health) {
					w.sup.SetHealth(m.Name, supervise.Health{Status: h.Status, Message: h.Message, Metrics: h.Metrics})
				},
				OnError: func(err error) { w.warn("plugin %s: %v", m.Name, err) },
			})
			if err != nil {
				return nil, err
			}
			p.run = run
			return p, nil
		},
		Ready: func(ctx context.Context, p supervise.Process) error {
			s := p.(*served)
			select {
			case <-s.ready:
				return nil
			case <-s.ended:
				return errors.New("it ended before it was ready")
			case <-ctx.Done():
				return failure.Errorf(failure.Failed, "it did not say that it is ready: %w", ctx.Err())
			}
		},
	}
}

// served is a running service.
type served struct {
	run   *Running
	ready chan struct{}
	ended chan struct{}
}

// PID returns the number of the process.
func (s *served) PID() int { return s.run.PID() }

// Signal sends a signal to the process group.
func (s *served) Signal(sig syscall.Signal) error { return s.run.Signal(sig) }

// Wait waits for the end.
func (s *served) Wait() (supervise.Exit, error) {
	status, err := s.run.Wait()
	close(s.ended)
	if status > 128 {
		return supervise.Exit{Code: -1, Signal: syscall.Signal(status - 128)}, err
	}
	return supervise.Exit{Code: status}, err
}
