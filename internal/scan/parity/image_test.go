package parity

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// entry is a member of a layer. Type 0 is a regular file.
type entry struct {
	name, content, link string
	kind                byte
}

// layer packs entries as a layer without compression.
func layer(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.content)), Typeflag: e.kind, Linkname: e.link}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeDir {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// members are files as entries, in order.
func members(files map[string]string) []entry {
	var list []entry
	for _, name := range slices.Sorted(maps.Keys(files)) {
		list = append(list, entry{name: name, content: files[name]})
	}
	return list
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstandard(t testing.TB, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

func imageConfig(layers [][]byte) []byte {
	var ids []string
	history := []map[string]any{{"created_by": "nothing", "empty_layer": true}}
	for _, l := range layers {
		ids = append(ids, "sha256:"+digest(l))
		history = append(history, map[string]any{"created_by": "COPY . / # buildkit"})
	}
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
		"config":  map[string]any{"Cmd": []string{"/bin/sh"}, "Env": []string{"PATH=/bin"}, "User": ""},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": ids},
		"history": history,
	})
	if err != nil {
		panic(err)
	}
	return config
}

// dockerSave writes an image as "docker save" does.
func dockerSave(t testing.TB, to, tag string, layers ...[]byte) string {
	t.Helper()
	config := imageConfig(layers)
	entries := []entry{{name: digest(config) + ".json", content: string(config)}}
	var names []string
	for _, l := range layers {
		names = append(names, digest(l)+"/layer.tar")
		entries = append(entries, entry{name: names[len(names)-1], content: string(l)})
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": digest(config) + ".json", "RepoTags": []string{tag}, "Layers": names}})
	if err != nil {
		t.Fatal(err)
	}
	entries = append(entries, entry{name: "manifest.json", content: string(manifest)})
	write(t, filepath.Dir(to), filepath.Base(to), string(layer(t, entries...)))
	return to
}

// ociLayout writes an image as the OCI image layout 1.0 says. The layers are packed
// by pack; what it returns is stored under the digest it should have.
func ociLayout(t testing.TB, dir, mediaType string, pack func(testing.TB, []byte) []byte, layers ...[]byte) string {
	t.Helper()
	blob := func(b []byte, mediaType string) map[string]any {
		write(t, filepath.Join(dir, "blobs", "sha256"), digest(b), string(b))
		return map[string]any{"mediaType": mediaType, "digest": "sha256:" + digest(b), "size": len(b)}
	}
	marshal := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var list []map[string]any
	for _, l := range layers {
		list = append(list, blob(pack(t, l), mediaType))
	}
	manifest := marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": blob(imageConfig(layers), "application/vnd.oci.image.config.v1+json"), "layers": list})
	index := map[string]any{"schemaVersion": 2, "manifests": []any{blob(manifest, "application/vnd.oci.image.manifest.v1+json")}}
	write(t, dir, "index.json", string(marshal(index)))
	write(t, dir, "oci-layout", `{"imageLayoutVersion":"1.0.0"}`)
	return dir
}

const (
	gzipLayer = "application/vnd.oci.image.layer.v1.tar+gzip"
	zstdLayer = "application/vnd.oci.image.layer.v1.tar+zstd"
	tarLayer  = "application/vnd.oci.image.layer.v1.tar"
)

// imageLayers are a Debian, and on it an application that removes what is below:
// one file, and one directory with all it has.
func imageLayers(t testing.TB) [][]byte {
	t.Helper()
	system := debian("12.11", map[string]string{
		"app/gone/package-lock.json":                                    packageLock2,
		"app/gone/node_modules/lodash/package.json":                     `{"name":"lodash","version":"4.17.4","license":"MIT"}`,
		"app/opaque/node_modules/minimist/package.json":                 `{"name":"minimist","version":"0.0.8","license":"MIT"}`,
		"app/kept/node_modules/jquery/package.json":                     `{"name":"jquery","version":"3.4.0","license":"MIT"}`,
		"usr/lib/python3/dist-packages/jinja2-3.1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: Jinja2\nVersion: 3.1.2\nLicense: BSD-3-Clause\n",
		"usr/share/doc/openssl/copyright":                               copyright("Apache-2.0"),
		"app/kept/LICENSE":                                              mit,
		"app/opaque/yarn.lock":                                          yarnLock,
		"app/kept/Cargo.lock":                                           cargoLock,
		"etc/key":                                                       "token " + "gh" + "p_" + fake(alnum, 36, 2) + "\n",
	})
	status := system["var/lib/dpkg/status"]
	return [][]byte{
		layer(t, append([]entry{{name: "app/", kind: tar.TypeDir}, {name: "bin", kind: tar.TypeSymlink, link: "usr/bin"}}, members(system)...)...),
		layer(t,
			entry{name: "app/gone/.wh.package-lock.json"},
			entry{name: "app/gone/.wh.node_modules"},
			entry{name: "app/opaque/.wh..wh..opq"},
			entry{name: "app/opaque/Gemfile.lock", content: gemfileLock},
			entry{name: "./app/dot/Pipfile.lock", content: pipfileLock},
			entry{name: "./app/dot/node_modules/lodash/package.json", content: `{"name":"lodash","version":"4.17.20","license":"MIT"}`},
			entry{name: "usr/bin/hard", kind: tar.TypeLink, link: "usr/bin/openssl"},
			entry{name: "var/lib/dpkg/status", content: strings.Replace(status, "3.0.16-1~deb12u1", "3.0.17-1~deb12u1", 1)},
			entry{name: "srv/deploy.env", content: "AWS_ACCESS_KEY_ID=AKI" + "A" + fake(upper, 16, 1) + "\n"},
			entry{name: "srv/Dockerfile", content: "FROM debian:latest\n"},
		),
	}
}

// ociArchive is a layout in a tar file.
func ociArchive(t testing.TB, to string, dir string) string {
	t.Helper()
	var entries []entry
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		entries = append(entries, entry{name: name, content: string(content)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return write(t, filepath.Dir(to), filepath.Base(to), string(layer(t, entries...)))
}
