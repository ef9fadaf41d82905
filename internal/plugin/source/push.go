package source

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/zeebo/blake3"
	"oras.land/oras-go/v2/registry/remote"
)

// Described is what a publisher's package says of itself in its manifest.
type Described struct {
	Name, Version string
	Sequence      uint64
	Summary       string
	Licence       string // SPDX expression
	MinVersion    string // of mobileops
}

// leastPushStall is how long a registry may think about a package it got.
const leastPushStall = 2 * time.Minute

// PushOCI puts a package into a registry under oci://HOST/REPO:TAG and returns
// its reference by digest. The same package gets the same digest every time.
// What it is (d) becomes annotations.
func PushOCI(ctx context.Context, path, spec string, d Described, opts Options) (string, error) {
	opts = opts.withDefaults()
	opts.Stall = max(opts.Stall, leastPushStall)
	ref, err := reference(spec)
	if err != nil {
		return "", err
	}
	if _, err := ref.Digest(); err == nil {
		return "", refuse(CodeSpec, "name a tag, such as the version", "%s is a digest, which is told after pushing", quoted(spec))
	}
	f, err := os.Open(path)
	if err != nil {
		return "", &Error{Code: CodeMissing, Err: err}
	}
	defer f.Close()
	layer, blake, err := describeLayer(f, path, opts)
	if err != nil {
		return "", err
	}
	c := newClient(opts)
	defer c.close()
	where := ociScheme + ref.String()
	ctx, w := c.watched(ctx, where)
	defer w.end()
	repo := c.repository(ref)
	m, err := json.Marshal(manifestOf(layer, annotations(d, blake)))
	if err != nil {
		return "", err
	}
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: ArtifactType, Digest: digest.FromBytes(m), Size: int64(len(m))}
	err = pushBlob(ctx, repo, layer, w.reader(f))
	if err == nil {
		empty := ocispec.DescriptorEmptyJSON
		err = pushBlob(ctx, repo, empty, bytes.NewReader(empty.Data))
	}
	if err == nil {
		err = repo.Manifests().PushReference(ctx, desc, bytes.NewReader(m), ref.Reference)
	}
	if err != nil {
		return "", registryError(ctx, where, err)
	}
	ref.Reference = desc.Digest.String()
	return ociScheme + ref.String(), nil
}

// manifestOf is the manifest of an artifact as OCI Image Manifest 1.1 has it,
// with the empty configuration that it gives for those without one.
func manifestOf(layer ocispec.Descriptor, annotations map[string]string) ocispec.Manifest {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: ArtifactType, Config: ocispec.DescriptorEmptyJSON,
		Layers: []ocispec.Descriptor{layer}, Annotations: annotations}
	m.SchemaVersion = 2
	return m
}

// describeLayer reads the package once for its digests, and goes back to its
// beginning.
func describeLayer(f *os.File, path string, opts Options) (layer ocispec.Descriptor, blake string, err error) {
	var first bytes.Buffer
	sha, b3 := sha256.New(), blake3.New()
	n, err := io.Copy(io.MultiWriter(sha, b3, &head{&first, 4}), io.LimitReader(f, opts.MaxPackage+1))
	switch {
	case err != nil:
		return layer, "", &Error{Code: CodeDisk, Err: err}
	case n > opts.MaxPackage:
		return layer, "", tooLarge(path, opts.MaxPackage)
	case !packed(first.Bytes()):
		return layer, "", refuse(CodeMalformed, "make one: mobileops plugin pack", "%s is no package: it begins with %q, neither zstd nor gzip", path, first.Bytes())
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return layer, "", &Error{Code: CodeDisk, Err: err}
	}
	layer = ocispec.Descriptor{MediaType: LayerTypeZstd, Digest: digest.NewDigest(digest.SHA256, sha), Size: n,
		Annotations: map[string]string{ocispec.AnnotationTitle: filepath.Base(path)}}
	if first.Bytes()[0] == 0x1f {
		layer.MediaType = LayerTypeGzip
	}
	return layer, hex.EncodeToString(b3.Sum(nil)), nil
}

// head keeps the first bytes that are written.
type head struct {
	b     *bytes.Buffer
	limit int
}

func (h *head) Write(p []byte) (int, error) {
	h.b.Write(p[:min(len(p), h.limit-h.b.Len())])
	return len(p), nil
}

func pushBlob(ctx context.Context, repo *remote.Repository, layer ocispec.Descriptor, r io.Reader) error {
	there, err := repo.Blobs().Exists(ctx, layer)
	if err != nil || there {
		return err
	}
	return repo.Blobs().Push(ctx, layer, r)
}

func annotations(d Described, blake string) map[string]string {
	a := map[string]string{
		// A time would make another manifest of the same package every time.
		ocispec.AnnotationCreated: "1970-01-01T00:00:00Z",
		annotationDigest:          blake,
	}
	for key, value := range map[string]string{
		annotationName: d.Name, annotationMin: d.MinVersion, ocispec.AnnotationTitle: d.Name, ocispec.AnnotationVersion: d.Version,
		ocispec.AnnotationDescription: d.Summary, ocispec.AnnotationLicenses: d.Licence,
	} {
		if value != "" {
			a[key] = value
		}
	}
	if d.Sequence > 0 {
		a[annotationSequence] = strconv.FormatUint(d.Sequence, 10)
	}
	return a
}
