package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/host"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/plugin/sandbox"
	"golang.org/x/sys/unix"
)

// Call is how a plugin is started.
type Call struct {
	Role   string // host.RoleCommand and so on
	Args   []string
	Stdin  *os.File // nil: /dev/null, as are the next two
	Stdout *os.File
	Stderr *os.File
	// Env is added to the environment: what a terminal is like.
	Env []string
	// Files may be read though no permission lists them: those that somebody
	// named on the command line.
	Files []string
	// Group gives it a process group of its own, and no limit of processor
	// time when it is a service.
	Group bool

	OnReady  func()
	OnHealth func(host.Health)
	OnError  func(error) // what went wrong without ending anything; nil: not called
}

// Running is a plugin that was started. Somebody must wait for it.
type Running struct {
	*sandbox.Process
	Manifest *manifest.Manifest
	cancel   context.CancelFunc
	served   chan error
}

// tasksEach is how many threads a process of a plugin may have, on average: the
// runtime of Go makes some for each processor and each blocking call.
const tasksEach = 8

// policyOutline is the policy of a plugin without what only its configuration
// and its call say.
func (e *Engine) policyOutline(m *manifest.Manifest) sandbox.Policy {
	p := m.Permissions
	policy := sandbox.Policy{Limits: sandbox.Limits{
		Memory: uint64(p.Memory), CPU: p.CPU, Tasks: uint64(p.Processes) * tasksEach, Files: uint64(p.Files), FileBytes: uint64(p.FileSize),
	}}
	if os.Geteuid() == 0 && p.RunAs != "root" {
		policy.Account = &sandbox.Account{UID: lastAccount, GID: lastAccount} // some
	}
	return policy
}

// Start proves a plugin and starts it. The context ends only the starting; see
// Running.Wait.
func (e *Engine) Start(ctx context.Context, name string, c Call) (*Running, error) {
	r, err := e.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	if !r.Enabled {
		return nil, failure.Errorf(failure.NotReady, "plugin %s is disabled (mobileops plugin enable %s)", name, name)
	}
	m, err := e.open(ctx, name, &r.Release)
	if err != nil {
		return nil, err
	}
	if m.PermissionsDigest() != r.Accepted {
		return nil, failure.Errorf(failure.Untrustworthy, "plugin %s asks for other permissions than were accepted (install it again)", name)
	}
	values, permissions, err := e.configured(m)
	if err != nil {
		return nil, err
	}
	secrets, err := settingsOf(values)
	if err != nil {
		return nil, err
	}
	if err := e.makeData(r); err != nil {
		return nil, err
	}
	policy := e.policyOutline(m)
	dir := e.packageDir(name, &r.Release)
	policy.Read = append(append([]string{dir}, permissions.Read...), c.Files...)
	policy.Write, policy.Exec, policy.Data, policy.Without = permissions.Write, permissions.Exec, e.DataDir(name), r.Without
	policy.ReadAny = len(permissions.Read)+len(c.Files) > 0
	if policy.Account, err = e.account(r); err != nil {
		return nil, err
	}
	if c.Role == host.RoleService {
		policy.Limits.CPU = 0
	}
	return e.launch(ctx, m, permissions, secrets, policy, filepath.Join(dir, m.Program()), c)
}

// launch starts the program and serves its protocol.
func (e *Engine) launch(ctx context.Context, m *manifest.Manifest, may manifest.ResolvedPermissions, s *settings, policy sandbox.Policy, program string, c Call) (*Running, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "plugin"), os.NewFile(uintptr(fds[1]), "plugin")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return nil, err
	}
	env := append([]string{
		"MOBILEOPS_PLUGIN=" + m.Name, "MOBILEOPS_PLUGIN_VERSION=" + m.Version, "MOBILEOPS_PLUGIN_ROLE=" + c.Role, "MOBILEOPS_PLUGIN_FD=3",
		"MOBILEOPS_PLUGIN_DATA=" + policy.Data, "HOME=" + policy.Data, "TMPDIR=" + filepath.Join(policy.Data, "tmp"), "PATH=/usr/bin:/bin", "LANG=C.UTF-8",
	}, c.Env...)
	proc, err := sandbox.Start(sandbox.Command{
		Program: program, Args: c.Args, Env: env, Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr, Extra: []*os.File{theirs}, Group: c.Group,
	}, policy)
	if err != nil {
		conn.Close()
		return nil, err
	}
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	run := &Running{Process: proc, Manifest: m, cancel: cancel, served: make(chan error, 1)}
	opts := host.Options{
		Name: m.Name, Version: m.Version, Role: c.Role, HostVersion: e.opts.Product, HostID: e.opts.HostID,
		Permissions: host.Permissions{
			Network: may.Network, Unix: may.Unix, FindingsFrom: may.FindingsFrom,
			ReadFindings: slices.Contains(may.Findings, manifest.RightRead), ReportFindings: slices.Contains(may.Findings, manifest.RightReport), ReadAudit: slices.Contains(may.Audit, manifest.RightRead),
		},
		Config: s, Store: e.opts.State, AllowLinkLocal: e.opts.LinkLocal, OnReady: c.OnReady, OnHealth: c.OnHealth, OnError: c.OnError,
	}
	if policy.Account != nil {
		opts.Account = &host.Account{UID: policy.Account.UID, GID: policy.Account.GID}
	}
	if c.Role == host.RoleService && m.Service != nil {
		opts.Watchdog = m.Service.Watchdog
	}
	go func() {
		err := host.Serve(serving, conn.(*net.UnixConn), opts)
		var broken *host.ProtocolError
		if errors.Is(err, host.ErrUnresponsive) || errors.As(err, &broken) {
			proc.Signal(unix.SIGKILL) // it cannot be talked to any more
		}
		run.served <- err
	}()
	return run, nil
}

// Wait waits for the end of the plugin, and returns its exit status: 128 and the
// number of the signal when one ended it.
func (r *Running) Wait() (status int, err error) {
	exit, err := r.Process.Wait()
	r.cancel()
	served := <-r.served
	var broken *host.ProtocolError
	if errors.Is(served, host.ErrUnresponsive) || errors.As(served, &broken) {
		err = errors.Join(err, fmt.Errorf("plugin %s: %w", r.Manifest.Name, served))
	}
	if exit.Status.Signaled() {
		return 128 + int(exit.Status.Signal()), err
	}
	return exit.Status.ExitStatus(), err
}

// End has the plugin end: SIGTERM, and SIGKILL after a time.
func (r *Running) End(after time.Duration) {
	r.Signal(syscall.SIGTERM)
	time.AfterFunc(after, func() { r.Signal(syscall.SIGKILL) })
}
