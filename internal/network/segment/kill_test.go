package segment

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/mobileops/mobileops/internal/network/lab"
)

// TestKilledAtEveryStepHeals kills an apply with SIGKILL before each of its
// steps. Then the same apply finishes what was begun, or a reconcile takes it
// back, and nothing is left at the end.
func TestKilledAtEveryStepHeals(t *testing.T) {
	l := lab.New(t)
	m := newMachine(t, l.Switch().Host("host"))
	web := l.Host("web")
	m.IP("tuntap add tap7 mode tap", "link set tap7 up", "route add default dev eth0")
	untouched := everythingOf(t, m.Host)
	text := "name: lab\n" + workloads(`dev: {subnets: [10.60.0.0/24, fd00:60::/64], nat: true, egress: internet, vxlan: {id: 7, remotes: [192.0.2.7]}}`, web) + `
  vm: {zone: dev, tap: true}
  old: {zone: dev, interface: tap7}
`
	file := filepath.Join(t.TempDir(), "lab.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	doc := parse(t, "lab", text)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := func(step int) (killed bool) {
		c := m.Command(t.Context(), self)
		c.Env = append(c.Environ(), fmt.Sprintf("%s=%d %s %s", killEnv, step, m.Store.Dir(), file))
		out, err := c.CombinedOutput()
		if c.ProcessState.ExitCode() > 0 {
			t.Fatalf("step %d: %v: %s", step, err, out)
		}
		return c.ProcessState.ExitCode() < 0
	}
	step := 0
	for ; child(step); step++ {
		if step%3 == 0 { // somebody has it say something else
			m.sh("ip link set mo-dev alias theirs || true")
		}
		if step%2 == 0 {
			m.apply(doc)
			if list, err := m.plan(Request{}); err != nil || len(list) > 0 {
				t.Fatalf("step %d: %v, still to do: %v", step, err, list)
			}
			ping(t, web, "10.60.0.1")
			ping(t, web, "fd00:60::1")
			m.apply()
		} else if err := m.Do(func() error { _, err := m.Reconcile(context.Background()); return err }); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		same(t, fmt.Sprintf("step %d", step), untouched, everythingOf(t, m.Host))
		if t.Failed() {
			return
		}
	}
	if step < 40 {
		t.Errorf("only %d steps", step)
	}
	// Taking everything away can be killed, too.
	m.apply(doc)
	if err := os.WriteFile(file, []byte("version: 1\nname: other\nzones:\n  other:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for step = 0; child(step); step++ {
		if err := m.Do(func() error { _, err := m.Reconcile(context.Background()); return err }); err != nil {
			t.Fatalf("removal, step %d: %v", step, err)
		}
		if list, err := m.plan(Request{}); err != nil || len(list) > 0 {
			t.Fatalf("removal, step %d: %v, still to do: %v", step, err, list)
		}
		ping(t, web, "10.60.0.1")
	}
	m.apply()
	same(t, "at the end", untouched, everythingOf(t, m.Host))
}
