//go:build goexperiment.jsonv2

package trivy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math"
	"os"
	"reflect"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/zeebo/blake3"

	"github.com/mobileops/mobileops/internal/scan/memo"
)

// storedLayer is a layer as the image has it.
type storedLayer struct {
	v1.Layer
	diff    v1.Hash      // what the image says its content is
	packed  bool         // stored compressed
	digest  string       // of what is stored, as the manifest says; "" unless packed
	archive *archiveFile // what it is a part of, or nil
	local   bool         // it is in a file or directory, and can be read again
}

func (a *imageArtifact) storedLayer(diff v1.Hash) (*storedLayer, error) {
	l, err := a.image.LayerByDiffID(diff)
	if err != nil {
		return nil, a.broken(fmt.Errorf("layer %s: %w", diff, err))
	}
	s := &storedLayer{Layer: l, diff: diff, packed: isPacked(l)}
	if image, ok := a.image.(storedImage); ok {
		s.local, s.archive = true, image.archive
	}
	if s.packed {
		if d, err := l.Digest(); err == nil {
			s.digest = d.String()
		}
	}
	return s, nil
}

// isPacked tells whether a layer is stored compressed. The digest of one that
// isn't would have to be computed by packing it, and belongs to nothing.
func isPacked(l v1.Layer) bool {
	t := reflect.TypeOf(l)
	if t.Kind() != reflect.Pointer || t.Elem().Kind() != reflect.Struct {
		return false
	}
	_, unpacked := t.Elem().FieldByName("UncompressedLayer")
	return !unpacked
}

// layerReader reads what is in a layer, and takes the digests of it and of what is
// stored.
type layerReader struct {
	ctx      context.Context
	content  io.ReadCloser
	sum      hash.Hash // of the content: SHA-256, as OCI has it
	n        int64     // bytes of the content
	stored   *storedReader
	identity memo.Identity // of the file that has it
	steady   bool          // there is an identity
}

// storedReader takes the digest of what is read of a stored layer.
type storedReader struct {
	io.ReadCloser
	hash *blake3.Hasher // nil: nobody wants it
	end  bool           // all of it was read
}

func (s *storedReader) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if s.hash != nil {
		_, _ = s.hash.Write(p[:n])
	}
	s.end = err == io.EOF
	return n, err
}

// opened is a layer whose stored bytes are read already.
type opened struct {
	*storedLayer
	stored *storedReader
}

func (o opened) Compressed() (io.ReadCloser, error) { return o.stored, nil }

// raw opens what is stored.
func (s *storedLayer) raw() (io.ReadCloser, error) {
	if s.packed {
		return s.Compressed()
	}
	return s.Uncompressed()
}

// open opens a layer. digest says whether that of the stored bytes is taken too, where
// they are something else than the content.
func (s *storedLayer) open(ctx context.Context, digest bool) (*layerReader, error) {
	raw, err := s.raw()
	if err != nil {
		return nil, err
	}
	r := &layerReader{ctx: ctx, content: raw, sum: sha256.New(), stored: &storedReader{ReadCloser: raw}}
	r.identity, r.steady = s.identity(raw)
	if !s.packed {
		return r, nil
	}
	if digest {
		r.stored.hash = blake3.New()
	}
	l, err := partial.CompressedToLayer(opened{s, r.stored})
	if err == nil {
		r.content, err = l.Uncompressed()
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	return r, nil
}

// identity returns the identity of the file that has a layer. raw is what is stored
// of it.
func (s *storedLayer) identity(raw io.ReadCloser) (memo.Identity, bool) {
	if s.archive != nil {
		now, ok := s.archive.identify()
		return now, ok && s.archive.steady && now == s.archive.identity
	}
	f, ok := raw.(interface{ Stat() (fs.FileInfo, error) })
	if !ok {
		return memo.Identity{}, false
	}
	info, err := f.Stat()
	if err != nil {
		return memo.Identity{}, false
	}
	return memo.Identify(info)
}

func (r *layerReader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	n, err := r.content.Read(p)
	r.sum.Write(p[:n])
	r.n += int64(n)
	return n, err
}

func (r *layerReader) Close() error { return r.content.Close() }

// diff is the digest of what was read.
func (r *layerReader) diff() string { return hex.EncodeToString(r.sum.Sum(nil)) }

// archiveFile is the file of an image. It is opened once: whatever takes its place
// meanwhile is not read.
type archiveFile struct {
	*os.File
	since    time.Time // when it was opened
	identity memo.Identity
	steady   bool // there is an identity
}

func openArchiveFile(name string) (*archiveFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	a := &archiveFile{File: f, since: time.Now()}
	a.identity, a.steady = a.identify()
	return a, nil
}

func (a *archiveFile) identify() (memo.Identity, bool) {
	info, err := a.Stat()
	if err != nil {
		return memo.Identity{}, false
	}
	return memo.Identify(info)
}

// open returns a reader of all of the file, as any number of others may be.
func (a *archiveFile) open() (io.ReadCloser, error) {
	return section{io.NewSectionReader(a, 0, math.MaxInt64)}, nil
}

// section is a part of a file that others close.
type section struct{ *io.SectionReader }

// Close implements io.Closer.
func (section) Close() error { return nil }
