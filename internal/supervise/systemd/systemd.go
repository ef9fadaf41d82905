// Package systemd starts, stops and enables units where systemd is the first
// process, through its D-Bus interface org.freedesktop.systemd1, as
// org.freedesktop.systemd1(5) describes it.
//
// A request such as StartUnit answers with a job at once; how the job ended is
// told by the signal JobRemoved. The functions here wait for that, and make an
// error of every end that is not the one that was asked for.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/godbus/dbus/v5"
	"github.com/mobileops/mobileops/internal/failure"
)

// SystemBus is the address of the bus on which systemd is, where none is
// configured otherwise (D-Bus specification, "System message bus").
const SystemBus = "unix:path=/var/run/dbus/system_bus_socket"

const (
	destination = "org.freedesktop.systemd1"
	path        = dbus.ObjectPath("/org/freedesktop/systemd1")
	manager     = "org.freedesktop.systemd1.Manager"
)

// ErrAbsent says that systemd is not the first process.
var ErrAbsent = failure.New(failure.NotReady, "systemd is not the first process of this host")

// Booted reports whether systemd is the first process (sd_booted(3)).
func Booted() bool { return bootedAt("/run/systemd/system") }

func bootedAt(dir string) bool {
	st, err := os.Lstat(dir)
	return err == nil && st.IsDir()
}

// Systemd is a connection to it. A connection serves one caller at a time.
type Systemd struct {
	conn    *dbus.Conn
	manager dbus.BusObject
}

// Dial connects to systemd, with an error that is ErrAbsent where it is not the
// first process. bus is an address, such as SystemBus.
func Dial(ctx context.Context, bus string) (*Systemd, error) {
	if !Booted() {
		return nil, ErrAbsent
	}
	return dial(ctx, bus)
}

func dial(ctx context.Context, bus string) (*Systemd, error) {
	// The connection lasts longer than ctx may, which only bounds its making.
	made := make(chan *dbus.Conn, 1)
	failed := make(chan error, 1)
	go func() {
		conn, err := dbus.Connect(bus, dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
		if err != nil {
			failed <- err
			return
		}
		made <- conn
	}()
	select {
	case conn := <-made:
		s := &Systemd{conn: conn, manager: conn.Object(destination, path)}
		// Without it systemd sends no signals to this connection.
		if err := s.manager.CallWithContext(ctx, manager+".Subscribe", 0).Err; err != nil {
			conn.Close()
			return nil, explain(ctx, "subscribe", "", err)
		}
		return s, nil
	case err := <-failed:
		return nil, failure.Errorf(failure.NotReady, "the bus of systemd: %w", err)
	case <-ctx.Done():
		go func() {
			select {
			case conn := <-made:
				conn.Close()
			case <-failed:
			}
		}()
		return nil, fmt.Errorf("the bus of systemd does not answer: %w", ctx.Err())
	}
}

// Close ends the connection.
func (s *Systemd) Close() error { return s.conn.Close() }

// JobError is a job that ended otherwise than it was meant to.
type JobError struct {
	Unit   string
	Result string // canceled, timeout, failed, dependency, skipped, …
}

func (e *JobError) Error() string {
	what := map[string]string{
		"canceled":   "was cancelled by another request",
		"timeout":    "took too long",
		"failed":     "failed",
		"dependency": "failed, since a unit that it needs did",
		"skipped":    "was skipped, since it does not apply in the state of the unit",
		"invalid":    "was not possible",
		"assert":     "failed by an assertion of the unit",
	}[e.Result]
	if what == "" {
		what = "ended: " + e.Result
	}
	return fmt.Sprintf("unit %s: the job %s (see: systemctl status %s)", e.Unit, what, e.Unit)
}

// Start starts a unit and waits until it is active.
func (s *Systemd) Start(ctx context.Context, unit string) error { return s.job(ctx, "StartUnit", unit) }

// Stop stops a unit and waits until it has ended.
func (s *Systemd) Stop(ctx context.Context, unit string) error { return s.job(ctx, "StopUnit", unit) }

// Restart stops a unit if it is active, and starts it.
func (s *Systemd) Restart(ctx context.Context, unit string) error {
	return s.job(ctx, "RestartUnit", unit)
}

// job calls a method that makes a job, and waits for its end.
func (s *Systemd) job(ctx context.Context, method, unit string) error {
	if err := checkUnit(unit); err != nil {
		return err
	}
	match := []dbus.MatchOption{
		dbus.WithMatchSender(destination), dbus.WithMatchObjectPath(path),
		dbus.WithMatchInterface(manager), dbus.WithMatchMember("JobRemoved"),
	}
	// Before the call: the job may end before its answer is read.
	if err := s.conn.AddMatchSignalContext(ctx, match...); err != nil {
		return explain(ctx, method, unit, err)
	}
	defer s.conn.RemoveMatchSignal(match...)
	signals := make(chan *dbus.Signal, 64)
	s.conn.Signal(signals)
	defer s.conn.RemoveSignal(signals)
	var job dbus.ObjectPath
	if err := s.manager.CallWithContext(ctx, manager+"."+method, 0, unit, "replace").Store(&job); err != nil {
		return explain(ctx, method, unit, err)
	}
	return await(ctx, unit, job, signals)
}

// await waits until signals tell how a job of a unit ended.
func await(ctx context.Context, unit string, job dbus.ObjectPath, signals <-chan *dbus.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("unit %s: its job goes on, and is not waited for any more: %w", unit, ctx.Err())
		case signal, open := <-signals:
			if !open {
				return failure.Errorf(failure.Failed, "unit %s: the bus went away before its job ended", unit)
			}
			var id uint32
			var ended dbus.ObjectPath
			var name, result string
			if signal.Name != manager+".JobRemoved" || dbus.Store(signal.Body, &id, &ended, &name, &result) != nil || ended != job {
				continue
			}
			if result == "done" {
				return nil
			}
			return failure.Wrap(failure.Failed, &JobError{unit, result})
		}
	}
}

// Enable has units started at boot. They are names, or absolute paths of files
// that are linked into place. A changed configuration is taken up by Reload.
func (s *Systemd) Enable(ctx context.Context, units ...string) error {
	for _, u := range units {
		if strings.HasPrefix(u, "/") {
			continue
		}
		if err := checkUnit(u); err != nil {
			return err
		}
	}
	var carries bool
	var changes []change
	const runtime, force = false, false
	err := s.manager.CallWithContext(ctx, manager+".EnableUnitFiles", 0, units, runtime, force).Store(&carries, &changes)
	return explain(ctx, "EnableUnitFiles", strings.Join(units, ", "), err)
}

// change is what was done to a link or file of a unit.
type change struct{ Kind, File, Destination string }

// Disable has units no longer started at boot.
func (s *Systemd) Disable(ctx context.Context, units ...string) error {
	for _, u := range units {
		if err := checkUnit(u); err != nil {
			return err
		}
	}
	var changes []change
	const runtime = false
	err := s.manager.CallWithContext(ctx, manager+".DisableUnitFiles", 0, units, runtime).Store(&changes)
	return explain(ctx, "DisableUnitFiles", strings.Join(units, ", "), err)
}

// Reload has systemd read all unit files again.
func (s *Systemd) Reload(ctx context.Context) error {
	return explain(ctx, "Reload", "", s.manager.CallWithContext(ctx, manager+".Reload", 0).Err)
}

// Unit is how a unit is.
type Unit struct {
	Load    string // loaded, not-found, bad-setting, error, masked
	Active  string // active, reloading, inactive, failed, activating, deactivating
	Sub     string // such as running, dead, exited, auto-restart
	File    string // enabled, disabled, static, masked, …; "": it has no file
	MainPID uint32 // of a service; 0: none
}

// Unit asks how a unit is. One that does not exist is no error: its Load is
// "not-found".
func (s *Systemd) Unit(ctx context.Context, name string) (Unit, error) {
	var u Unit
	if err := checkUnit(name); err != nil {
		return u, err
	}
	var at dbus.ObjectPath
	if err := s.manager.CallWithContext(ctx, manager+".LoadUnit", 0, name).Store(&at); err != nil {
		return u, explain(ctx, "LoadUnit", name, err)
	}
	object := s.conn.Object(destination, at)
	all := map[string]dbus.Variant{}
	const properties = "org.freedesktop.DBus.Properties.GetAll"
	if err := object.CallWithContext(ctx, properties, 0, "org.freedesktop.systemd1.Unit").Store(&all); err != nil {
		return u, explain(ctx, "properties", name, err)
	}
	for key, into := range map[string]*string{"LoadState": &u.Load, "ActiveState": &u.Active, "SubState": &u.Sub, "UnitFileState": &u.File} {
		v, ok := all[key]
		if !ok {
			continue
		}
		if err := v.Store(into); err != nil {
			return u, failure.Errorf(failure.Failed, "unit %s: %s: %w", name, key, err)
		}
	}
	if u.Active == "" {
		return u, failure.Errorf(failure.Failed, "unit %s: systemd does not say whether it is active", name)
	}
	if strings.HasSuffix(name, ".service") {
		var v dbus.Variant
		const get = "org.freedesktop.DBus.Properties.Get"
		if err := object.CallWithContext(ctx, get, 0, "org.freedesktop.systemd1.Service", "MainPID").Store(&v); err == nil {
			_ = v.Store(&u.MainPID)
		}
	}
	return u, nil
}

// checkUnit refuses what is no name of a unit (systemd.unit(5)).
func checkUnit(name string) error {
	i := strings.LastIndexByte(name, '.')
	good := i > 0 && i < len(name)-1 && len(name) <= 255 && !strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(`:-_.\@`, r))
	})
	if !good {
		return failure.Errorf(failure.Usage, "%q is no name of a unit (such as mobileops-plugins.service)", name)
	}
	return nil
}

// explain gives an error of D-Bus its kind.
func explain(ctx context.Context, method, unit string, err error) error {
	if err == nil {
		return nil
	}
	what := "systemd: " + method
	if unit != "" {
		what += " " + unit
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
	var answer dbus.Error
	if !errors.As(err, &answer) {
		return fmt.Errorf("%s: %w", what, err)
	}
	switch answer.Name {
	case "org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.systemd1.LoadFailed", "org.freedesktop.DBus.Error.FileNotFound":
		return failure.Errorf(failure.NotReady, "%s: %w", what, err)
	case "org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", "org.freedesktop.DBus.Error.AuthFailed":
		return failure.Errorf(failure.NotAllowed, "%s: %w", what, err)
	case "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner":
		return failure.Errorf(failure.NotReady, "%s: systemd is not on the bus: %w", what, err)
	}
	return failure.Errorf(failure.Failed, "%s: %w", what, err)
}
