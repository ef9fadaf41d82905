package systemd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/prop"
	"github.com/mobileops/mobileops/internal/failure"
)

const long = 60 * time.Second

// newBus starts a message bus that is like the system bus, but lets everybody
// own every name.
func newBus(t *testing.T) (address string, stop func()) {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skip("dbus-daemon is not installed")
	}
	dir, err := os.MkdirTemp("", "bus") // short, for the address of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config := filepath.Join(dir, "bus.conf")
	err = os.WriteFile(config, []byte(`<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path=`+dir+`/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--nopidfile", "--print-address")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	t.Cleanup(stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line), stop
}

// fake has the methods of systemd's manager that are used, as
// org.freedesktop.systemd1(5) has them. What becomes of a unit is in its name.
type fake struct {
	conn *dbus.Conn

	mu         sync.Mutex
	subscribed map[dbus.Sender]bool
	jobs       uint32
	active     map[string]string
	enabled    map[string]bool
	reloads    int
}

// newFake owns the name of systemd on a bus.
func newFake(t *testing.T, address string) *fake {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	f := &fake{conn: conn, subscribed: map[dbus.Sender]bool{}, active: map[string]string{}, enabled: map[string]bool{}}
	if err := conn.Export(f, path, manager); err != nil {
		t.Fatal(err)
	}
	if r, err := conn.RequestName(destination, dbus.NameFlagDoNotQueue); err != nil || r != dbus.RequestNameReplyPrimaryOwner {
		t.Fatal(r, err)
	}
	return f
}

func refused(name, text string) *dbus.Error { return dbus.NewError(name, []any{text}) }

func (f *fake) Subscribe(sender dbus.Sender) *dbus.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subscribed[sender] = true
	return nil
}

func (f *fake) Reload() *dbus.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reloads++
	return nil
}

// removed sends JobRemoved, which systemd sends only when somebody subscribed.
func (f *fake) removed(id uint32, unit, result string) {
	f.mu.Lock()
	n := len(f.subscribed)
	f.mu.Unlock()
	if n > 0 {
		f.conn.Emit(path, manager+".JobRemoved", id, jobPath(id), unit, result)
	}
}

func jobPath(id uint32) dbus.ObjectPath {
	return dbus.ObjectPath(fmt.Sprintf("%s/job/%d", path, id))
}

func (f *fake) job(unit, mode, becomes string) (dbus.ObjectPath, *dbus.Error) {
	if mode != "replace" {
		return "", refused("org.freedesktop.DBus.Error.InvalidArgs", "Job mode "+mode+" invalid")
	}
	kind, _, _ := strings.Cut(unit, "-")
	switch kind {
	case "absent":
		return "", refused("org.freedesktop.systemd1.NoSuchUnit", "Unit "+unit+" not found.")
	case "forbidden":
		return "", refused("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", "Interactive authentication required.")
	}
	f.mu.Lock()
	f.jobs += 2
	id := f.jobs
	f.mu.Unlock()
	f.removed(id-1, unit, "failed") // another job of the same unit is not ours
	end := func(result string) {
		f.mu.Lock()
		f.active[unit] = becomes
		if result != "done" {
			f.active[unit] = "failed"
		}
		f.mu.Unlock()
		f.removed(id, unit, result)
	}
	switch kind {
	case "quick":
		end("done") // before the answer to the request
	case "slow":
		time.AfterFunc(200*time.Millisecond, func() { end("done") })
	case "endless":
	default: // failed, timeout, dependency, canceled, skipped, news
		time.AfterFunc(10*time.Millisecond, func() { end(kind) })
	}
	return jobPath(id), nil
}

func (f *fake) StartUnit(unit, mode string) (dbus.ObjectPath, *dbus.Error) {
	return f.job(unit, mode, "active")
}

func (f *fake) RestartUnit(unit, mode string) (dbus.ObjectPath, *dbus.Error) {
	return f.job(unit, mode, "active")
}

func (f *fake) StopUnit(unit, mode string) (dbus.ObjectPath, *dbus.Error) {
	return f.job(unit, mode, "inactive")
}

func (f *fake) EnableUnitFiles(units []string, runtime, force bool) (bool, []change, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var changes []change
	for _, u := range units {
		if strings.HasPrefix(u, "absent") {
			return false, nil, refused("org.freedesktop.DBus.Error.FileNotFound", "Unit file "+u+" does not exist.")
		}
		f.enabled[u] = true
		changes = append(changes, change{"symlink", "/etc/systemd/system/multi-user.target.wants/" + u, "/etc/systemd/system/" + u})
	}
	return true, changes, nil
}

func (f *fake) DisableUnitFiles(units []string, runtime bool) ([]change, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, u := range units {
		delete(f.enabled, u)
	}
	return nil, nil
}

// LoadUnit makes an object of a unit, with its properties.
func (f *fake) LoadUnit(unit string) (dbus.ObjectPath, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := path + "/unit/u" + dbus.ObjectPath(fmt.Sprintf("%x", unit))
	load, active, file := "loaded", f.active[unit], "disabled"
	if strings.HasPrefix(unit, "absent") {
		load = "not-found"
	}
	if active == "" {
		active = "inactive"
	}
	if f.enabled[unit] {
		file = "enabled"
	}
	pid := uint32(0)
	if active == "active" {
		pid = 4711
	}
	_, err := prop.Export(f.conn, at, prop.Map{
		"org.freedesktop.systemd1.Unit": {
			"LoadState": {Value: load}, "ActiveState": {Value: active}, "SubState": {Value: "sub"}, "UnitFileState": {Value: file},
		},
		"org.freedesktop.systemd1.Service": {"MainPID": {Value: pid}},
	})
	if err != nil {
		return "", dbus.MakeFailedError(err)
	}
	return at, nil
}

func connected(t *testing.T) (*Systemd, *fake, func()) {
	t.Helper()
	address, stop := newBus(t)
	f := newFake(t, address)
	s, err := dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, f, stop
}

func TestJobs(t *testing.T) {
	s, _, _ := connected(t)
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	for _, unit := range []string{"quick-a.service", "slow-a.service"} {
		if err := s.Start(ctx, unit); err != nil {
			t.Errorf("start %s: %v", unit, err)
		}
		u, err := s.Unit(ctx, unit)
		if err != nil || u != (Unit{Load: "loaded", Active: "active", Sub: "sub", File: "disabled", MainPID: 4711}) {
			t.Errorf("%s: %+v, %v", unit, u, err)
		}
		if err := s.Restart(ctx, unit); err != nil {
			t.Errorf("restart %s: %v", unit, err)
		}
		if err := s.Stop(ctx, unit); err != nil {
			t.Errorf("stop %s: %v", unit, err)
		}
		if u, err := s.Unit(ctx, unit); err != nil || u.Active != "inactive" || u.MainPID != 0 {
			t.Errorf("%s: %+v, %v", unit, u, err)
		}
	}
	for _, result := range []string{"failed", "timeout", "dependency", "canceled", "skipped", "news"} {
		err := s.Start(ctx, result+"-a.service")
		var job *JobError
		if !errors.As(err, &job) || job.Result != result || failure.KindOf(err) != failure.Failed || !strings.Contains(err.Error(), "systemctl status "+result+"-a.service") {
			t.Errorf("%s: %v", result, err)
		}
	}
	for unit, kind := range map[string]failure.Kind{
		"absent-a.service": failure.NotReady, "forbidden-a.service": failure.NotAllowed,
		"": failure.Usage, "x": failure.Usage, ".service": failure.Usage, "a b.service": failure.Usage, "../a.service": failure.Usage, "a.": failure.Usage,
	} {
		if err := s.Start(ctx, unit); failure.KindOf(err) != kind {
			t.Errorf("%q: %v", unit, err)
		}
	}
	if u, err := s.Unit(ctx, "absent-a.service"); err != nil || u.Load != "not-found" {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestManyJobs has several connections wait for several jobs.
func TestManyJobs(t *testing.T) {
	address, _ := newBus(t)
	newFake(t, address)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			s, err := dial(t.Context(), address)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			kind, bad := "slow", i%2 == 0
			if bad {
				kind = "failed"
			}
			if err := s.Start(t.Context(), fmt.Sprintf("%s-%d.service", kind, i)); (err != nil) != bad {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	all.Wait()
}

func TestJobThatDoesNotEnd(t *testing.T) {
	s, f, stop := connected(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := await(ctx, "endless-a.service", jobPath(1), nil); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "is not waited for") {
		t.Error(err)
	}
	signals := make(chan *dbus.Signal, 1)
	s.conn.Signal(signals)
	go func() {
		for made := uint32(0); made < 2; time.Sleep(5 * time.Millisecond) { // another one is told first
			f.mu.Lock()
			made = f.jobs
			f.mu.Unlock()
		}
		stop()
	}()
	// It may be the answer to the request that does not arrive any more.
	if err := s.Start(t.Context(), "endless-b.service"); err == nil {
		t.Error("a job that did not end is done")
	}
	if err := await(t.Context(), "endless-b.service", jobPath(2), signals); err == nil || !strings.Contains(err.Error(), "the bus went away") {
		t.Error(err)
	}
	if err := s.Reload(t.Context()); err == nil {
		t.Error("without a bus it is reloaded")
	}
}

func TestEnable(t *testing.T) {
	s, f, _ := connected(t)
	ctx := t.Context()
	if err := s.Enable(ctx, "quick-a.service", "/opt/x/quick-b.service"); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(ctx); err != nil {
		t.Error(err)
	}
	f.mu.Lock()
	if f.reloads != 1 {
		t.Errorf("%d times reloaded", f.reloads)
	}
	f.mu.Unlock()
	if u, err := s.Unit(ctx, "quick-a.service"); err != nil || u.File != "enabled" {
		t.Errorf("%+v, %v", u, err)
	}
	if err := s.Disable(ctx, "quick-a.service"); err != nil {
		t.Fatal(err)
	}
	if u, err := s.Unit(ctx, "quick-a.service"); err != nil || u.File != "disabled" {
		t.Errorf("%+v, %v", u, err)
	}
	if err := s.Enable(ctx, "absent-a.service"); failure.KindOf(err) != failure.NotReady {
		t.Error(err)
	}
}

func TestWithoutSystemd(t *testing.T) {
	address, _ := newBus(t)
	if _, err := dial(t.Context(), address); failure.KindOf(err) != failure.NotReady || !strings.Contains(err.Error(), "systemd is not on the bus") {
		t.Errorf("a bus without systemd: %v", err)
	}
	if _, err := dial(t.Context(), "unix:path=/nonexistent/bus"); failure.KindOf(err) != failure.NotReady {
		t.Errorf("no bus: %v", err)
	}
	dir := t.TempDir()
	if bootedAt(filepath.Join(dir, "none")) || !bootedAt(dir) {
		t.Error("whether systemd is there")
	}
	if Booted() {
		t.Skip("systemd is the first process here")
	}
	if _, err := Dial(t.Context(), SystemBus); !errors.Is(err, ErrAbsent) || failure.KindOf(err) != failure.NotReady {
		t.Error(err)
	}
}

// TestSignatures holds the methods to what org.freedesktop.systemd1(5) says
// they take, since another client would not find a mistake that both ends make.
func TestSignatures(t *testing.T) {
	s, _, _ := connected(t)
	want := map[string][2]string{ // in, out
		"StartUnit": {"ss", "o"}, "StopUnit": {"ss", "o"}, "RestartUnit": {"ss", "o"}, "LoadUnit": {"s", "o"},
		"EnableUnitFiles": {"asbb", "ba(sss)"}, "DisableUnitFiles": {"asb", "a(sss)"}, "Reload": {"", ""}, "Subscribe": {"", ""},
	}
	args := map[string][]any{
		"StartUnit": {"quick-x.service", "replace"}, "StopUnit": {"quick-x.service", "replace"}, "RestartUnit": {"quick-x.service", "replace"},
		"LoadUnit": {"quick-x.service"}, "EnableUnitFiles": {[]string{"a.service"}, false, false}, "DisableUnitFiles": {[]string{"a.service"}, false},
	}
	for method, sig := range want {
		if got := dbus.SignatureOf(args[method]...).String(); got != sig[0] {
			t.Errorf("%s takes %q, not %q", method, sig[0], got)
		}
		call := s.manager.Call(manager+"."+method, 0, args[method]...)
		if call.Err != nil {
			t.Errorf("%s: %v", method, call.Err)
			continue
		}
		if got := dbus.SignatureOf(call.Body...).String(); got != strings.ReplaceAll(sig[1], "(sss)", "av") { // as structures are decoded
			t.Errorf("%s answers %q, not %q", method, got, sig[1])
		}
	}
}
