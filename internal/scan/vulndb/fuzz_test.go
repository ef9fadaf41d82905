package vulndb

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/mobileops/mobileops/internal/scan/vulndb/vulndbtest"
)

// FuzzInspect changes bytes of a database. Nothing may crash or go on for ever.
func FuzzInspect(f *testing.F) {
	dir := f.TempDir()
	vulndbtest.WriteAt(f, dir, now, many(60)...)
	data, err := os.ReadFile(filepath.Join(dir, "trivy.db"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), []byte{}, uint32(len(data)))
	f.Add(uint32(16), []byte{1, 2, 3}, uint32(len(data)))
	f.Add(uint32(4096*2+8), []byte{0x01, 0x00, 0xff, 0xff, 0xff}, uint32(len(data)))
	f.Add(uint32(4096*3+16), []byte{0xff, 0xff, 0xff, 0x7f}, uint32(len(data)))
	f.Fuzz(func(t *testing.T, at uint32, change []byte, size uint32) {
		b := bytes.Clone(data[:min(int(size), len(data))])
		if len(b) > 0 {
			copy(b[int(at)%len(b):], change)
		}
		c, err := inspect(context.Background(), bytes.NewReader(b), int64(len(b)), func(int64) {})
		if err == nil && c.advisories > len(b) {
			t.Errorf("%d advisories in %d bytes", c.advisories, len(b))
		}
		_ = inspectJava(bytes.NewReader(b), int64(len(b)))
	})
}

// TestEveryByte flips every fifth byte of the pages in turn: what is not noticed must
// not be a different structure.
func TestEveryByte(t *testing.T) {
	dir := t.TempDir()
	vulndbtest.WriteAt(t, dir, now, many(60)...)
	data, err := os.ReadFile(filepath.Join(dir, "trivy.db"))
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for at := 0; at < len(data); at += 5 {
		b := bytes.Clone(data)
		b[at] ^= 0xff
		if _, err := inspect(t.Context(), bytes.NewReader(b), int64(len(b)), func(int64) {}); err != nil {
			refused++
		}
	}
	if refused < 200 {
		t.Errorf("only %d of %d flips were noticed", refused, len(data))
	}
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte(`{"Version":2,"UpdatedAt":"2026-05-20T11:00:00Z","NextUpdate":"2026-05-21T11:00:00Z","DownloadedAt":"0001-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"Version":1}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := parseMetadata(data, Vulnerabilities); err == nil && (m.Schema != 2 || m.UpdatedAt.IsZero()) {
			t.Errorf("%+v", m)
		}
	})
}
