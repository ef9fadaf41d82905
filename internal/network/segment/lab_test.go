package segment

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/network/lab"
	"github.com/mobileops/mobileops/internal/state"
	"golang.org/x/sys/unix"
)

// killEnv makes a child of the test apply the document in a file, and die at a
// step: "STEP STATE-DIRECTORY FILE".
const killEnv = "SEGMENT_TEST_KILL"

func TestMain(m *testing.M) {
	if what := strings.Fields(os.Getenv(killEnv)); len(what) == 3 {
		os.Exit(applyAndDie(what))
	}
	lab.Main(m)
}

func applyAndDie(what []string) int {
	data, err := os.ReadFile(what[2])
	if err != nil {
		panic(err)
	}
	doc, err := Parse(what[2], data)
	if err != nil {
		panic(err)
	}
	left, _ := strconv.Atoi(what[0])
	e := Engine{Store: state.New(what[1], state.Options{})}
	e.before = func(Change) {
		if left == 0 {
			unix.Kill(os.Getpid(), unix.SIGKILL)
		}
		left--
	}
	if _, err := e.Apply(context.Background(), Request{Put: []*Document{doc}, Only: true}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// machine is a host of a lab with an engine in it.
type machine struct {
	testing.TB
	*lab.Host
	Engine
}

func newMachine(t testing.TB, h *lab.Host) *machine {
	t.Helper()
	return &machine{t, h, Engine{Store: state.New(filepath.Join(h.Dir(), "state"), state.Options{}), By: "test"}}
}

func parse(t testing.TB, name, text string) *Document {
	t.Helper()
	d, err := Parse(name+".yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// apply applies documents and nothing else, and returns what was changed.
func (m *machine) apply(docs ...*Document) []string {
	m.Helper()
	list, err := m.tryApply(Request{Put: docs, Only: true})
	if err != nil {
		m.Fatal(err)
	}
	return list
}

func (m *machine) tryApply(r Request) (list []string, err error) {
	err = m.Do(func() error {
		plan, err := m.Engine.Apply(context.Background(), r)
		if err == nil {
			list = texts(plan.Changes())
			for _, m := range plan.Missing {
				list = append(list, m.Text)
			}
		}
		return err
	})
	return list, err
}

func (m *machine) plan(r Request) (list []string, err error) {
	err = m.Do(func() error {
		plan, err := m.Engine.Plan(context.Background(), r)
		if err == nil {
			list = texts(plan.Changes())
		}
		return err
	})
	return list, err
}

func texts(changes []Change) []string {
	list := []string{}
	for _, c := range changes {
		list = append(list, string(c.Sign)+" "+c.Text)
	}
	return list
}

// documents are those in force.
func (m *machine) documents() (list []*Document) {
	m.Helper()
	s, err := load(context.Background(), m.Store)
	if err != nil {
		m.Fatal(err)
	}
	return s.Documents
}

// sh runs a line of shell in the host.
func (m *machine) sh(line string) string { return sh(m.TB, m.Host, line) }

func sh(t testing.TB, h *lab.Host, line string) string {
	t.Helper()
	r := h.Run("sh", "-ec", line)
	if r.Status != 0 {
		t.Fatalf("%s: %q: status %d: %s", h.Name, line, r.Status, r.Stderr)
	}
	return r.Stdout
}

// everythingOf is all that an apply could change. An interface that has been up
// once keeps a queueing discipline of the kernel's choice, and timers run. An
// address of IPv6 that comes back has its routes when it is not tentative any more.
func everythingOf(t testing.TB, h *lab.Host) string {
	t.Helper()
	return sh(t, h, `
i=0; while [ $i -lt 500 ] && ip -6 -o addr show tentative | grep -q .; do sleep 0.02; i=$((i+1)); done
ip -d link | sed 's/ \(numtxqueues\|qlen\).*//; s/ qdisc [a-z_]*//; s/_timer *[0-9.]*//g'
ip -o addr | sed 's/valid_lft.*//'
ip route show table all; ip -6 route show table all
ip rule; ip -6 rule; bridge fdb
cd /proc/sys/net && grep -r . ipv4/conf ipv6/conf ipv4/ip_forward | sort`)
}

func same(t testing.TB, what, before, after string) {
	t.Helper()
	if before == after {
		return
	}
	count := map[string]int{}
	for l := range strings.Lines(before) {
		count[l]--
	}
	for l := range strings.Lines(after) {
		count[l]++
	}
	for l, n := range count {
		switch {
		case n > 0:
			t.Errorf("%s: new: %s", what, strings.TrimSpace(l))
		case n < 0:
			t.Errorf("%s: gone: %s", what, strings.TrimSpace(l))
		}
	}
}

// ping reports an error unless an address answers.
func ping(t testing.TB, from *lab.Host, to string) {
	t.Helper()
	lab.Open(t, from.Ping(netip.MustParseAddr(to)))
}

// workloads is a document with one zone and namespaces of the lab in it.
func workloads(zone string, hosts ...*lab.Host) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nzones:\n  %s\nworkloads:\n", zone)
	for _, h := range hosts {
		fmt.Fprintf(&b, "  %s: {zone: dev, namespace: %s}\n", h.Name, h.NetNS())
	}
	return b.String()
}
