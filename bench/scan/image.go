package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// images are an application on top of the source tree, as docker save writes it and as
// an OCI layout with gzip, and another application on the same base.
func images(sources, to string) error {
	base := filepath.Join(to, "base.tar")
	if err := pack(sources, base); err != nil {
		return err
	}
	var tops []string
	for _, app := range []string{"one", "two"} {
		dir := filepath.Join(to, app)
		for i := range 50 {
			if err := put(filepath.Join(dir, "srv", app, fmt.Sprintf("%d.conf", i)), fmt.Appendf(nil, "%s %d\n", app, i)); err != nil {
				return err
			}
		}
		top := filepath.Join(to, app+".layer.tar")
		if err := errors.Join(pack(dir, top), dockerSave(filepath.Join(to, app+".tar"), base, top)); err != nil {
			return err
		}
		tops = append(tops, top)
	}
	return errors.Join(layout(filepath.Join(to, "layout"), base, tops[0]), os.Remove(base), os.Remove(tops[0]), os.Remove(tops[1]))
}

// pack writes a directory as a layer.
func pack(dir, to string) (err error) {
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := tar.NewWriter(out)
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir || !d.IsDir() && !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755})
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return member(w, name, content)
	}); err != nil {
		return err
	}
	return w.Close()
}

func member(w *tar.Writer, name string, content []byte) error {
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

// digestOf returns the SHA-256 of a file and its size.
func digestOf(path string) (string, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), n, err
}

func imageConfig(layers []string) ([]byte, error) {
	var diffs []string
	for _, l := range layers {
		d, _, err := digestOf(l)
		if err != nil {
			return nil, err
		}
		diffs = append(diffs, "sha256:"+d)
	}
	return json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{}, "rootfs": map[string]any{"type": "layers", "diff_ids": diffs}})
}

func dockerSave(to string, layers ...string) error {
	config, err := imageConfig(layers)
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	var names []string
	for i, l := range layers {
		f, err := os.Open(l)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err == nil {
			names = append(names, fmt.Sprintf("%d/layer.tar", i))
			err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: names[i], Mode: 0o644, Size: info.Size()})
		}
		if err == nil {
			_, err = io.Copy(w, f)
		}
		f.Close()
		if err != nil {
			return err
		}
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{"app:1"}, "Layers": names}})
	if err != nil {
		return err
	}
	return errors.Join(member(w, "config.json", config), member(w, "manifest.json", manifest), w.Close())
}

// layout writes an OCI image layout (image-layout.md of the specification).
func layout(dir string, layers ...string) error {
	blob := func(content []byte) (map[string]any, error) {
		sum := sha256.Sum256(content)
		digest := hex.EncodeToString(sum[:])
		return map[string]any{"digest": "sha256:" + digest, "size": len(content)}, put(filepath.Join(dir, "blobs", "sha256", digest), content)
	}
	var list []map[string]any
	for _, l := range layers {
		content, err := os.ReadFile(l)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(content)
		if err := z.Close(); err != nil {
			return err
		}
		d, err := blob(b.Bytes())
		if err != nil {
			return err
		}
		d["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip"
		list = append(list, d)
	}
	config, err := imageConfig(layers)
	if err != nil {
		return err
	}
	c, err := blob(config)
	if err != nil {
		return err
	}
	c["mediaType"] = "application/vnd.oci.image.config.v1+json"
	manifest, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": c, "layers": list})
	if err != nil {
		return err
	}
	m, err := blob(manifest)
	if err != nil {
		return err
	}
	m["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{m}})
	if err != nil {
		return err
	}
	return errors.Join(put(filepath.Join(dir, "index.json"), index), put(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`)))
}

// images measures images: at first, again, as a copy that has just been written, and
// when another one with the same base is known.
func (b *bench) images() error {
	if _, err := b.made("sources"); err != nil { // which they are made of
		return err
	}
	dir, err := b.made("images")
	if err != nil {
		return err
	}
	for _, form := range []string{"one.tar", "layout"} {
		target := filepath.Join(dir, form)
		cache := filepath.Join(b.dir, "trivy-cache")
		trivy := func(name string) *contender {
			c := b.trivyOf("image", "--input="+target, cache, string(protocol.Secrets))
			c.name = name
			return c
		}
		theirFirst, theirAgain := trivy("trivy, at first"), trivy("trivy, again")
		theirFirst.before = func() error { return os.RemoveAll(cache) }
		memos := filepath.Join(b.dir, "memos")
		if err := os.MkdirAll(memos, 0o700); err != nil {
			return err
		}
		ours := func(name, target, memo string) *contender {
			return b.oursOf(name, protocol.Scan{Kind: protocol.Image, Target: target, Scanners: []protocol.Scanner{protocol.Secrets}, Memo: filepath.Join(memos, memo)})
		}
		first := ours("ours, at first", target, "images-cold")
		first.before = func() error { return forget(memos, "images-cold") }
		again := ours("ours, again", target, "images-warm")
		copied := ours("ours, a file that was touched", target, "images-warm")
		copied.before = func() error {
			now := time.Now()
			return filepath.WalkDir(target, func(p string, _ fs.DirEntry, err error) error { return errors.Join(err, os.Chtimes(p, now, now)) })
		}
		other := ours("ours, another with the same base", target, "images-other")
		other.before = func() error {
			if err := forget(memos, "images-other"); err != nil {
				return err
			}
			_, err := b.run1(ours("", filepath.Join(dir, "two.tar"), "images-other"), false)
			return err
		}
		again.before = func() error {
			// Once what was touched is of another time than the file.
			time.Sleep(3 * time.Second)
			_, err := b.run1(ours("", target, "images-warm"), false)
			return err
		}
		if err := forget(memos, "images-warm"); err != nil {
			return err
		}
		list := []*contender{theirFirst, theirAgain, first, again, copied, other}
		if err := b.compare(list...); err != nil {
			return err
		}
		what := "secrets of an image, " + form
		if err := b.table(what, list...); err != nil {
			return err
		}
		if err := b.ratios(of(what+", at first: CPU", first, theirFirst, cpu, 0.2), of(what+", again: CPU", again, theirFirst, cpu, 0.15), of(what+", again, to ours at first: CPU", again, first, cpu, 0),
			of(what+", touched, to ours at first: CPU", copied, first, cpu, 0), of(what+", same base, to ours at first: CPU", other, first, cpu, 0)); err != nil {
			return err
		}
	}
	return nil
}
