//go:build goexperiment.jsonv2

package trivy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/aquasecurity/trivy/pkg/fanal/analyzer"
	fos "github.com/aquasecurity/trivy/pkg/fanal/analyzer/os"
	"github.com/aquasecurity/trivy/pkg/fanal/artifact"
	"github.com/aquasecurity/trivy/pkg/fanal/handler"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	xio "github.com/aquasecurity/trivy/pkg/x/io"

	"github.com/mobileops/mobileops/internal/scan/nested"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/scan/wellformed"
)

// inspector gives files to the analyzers that want them.
type inspector struct {
	*job
	analyzers *analyzers
	handlers  handler.Manager
	options   analyzer.AnalysisOptions
}

func (j *job) newInspector() (*inspector, artifact.Option, error) {
	o, err := j.artifactOptions()
	if err != nil {
		return nil, o, err
	}
	a, err := j.newAnalyzers(o)
	if err != nil {
		return nil, o, err
	}
	h, err := handler.NewManager(o)
	if err != nil {
		return nil, o, err
	}
	return &inspector{job: j, analyzers: a, handlers: h, options: analyzer.AnalysisOptions{Offline: true, FileChecksum: o.FileChecksum}}, o, nil
}

// part returns an inspector that does the same, and whose problems, and those of the
// analyzers of ours, are known from those of others.
func (i *inspector) part() *inspector {
	j := *i.job
	j.found, j.memory = i.found.part(), i.memory.part()
	part := *i
	part.job, part.analyzers = &j, i.analyzers.part(&j)
	return &part
}

// content is an open file. Whoever has it closes it.
type content = xio.ReadSeekCloserAt

// inspection is that of one tree or one layer.
type inspection struct {
	*inspector
	ctx       context.Context
	dir       string // of a tree: what paths are relative to; "" for a layer
	result    *analyzer.AnalysisResult
	composite *analyzer.CompositeFS
	group     *errgroup.Group
	modules   modules
}

func (i *inspector) begin(ctx context.Context, dir string) (*inspection, error) {
	composite, err := analyzer.NewCompositeFS()
	if err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(i.parallel())
	return &inspection{inspector: i, ctx: ctx, dir: dir, result: analyzer.NewAnalysisResult(), composite: composite, group: group}, nil
}

// wanted are the analyzers that want a file.
func (in *inspection) wanted(name string, info fs.FileInfo) (files []fileAnalyzer, posts []analyzer.Type) {
	for _, a := range in.analyzers.files {
		if a.Required(name, info) {
			files = append(files, a)
		}
	}
	for _, p := range in.analyzers.posts {
		if p.Required(name, info) {
			posts = append(posts, p.Type())
		}
	}
	return files, posts
}

func contains(list []analyzer.Type, t analyzer.Type) bool {
	for _, x := range list {
		if x == t {
			return true
		}
	}
	return false
}

// analyze gives an open file to analyzers, beside others, and closes it. It waits
// while as many files as are allowed are being analyzed.
func (in *inspection) analyze(name string, info fs.FileInfo, c content, files []fileAnalyzer) {
	in.group.Go(func() error {
		defer c.Close()
		for n, a := range files {
			if n > 0 {
				if _, err := c.Seek(0, io.SeekStart); err != nil {
					in.found.failed(name, err)
					return nil
				}
			}
			if err := context.Cause(in.ctx); err != nil {
				return err
			}
			in.analyzeWith(a, analyzer.AnalysisInput{Dir: in.dir, FilePath: name, Info: info, Content: c, Options: in.options})
		}
		return nil
	})
}

// analyzeWith calls one analyzer for one file.
func (in *inspection) analyzeWith(a fileAnalyzer, input analyzer.AnalysisInput) {
	defer func() {
		if v := recover(); v != nil {
			fmt.Fprintf(in.trace, "panic: %v (%s of %s)\n%s", v, a.Type(), input.FilePath, debug.Stack())
			in.found.add(protocol.Malformed, input.FilePath, string(a.Type())+": "+panicText(v))
		}
	}()
	result, err := a.Analyze(in.ctx, input)
	switch {
	case errors.Is(err, fos.AnalyzeOSError), errors.Is(err, context.Canceled):
	case err != nil:
		in.found.failed(input.FilePath, fmt.Errorf("%s: %w", a.Type(), err))
	case result != nil:
		by(result, a.Type())
		in.result.Merge(result)
	}
}

// by says of packages which analyzer found them.
func by(r *analyzer.AnalysisResult, t analyzer.Type) {
	for i := range r.PackageInfos {
		for n := range r.PackageInfos[i].Packages {
			r.PackageInfos[i].Packages[n].AnalyzedBy = t
		}
	}
	for i := range r.Applications {
		for n := range r.Applications[i].Packages {
			r.Applications[i].Packages[n].AnalyzedBy = t
		}
	}
}

// admit says whether post-analyzers may have a file, which they read as a whole
// whatever is in it.
func (in *inspection) admit(name string, info fs.FileInfo, c content, posts []analyzer.Type) bool {
	if contains(posts, analyzer.TypeJar) && nested.IsArchive(name) {
		err := nested.Check(c, info.Size(), nested.Limits{Bytes: in.req.Limits.Nested, Temp: in.req.Temp})
		switch {
		case errors.Is(err, nested.ErrTooLarge):
			in.found.add(protocol.TooLarge, name, err.Error())
			return false
		case err != nil:
			in.found.failed(name, fmt.Errorf("jar: %w", err))
			return false
		}
	}
	if in.wants.misconfigurations {
		in.checkForm(name, info, c, posts)
		if contains(posts, analyzer.TypeTerraform) && isTerraform(name) {
			if err := in.modules.read(name, info, c); err != nil {
				in.found.failed(name, err)
				return false
			}
		}
	}
	return in.bounded(name, info, c, posts)
}

// maxInstructions is how many lines a Dockerfile may have: Trivy compares each with
// each, so twice as many take four times as long, these some ten seconds.
const maxInstructions = 2000

// bounded says whether a file is none of those that a few bytes make expensive.
func (in *inspection) bounded(name string, info fs.FileInfo, c content, posts []analyzer.Type) bool {
	// io/fs knows no such names: one of them would make a whole kind of files fail.
	if !utf8.ValidString(name) {
		in.found.add(protocol.Unreadable, name, "its name is not UTF-8, which Trivy cannot open")
		return false
	}
	dockerfile := contains(posts, analyzer.TypeDockerfile)
	lock := contains(posts, analyzer.TypePnpm) || contains(posts, analyzer.TypePubSpecLock) || contains(posts, analyzer.TypeSwift)
	if !dockerfile && !lock || info.Size() > wellformed.MaxSize {
		return true
	}
	b := make([]byte, info.Size())
	n, err := c.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		in.found.failed(name, err)
		return false
	}
	if lines := bytes.Count(b[:n], []byte("\n")); dockerfile && lines > maxInstructions {
		in.found.add(protocol.TooLarge, name, fmt.Sprintf("it has %d lines, more than %d", lines, maxInstructions))
		return false
	}
	if lock {
		if err := wellformed.RepeatedKey(b[:n]); err != nil {
			in.found.add(protocol.Malformed, name, err.Error())
			return false
		}
	}
	return true
}

// checkForm reports configuration files that cannot be parsed: Trivy takes them
// for files that are of no interest.
func (in *inspection) checkForm(name string, info fs.FileInfo, c content, posts []analyzer.Type) {
	var parse func([]byte) error
	switch strings.ToLower(path.Ext(name)) {
	case ".yaml", ".yml":
		parse = wellformed.YAML
	case ".json":
		parse = wellformed.JSON
	default:
		return
	}
	configuration := false
	for _, t := range posts {
		configuration = configuration || isConfiguration(t)
	}
	// Templates of charts are made into YAML by Helm, which Trivy runs.
	if !configuration || info.Size() > wellformed.MaxSize || strings.Contains("/"+name, "/templates/") {
		return
	}
	b := make([]byte, info.Size())
	n, err := c.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		in.found.failed(name, err)
		return
	}
	if err := parse(b[:n]); err != nil {
		in.found.add(protocol.Malformed, name, err.Error())
	}
}

// finish waits for the analyzers, calls those that look at all their files at
// once, and returns what was found.
func (in *inspection) finish(ctx context.Context, walked error) (*ftypes.BlobInfo, error) {
	defer in.composite.Cleanup()
	if err := in.group.Wait(); err != nil {
		return nil, err
	}
	if walked != nil {
		return nil, walked
	}
	for _, p := range in.analyzers.posts {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		in.postAnalyze(ctx, p)
	}
	in.result.Sort()
	r := in.result
	blob := &ftypes.BlobInfo{
		SchemaVersion: ftypes.BlobJSONSchemaVersion, OS: r.OS, Repository: r.Repository, PackageInfos: r.PackageInfos,
		Applications: r.Applications, Misconfigurations: r.Misconfigurations, Secrets: r.Secrets, Licenses: r.Licenses,
		CustomResources: r.CustomResources, BuildInfo: r.BuildInfo,
	}
	if err := in.handlers.PostHandle(ctx, r, blob); err != nil {
		return nil, err
	}
	return blob, nil
}

// postPatience is how long an analyzer may look at all of its files. Some of Trivy's
// follow what files say without end, and don't look at their context.
var postPatience = 10 * time.Minute

// callPost calls an analyzer, and gives up on it when it takes too long.
func (in *inspection) callPost(ctx context.Context, p analyzer.PostAnalyzer, files fs.FS) (*analyzer.AnalysisResult, error) {
	type answer struct {
		result *analyzer.AnalysisResult
		err    error
	}
	got := make(chan answer, 1)
	go func() {
		var a answer
		defer func() {
			if v := recover(); v != nil {
				fmt.Fprintf(in.trace, "panic: %v (%s)\n%s", v, p.Type(), debug.Stack())
				a = answer{err: errors.New(panicText(v))}
			}
			got <- a
		}()
		a.result, a.err = p.PostAnalyze(ctx, analyzer.PostAnalysisInput{FS: files, Options: in.options})
	}()
	select {
	case a := <-got:
		return a.result, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(postPatience):
		return nil, fmt.Errorf("it was not done after %s", postPatience)
	}
}

// postAnalyze calls an analyzer for all of its files.
func (in *inspection) postAnalyze(ctx context.Context, p analyzer.PostAnalyzer) {
	files, ok := in.composite.Get(p.Type())
	if !ok {
		return
	}
	in.meter.look(string(p.Type()))
	// What a package manager installed, and what an SBOM lists already, is left out.
	skipped := append([]string(nil), in.result.SystemInstalledFiles...)
	for _, app := range in.result.Applications {
		skipped = append(skipped, app.FilePath)
		for _, pkg := range app.Packages {
			if pkg.FilePath != "" {
				skipped = append(skipped, pkg.FilePath)
			}
		}
	}
	if p.Type() == analyzer.TypeTerraform {
		skipped = append(skipped, in.modules.tell(in.found)...)
	}
	set := make(map[string]bool, len(skipped))
	for _, s := range skipped {
		set[s] = true
	}
	remaining, err := files.FilterFunc(func(path string, _ fs.DirEntry) (bool, error) { return set[path], nil })
	if err == nil {
		var result *analyzer.AnalysisResult
		result, err = in.callPost(ctx, p, remaining)
		if err == nil && result != nil {
			by(result, p.Type())
			in.result.Merge(result)
		}
	}
	if err != nil && ctx.Err() == nil {
		kind := protocol.Malformed
		if unreadable(err) {
			kind = protocol.Unreadable
		}
		in.found.add(kind, "", fmt.Sprintf("nothing of the kind %s was looked at: %v", p.Type(), plain(err)))
	}
}

// counted counts what is read of a file.
type counted struct {
	f     *os.File
	meter *meter
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.f.Read(p)
	c.meter.bytes.Add(int64(n))
	return n, err
}

func (c counted) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.f.ReadAt(p, off)
	c.meter.bytes.Add(int64(n))
	return n, err
}

func (c counted) Seek(offset int64, whence int) (int64, error) { return c.f.Seek(offset, whence) }
func (c counted) Stat() (fs.FileInfo, error)                   { return c.f.Stat() }
func (c counted) Close() error                                 { return c.f.Close() }
