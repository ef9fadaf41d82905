package containers

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// ociArchive writes an image of one file in the OCI image layout, which ctr can
// import.
func ociArchive(t testing.TB, dir string) string {
	t.Helper()
	blobs := map[string][]byte{}
	put := func(b []byte) string {
		sum := sha256.Sum256(b)
		name := hex.EncodeToString(sum[:])
		blobs["blobs/sha256/"+name] = b
		return "sha256:" + name
	}
	document := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	archive := func(files map[string][]byte) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for name, content := range files {
			if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Format: tar.FormatPAX}); err != nil {
				t.Fatal(err)
			}
			w.Write(content)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	type object = map[string]any
	layer := archive(map[string][]byte{"hi": []byte("#!hi")})
	layerSum := put(layer)
	config := document(object{"architecture": "amd64", "os": "linux", "config": object{"Cmd": []string{"/hi"}},
		"rootfs": object{"type": "layers", "diff_ids": []string{layerSum}}})
	manifest := document(object{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": object{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": put(config), "size": len(config)},
		"layers": []object{{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layerSum, "size": len(layer)}}})
	blobs["index.json"] = document(object{"schemaVersion": 2, "manifests": []object{{
		"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": put(manifest), "size": len(manifest),
		"annotations": object{"io.containerd.image.name": "example.org/tiny:1"}}}})
	blobs["oci-layout"] = document(object{"imageLayoutVersion": "1.0.0"})
	path := filepath.Join(dir, "oci.tar")
	if err := os.WriteFile(path, archive(blobs), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
