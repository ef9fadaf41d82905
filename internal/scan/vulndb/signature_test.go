package vulndb

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/vulndb/vulndbtest"
	"github.com/mobileops/mobileops/internal/trust"
)

// signer makes a key, and returns what signs with it and a directory that trusts it.
func signer(t *testing.T) (sign func(path, name string, expires time.Time), keys string) {
	t.Helper()
	secret, public, err := trust.SecretKeyFile(nil)
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "test.key")
	if err := os.WriteFile(key, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	keys = t.TempDir()
	if err := os.WriteFile(filepath.Join(keys, public.ID()+".pub"), public.File(), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := trust.OpenSigner(t.Context(), key, nil)
	if err != nil {
		t.Fatal(err)
	}
	return func(path, name string, expires time.Time) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := trust.SignPackage(t.Context(), s, bytes.NewReader(data), trust.Release{Name: name, Version: "2026.05.20", Sequence: 1, Channel: "stable", Expires: expires}, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+".minisig", sig, 0o644); err != nil {
			t.Fatal(err)
		}
	}, keys
}

func TestSignatures(t *testing.T) {
	sign, keys := signer(t)
	s := newStore(t, t.TempDir(), func(o *Options) {
		o.Keys = func() (*trust.Keys, error) { return trust.OpenKeys(keys) }
	})
	path := written(t, 5, many(50)...)
	refused := func(path string, terms Terms, words ...string) {
		t.Helper()
		_, err := s.Import(t.Context(), path, terms)
		wantKind(t, err, failure.Untrustworthy, words...)
		if list, err := s.List(t.Context(), Vulnerabilities); err != nil || len(list) != 0 {
			t.Errorf("%v, %v", list, err)
		}
		noPartial(t, s)
	}
	refused(path, Terms{}, "is not signed", "--signature FILE")
	sign(path, "platform", now.Add(time.Hour))
	refused(path, Terms{}, `signed as "platform"`)
	sign(path, SignedName, now.Add(-time.Hour))
	refused(path, Terms{}, "expired")
	sign(path, SignedName, now.Add(time.Hour))
	other := written(t, 4, many(50)...)
	refused(other, Terms{Signature: path + ".minisig"})
	plain := t.TempDir()
	vulndbtest.WriteAt(t, plain, now.Add(-time.Hour), many(50)...)
	refused(plain, Terms{}, "cannot be signed")
	sign(filepath.Join(plain, "trivy.db"), SignedName, now.Add(time.Hour))
	refused(filepath.Join(plain, "trivy.db"), Terms{}, "says nothing of metadata.json")
	stranger, _ := signer(t)
	stranger(other, SignedName, now.Add(time.Hour))
	refused(other, Terms{})

	res := imported(t, s, path)
	if res.Signer == "" || res.Number != 1 {
		t.Errorf("%+v", res)
	}
	// A layout in a tar file is signed as a whole.
	layout := tarred(t, layoutDir(t, vulndbtest.Archive(t, now.Add(-time.Hour), many(51)...), LayerType, nil), false)
	sign(layout, SignedName, now.Add(time.Hour))
	if res := imported(t, s, layout); res.Number != 2 || res.Signer == "" {
		t.Errorf("%+v", res)
	}
	// What is exploited must be signed, too.
	csv := filepath.Join(t.TempDir(), "epss.csv")
	if err := os.WriteFile(csv, []byte("#model_version:v2025.03.14,score_date:2026-05-19T00:00:00+0000\ncve,epss,percentile\nCVE-2024-0001,0.5,0.9\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := s.ImportEPSS(t.Context(), csv, Terms{})
	wantKind(t, err, failure.Untrustworthy, "is not signed")
	sign(csv, SignedName, now.Add(time.Hour))
	if _, err := s.ImportEPSS(t.Context(), csv, Terms{}); err != nil {
		t.Error(err)
	}
}
