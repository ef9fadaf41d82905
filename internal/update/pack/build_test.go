package pack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/failure"
)

func TestBuiltPackagesAreReadAsTheTreeIs(t *testing.T) {
	root := tree(t)
	want := contentOf(t, root)
	for _, format := range []archive.Format{archive.Zstd, archive.Gzip} {
		var first []byte
		for range 2 {
			var b bytes.Buffer
			report, err := Build(context.Background(), &b, root, nil, BuildOptions{Format: format})
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = b.Bytes()
			} else if !bytes.Equal(first, b.Bytes()) {
				t.Errorf("%s: the same tree makes other bytes", format)
			}
			m, all, err := readPackage(t, b.Bytes(), archive.DefaultLimits())
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(packageContent(all)); got != fmt.Sprint(want) {
				t.Errorf("%s:\n%s\nwant\n%v", format, got, want)
			}
			if m.Version != "2.4.1" || report.PackedBytes != int64(b.Len()) || report.Files+report.Directories+report.Symlinks != len(want)+2 {
				t.Errorf("%s: %+v, %+v", format, m, report)
			}
		}
	}
}

// TestBuiltPackagesAreReadByTar: anybody can look into a package.
func TestBuiltPackagesAreReadByTar(t *testing.T) {
	root := tree(t)
	for _, format := range []archive.Format{archive.Zstd, archive.Gzip} {
		p := filepath.Join(t.TempDir(), "p."+string(format))
		f, err := os.Create(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Build(context.Background(), f, root, nil, BuildOptions{Format: format}); err != nil {
			t.Fatal(err)
		}
		f.Close()
		out := t.TempDir()
		if text, err := exec.Command("tar", "-xpf", p, "-C", out).CombinedOutput(); err != nil || len(text) > 0 {
			t.Fatalf("tar: %v\n%s", err, text)
		}
		if got, want := fmt.Sprint(contentOf(t, out)), fmt.Sprint(contentOf(t, root)); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", format, got, want)
		}
	}
}

func TestBuildTakesAManifestAndTimes(t *testing.T) {
	root := tree(t)
	m := &Manifest{Schema: ManifestSchema, Name: "other", Kind: KindFull, SetUID: []SetUID{{Path: "bin/run", Mode: "4750"}}}
	epoch := time.Unix(1_600_000_000, 0)
	var b bytes.Buffer
	if _, err := Build(context.Background(), &b, root, m, BuildOptions{ModTime: epoch}); err != nil {
		t.Fatal(err)
	}
	got, all, err := readPackage(t, b.Bytes(), archive.Limits{})
	if err != nil || got.Name != "other" || got.Kind != KindFull {
		t.Fatal(got, err)
	}
	for _, e := range all {
		if e.ModTime.After(epoch) {
			t.Errorf("%s is of %s", e.Name, e.ModTime)
		}
		if e.Name == "bin/run" && e.Mode != 0o4750 {
			t.Errorf("mode %o", e.Mode)
		}
	}
}

func TestBuildRefusesWhatReadersRefuse(t *testing.T) {
	for _, tc := range []struct {
		what string
		code archive.Code
		make func(root string) error
		opts BuildOptions
	}{
		{what: "pipe", code: archive.CodeDevice, make: func(root string) error { return syscall.Mkfifo(filepath.Join(root, "p"), 0o644) }},
		{what: "setuid", code: archive.CodeSetID, make: func(root string) error { return os.Chmod(filepath.Join(root, "bin/run"), 0o755|os.ModeSetuid) }},
		{what: "absolute link", code: archive.CodeSymlinkEscape, make: func(root string) error { return os.Symlink("/etc", filepath.Join(root, "l")) }},
		{what: "case", code: archive.CodeCaseClash, make: func(root string) error { return os.WriteFile(filepath.Join(root, "bin/RUN"), nil, 0o644) }},
		{what: "bytes", code: archive.CodePathBytes, make: func(root string) error { return os.WriteFile(filepath.Join(root, "a\nb"), nil, 0o644) }},
		{what: "bytes that are no text", code: archive.CodePathBytes, make: func(root string) error { return os.WriteFile(filepath.Join(root, "a\xff"), nil, 0o644) }},
		{what: "manifest", code: archive.CodeManifest, make: func(root string) error {
			return os.WriteFile(filepath.Join(root, ManifestName), []byte("schema: x\n"), 0o644)
		}},
		{what: "no hook", code: archive.CodeManifest, make: func(root string) error { return os.Remove(filepath.Join(root, HooksDir, "after")) }},
		{what: "entries", code: archive.CodeTooMany, make: func(string) error { return nil }, opts: BuildOptions{Limits: archive.Limits{Entries: 5}}},
		{what: "size", code: archive.CodeTooLarge, make: func(string) error { return nil }, opts: BuildOptions{Limits: archive.Limits{FileBytes: 1000}}},
		{what: "ratio", code: archive.CodeBomb, make: func(root string) error {
			return os.WriteFile(filepath.Join(root, "zeros"), make([]byte, 8<<20), 0o644)
		}, opts: BuildOptions{Limits: archive.Limits{RatioFrom: 1 << 20, Ratio: 2}}},
	} {
		root := tree(t)
		if err := tc.make(root); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		_, err := Build(context.Background(), &b, root, nil, tc.opts)
		if codeOf(err) != tc.code || failure.KindOf(err) != failure.Failed {
			t.Errorf("%s: %v, want %s", tc.what, err, tc.code)
		}
	}
}

func TestBuildRefusesCapabilities(t *testing.T) {
	if _, err := exec.LookPath("setcap"); err != nil || os.Geteuid() != 0 {
		t.Skip("setting capabilities needs setcap and root")
	}
	root := tree(t)
	if out, err := exec.Command("setcap", "cap_net_raw+ep", filepath.Join(root, "bin/run")).CombinedOutput(); err != nil {
		t.Skipf("the file system has no capabilities: %s", out)
	}
	if _, err := Build(context.Background(), &bytes.Buffer{}, root, nil, BuildOptions{}); codeOf(err) != archive.CodeXattr {
		t.Errorf("%v", err)
	}
}

func TestBuildSaysWhatStoppedIt(t *testing.T) {
	root := tree(t)
	full := errors.New("no space left on device")
	if _, err := Build(context.Background(), refusing{full}, root, nil, BuildOptions{}); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Build(ctx, &bytes.Buffer{}, root, nil, BuildOptions{}); failure.KindOf(err) != failure.Interrupted {
		t.Errorf("%v", err)
	}
	if _, err := Build(context.Background(), &bytes.Buffer{}, filepath.Join(root, "nowhere"), nil, BuildOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	for _, opts := range []BuildOptions{{Format: "zip"}, {Format: archive.Gzip, Level: 99}} {
		if _, err := Build(context.Background(), &bytes.Buffer{}, root, nil, opts); failure.KindOf(err) != failure.Usage {
			t.Errorf("%+v: %v", opts, err)
		}
	}
	if _, err := Build(context.Background(), &bytes.Buffer{}, root, &Manifest{}, BuildOptions{}); err == nil || !strings.Contains(err.Error(), "schema is") {
		t.Errorf("%v", err)
	}
}

type refusing struct{ err error }

func (r refusing) Write([]byte) (int, error) { return 0, r.err }
