package source

import (
	"fmt"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/registry/remote"
)

// TestPackagesOfOtherPrograms pulls what ORAS packs and pushes, and has ORAS
// copy what we pushed.
func TestPackagesOfOtherPrograms(t *testing.T) {
	host := startRegistry(t, "")
	repo, err := remote.NewRepository(host + "/theirs")
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	content := pkg(100_000, "theirs")
	layer, err := oras.PushBytes(t.Context(), repo, LayerTypeZstd, content)
	if err != nil {
		t.Fatal(err)
	}
	desc, err := oras.PackManifest(t.Context(), repo, oras.PackManifestVersion1_1, ArtifactType, oras.PackManifestOptions{Layers: []ocispec.Descriptor{layer}})
	if err != nil {
		t.Fatal(err)
	}
	if err := repo.Tag(t.Context(), desc, "1"); err != nil {
		t.Fatal(err)
	}
	o := Options{TempDir: t.TempDir()}
	found, err := Resolve(t.Context(), "oci://"+host+"/theirs:1", o)
	holds(t, found, err, content, o.TempDir)

	pinned, err := PushOCI(t.Context(), written(t, "ours-1.plugin.tar.zst", content), "oci://"+host+"/theirs:2", described, o)
	if err != nil {
		t.Fatal(err)
	}
	desc, err = oras.Copy(t.Context(), repo, "2", memory.New(), "2", oras.DefaultCopyOptions)
	if err != nil || pinned != "oci://"+host+"/theirs@"+desc.Digest.String() {
		t.Errorf("%s was copied as %s, %v", pinned, desc.Digest, err)
	}
}

// BenchmarkSearch looks through kept plugins of five versions each.
func BenchmarkSearch(b *testing.B) {
	for _, n := range []int{50, 250, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkSearch(b, n) })
	}
}

func benchmarkSearch(b *testing.B, n int) {
	p := newPublisher(b)
	for i := range n {
		for v := range 5 {
			p.add(fmt.Sprintf("plugin-%04d", i), fmt.Sprintf("1.0.%d", v+1), pkg(64, "x"))
		}
	}
	p.publish()
	o := p.options(p.dir)
	for _, st := range Refresh(b.Context(), o) {
		if st.Err != nil {
			b.Fatal(st.Err)
		}
	}
	for b.Loop() {
		if r, err := Search(b.Context(), "0042", o); err != nil || len(r.Hits) != 1 {
			b.Fatal(r, err)
		}
	}
}
