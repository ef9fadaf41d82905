//go:build goexperiment.jsonv2

package trivy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/aquasecurity/trivy/pkg/cache"
	"github.com/aquasecurity/trivy/pkg/fanal/artifact"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// treeArtifact is a directory, or one file: a project, an installed system, a git
// work tree.
type treeArtifact struct {
	*inspector
	cache  cache.ArtifactCache
	root   string // the directory
	single string // the one file of it, or ""
	git    artifact.RepoMetadata
	kind   ftypes.ArtifactType
}

func (j *job) treeArtifact(ctx context.Context, c cache.ArtifactCache) (artifact.Artifact, origin, error) {
	info, err := os.Stat(j.req.Target)
	if err != nil {
		return nil, origin{}, failure.Wrap(failure.Failed, err)
	}
	i, _, err := j.newInspector()
	if err != nil {
		return nil, origin{}, err
	}
	t := &treeArtifact{inspector: i, cache: c, root: filepath.Clean(j.req.Target), kind: ftypes.TypeFilesystem}
	if !info.IsDir() {
		if j.req.Kind != protocol.Filesystem || !info.Mode().IsRegular() {
			return nil, origin{}, failure.Errorf(failure.Usage, "%s is no directory", j.req.Target)
		}
		real, err := filepath.EvalSymlinks(t.root)
		if err != nil {
			return nil, origin{}, failure.Wrap(failure.Failed, err)
		}
		t.root, t.single = filepath.Dir(real), filepath.Base(real)
		return t, origin{}, nil
	}
	if j.req.Kind == protocol.Rootfs {
		return t, origin{}, nil
	}
	commit, metadata, err := j.commit(ctx, t.root)
	if err != nil {
		return nil, origin{}, err
	}
	if j.req.Kind == protocol.Repository || commit != nil {
		t.kind = ftypes.TypeRepository
	}
	t.git = metadata
	return t, origin{commit: commit}, nil
}

func (t *treeArtifact) Inspect(ctx context.Context) (artifact.Reference, error) {
	t.meter.set("walk")
	in, err := t.begin(ctx, t.root)
	if err != nil {
		return artifact.Reference{}, err
	}
	w := &tree{job: t.job, ctx: in.ctx, root: t.root, skip: newPatterns(t.req)}
	w.visit = func(name string, info fs.FileInfo, open func() (*os.File, error)) error {
		if t.single != "" && name != t.single {
			return nil
		}
		t.visit(in, name, info, open)
		return nil
	}
	if t.single == "" {
		err = w.walk()
	} else {
		err = t.one(w)
	}
	blob, err := in.finish(ctx, err)
	if err != nil {
		return artifact.Reference{}, err
	}
	key := newKey()
	if err := t.cache.PutBlob(ctx, key, *blob); err != nil {
		return artifact.Reference{}, err
	}
	t.meter.set("match")
	return artifact.Reference{Name: t.name(), Type: t.kind, ID: key, BlobIDs: []string{key}, RepoMetadata: t.git}, nil
}

// one visits the only file of the target, without reading the directory that it is in.
func (t *treeArtifact) one(w *tree) error {
	dir, err := os.Open(t.root)
	if err != nil {
		return failure.Wrap(failure.Failed, err)
	}
	defer dir.Close()
	info, err := os.Stat(filepath.Join(t.root, t.single))
	if err != nil {
		return failure.Wrap(failure.Failed, err)
	}
	return w.file(int(dir.Fd()), fs.FileInfoToDirEntry(info), t.single)
}

func (t *treeArtifact) visit(in *inspection, name string, info fs.FileInfo, open func() (*os.File, error)) {
	files, posts := in.wanted(name, info)
	if len(files)+len(posts) == 0 {
		return
	}
	t.meter.look(name)
	f, err := open()
	if err != nil {
		if !isVanished(err) {
			t.found.failed(name, err)
		}
		return
	}
	c := counted{f: f, meter: t.meter}
	if len(posts) > 0 && in.admit(name, info, c, posts) {
		// Without a directory beneath it: Trivy would follow what Terraform says of
		// modules and files above the target, and wait for pipes there.
		if err := in.composite.CreateLink(posts, "", name, filepath.Join(t.root, name)); err != nil {
			t.found.failed(name, err)
		}
	}
	if len(files) == 0 {
		f.Close()
		return
	}
	in.analyze(name, info, c, files)
}

// name is what Trivy calls a tree: the name of the host whose system it is, or its path.
func (t *treeArtifact) name() string {
	if name := hostnameOf(t.root); name != "" {
		return name
	}
	return t.req.Target
}

// Clean implements artifact.Artifact.
func (t *treeArtifact) Clean(ref artifact.Reference) error {
	return t.cache.DeleteBlobs(context.Background(), ref.BlobIDs)
}

func newKey() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	return "sha256:" + hex.EncodeToString(b[:])
}
