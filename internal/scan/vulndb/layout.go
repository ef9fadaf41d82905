package vulndb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of the layer that is a packed database.
const (
	LayerType     = "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip"
	JavaLayerType = "application/vnd.aquasec.trivy.javadb.layer.v1.tar+gzip"
)

const (
	maxManifest  = 1 << 20 // bytes of a manifest or index
	maxManifests = 100
)

// layout is an OCI image layout: index.json and blobs/ALGORITHM/HEX.
type layout interface {
	// read returns a file of at most maxManifest bytes.
	read(name string) ([]byte, error)
	// stream calls fn with the content of a file and its size.
	stream(name string, fn func(r io.Reader, size int64) error) error
}

type directoryLayout struct{ root *os.Root }

func (d directoryLayout) read(name string) (data []byte, err error) {
	err = d.stream(name, func(r io.Reader, size int64) error {
		if size > maxManifest {
			return failure.Errorf(failure.Untrustworthy, "%s has %d bytes, more than a manifest", name, size)
		}
		data, err = io.ReadAll(io.LimitReader(r, maxManifest))
		return err
	})
	return data, err
}

func (d directoryLayout) stream(name string, fn func(io.Reader, int64) error) error {
	f, size, err := openBeneath(d.root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return missing(name)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return fn(f, size)
}

func missing(name string) error {
	return failure.Errorf(failure.Untrustworthy, "the OCI layout is not whole: it has no %s", name)
}

// layout takes the database out of an OCI layout. Every digest on the way to it
// is proved.
func (st *stage) layout(ctx context.Context, l layout) error {
	data, err := l.read("index.json")
	if err != nil {
		return err
	}
	found := map[digest.Digest]ocispec.Descriptor{}
	if err := databases(l, data, found, 0); err != nil {
		return err
	}
	switch len(found) {
	case 0:
		return failure.Errorf(failure.Untrustworthy, "there is no vulnerability database in the OCI layout: no layer is of type %s", LayerType)
	case 1:
	default:
		return failure.Hint(failure.Errorf(failure.Untrustworthy, "there are %d databases in the OCI layout", len(found)), "copy one of them into a layout of its own")
	}
	for _, layer := range found {
		name, err := blob(layer.Digest)
		if err != nil {
			return err
		}
		err = l.stream(name, func(r io.Reader, size int64) error {
			if size != layer.Size {
				return failure.Errorf(failure.Untrustworthy, "%s has %d bytes, and its manifest says %d", name, size, layer.Size)
			}
			v := layer.Digest.Verifier()
			tee := io.TeeReader(r, v)
			if err := st.unpack(ctx, tee); err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, tee); err != nil {
				return err
			}
			if !v.Verified() {
				return failure.Errorf(failure.Untrustworthy, "%s is not what it is called: its digest is another", name)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// databases finds the layers that are databases below an index.
func databases(l layout, index []byte, found map[digest.Digest]ocispec.Descriptor, depth int) error {
	var doc ocispec.Index
	if err := json.Unmarshal(index, &doc); err != nil {
		return failure.Wrap(failure.Untrustworthy, fmt.Errorf("the index of the OCI layout: %w", err))
	}
	if len(doc.Manifests) > maxManifests || depth > 3 {
		return failure.Errorf(failure.Untrustworthy, "the OCI layout has more than %d manifests, or an index too deep", maxManifests)
	}
	for _, d := range doc.Manifests {
		name, err := blob(d.Digest)
		if err != nil {
			return err
		}
		data, err := l.read(name)
		if err != nil {
			return err
		}
		if d.Digest != d.Digest.Algorithm().FromBytes(data) {
			return failure.Errorf(failure.Untrustworthy, "%s is not what it is called: its digest is another", name)
		}
		if d.MediaType == ocispec.MediaTypeImageIndex {
			if err := databases(l, data, found, depth+1); err != nil {
				return err
			}
			continue
		}
		layer, err := databaseLayer(data)
		if err != nil {
			return err
		}
		if layer != nil {
			found[layer.Digest] = *layer
		}
	}
	return nil
}

// databaseLayer returns the layer of a manifest that is a database, or nil.
func databaseLayer(manifest []byte) (*ocispec.Descriptor, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return nil, failure.Wrap(failure.Untrustworthy, fmt.Errorf("a manifest: %w", err))
	}
	for _, l := range m.Layers {
		if l.MediaType != LayerType && l.MediaType != JavaLayerType {
			continue
		}
		if len(m.Layers) > 1 {
			return nil, failure.Errorf(failure.Untrustworthy, "the manifest of a database has %d layers, not one", len(m.Layers))
		}
		if _, err := blob(l.Digest); err != nil || l.Size < 1 {
			return nil, failure.Errorf(failure.Untrustworthy, "the manifest gives its layer the digest %.100q and %d bytes", l.Digest, l.Size)
		}
		return &l, nil
	}
	return nil, nil
}

// blob is where the content of a digest lies in a layout.
func blob(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil || !d.Algorithm().Available() {
		return "", failure.Errorf(failure.Untrustworthy, "%.100q is no digest that can be proved", d)
	}
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded(), nil
}
