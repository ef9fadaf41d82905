// Package conformance checks whether a program keeps to the protocol
// mobileops.plugin/v1, in whatever language it is written. Authors of plugins
// run it in their own tests:
//
//	func TestConformance(t *testing.T) {
//		conformance.Test(t, conformance.Options{
//			Program: "./mobileops-forwarder", Args: []string{"serve"}, Role: pluginsdk.RoleService,
//			Config: map[string]any{"destination": "logs.example.org:6514"},
//		})
//	}
//
// It plays the host: it starts the program as mobileops would, with one end of
// a socket pair as descriptor 3 and a clean environment, and looks at what the
// program does when answers are late, out of order or refusals, when it is
// killed, when the host dies, floods it or reads nothing. Every check starts
// the program anew, with an empty data directory of its own. What a program
// does not do at all (it subscribes to nothing, it dials nobody) is not
// applicable, which is no failure.
//
// The program is not confined: a sandbox is the business of mobileops. Its
// connections lead nowhere unless Options.Dial says where to.
//
// docs/plugins.md describes the protocol, and each check.
package conformance

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// Options say what to check.
type Options struct {
	Program string   // path of the program
	Args    []string // what plugin.yaml has under args
	Dir     string   // where data directories are made; "": the system's directory for temporary files
	Env     []string // KEY=VALUE beside what mobileops sets

	Name    string // "": from the program's name, without "mobileops-"
	Version string // "": 1.0.0

	Config  map[string]any    // values, as config.get gives them
	Secrets map[string]string // by path: "destinations[0].token"

	Role string // pluginsdk.RoleService (default), RoleHook or RoleCommand
	Hook string // what a hook is on: "finding" (default), "audit", "schedule", "before", "after"

	// Dial connects the plugin to where it asks to be connected to, so that
	// it has real partners. nil: to a partner that reads everything, says
	// nothing and hangs up soon.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	ReadyTimeout time.Duration // of plugin.yaml; 0: 10 s
	StopTimeout  time.Duration // of plugin.yaml; 0: 10 s
	Timeout      time.Duration // for everything else that should happen soon; 0: 20 s

	Skip []string // names of checks that are not run

	observed time.Duration // how long it is watched for what it should not do; 0: 2 s
}

// Status is what came of a check.
type Status string

// The statuses.
const (
	Passed        Status = "passed"
	Failed        Status = "failed"
	NotApplicable Status = "not applicable"
)

// Check is one check and what came of it.
type Check struct {
	Name   string        `json:"name"`
	About  string        `json:"about"` // what a plugin has to do
	Status Status        `json:"status"`
	Reason string        `json:"reason,omitempty"` // of a failure, or why it does not apply
	Took   time.Duration `json:"took_ns"`
}

// Report is what came of all checks, in their order.
type Report struct {
	Checks []Check `json:"checks"`
}

// Failed returns the checks that failed.
func (r *Report) Failed() []Check {
	var failed []Check
	for _, c := range r.Checks {
		if c.Status == Failed {
			failed = append(failed, c)
		}
	}
	return failed
}

// String returns a line for each check.
func (r *Report) String() string {
	var b strings.Builder
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%-14s  %-13s  %s", c.Status, c.Name, c.About)
		if c.Reason != "" {
			fmt.Fprintf(&b, "\n%*s%s", 31, "", strings.ReplaceAll(c.Reason, "\n", "\n"+strings.Repeat(" ", 31)))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// check is a check that can be run. It returns nil, an error that is a
// notApplicable, or what is wrong.
type check struct {
	name, about string
	run         func(*runner) error
}

// notApplicable says why a check does not apply.
type notApplicable string

func (n notApplicable) Error() string { return string(n) }

// runner runs the checks of one plugin, and carries what earlier ones have
// shown to later ones.
type runner struct {
	ctx  context.Context
	opts Options
	root string // of data directories
	dirs int

	serves     bool // it became ready
	subscribes bool // it subscribed
	pings      bool // it answers pings
	acks       bool // it acknowledges events
	noDials    bool // it connected to nobody when it was provoked

	lines  []string // what was wrong with lines, of all processes
	stdout string   // what was written to standard output, of all processes
}

func serviceChecks() []check {
	return []check{
		{"hello", "says nothing before the host's hello", (*runner).hello},
		{"ready", "is ready within its ready_timeout", (*runner).ready},
		{"ping", "answers pings, also while it has much to do", (*runner).ping},
		{"events", "acknowledges events, in their order", (*runner).events},
		{"unknown", "ignores notifications and fields it does not know, refuses such requests", (*runner).unknown},
		{"answers", "takes an answer by its id, whatever comes before it", (*runner).answers},
		{"redelivery", "takes events again that the host delivers again", (*runner).redelivery},
		{"killed", "starts again after kill -9 amid a delivery, and takes it", (*runner).killed},
		{"long-line", "takes lines of 1 MiB", (*runner).longLine},
		{"back-pressure", "waits for a host that does not read, and does not grow", (*runner).backPressure},
		{"refusals", "does not crash on refusals, nor asks on and on", (*runner).refusals},
		{"denied-dial", "does not crash when a connection is denied", (*runner).deniedDial},
		{"descriptors", "closes its connections", (*runner).descriptors},
		{"stop", "ends within its stop_timeout after SIGTERM", (*runner).stop},
		{"host-gone", "ends when the host has died", (*runner).hostGone},
		{"stdout", "writes nothing to standard output", (*runner).quietStdout},
		{"lines", "writes messages of the protocol only", (*runner).goodLines},
	}
}

func hookChecks() []check {
	return []check{
		{"hook", "takes its input and ends with status 0", (*runner).hook},
		{"hook-empty", "ends without input", (*runner).hookEmpty},
		{"hook-unknown", "skips events and fields it does not know", (*runner).hookUnknown},
		{"refusals", "does not crash on refusals, nor asks on and on", (*runner).refusals},
		{"lines", "writes messages of the protocol only", (*runner).goodLines},
	}
}

func commandChecks() []check {
	return []check{
		{"hello", "says nothing before the host's hello", (*runner).hello},
		{"command", "ends by itself with status 0", (*runner).command},
		{"answers", "takes an answer by its id, whatever comes before it", (*runner).answers},
		{"refusals", "does not crash on refusals, nor asks on and on", (*runner).refusals},
		{"lines", "writes messages of the protocol only", (*runner).goodLines},
	}
}

// Run runs all checks for the role and returns what came of them. When the
// context ends, the checks that are left are not applicable. What the program
// leaves running in its process group is killed.
func Run(ctx context.Context, opts Options) Report {
	checks := map[string]func() []check{
		pluginsdk.RoleService: serviceChecks, pluginsdk.RoleHook: hookChecks, pluginsdk.RoleCommand: commandChecks,
	}
	fail := func(format string, args ...any) Report {
		return Report{[]Check{{Name: "program", About: "can be started", Status: Failed, Reason: fmt.Sprintf(format, args...)}}}
	}
	setDefault(&opts.Role, pluginsdk.RoleService)
	setDefault(&opts.Hook, "finding")
	setDefault(&opts.Name, strings.TrimPrefix(filepath.Base(opts.Program), "mobileops-"))
	setDefault(&opts.Version, "1.0.0")
	setDefault(&opts.ReadyTimeout, 10*time.Second)
	setDefault(&opts.StopTimeout, 10*time.Second)
	setDefault(&opts.Timeout, 20*time.Second)
	setDefault(&opts.observed, 2*time.Second)
	list := checks[opts.Role]
	if list == nil {
		return fail("the role %q is none of service, hook, command", opts.Role)
	}
	program, err := filepath.Abs(opts.Program)
	if err != nil {
		return fail("%v", err)
	}
	if info, err := os.Stat(program); err != nil {
		return fail("%v", err)
	} else if info.IsDir() || info.Mode()&0o111 == 0 {
		return fail("%s is not executable (chmod +x)", program)
	}
	opts.Program = program
	root, err := os.MkdirTemp(opts.Dir, "conformance-")
	if err != nil {
		return fail("%v", err)
	}
	defer os.RemoveAll(root)

	r := &runner{ctx: ctx, opts: opts, root: root}
	var report Report
	for _, c := range list() {
		began := time.Now()
		result := Check{Name: c.name, About: c.about, Status: Passed}
		err := r.skipped(c.name)
		if err == nil {
			err = c.run(r)
		}
		if ctx.Err() != nil {
			err = notApplicable("interrupted: " + context.Cause(ctx).Error())
		}
		if why, ok := err.(notApplicable); ok {
			result.Status, result.Reason = NotApplicable, string(why)
		} else if err != nil {
			result.Status, result.Reason = Failed, err.Error()
		}
		result.Took = time.Since(began)
		report.Checks = append(report.Checks, result)
	}
	return report
}

func (r *runner) skipped(name string) error {
	for _, s := range r.opts.Skip {
		if s == name {
			return notApplicable("skipped")
		}
	}
	return nil
}

func setDefault[V comparable](v *V, value V) {
	var zero V
	if *v == zero {
		*v = value
	}
}

// Tester is a *testing.T. The package does not import testing, so that a
// program that runs the checks does not get its flags.
type Tester[T any] interface {
	Helper()
	Context() context.Context
	Error(args ...any)
	Log(args ...any)
	Run(name string, test func(T)) bool
}

// Test runs all checks, each as a subtest: conformance.Test(t, opts).
func Test[T Tester[T]](t T, opts Options) {
	t.Helper()
	report := Run(t.Context(), opts)
	for _, c := range report.Checks {
		t.Run(c.Name, func(t T) {
			t.Helper()
			switch c.Status {
			case Failed:
				t.Error("a plugin " + c.About + "; this one does not: " + c.Reason)
			case NotApplicable:
				t.Log("not applicable: " + c.Reason)
			}
		})
	}
}
