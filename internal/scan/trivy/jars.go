//go:build goexperiment.jsonv2

package trivy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sort"
	"sync"

	"golang.org/x/sync/errgroup"
	_ "modernc.org/sqlite" // the format of trivy-java.db and of RPM's database

	jdb "github.com/aquasecurity/trivy-java-db/pkg/db"
	jtypes "github.com/aquasecurity/trivy-java-db/pkg/types"
	"github.com/aquasecurity/trivy/pkg/dependency/parser/java/jar"
	"github.com/aquasecurity/trivy/pkg/fanal/analyzer"
	"github.com/aquasecurity/trivy/pkg/fanal/analyzer/language"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	xio "github.com/aquasecurity/trivy/pkg/x/io"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/nested"
)

// jars takes the place of Trivy's analyzer of Java archives, which fails as a
// whole without a database of JARs. This one goes by the manifests then.
type jars struct{ *job }

func (j *job) newJars() analyzer.PostAnalyzer { return jars{j} }

// Type implements analyzer.PostAnalyzer.
func (jars) Type() analyzer.Type { return analyzer.TypeJar }

// Version implements analyzer.PostAnalyzer.
func (jars) Version() int { return 1 }

// Required implements analyzer.PostAnalyzer.
func (jars) Required(name string, _ os.FileInfo) bool { return nested.IsArchive(name) }

// PostAnalyze implements analyzer.PostAnalyzer.
func (a jars) PostAnalyze(ctx context.Context, input analyzer.PostAnalysisInput) (*analyzer.AnalysisResult, error) {
	options := []jar.Option{jar.WithLicenseClassifierConfidenceLevel(licenseConfidence)}
	var client jar.Client
	if a.req.JavaDatabase == "" {
		options = append(options, jar.WithOffline(true))
	} else {
		c, err := openJavaDatabase(a.req.JavaDatabase)
		if err != nil {
			return nil, err
		}
		client = c
	}
	var mu sync.Mutex
	result := new(analyzer.AnalysisResult)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(a.parallel())
	any := false
	err := fs.WalkDir(input.FS, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		any = true
		group.Go(func() error {
			app, err := a.one(ctx, input, name, client, options)
			if err != nil {
				a.found.failed(name, fmt.Errorf("jar: %w", err))
			}
			if app != nil {
				mu.Lock()
				defer mu.Unlock()
				result.Applications = append(result.Applications, *app)
			}
			return nil
		})
		return nil
	})
	if err := errors.Join(err, group.Wait()); err != nil {
		return nil, err
	}
	if any && client == nil {
		a.found.note("JAR files are known by their manifests alone, since there is no database of JAR files")
	}
	return result, nil
}

func (a jars) one(ctx context.Context, input analyzer.PostAnalysisInput, name string, client jar.Client, options []jar.Option) (_ *ftypes.Application, err error) {
	defer func() {
		if v := recover(); v != nil {
			fmt.Fprintf(a.trace, "panic: %v (%s)\n%s", v, name, debug.Stack())
			err = errors.New(panicText(v))
		}
	}()
	a.meter.look(name)
	f, err := input.FS.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r, ok := f.(xio.ReadSeekerAt)
	if !ok {
		return nil, fmt.Errorf("%T cannot be read at random", f)
	}
	a.meter.bytes.Add(info.Size())
	p := jar.NewParser(client, append([]jar.Option{jar.WithSize(info.Size()), jar.WithFilePath(name)}, options...)...)
	return language.ParsePackage(ctx, ftypes.Jar, name, r, p, input.Options.FileChecksum)
}

// javaDatabase is jar.Client by a file of trivy-java-db.
type javaDatabase struct{ db jdb.DB }

// checkJavaDatabase sees that the database is there, since opening it would make it.
func checkJavaDatabase(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "trivy-java.db")); err != nil {
		return failure.Hint(failure.Errorf(failure.NotReady, "there is no database of JAR files in %s: %w", dir, err), "bring one in: mobileops vulndb import FILE")
	}
	return nil
}

func openJavaDatabase(dir string) (*javaDatabase, error) {
	if err := checkJavaDatabase(dir); err != nil {
		return nil, err
	}
	d, err := jdb.New(dir)
	if err != nil {
		return nil, err
	}
	return &javaDatabase{d}, nil
}

// Exists implements jar.Client.
func (j *javaDatabase) Exists(group, artifact string) (bool, error) {
	i, err := j.db.SelectIndexByArtifactIDAndGroupID(artifact, group)
	return i.ArtifactID != "", err
}

// SearchBySHA1 implements jar.Client.
func (j *javaDatabase) SearchBySHA1(sha1 string) (jar.Properties, error) {
	i, err := j.db.SelectIndexBySha1(sha1)
	if err != nil {
		return jar.Properties{}, err
	}
	if i.ArtifactID == "" {
		return jar.Properties{}, fmt.Errorf("digest %s: %w", sha1, jar.ArtifactNotFoundErr)
	}
	return jar.Properties{GroupID: i.GroupID, ArtifactID: i.ArtifactID, Version: i.Version}, nil
}

// SearchByArtifactID implements jar.Client: of several groups that have an
// artifact of this name and version, the one with the most of them.
func (j *javaDatabase) SearchByArtifactID(artifact, version string) (string, error) {
	list, err := j.db.SelectIndexesByArtifactIDAndFileType(artifact, version, jtypes.JarType)
	if err != nil {
		return "", err
	}
	count := map[string]int{}
	var groups []string
	for _, i := range list {
		if count[i.GroupID]++; count[i.GroupID] == 1 {
			groups = append(groups, i.GroupID)
		}
	}
	if len(groups) == 0 {
		return "", fmt.Errorf("artifact %s: %w", artifact, jar.ArtifactNotFoundErr)
	}
	sort.Strings(groups)
	sort.SliceStable(groups, func(a, b int) bool { return count[groups[a]] > count[groups[b]] })
	return groups[0], nil
}
