//go:build goexperiment.jsonv2

// Package trivy looks at one target with Trivy's analyzers and detectors.
//
// What is Trivy's is how files are understood and how packages are matched with
// advisories. What is ours is everything around it, because Trivy leaves out
// silently what it cannot read or parse: the walk over a tree (walk.go), the
// reading of images (image.go, layers.go), the calling of analyzers, one by one,
// so that an error or a panic of one becomes a Problem that names its file
// (analyzers.go, inspect.go), the database, which is only ever read
// (database.go), and the cache, which is memory.
//
// Trivy has state in global variables: the database, the default transport of
// HTTP, the directory for temporary files. A process runs one Scan at a time.
package trivy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	tdb "github.com/aquasecurity/trivy-db/pkg/db"
	"github.com/aquasecurity/trivy/pkg/cache"
	"github.com/aquasecurity/trivy/pkg/fanal/applier"
	"github.com/aquasecurity/trivy/pkg/fanal/artifact"
	artsbom "github.com/aquasecurity/trivy/pkg/fanal/artifact/sbom"
	"github.com/aquasecurity/trivy/pkg/log"
	"github.com/aquasecurity/trivy/pkg/scan"
	"github.com/aquasecurity/trivy/pkg/scan/langpkg"
	"github.com/aquasecurity/trivy/pkg/scan/local"
	"github.com/aquasecurity/trivy/pkg/scan/ospkg"
	"github.com/aquasecurity/trivy/pkg/vulnerability"

	"github.com/mobileops/mobileops/internal/buildinfo"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// Engine names what scans, as reports do.
const Engine = "trivy 0.72.0"

const maxSBOM = 1 << 30 // bytes of a document, unless the request says otherwise

type traceKey struct{}

// WithTrace returns a context whose scans write to w what parsers leave behind
// that panicked.
func WithTrace(ctx context.Context, w io.Writer) context.Context {
	return context.WithValue(ctx, traceKey{}, w)
}

func trace(ctx context.Context) io.Writer {
	if w, ok := ctx.Value(traceKey{}).(io.Writer); ok {
		return w
	}
	return io.Discard
}

// job is one scan.
type job struct {
	req   *protocol.Scan
	wants wants
	found *problems
	meter *meter
	trace io.Writer
	// detecting is set while the database is being read, by which a panic in it is told.
	detecting bool
	memory    *memory
}

// wants are the scanners that are asked for.
type wants struct{ vulnerabilities, secrets, licenses, misconfigurations, packages bool }

func wanted(r *protocol.Scan) wants {
	has := func(s protocol.Scanner) bool { return slices.Contains(r.Scanners, s) }
	w := wants{has(protocol.Vulnerabilities), has(protocol.Secrets), has(protocol.Licenses), has(protocol.Misconfigurations), false}
	w.packages = w.vulnerabilities || w.licenses || r.Packages || r.Document != protocol.NoDocument
	return w
}

// Scan looks at a target. progress is called a few times a second, never by two
// goroutines at once, and may be nil.
//
// What could not be looked at stands in the report. An error says that there is
// no report: failure.Usage for a target that cannot be one, failure.NotReady
// without a database, failure.Untrustworthy for an image or a database that is
// not what it says it is, failure.Interrupted when ctx ended.
func Scan(ctx context.Context, req *protocol.Scan, progress func(protocol.Progress)) (_ *protocol.Report, err error) {
	begin := time.Now()
	if err := check(req); err != nil {
		return nil, err
	}
	j := &job{req: req, wants: wanted(req), found: newProblems(), meter: new(meter), trace: trace(ctx)}
	defer func() {
		if v := recover(); v != nil {
			err = j.panicked(v, debug.Stack())
		}
	}()
	previous := log.With()
	log.SetDefault(log.New(&listener{found: j.found}))
	defer log.SetDefault(previous)
	isolate(req)

	if j.memory, err = j.openMemory(); err != nil {
		return nil, err
	}
	defer j.memory.close()
	stop := j.meter.report(progress)
	defer stop()

	if j.wants.vulnerabilities {
		closeDatabase, err := openDatabase(req.Database)
		if err != nil {
			return nil, err
		}
		defer closeDatabase()
	}
	report, err := j.run(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, failure.Wrap(failure.Interrupted, context.Cause(ctx))
		}
		return nil, err
	}
	stop()
	j.memory.close()
	report.Problems, report.Notes = j.found.all()
	report.Stats.Took = time.Since(begin)
	report.Stats.PeakMemory = peakMemory()
	return report, nil
}

// check refuses what cannot be a request.
func check(r *protocol.Scan) error {
	switch r.Kind {
	case protocol.Filesystem, protocol.Rootfs, protocol.Image, protocol.SBOM, protocol.Repository:
	default:
		return failure.Errorf(failure.Usage, "there is no kind of target %q", r.Kind)
	}
	for _, s := range r.Scanners {
		if !slices.Contains(protocol.Scanners(), s) {
			return failure.Errorf(failure.Usage, "there is no scanner %q", s)
		}
	}
	switch r.Document {
	case protocol.NoDocument, protocol.CycloneDX, protocol.SPDX, protocol.SPDXJSON:
	default:
		return failure.Errorf(failure.Usage, "there is no document %q", r.Document)
	}
	switch {
	case len(r.Scanners) == 0 && r.Document == protocol.NoDocument && !r.Packages:
		return failure.New(failure.Usage, "nothing is to be looked for")
	case r.Target == "":
		return failure.New(failure.Usage, "there is no target")
	case r.Temp == "":
		return failure.New(failure.Usage, "there is no directory for temporary files")
	}
	if r.Kind == protocol.SBOM {
		for _, s := range r.Scanners {
			if s != protocol.Vulnerabilities && s != protocol.Licenses {
				return failure.Errorf(failure.Usage, "an SBOM has nothing that the scanner %q could look at", s)
			}
		}
	}
	if r.Kind == protocol.Repository && (strings.Contains(r.Target, "://") || strings.HasPrefix(r.Target, "git@")) {
		return failure.Hint(failure.Errorf(failure.Usage, "%s is not a directory", r.Target), "clone it first")
	}
	return checkPatterns(r)
}

// run makes the report of a scan that is set up.
func (j *job) run(ctx context.Context) (*protocol.Report, error) {
	c := cache.NewMemoryCache()
	art, origin, err := j.artifact(ctx, c)
	if err != nil {
		return nil, err
	}
	// Everything that detectors read of the database they read in this goroutine,
	// where a page that is missing becomes a panic instead of the end of the process.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	backend := local.NewService(applier.NewApplier(c), ospkg.NewScanner(), langpkg.NewScanner(), vulnerability.NewClient(tdb.Config{}))
	service := scan.NewService(detection{Backend: backend, job: j}, art)
	result, err := service.ScanArtifact(ctx, j.scanOptions())
	if err != nil {
		return nil, explain(j.req, err)
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if err := filter(ctx, &result); err != nil {
		return nil, err
	}
	report, err := j.report(&result, origin)
	if err != nil {
		return nil, err
	}
	j.checkKnown(report, result.Results)
	if j.req.Document != protocol.NoDocument {
		if report.Document, err = document(ctx, j.req.Document, result); err != nil {
			return nil, err
		}
	}
	return report, nil
}

// origin is what is known of a target beside what Trivy says of it.
type origin struct{ commit *protocol.Commit }

func (j *job) artifact(ctx context.Context, c cache.ArtifactCache) (artifact.Artifact, origin, error) {
	switch j.req.Kind {
	case protocol.Image:
		art, err := j.imageArtifact(ctx, c)
		return art, origin{}, err
	case protocol.SBOM:
		info, err := os.Stat(j.req.Target)
		if err != nil {
			return nil, origin{}, failure.Wrap(failure.Failed, err)
		}
		limit := j.req.Limits.Document
		if limit == 0 {
			limit = maxSBOM
		}
		if info.IsDir() {
			return nil, origin{}, failure.Errorf(failure.Usage, "%s is a directory, not an SBOM", j.req.Target)
		}
		if !info.Mode().IsRegular() {
			return nil, origin{}, failure.Errorf(failure.Usage, "%s is no regular file", j.req.Target)
		}
		if info.Size() > limit {
			return nil, origin{}, failure.Errorf(failure.Failed, "%s has %d bytes, and at most %d are read of an SBOM", j.req.Target, info.Size(), limit)
		}
		j.meter.files.Add(1)
		j.meter.bytes.Add(info.Size())
		art, err := artsbom.NewArtifact(j.req.Target, c, artifact.Option{})
		return art, origin{}, err
	}
	return j.treeArtifact(ctx, c)
}

// explain gives an error of Trivy its kind.
func explain(r *protocol.Scan, err error) error {
	var known *failure.Error
	switch {
	case errors.As(err, &known):
		// Trivy's words around an error of ours add nothing.
		return known
	case r.Kind == protocol.SBOM:
		return failure.Errorf(failure.Untrustworthy, "%s is no SBOM that can be read: %w", r.Target, plain(err))
	}
	return failure.Errorf(failure.Failed, "scan %s: %w", r.Target, plain(err))
}

// panicked makes an error of a panic that left Trivy.
func (j *job) panicked(v any, stack []byte) error {
	fmt.Fprintf(j.trace, "panic: %v\n%s", v, stack)
	if j.detecting {
		return damaged(j.req.Database, fmt.Errorf("%v", v))
	}
	where := j.meter.at()
	if where == "" {
		where = j.req.Target
	}
	return failure.Errorf(failure.Failed, "scan %s: a parser panicked at %s: %v", j.req.Target, where, v)
}

func (j *job) parallel() int {
	if j.req.Parallel > 0 {
		return j.req.Parallel
	}
	return runtime.GOMAXPROCS(0)
}

func version() string { return buildinfo.Get().Version }
