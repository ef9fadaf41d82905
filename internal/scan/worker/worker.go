// Package worker is everything between mobileops and the process mobileops-scan:
// it finds the executable, proves that it may be run, starts it with as little as
// it needs, bounds what it uses, and ends it when nobody wants its answer any more.
//
// The process reads what strangers wrote (archives, package databases, images),
// often for root. So it is held by several layers, each of which is left out where
// the kernel has none (see Confinement):
//
//	capabilities  of root it keeps CAP_DAC_READ_SEARCH alone: it reads every file
//	landlock      it writes beneath its own directories and nowhere else, runs no
//	              other program, sends no signals out, and connects to nothing
//	seccomp       no sockets, no change of modes, owners and attributes of files,
//	              none of the calls that widen what can be reached in the kernel
//	namespaces    a network with nothing in it, and processes of its own, which end
//	              with it; of root alone
//	limits        memory, time, silence, size of files and of the answer
//
// A scan of an image in a registry has a network, and may run the programs that
// know the credentials of registries.
//
// These are put on one thread of ours, which forks and then waits: Landlock, the
// filter, capabilities and namespaces belong to a thread and are inherited by what
// it starts, and the kernel ends the process when that thread ends, so when we are
// killed. Limits belong to a process; it gets its request, and so anything that
// could do harm, only when they are in force.
//
// Sources: landlock(7), seccomp(2), capabilities(7), prctl(2), prlimit(2),
// proc_pid_status(5), network_namespaces(7), pid_namespaces(7).
package worker

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// Name is that of the executable.
const Name = "mobileops-scan"

// Options say where the worker may be, and what it may know of our environment.
type Options struct {
	// Path is the configured executable. When it is not empty, no other is looked for.
	Path string
	// Executable is our own. The worker may lie beside it, or in
	// ../libexec/mobileops. Who owns it could replace us, and so may own the worker.
	Executable string
	// StateDir is our state directory. The worker that comes within a release is
	// unpacked beneath it, and directories for what scans unpack are made there.
	StateDir string
	// Version is ours, of buildinfo.
	Version string
	// Environ is our environment, as "KEY=value". What registries need is passed on
	// to scans of remote images; others see nothing of it.
	Environ []string
}

// Worker is an executable that was found. It may be used by many at the same time.
type Worker struct {
	path     string
	embedded *bundle // what was unpacked; nil: the executable lies there by itself
	options  Options
	support  support
}

// Limits bound a job. Zero is no limit, but for Output.
type Limits struct {
	Memory int64         // bytes of memory of its own, without files that are mapped
	Time   time.Duration // from start to end
	Stall  time.Duration // without a line of progress
	Output int64         // bytes of the report; 0 is 1 GiB
	File   int64         // bytes of each file that it writes
	// Background is for jobs that nobody waits for: they take the processor and the
	// disk when others don't want them.
	Background bool
}

// Path returns where the executable is.
func (w *Worker) Path() string { return w.path }

// Scan has one target scanned. The target, and all paths, are absolute. A Temp that
// is empty is a new directory, which is gone afterwards. The directory of the memo is
// made when it is missing, and must have nothing else in it: the worker may write
// there. progress may be nil; it is
// called from one goroutine, with the latest news when there was more than it could
// take, and not after Scan returned. A target that was looked at in part is no error:
// see Report.Problems. Errors are of kind
//
//	Interrupted    ctx was cancelled
//	Failed         it crashed, or exceeded a limit; the message has its last words
//	NotReady       it is of another version, or lacks what it needs
//	Untrustworthy  somebody else could have changed it
//
// or what the worker itself says, such as Untrustworthy for a corrupt database.
func (w *Worker) Scan(ctx context.Context, s *protocol.Scan, l Limits, progress func(protocol.Progress)) (*protocol.Report, error) {
	request := *s
	for _, path := range []struct{ name, value string }{
		{"database", s.Database}, {"Java database", s.JavaDatabase}, {"secret rules", s.SecretRules}, {"memo", s.Memo}, {"temporary directory", s.Temp},
	} {
		if path.value != "" && !filepath.IsAbs(path.value) {
			return nil, failure.Errorf(failure.Usage, "%s: the path %q is not absolute", path.name, path.value)
		}
	}
	if !s.Remote && !filepath.IsAbs(s.Target) {
		return nil, failure.Errorf(failure.Usage, "the path %q is not absolute", s.Target)
	}
	what := "scan of " + visible(s.Target)
	release, err := w.temp(&request.Temp)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer release()
	j := job{
		what: what, request: &protocol.Request{Schema: protocol.Schema, Version: spoken(w.options.Version), Scan: &request},
		temp: request.Temp, write: []string{request.Temp}, remote: s.Remote, parallel: s.Parallel, limits: l, progress: progress,
	}
	if s.Memo != "" {
		dir := filepath.Dir(s.Memo)
		for _, path := range []string{s.Database, s.JavaDatabase, s.SecretRules, w.path, w.home()} {
			if path != "" && beneath(path, dir) {
				return nil, failure.Errorf(failure.Usage, "%s: the memo needs a directory of its own, as the worker may write there: %s has %s", what, dir, path)
			}
		}
		if err := durable.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("%s: memo: %w", what, err)
		}
		j.write = append(j.write, dir)
	}
	a, err := w.run(ctx, &j)
	if err != nil {
		return nil, err
	}
	report := &protocol.Report{Results: a.results, Document: a.document}
	if err := w.accept(&j, a, report, &report.Schema, &report.Version); err != nil {
		return nil, err
	}
	return report, nil
}

// beneath reports whether a path is dir or leads into it.
func beneath(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// Build has a vulnerability database built. Errors and progress are as in Scan.
func (w *Worker) Build(ctx context.Context, b *protocol.Build, l Limits, progress func(protocol.Progress)) (*protocol.BuildReport, error) {
	request := *b
	for _, s := range b.Sources {
		if !filepath.IsAbs(s.Path) {
			return nil, failure.Errorf(failure.Usage, "source: the path %q is not absolute", s.Path)
		}
	}
	if !filepath.IsAbs(b.Output) || b.Temp != "" && !filepath.IsAbs(b.Temp) {
		return nil, failure.Errorf(failure.Usage, "the paths %q and %q are not absolute", b.Output, b.Temp)
	}
	const what = "build of the vulnerability database"
	release, err := w.temp(&request.Temp)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer release()
	j := job{
		what: what, request: &protocol.Request{Schema: protocol.Schema, Version: spoken(w.options.Version), Build: &request},
		temp: request.Temp, write: []string{request.Temp, b.Output}, limits: l, progress: progress,
	}
	a, err := w.run(ctx, &j)
	if err != nil {
		return nil, err
	}
	report := &protocol.BuildReport{}
	if err := w.accept(&j, a, report, &report.Schema, &report.Version); err != nil {
		return nil, err
	}
	return report, nil
}

// accept fills a report, whose schema and version are the two strings.
func (w *Worker) accept(j *job, a *answer, report any, schema, version *string) error {
	if err := a.fill(report); err != nil {
		return fmt.Errorf("%s: %s wrote no report: %w", j.what, Name, err)
	}
	if err := w.same(*version); err != nil {
		return fmt.Errorf("%s: %w", j.what, err)
	}
	if *schema != protocol.Schema {
		return failure.Errorf(failure.NotReady, "%s: %s writes reports in the schema %s, and this mobileops reads %s", j.what, w.path, visible(*schema), protocol.Schema)
	}
	return nil
}

// errVersion is a worker of another version.
var errVersion = errors.New("another version")

// same refuses a worker of another version.
func (w *Worker) same(version string) error {
	if ours := spoken(w.options.Version); spoken(version) != ours {
		return failure.Hint(failure.Errorf(failure.NotReady, "%s is of version %s, and this mobileops of %s: %w", w.path, visible(version), ours, errVersion), "install both of one release, or build both: make build scan-worker")
	}
	return nil
}

var release = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^v?[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$`) })
var pseudo = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`[0-9]{14}-[0-9a-f]{12}`) })

// spoken is the version that both programs tell each other. A release is its own
// number. What was built from a work tree is "devel": the worker takes long to
// link, and would be another one after every commit.
func spoken(version string) string {
	if release().MatchString(version) && !pseudo().MatchString(version) {
		return version
	}
	return "devel"
}
