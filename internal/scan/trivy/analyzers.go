//go:build goexperiment.jsonv2

package trivy

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"reflect"
	"slices"
	"unsafe"

	"github.com/aquasecurity/trivy/pkg/fanal/analyzer"
	"github.com/aquasecurity/trivy/pkg/fanal/artifact"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/aquasecurity/trivy/pkg/fanal/walker"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// fileAnalyzer is what Trivy calls analyzer without exporting it.
type fileAnalyzer interface {
	Type() analyzer.Type
	Version() int
	Analyze(ctx context.Context, input analyzer.AnalysisInput) (*analyzer.AnalysisResult, error)
	Required(filePath string, info os.FileInfo) bool
}

const licenseConfidence = 0.9 // Trivy's default of --license-confidence-level

// artifactOptions are what Trivy's command would make of its flags.
func (j *job) artifactOptions() (artifact.Option, error) {
	o := artifact.Option{
		DisabledAnalyzers: j.disabled(),
		Parallel:          j.parallel(),
		NoProgress:        true,
		Offline:           true,
		FileChecksum:      j.req.Document != protocol.NoDocument,
		DetectionPriority: ftypes.PriorityPrecise,
		LicenseScannerOption: analyzer.LicenseScannerOption{
			Full: true, ClassifierConfidenceLevel: licenseConfidence,
		},
		WalkerOption: walker.Option{SkipFiles: j.req.SkipFiles, SkipDirs: j.req.SkipDirs},
	}
	if j.wants.secrets {
		o.SecretScannerOption.ConfigPath = j.req.SecretRules
	}
	if j.wants.misconfigurations {
		m, err := misconfigurationOptions(j.req)
		if err != nil {
			return o, err
		}
		o.MisconfScannerOption = m
	}
	return o, nil
}

// disabled are the analyzers that are left out: those that Trivy's command for the
// kind of target leaves out, and those that nobody asked for.
func (j *job) disabled() []analyzer.Type {
	off := []analyzer.Type{
		analyzer.TypeApkCommand, analyzer.TypeHistoryDockerfile, analyzer.TypeExecutable, analyzer.TypeRpmArchive,
	}
	switch j.req.Kind {
	case protocol.Filesystem:
		off = slices.Concat(off, analyzer.TypeIndividualPkgs, []analyzer.Type{analyzer.TypeSBOM})
	case protocol.Repository:
		off = slices.Concat(off, analyzer.TypeIndividualPkgs, analyzer.TypeOSes, []analyzer.Type{analyzer.TypeSBOM})
	case protocol.Rootfs, protocol.Image:
		off = slices.Concat(off, analyzer.TypeLockfiles)
	}
	if !j.wants.packages {
		off = slices.Concat(off, analyzer.TypeLanguages, analyzer.TypeOSes, []analyzer.Type{
			analyzer.TypeAzure, analyzer.TypeSBOM, analyzer.TypeRedHatContentManifestType, analyzer.TypeRedHatDockerfileType,
		})
	}
	if !j.wants.licenses {
		off = append(off, analyzer.TypeLicenseFile)
		if j.req.Document == protocol.NoDocument {
			off = append(off, analyzer.TypeDpkgLicense) // what it finds would be in no report
		}
	}
	if !j.wants.secrets {
		off = append(off, analyzer.TypeSecret, analyzer.TypeImageConfigSecret)
	}
	if !j.wants.misconfigurations {
		off = append(off, analyzer.TypeConfigFiles...)
	}
	return off
}

// analyzers are those of a scan, to be called one by one.
type analyzers struct {
	files []fileAnalyzer
	posts []analyzer.PostAnalyzer
}

// newAnalyzers makes Trivy's analyzers and takes them out of the group that Trivy
// puts them into: the group would write their errors into a log without the name
// of the file, and a panic in one of them would end the process. Trivy has no way
// of asking a group for its analyzers. A version of it whose group looks different
// is refused here, and a test holds it to the pinned one.
func (j *job) newAnalyzers(o artifact.Option) (*analyzers, error) {
	for t := range j.memory.ours {
		analyzer.DeregisterAnalyzer(t) // so that Trivy's is not made ready for nothing
	}
	group, err := analyzer.NewAnalyzerGroup(o.AnalyzerOptions())
	if err != nil {
		return nil, failure.Errorf(failure.Usage, "the rules for secrets cannot be used: %w", plain(err))
	}
	v := reflect.ValueOf(&group).Elem()
	files, posts := v.FieldByName("analyzers"), v.FieldByName("postAnalyzers")
	if !files.IsValid() || !posts.IsValid() || posts.Type() != reflect.TypeFor[[]analyzer.PostAnalyzer]() {
		return nil, failure.New(failure.Failed, "this version of Trivy keeps its analyzers elsewhere")
	}
	a := new(analyzers)
	files = reflect.NewAt(files.Type(), unsafe.Pointer(files.UnsafeAddr())).Elem()
	for i := range files.Len() {
		f, ok := files.Index(i).Interface().(fileAnalyzer)
		if !ok {
			return nil, failure.Errorf(failure.Failed, "this version of Trivy has another form of analyzers: %T", files.Index(i).Interface())
		}
		a.files = append(a.files, f)
	}
	for t, f := range j.memory.ours {
		if !slices.Contains(o.DisabledAnalyzers, t) {
			a.files = append(a.files, f)
		}
	}
	for _, p := range *(*[]analyzer.PostAnalyzer)(unsafe.Pointer(posts.UnsafeAddr())) {
		if p.Type() == analyzer.TypeJar {
			p = j.newJars()
		}
		a.posts = append(a.posts, p)
	}
	// The package managers of systems come first: files that they installed are
	// left out by the others. Apart from that, any order that is always the same.
	slices.SortFunc(a.files, func(x, y fileAnalyzer) int { return cmp.Compare(x.Type(), y.Type()) })
	slices.SortFunc(a.posts, func(x, y analyzer.PostAnalyzer) int {
		first := func(p analyzer.PostAnalyzer) int {
			if p.Type() == analyzer.TypeDpkg {
				return 0
			}
			return 1
		}
		return cmp.Or(first(x)-first(y), cmp.Compare(x.Type(), y.Type()))
	})
	return a, nil
}

// part returns the same analyzers, with those of ours that belong to a part of a job.
func (a *analyzers) part(j *job) *analyzers {
	part := &analyzers{files: slices.Clone(a.files), posts: slices.Clone(a.posts)}
	for i, f := range part.files {
		if ours, ok := j.memory.ours[f.Type()]; ok {
			part.files[i] = ours
		}
	}
	for i, p := range part.posts {
		if p.Type() == analyzer.TypeJar {
			part.posts[i] = j.newJars()
		}
	}
	return part
}

// isConfiguration tells the analyzers of configuration files from others.
func isConfiguration(t analyzer.Type) bool { return slices.Contains(analyzer.TypeConfigFiles, t) }

func panicText(v any) string { return fmt.Sprintf("the parser panicked: %v", v) }
