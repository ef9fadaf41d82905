//go:build goexperiment.jsonv2

package trivy

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	fimage "github.com/aquasecurity/trivy/pkg/fanal/image"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/layer"
)

const (
	maxManifest       = 16 << 20 // bytes of a manifest, an index or a configuration
	maxIndexDepth     = 4
	maxArchiveEntries = 100_000 // of the archive that has an image
)

// storedImage is an image in a file or directory.
type storedImage struct {
	v1.Image
	name    string
	tags    []string
	archive *archiveFile // the file that it is in, or nil
}

// Name implements types.Image.
func (i storedImage) Name() string { return i.name }

// ID implements types.Image.
func (i storedImage) ID() (string, error) { return fimage.ID(i.Image) }

// RepoTags implements types.Image.
func (i storedImage) RepoTags() []string { return i.tags }

// RepoDigests implements types.Image: a file doesn't know of what repository it is.
func (storedImage) RepoDigests() []string { return nil }

// openImage finds the image that is asked for: in the file system, and only with
// Remote in container engines and registries.
func (j *job) openImage(ctx context.Context) (_ ftypes.Image, closeIt func(), err error) {
	info, err := os.Stat(j.req.Target)
	switch {
	case err == nil && info.IsDir():
		image, err := j.openLayout(j.req.Target)
		if err != nil {
			return nil, nil, err
		}
		return image, func() {}, nil
	case err == nil:
		return j.openArchive(info)
	case !j.req.Remote && errors.Is(err, fs.ErrNotExist):
		return nil, nil, failure.Hint(failure.Errorf(failure.Failed, "there is no file %s", j.req.Target), "an image of a registry is only fetched with --remote")
	case !errors.Is(err, fs.ErrNotExist) && !j.req.Remote:
		return nil, nil, failure.Wrap(failure.Failed, err)
	}
	o := ftypes.ImageOptions{ImageSources: ftypes.AllImageSources, RegistryOptions: ftypes.RegistryOptions{Insecure: j.req.Insecure}}
	if j.req.Platform != "" {
		p, err := v1.ParsePlatform(j.req.Platform)
		if err != nil {
			return nil, nil, failure.Errorf(failure.Usage, "%q is no platform: %w", j.req.Platform, err)
		}
		o.RegistryOptions.Platform = ftypes.Platform{Platform: p}
	}
	j.meter.set("fetch")
	image, closeIt, err := fimage.NewContainerImage(ctx, j.req.Target, o)
	if err != nil {
		return nil, nil, failure.Errorf(failure.Failed, "fetch %s: %w", j.req.Target, plain(err))
	}
	return image, closeIt, nil
}

func notAnImage(target string, err error) error {
	return failure.Errorf(failure.Untrustworthy, "%s is no image that can be read: %w", target, err)
}

// opener opens an archive, in which layers are looked for many times.
type opener = tarball.Opener

// openArchive opens what docker save wrote, or a tar archive of an OCI layout.
func (j *job) openArchive(info fs.FileInfo) (_ ftypes.Image, closeIt func(), err error) {
	if !info.Mode().IsRegular() {
		return nil, nil, failure.Errorf(failure.Usage, "%s is neither a file nor a directory", j.req.Target)
	}
	f, err := openArchiveFile(j.req.Target)
	if err != nil {
		return nil, nil, failure.Wrap(failure.Failed, err)
	}
	image, err := j.readArchive(f)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	image.archive = f
	return image, func() { f.Close() }, nil
}

func (j *job) readArchive(f *archiveFile) (image storedImage, err error) {
	open, err := j.unzipped(f)
	if err != nil {
		return image, err
	}
	contents, err := list(open)
	if err != nil {
		return image, notAnImage(j.req.Target, err)
	}
	if _, ok := contents["manifest.json"]; ok {
		return j.openDocker(open, contents)
	}
	if _, ok := contents["index.json"]; ok {
		return j.unpackLayout(open)
	}
	return image, notAnImage(j.req.Target, errors.New("it has neither manifest.json nor index.json"))
}

// unzipped opens an archive, or a copy that isn't packed with gzip, if it is.
func (j *job) unzipped(f *archiveFile) (opener, error) {
	var magic [2]byte
	if _, err := f.ReadAt(magic[:], 0); err != nil || magic != [2]byte{0x1f, 0x8b} {
		return f.open, nil
	}
	j.meter.set("unpack")
	packed, err := f.open()
	if err != nil {
		return nil, failure.Wrap(failure.Failed, err)
	}
	z, err := gzip.NewReader(packed)
	if err != nil {
		return nil, notAnImage(j.req.Target, err)
	}
	out, err := os.CreateTemp(j.req.Temp, "image-*.tar")
	if err != nil {
		return nil, failure.Wrap(failure.Failed, err)
	}
	defer out.Close()
	limit := j.req.Limits.Unpacked
	if limit <= 0 {
		limit = layer.DefaultBytes
	}
	n, err := io.Copy(out, io.LimitReader(z, limit+1))
	var path *fs.PathError
	switch {
	case errors.As(err, &path):
		return nil, failure.Wrap(failure.Failed, err)
	case err != nil:
		return nil, notAnImage(j.req.Target, err)
	case n > limit:
		return nil, notAnImage(j.req.Target, fmt.Errorf("unpacked it has more than %d bytes", limit))
	}
	name := out.Name()
	return func() (io.ReadCloser, error) { return os.Open(name) }, nil
}

// list returns the sizes of the regular files of an archive by their clean names.
func list(open opener) (map[string]int64, error) {
	f, err := open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sizes := map[string]int64{}
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		switch {
		case errors.Is(err, io.EOF):
			return sizes, nil
		case err != nil:
			return nil, err
		case len(sizes) == maxArchiveEntries:
			return nil, fmt.Errorf("it has more than %d entries", maxArchiveEntries)
		}
		size := int64(-1)
		if h.Typeflag == tar.TypeReg {
			size = h.Size
		}
		// Of a name that is there twice, whoever reads it may take either.
		name := path.Clean(h.Name)
		if before, ok := sizes[name]; ok {
			size = max(size, before)
		}
		sizes[name] = size
	}
}

// openDocker opens an archive in the format of docker save.
func (j *job) openDocker(open opener, sizes map[string]int64) (_ storedImage, err error) {
	if sizes["manifest.json"] > maxManifest {
		return storedImage{}, notAnImage(j.req.Target, fmt.Errorf("manifest.json has %d bytes", sizes["manifest.json"]))
	}
	manifest, err := tarball.LoadManifest(open)
	if err != nil {
		return storedImage{}, notAnImage(j.req.Target, fmt.Errorf("manifest.json: %w", err))
	}
	if len(manifest) != 1 {
		return storedImage{}, failure.Hint(failure.Errorf(failure.Usage, "%s has %d images", j.req.Target, len(manifest)), "save each image into a file of its own")
	}
	if size := sizes[path.Clean(manifest[0].Config)]; size > maxManifest {
		return storedImage{}, notAnImage(j.req.Target, fmt.Errorf("%s has %d bytes", manifest[0].Config, size))
	}
	image, err := tarball.Image(open, nil)
	if err != nil {
		return storedImage{}, notAnImage(j.req.Target, err)
	}
	return storedImage{Image: image, name: j.req.Target, tags: manifest[0].RepoTags}, nil
}

// unpackLayout writes the files of an OCI layout into the directory for temporary files.
func (j *job) unpackLayout(open opener) (storedImage, error) {
	j.meter.set("unpack")
	dir, err := os.MkdirTemp(j.req.Temp, "layout-")
	if err != nil {
		return storedImage{}, failure.Wrap(failure.Failed, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return storedImage{}, failure.Wrap(failure.Failed, err)
	}
	defer root.Close()
	f, err := open()
	if err != nil {
		return storedImage{}, failure.Wrap(failure.Failed, err)
	}
	defer f.Close()
	// The names that a layout may have: everything else is no part of it.
	blob := regexp.MustCompile(`^blobs/[a-z0-9]+/[a-f0-9]+$`)
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return storedImage{}, notAnImage(j.req.Target, err)
		}
		name := path.Clean(h.Name)
		if h.Typeflag != tar.TypeReg || name != "index.json" && name != "oci-layout" && !blob.MatchString(name) {
			continue
		}
		if err := write(root, name, tr); err != nil {
			return storedImage{}, failure.Wrap(failure.Failed, err)
		}
	}
	return j.openLayout(dir)
}

func write(root *os.Root, name string, content io.Reader) error {
	if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, content); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// openLayout opens an OCI image layout (image-layout.md of the specification).
func (j *job) openLayout(dir string) (storedImage, error) {
	if err := small(filepath.Join(dir, "index.json")); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("the directory has no index.json, so it is no OCI layout")
		}
		return storedImage{}, notAnImage(j.req.Target, err)
	}
	l, err := layout.FromPath(dir)
	if err != nil {
		return storedImage{}, notAnImage(j.req.Target, err)
	}
	index, err := l.ImageIndex()
	if err != nil {
		return storedImage{}, notAnImage(j.req.Target, err)
	}
	image, tag, err := j.choose(dir, index, maxIndexDepth)
	if err != nil {
		return storedImage{}, err
	}
	if err := j.checkImage(dir, image); err != nil {
		return storedImage{}, notAnImage(j.req.Target, err)
	}
	var tags []string
	if strings.Contains(tag, "/") && strings.Contains(tag, ":") {
		tags = []string{tag} // a full reference; a bare tag says nothing without its repository
	}
	return storedImage{Image: image, name: j.req.Target, tags: tags}, nil
}

// choose picks an image of an index: the one of the platform that is asked for,
// or the first.
func (j *job) choose(dir string, index v1.ImageIndex, depth int) (v1.Image, string, error) {
	m, err := index.IndexManifest()
	if err != nil {
		return nil, "", notAnImage(j.req.Target, err)
	}
	if depth == 0 {
		return nil, "", notAnImage(j.req.Target, errors.New("an index of an index, without end"))
	}
	var want *v1.Platform
	if j.req.Platform != "" {
		if want, err = v1.ParsePlatform(j.req.Platform); err != nil {
			return nil, "", failure.Errorf(failure.Usage, "%q is no platform: %w", j.req.Platform, err)
		}
	}
	var there []string
	for _, d := range m.Manifests {
		if d.Platform != nil && d.Platform.OS == "unknown" {
			continue // what BuildKit attests
		}
		if d.Platform != nil {
			there = append(there, d.Platform.String())
		}
		if !d.MediaType.IsIndex() && want != nil && d.Platform != nil && !d.Platform.Satisfies(*want) {
			continue
		}
		if err := small(filepath.Join(dir, "blobs", d.Digest.Algorithm, d.Digest.Hex)); err != nil {
			return nil, "", notAnImage(j.req.Target, err)
		}
		tag := d.Annotations["io.containerd.image.name"]
		if tag == "" {
			tag = d.Annotations["org.opencontainers.image.ref.name"]
		}
		if d.MediaType.IsIndex() {
			child, err := index.ImageIndex(d.Digest)
			if err != nil {
				return nil, "", notAnImage(j.req.Target, err)
			}
			image, below, err := j.choose(dir, child, depth-1)
			if tag == "" {
				tag = below
			}
			return image, tag, err
		}
		if len(m.Manifests) > 1 && want == nil && d.Platform != nil {
			j.found.note("the image is there for several platforms, and that for " + d.Platform.String() + " was scanned")
		}
		image, err := index.Image(d.Digest)
		if err != nil {
			return nil, "", notAnImage(j.req.Target, err)
		}
		return image, tag, nil
	}
	if len(there) > 0 {
		slices.Sort(there)
		return nil, "", failure.Errorf(failure.Usage, "%s has no image for %s, only for %s", j.req.Target, j.req.Platform, strings.Join(there, ", "))
	}
	return nil, "", notAnImage(j.req.Target, errors.New("its index names no image"))
}

// checkImage sees that the manifest and the configuration are not too large to be
// read, and that the manifest is one.
func (j *job) checkImage(dir string, image v1.Image) error {
	raw, err := image.RawManifest()
	if err != nil {
		return err
	}
	var m v1.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	return small(filepath.Join(dir, "blobs", m.Config.Digest.Algorithm, m.Config.Digest.Hex))
}

// small refuses a file that is too large to be read as a whole.
func small(name string) error {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no file", name)
	case info.Size() > maxManifest:
		return fmt.Errorf("%s has %d bytes", name, info.Size())
	}
	return nil
}
