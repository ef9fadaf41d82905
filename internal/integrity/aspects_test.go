package integrity

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/integrity/facts/containers"
	"github.com/mobileops/mobileops/internal/state"
)

// fakeRuntime answers as docker does, with containers of these names. That the
// real ones answer so is shown in package containers.
type fakeRuntime struct {
	containers []string // "web", or "web!" for a privileged one
	server     *http.Server
	socket     string
}

func (r *fakeRuntime) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	switch p := req.URL.Path; {
	case p == "/version":
		w.Write([]byte(`{"Version":"1"}`))
	case p == "/containers/json":
		var list []string
		for _, c := range r.containers {
			list = append(list, `{"Id":"`+c+`"}`)
		}
		w.Write([]byte("[" + strings.Join(list, ",") + "]"))
	case p == "/images/json":
		w.Write([]byte("[]"))
	default:
		name := strings.Split(p, "/")[2]
		privileged := "false"
		if strings.HasSuffix(name, "!") {
			privileged = "true"
		}
		w.Write([]byte(`{"Id":"` + name + `","Name":"/` + strings.TrimSuffix(name, "!") + `","HostConfig":{"Privileged":` + privileged + `}}`))
	}
}

func (r *fakeRuntime) start(t testing.TB) {
	t.Helper()
	l, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	r.server = &http.Server{Handler: r}
	go r.server.Serve(l)
	t.Cleanup(func() { r.server.Close() })
}

// newAspectBench is a bench whose host has a container runtime.
func newAspectBench(t testing.TB) (*bench, *fakeRuntime) {
	t.Helper()
	b := newBench(t, plainPolicy)
	b.pol = b.pol.WithPaths([]string{b.tree})
	dir, err := os.MkdirTemp("", "mo-as-") // short: a socket's name has little room
	b.must(err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &fakeRuntime{containers: []string{"web"}, socket: filepath.Join(dir, "s")}
	r.start(t)
	b.Collectors.Containers = containers.Collector{Endpoints: []containers.Endpoint{{Name: "docker", Socket: r.socket}}}
	b.put("f", "x")
	return b, r
}

func (b *bench) takeAll() *Taken {
	b.Helper()
	t, err := b.Take(b.Context(), TakeOptions{Name: "default", Policy: b.pol, Aspects: []string{facts.Files, facts.Containers}})
	b.must(err)
	return t
}

func (b *bench) expectDrift(r *Report, want ...string) {
	b.Helper()
	got := []string{}
	for _, c := range r.Drift {
		got = append(got, string(c.Kind)+" "+c.Severity.String()+" "+c.ID())
	}
	if !slices.Equal(got, append([]string{}, want...)) {
		b.Errorf("drift %q, want %q; problems %+v, unknown %+v", got, want, r.Problems, r.Unknown)
	}
}

func (b *bench) openAspectFindings() []string {
	b.Helper()
	out := []string{}
	b.must(b.Store.View(b.Context(), func(tx *state.Tx) error {
		list, err := finding.List(tx, finding.Filter{}, time.Now())
		for _, r := range list {
			if r.State == finding.Open {
				out = append(out, r.Rule+" "+r.Subject)
			}
		}
		return err
	}))
	slices.Sort(out)
	return out
}

func TestDriftIsReportedStoredAndResolved(t *testing.T) {
	b, rt := newAspectBench(t)
	b.takeAll()
	r := b.compare(CompareOptions{})
	b.expect(r)
	b.expectDrift(r)
	if !slices.Equal(r.Aspects, []string{facts.Files, facts.Containers}) || r.Kind(finding.Info) != failure.None {
		t.Errorf("aspects %q, kind %v", r.Aspects, r.Kind(finding.Info))
	}

	rt.containers = []string{"web", "evil!"}
	b.put("g", "new")
	r = b.compare(CompareOptions{})
	b.expectDrift(r, "added high containers:container/docker/evil")
	if r.Kind(finding.High) != failure.No || r.Kind(finding.Critical) != failure.None {
		t.Error("the severity of drift does not count")
	}
	file := "file-added " + filepath.Join(b.tree, "g")
	drift := "containers-container-added containers:container/docker/evil"
	want := []string{drift, file}
	if got := b.openAspectFindings(); !slices.Equal(got, want) {
		t.Errorf("findings %q, want %q", got, want)
	}
	stored, _, err := b.LoadReport(t.Context(), "default", Latest)
	b.must(err)
	b.expectDrift(stored, "added high containers:container/docker/evil")
	if len(stored.Changes) != 1 || stored.Drift[0].New == nil || stored.Drift[0].New.Attributes["privileged"] != "yes" {
		t.Errorf("stored: %+v", stored)
	}

	// One aspect alone leaves the findings of the others as they are.
	rt.containers = []string{"web"}
	b.must(os.Remove(b.path("g")))
	b.expectDrift(b.compare(CompareOptions{Only: []string{facts.Containers}}))
	if got := b.openAspectFindings(); !slices.Equal(got, []string{file}) {
		t.Errorf("findings %q, want that of the file alone", got)
	}
	rt.containers = []string{"evil!"}
	b.expectDrift(b.compare(CompareOptions{Only: []string{facts.Files}}))
	if got := b.openAspectFindings(); len(got) > 0 {
		t.Errorf("findings %q, want none", got)
	}
	b.expectDrift(b.compare(CompareOptions{Only: []string{facts.Containers}}), "added high containers:container/docker/evil", "removed low containers:container/docker/web")
}

// TestLatestReport: looking at one aspect does not put the report of a check out
// of reach, and what it found can be accepted at once.
func TestLatestReport(t *testing.T) {
	b, rt := newAspectBench(t)
	b.takeAll()
	b.put("g", "new")
	check := b.compare(CompareOptions{})
	rt.containers = []string{"web", "evil!"}
	b.compare(CompareOptions{Only: []string{facts.Containers}})
	if _, entry, err := b.LoadReport(t.Context(), "default", Latest); err != nil || entry.ID != check.ID {
		t.Errorf("latest is %s (%v), want %s, that of the check", entry.ID, err, check.ID)
	}
	a, err := b.Accept(t.Context(), AcceptOptions{Name: "default", Drift: []string{"containers:container/docker/evil"}})
	if err != nil || len(a.Drift) != 1 {
		t.Fatalf("%v %+v", err, a)
	}
	if a, err = b.Accept(t.Context(), AcceptOptions{Name: "default", Paths: [][]byte{[]byte(filepath.Join(b.tree, "g"))}}); err != nil || len(a.Changes) != 1 {
		t.Fatalf("%v %+v", err, a)
	}
	r := b.compare(CompareOptions{})
	b.expectDrift(r)
	b.expect(r)
}

// TestRuntimeThatStopped: its containers are not known, and not gone.
func TestRuntimeThatStopped(t *testing.T) {
	b, rt := newAspectBench(t)
	b.takeAll()
	rt.containers = []string{"web", "evil!"}
	b.compare(CompareOptions{})
	before := b.openAspectFindings()
	rt.server.Close()
	r := b.compare(CompareOptions{})
	b.expectDrift(r, "removed low containers:runtime/docker")
	if len(r.Problems) != 1 || string(r.Problems[0].Path) != "containers:docker" || r.Kind(finding.Info) != failure.Incomplete {
		t.Errorf("problems %+v, kind %v", r.Problems, r.Kind(finding.Info))
	}
	if got := b.openAspectFindings(); len(before) != 1 || !slices.Contains(got, before[0]) {
		t.Errorf("findings %q: that about the container was resolved", got)
	}
	os.Remove(rt.socket)
	rt.start(t)
	rt.containers = []string{"web"}
	b.expectDrift(b.compare(CompareOptions{}))
	if got := b.openAspectFindings(); len(got) > 0 {
		t.Errorf("findings %q", got)
	}

	// A baseline that was taken without an answer lacks it, and says so.
	rt.server.Close()
	os.Remove(rt.socket)
	b.must(os.WriteFile(rt.socket, nil, 0o600))
	taken := b.takeAll()
	if len(taken.Unknown) != 0 { // no socket answers: it is absent
		t.Errorf("unknown %+v", taken.Unknown)
	}
}

// TestNobodyKnows: what neither the baseline nor the check could ask does not
// make a check of files incomplete, and is said.
func TestNobodyKnows(t *testing.T) {
	b, rt := newAspectBench(t)
	rt.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) })
	taken := b.takeAll()
	if len(taken.Unknown) != 1 || taken.Unknown[0].Source != "containers:docker" || taken.Kind() != failure.None {
		t.Errorf("%+v", taken)
	}
	r := b.compare(CompareOptions{})
	if len(r.Unknown) != 1 || len(r.Problems) != 0 || r.Kind(finding.Info) != failure.None {
		t.Errorf("unknown %+v, problems %+v", r.Unknown, r.Problems)
	}
	rt.server.Close()
	os.Remove(rt.socket)
	rt.start(t)
	r = b.compare(CompareOptions{})
	if len(r.Problems) != 1 || !r.Problems[0].Before || len(r.Drift) != 1 || r.Drift[0].Fact().Kind != "runtime" {
		t.Errorf("problems %+v, drift %+v: a container that may always have been there is new", r.Problems, r.Drift)
	}
}

func TestAspectsOfABaseline(t *testing.T) {
	b, _ := newAspectBench(t)
	b.takeAll()
	_, err := b.Compare(t.Context(), CompareOptions{Name: "default", Only: []string{facts.Network}})
	if !errors.Is(err, ErrNoAspect) || failure.KindOf(err) != failure.NotReady || !strings.Contains(err.Error(), "--only files,containers,network") {
		t.Errorf("%v", err)
	}
	if _, err = b.Compare(t.Context(), CompareOptions{Name: "default", Only: []string{"weather"}}); failure.KindOf(err) != failure.Usage {
		t.Errorf("%v", err)
	}
	// Another tree is not the host.
	r, err := b.Compare(t.Context(), CompareOptions{Name: "default", Scan: Scan{Tree: b.tree}})
	b.must(err)
	if len(r.Drift) > 0 || len(r.Unknown) != 1 || slices.Contains(r.Aspects, facts.Containers) {
		t.Errorf("%+v", r)
	}
	// Without files.
	taken, err := b.Take(t.Context(), TakeOptions{Name: "only", Policy: b.pol, Aspects: []string{facts.Containers}})
	b.must(err)
	if taken.Entry.Entries != 0 || !slices.Equal(taken.Entry.Aspects, []string{facts.Containers}) {
		t.Errorf("%+v", taken.Entry)
	}
	b.put("new", "x")
	if r, err = b.Compare(t.Context(), CompareOptions{Name: "only"}); err != nil || len(r.Changes)+len(r.Drift) > 0 {
		t.Errorf("%v %+v", err, r)
	}
	if _, err = b.Compare(t.Context(), CompareOptions{Name: "only", Only: []string{facts.Files}}); !errors.Is(err, ErrNoAspect) {
		t.Errorf("%v", err)
	}
}

// TestFactsAreTheBaselines: a file of facts that is not the one of the
// catalogue is found out, and goes with its baseline.
func TestFactsAreTheBaselines(t *testing.T) {
	b, rt := newAspectBench(t)
	c := b.takeAll().Entry
	file := b.factsFile(c)
	good, err := os.ReadFile(file)
	b.must(err)
	rt.containers = []string{"web", "evil!"}
	other, err := os.ReadFile(b.factsFile(b.takeAll().Entry))
	b.must(err)
	for name, content := range map[string][]byte{"those of another": other, "cut off": good[:len(good)/2], "empty": {}} {
		b.must(os.WriteFile(file, content, 0o600))
		if _, err := b.Compare(t.Context(), CompareOptions{Name: "default@" + c.ID}); failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.must(os.Remove(file))
	if _, err := b.Compare(t.Context(), CompareOptions{Name: "default@" + c.ID}); failure.KindOf(err) != failure.Untrustworthy {
		t.Errorf("removed: %v", err)
	}
	b.must(os.WriteFile(file, good, 0o600))
	_, err = b.Remove(t.Context(), "default")
	b.must(err)
	if left, _ := filepath.Glob(b.Engine.path("*.facts")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
