//go:build goexperiment.jsonv2

package trivy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/aquasecurity/trivy/pkg/cache"
	"github.com/aquasecurity/trivy/pkg/fanal/analyzer"
	"github.com/aquasecurity/trivy/pkg/fanal/artifact"
	iname "github.com/aquasecurity/trivy/pkg/fanal/image/name"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	xio "github.com/aquasecurity/trivy/pkg/x/io"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/layer"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

const (
	maxLayers = 1000    // the layer drivers of engines have room for 128
	inMemory  = 8 << 20 // files of layers from this size on are kept in a file while they are looked at
)

// imageArtifact is a container image.
type imageArtifact struct {
	*inspector
	cache  cache.ArtifactCache
	image  ftypes.Image
	config analyzer.ConfigAnalyzerGroup
	budget *layer.Budget
	close  func()
}

func (j *job) imageArtifact(ctx context.Context, c cache.ArtifactCache) (artifact.Artifact, error) {
	image, closeIt, err := j.openImage(ctx)
	if err != nil {
		return nil, err
	}
	i, o, err := j.newInspector()
	if err != nil {
		closeIt()
		return nil, err
	}
	config, err := analyzer.NewConfigAnalyzerGroup(o.ConfigAnalyzerOptions())
	if err != nil {
		closeIt()
		return nil, err
	}
	if j.memory.memo != nil {
		j.memory.layers = j.newLayerMemory(i.analyzers)
	}
	return &imageArtifact{inspector: i, cache: c, image: image, config: config, close: closeIt,
		budget: layer.NewBudget(j.req.Limits.Unpacked, j.req.Limits.Entries)}, nil
}

func (a *imageArtifact) Inspect(ctx context.Context) (artifact.Reference, error) {
	defer a.close()
	a.meter.set("walk")
	id, err := a.image.ID()
	if err != nil {
		return artifact.Reference{}, a.broken(err)
	}
	config, err := a.image.ConfigFile()
	if err != nil {
		return artifact.Reference{}, a.broken(fmt.Errorf("its configuration: %w", err))
	}
	if config == nil {
		return artifact.Reference{}, a.broken(errors.New("it has no configuration"))
	}
	diffs := config.RootFS.DiffIDs
	if len(diffs) > maxLayers {
		return artifact.Reference{}, a.broken(fmt.Errorf("it has %d layers", len(diffs)))
	}
	var keys, names []string
	for _, d := range diffs {
		names = append(names, d.String())
		keys = append(keys, "layer:"+d.String())
	}
	system, err := a.layers(ctx, diffs, config)
	if err != nil {
		return artifact.Reference{}, err
	}
	if err := a.inspectConfig(ctx, id, system, config); err != nil {
		return artifact.Reference{}, err
	}
	a.meter.set("match")
	tags, digests := a.image.RepoTags(), a.image.RepoDigests()
	return artifact.Reference{
		Name: a.image.Name(), Type: ftypes.TypeContainerImage, ID: id, BlobIDs: keys,
		ImageMetadata: artifact.ImageMetadata{ID: id, DiffIDs: names, RepoTags: tags, RepoDigests: digests,
			Reference: reference(a.image.Name(), append(append([]string(nil), tags...), digests...)), ConfigFile: *config},
	}, nil
}

// Clean implements artifact.Artifact.
func (a *imageArtifact) Clean(artifact.Reference) error { return nil }

// reference picks the name that an image goes by: its own, when it is one of its
// tags and digests, or the first of them.
func reference(own string, all []string) iname.Reference {
	var first iname.Reference
	want, err := iname.ParseReference(own)
	for _, s := range all {
		r, e := iname.ParseReference(s)
		if e != nil {
			continue
		}
		if err == nil && r.Name() == want.Name() {
			return r
		}
		if first.IsZero() {
			first = r
		}
	}
	return first
}

func (a *imageArtifact) broken(err error) error {
	if isNetwork(err) {
		return failure.Errorf(failure.Failed, "fetch %s: %w", a.req.Target, plain(err))
	}
	return notAnImage(a.req.Target, plain(err))
}

func isNetwork(err error) bool {
	var n net.Error
	var u *url.Error
	return errors.As(err, &n) || errors.As(err, &u)
}

// layers looks at all layers, and returns what system they are of.
func (a *imageArtifact) layers(ctx context.Context, diffs []v1.Hash, config *v1.ConfigFile) (ftypes.OS, error) {
	made := createdBy(diffs, config)
	found := make([]ftypes.OS, len(diffs))
	first := map[v1.Hash]bool{}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(a.parallel())
	for i, d := range diffs {
		if first[d] {
			continue // such as an empty layer, which images often have twice
		}
		first[d] = true
		group.Go(func() (err error) {
			defer func() {
				if v := recover(); v != nil {
					fmt.Fprintf(a.trace, "panic: %v (layer %s)\n%s", v, d, debug.Stack())
					err = a.broken(fmt.Errorf("layer %s: %s", d, panicText(v)))
				}
			}()
			blob, err := a.layer(gctx, d)
			if err != nil {
				return err
			}
			blob.DiffID, blob.CreatedBy = d.String(), made[i]
			found[i] = blob.OS
			return a.cache.PutBlob(gctx, "layer:"+d.String(), *blob)
		})
	}
	err := group.Wait()
	var system ftypes.OS
	for _, o := range found {
		system.Merge(o)
	}
	return system, err
}

// layer looks at one layer, or remembers what came of that. Trivy looks for no secrets
// in layers that, as the history of the image tells, are those of a base image:
// whoever made the image wrote the history, and could hide in that way what is in it.
func (a *imageArtifact) layer(ctx context.Context, diff v1.Hash) (*ftypes.BlobInfo, error) {
	l, err := a.storedLayer(diff)
	if err != nil {
		return nil, err
	}
	blob, err := a.remembered(ctx, l)
	if err != nil {
		return nil, err
	}
	if blob == nil {
		if blob, err = a.walk(ctx, l); err != nil {
			return nil, err
		}
	}
	blob.Digest = l.digest
	return blob, nil
}

// walk looks at one layer.
func (a *imageArtifact) walk(ctx context.Context, l *storedLayer) (*ftypes.BlobInfo, error) {
	diff, started, heard := l.diff, time.Now(), a.found.heard.Load()
	content, err := l.open(ctx, a.memory.layers != nil)
	if err != nil {
		return nil, a.broken(fmt.Errorf("layer %s: %w", diff, err))
	}
	defer content.Close()
	part := a.part()
	in, err := part.begin(ctx, "")
	if err != nil {
		return nil, failure.Wrap(failure.Failed, err)
	}
	dir, err := os.MkdirTemp(a.req.Temp, "layer-")
	if err != nil {
		return nil, failure.Wrap(failure.Failed, err)
	}
	defer os.RemoveAll(dir)
	content.ctx = in.ctx
	skip := newPatterns(a.req)
	seen := layerRecord{Diff: diff.String()}
	contents, walked := layer.Walk(in.ctx, content, a.budget, layer.Visitor{
		File: func(name string, info fs.FileInfo, r io.Reader) error {
			if match(skip.files, name) {
				seen.Pattern++
				return nil
			}
			seen.Files++
			seen.odd = seen.odd || !utf8.ValidString(name)
			a.meter.files.Add(1)
			return in.visit(dir, name, info, r)
		},
		SkipDir: func(name string) bool { return match(skip.dirs, name) },
		Flaw: func(f layer.Flaw, name string) {
			detail := "it leads out of the layer " + diff.String() + ", and was left out"
			if f == layer.BeneathLink {
				detail = "its directory is a link in the layer " + diff.String() + ", so it is elsewhere in a container"
			}
			in.found.add(protocol.Escaping, strings.ToValidUTF8(name, "\uFFFD"), detail)
		},
	})
	seen.Special = contents.Special
	a.meter.special.Add(seen.Special)
	a.meter.pattern.Add(seen.Pattern)
	switch {
	case walked == nil:
		if have := content.diff(); have != diff.Hex {
			_, _ = in.finish(ctx, errStopped)
			return nil, a.broken(fmt.Errorf("layer %s is not what the image says: its content has the digest sha256:%s", diff, have))
		}
	case errors.Is(walked, layer.ErrTooLarge):
		in.found.add(protocol.TooLarge, "", fmt.Sprintf("layer %s was not looked at from here on: %v", diff, walked))
		walked = nil
	default:
		walked = a.unreadable(ctx, diff, walked)
	}
	blob, err := in.finish(ctx, walked)
	if err != nil {
		return nil, err
	}
	blob.Size, blob.OpaqueDirs, blob.WhiteoutFiles = content.n, contents.Opaque, contents.Whiteouts
	a.memory.add(part.memory)
	if a.memory.layers != nil && a.found.heard.Load() == heard {
		seen.Blob, seen.Bytes, seen.Entries = blob, contents.Bytes, contents.Entries
		for _, name := range slices.Concat(contents.Opaque, contents.Whiteouts) {
			seen.odd = seen.odd || !utf8.ValidString(name)
		}
		a.memory.layers.put(part, l, content, started, &seen)
	}
	return blob, nil
}

var errStopped = errors.New("stopped")

// unreadable gives the error of a layer its kind.
func (a *imageArtifact) unreadable(ctx context.Context, diff v1.Hash, err error) error {
	var known *failure.Error
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &known), errors.Is(err, context.Canceled):
		return err
	}
	return a.broken(fmt.Errorf("layer %s is damaged: %w", diff, err))
}

// visit gives a file of a layer to the analyzers that want it.
func (in *inspection) visit(dir, name string, info fs.FileInfo, r io.Reader) error {
	files, posts := in.wanted(name, info)
	if len(files)+len(posts) == 0 {
		return nil
	}
	in.meter.look(name)
	in.meter.bytes.Add(info.Size())
	if len(posts) == 0 && info.Size() < inMemory {
		b := bytes.NewBuffer(make([]byte, 0, info.Size()+bytes.MinRead))
		if _, err := b.ReadFrom(r); err != nil {
			return err
		}
		in.analyze(name, info, xio.NopCloser(bytes.NewReader(b.Bytes())), files)
		return nil
	}
	f, err := os.CreateTemp(dir, "file-")
	if err != nil {
		return failure.Wrap(failure.Failed, err)
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		var path *fs.PathError
		if errors.As(err, &path) {
			return failure.Wrap(failure.Failed, err)
		}
		return err
	}
	keep := len(posts) > 0 && in.admit(name, info, f, posts)
	if keep {
		if err := in.composite.CreateLink(posts, "", name, f.Name()); err != nil {
			in.found.failed(name, err)
		}
	} else if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return failure.Wrap(failure.Failed, err)
	}
	if len(files) == 0 {
		return f.Close()
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		f.Close()
		return failure.Wrap(failure.Failed, err)
	}
	in.analyze(name, info, f, files)
	return nil
}

// createdBy says by what each layer was made, when the history of an image tells.
func createdBy(diffs []v1.Hash, config *v1.ConfigFile) []string {
	var made []string
	for _, h := range config.History {
		if !h.EmptyLayer {
			made = append(made, strings.TrimPrefix(strings.TrimPrefix(h.CreatedBy, "/bin/sh -c "), "#(nop) "))
		}
	}
	if len(made) != len(diffs) {
		return make([]string, len(diffs))
	}
	return made
}

// inspectConfig looks at the configuration of the image, such as its environment variables.
func (a *imageArtifact) inspectConfig(ctx context.Context, id string, system ftypes.OS, config *v1.ConfigFile) error {
	info := ftypes.ArtifactInfo{SchemaVersion: ftypes.ArtifactJSONSchemaVersion, Architecture: config.Architecture,
		Created: config.Created.Time, DockerVersion: config.DockerVersion, OS: config.OS}
	func() {
		defer func() {
			if v := recover(); v != nil {
				fmt.Fprintf(a.trace, "panic: %v (configuration)\n%s", v, debug.Stack())
				a.found.add(protocol.Malformed, "", "configuration of the image: "+panicText(v))
			}
		}()
		if r := a.config.AnalyzeImageConfig(ctx, system, config); r != nil {
			info.Misconfiguration, info.Secret, info.HistoryPackages = r.Misconfiguration, r.Secret, r.HistoryPackages
		}
	}()
	return a.cache.PutArtifact(ctx, id, info)
}
