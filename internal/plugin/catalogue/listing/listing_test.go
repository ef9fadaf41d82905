package listing

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/trust"
)

func TestSequence(t *testing.T) {
	for version, want := range map[string]uint64{
		"0.0.1": 1, "1.0.0": 1_000_000, "1.2.3": 1_002_003, "12.999.999": 12_999_999, "1.10.0": 1_010_000,
	} {
		if got, err := Sequence(version); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", version, got, err, want)
		}
	}
	ordered := []string{"0.0.9", "0.1.0", "0.9.999", "1.0.0", "1.0.10", "1.1.0", "2.0.0", "10.0.0"}
	for i := 1; i < len(ordered); i++ {
		before, _ := Sequence(ordered[i-1])
		after, _ := Sequence(ordered[i])
		if before >= after || manifest.Compare(ordered[i-1], ordered[i]) >= 0 {
			t.Errorf("%s has %d, %s has %d", ordered[i-1], before, ordered[i], after)
		}
	}
	for _, version := range []string{"", "1", "1.0", "1.0.0.0", "1.0.0-rc.1", "1.0.0+a", "1.1000.0", "1.0.1000", "01.0.0", "1.-1.0", "1.+1.0", "0.0.0", "v1.0.0", "4294967296.0.0"} {
		if got, err := Sequence(version); err == nil {
			t.Errorf("%q: %d", version, got)
		}
	}
}

// TestNamesAreTheDirectories keeps a new plugin from being forgotten.
func TestNamesAreTheDirectories(t *testing.T) {
	found, err := filepath.Glob(filepath.Join("..", "..", "..", "..", "plugins", "*", manifest.FileName))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range found {
		names = append(names, filepath.Base(filepath.Dir(path)))
	}
	if !slices.Equal(names, Names()) {
		t.Errorf("plugins/ has %v, the catalogue %v", names, Names())
	}
}

func sample(t *testing.T) (*Listing, trust.Signer) {
	t.Helper()
	secret, _, err := trust.SecretKeyFile(nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := trust.OpenSigner(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse([]byte(`schema: mobileops.plugin/v1
name: demo-plugin
version: 1.2.3
summary: Show what a list has
licence: Apache-2.0
commands:
  - {name: show, summary: show it, flags: [{name: since, type: duration, default: 1h, summary: only what is newer}]}
hooks:
  - {on: finding, args: [hook], timeout: 10s, min_severity: high}
config:
  wait: {type: duration, default: 5s, min: 1s, summary: how long}
permissions: {findings: [read]}
`))
	if err != nil {
		t.Fatal(err)
	}
	return &Listing{Schema: Schema, Platform: "linux/amd64", Plugins: []Plugin{{Sequence: 1_002_003, Size: 5, Digest: "00", Manifest: m}}}, signer
}

func TestReadReturnsWhatWasWritten(t *testing.T) {
	l, signer := sample(t)
	data, signature, err := l.Write(t.Context(), signer)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Read(data, signature, signer.Public().File())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, l) {
		t.Errorf("%+v\nwant\n%+v", got.Plugins[0].Manifest, l.Plugins[0].Manifest)
	}
}

func TestReadRefusesWhatIsNoList(t *testing.T) {
	l, signer := sample(t)
	key := signer.Public().File()
	data, signature, err := l.Write(t.Context(), signer)
	if err != nil {
		t.Fatal(err)
	}
	signed := func(change func(*Listing)) ([]byte, []byte) {
		l, _ := sample(t)
		change(l)
		data, signature, err := l.Write(t.Context(), signer)
		if err != nil {
			t.Fatal(err)
		}
		return data, signature
	}
	later, laterSignature := signed(func(l *Listing) { l.Schema = "mobileops.plugin.catalogue/v2" })
	hollow, hollowSignature := signed(func(l *Listing) { l.Plugins[0].Manifest = nil })
	// A signature of a plugin's package is none of a list.
	rel := trust.Release{Name: "demo-plugin", Version: "1", Sequence: 1, Channel: "stable", Expires: Expires()}
	digest := trust.NewDigest()
	digest.Write(data)
	other, err := trust.SignDigest(t.Context(), signer, digest.Sum(nil), rel, "")
	if err != nil {
		t.Fatal(err)
	}
	_, mallory := sample(t)
	for what, c := range map[string][3][]byte{
		"nothing":        {nil, nil, nil},
		"no signature":   {data, nil, key},
		"another key":    {data, signature, mallory.Public().File()},
		"another list":   {append([]byte(" "), data...), signature, key},
		"of a plugin":    {data, other, key},
		"a later schema": {later, laterSignature, key},
		"no manifest":    {hollow, hollowSignature, key},
	} {
		if got, err := Read(c[0], c[1], c[2]); failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
}
