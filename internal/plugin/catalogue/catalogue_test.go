package catalogue

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/catalogue/listing"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/plugin/pack"
	"github.com/mobileops/mobileops/internal/trust"
)

// needBundle skips a test where nobody made the bundle.
func needBundle(t testing.TB) {
	t.Helper()
	if !Included() {
		t.Skip("this build has no plugins in it: make bundle (make test does it)")
	}
}

func TestTheCatalogueHasThePluginsOfTheRepository(t *testing.T) {
	needBundle(t)
	items, err := List()
	if err != nil {
		t.Fatal(err)
	}
	var there []string
	for _, it := range items {
		if it.Planned != "" {
			continue
		}
		there = append(there, it.Name)
		raw, err := os.ReadFile(filepath.Join("..", "..", "..", "plugins", it.Name, manifest.FileName))
		if err != nil {
			t.Fatal(err)
		}
		want, err := manifest.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		got := *it.Manifest
		if _, there := got.Files[got.Program()]; !there || len(got.Files) < 2 {
			t.Errorf("%s has the files %v", it.Name, got.Files)
		}
		got.Files = nil
		if !reflect.DeepEqual(&got, want) {
			t.Errorf("%s in the catalogue:\n%+v\nplugins/%s/plugin.yaml (make bundle):\n%+v", it.Name, &got, it.Name, want)
		}
		if it.Name != want.Name || it.Version != want.Version || it.Summary != want.Summary || it.Description != want.Description || it.Size == 0 {
			t.Errorf("%+v", it)
		}
		if sequence, err := listing.Sequence(it.Version); err != nil || it.Sequence != sequence {
			t.Errorf("%s has the sequence %d, %v", it.Name, it.Sequence, err)
		}
	}
	if !slices.Equal(there, listing.Names()) {
		t.Errorf("the catalogue has %v", there)
	}
}

// TestPackagesAreInstalled takes each package as a host does: by the key of the
// catalogue alone, now and for as long as anybody will run this build.
func TestPackagesAreInstalled(t *testing.T) {
	needBundle(t)
	key, err := Key()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range listing.Names() {
		it, err := Get(name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Open(name)
		if err != nil {
			t.Fatal(err)
		}
		p, err := pack.OpenReader(r)
		if err != nil {
			t.Fatal(err)
		}
		dst := filepath.Join(t.TempDir(), "partial")
		if err := errors.Join(p.Verify(trust.Pinned(key), time.Now().AddDate(50, 0, 0)), p.Unpack(t.Context(), dst), p.Close(), pack.VerifyDir(t.Context(), dst, p.Manifest)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(p.Manifest, it.Manifest) {
			t.Errorf("%s: the package has\n%+v\nthe catalogue\n%+v", name, p.Manifest, it.Manifest)
		}
		if p.Release.Sequence != it.Sequence {
			t.Errorf("%s: sequence %d, %d in the catalogue", name, p.Release.Sequence, it.Sequence)
		}
		if head := make([]byte, 4); true {
			f, err := os.Open(filepath.Join(dst, it.Manifest.Program()))
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.ReadFull(f, head)
			f.Close()
			if err != nil || string(head) != "\x7fELF" {
				t.Errorf("%s begins with %q, %v", it.Manifest.Program(), head, err)
			}
		}
		if _, err := os.Stat(filepath.Join(dst, "LICENSE")); err != nil {
			t.Error(err)
		}
	}
}

// copied is the bundle of this build in memory.
func copied(t *testing.T) fstest.MapFS {
	t.Helper()
	m := fstest.MapFS{}
	for _, name := range append([]string{listing.FileName, listing.SignatureName, listing.KeyName}, archives()...) {
		data, err := files.ReadFile("bundle/" + name)
		if err != nil {
			t.Fatal(err)
		}
		m[name] = &fstest.MapFile{Data: data}
	}
	return m
}

func archives() (list []string) {
	for _, name := range listing.Names() {
		list = append(list, listing.Archive(name))
	}
	return list
}

// take does with a bundle what an installation of everything in it does.
func take(ctx context.Context, dir fs.FS) error {
	b := newBundle(dir, runtime.GOOS+"/"+runtime.GOARCH)
	key, err := b.key()
	if err != nil {
		return err
	}
	for _, name := range listing.Names() {
		r, err := b.open(name)
		if err != nil {
			return err
		}
		p, err := pack.OpenReader(r)
		if err != nil {
			return err
		}
		if err := errors.Join(p.Verify(trust.Pinned(key), time.Now()), p.Prove(ctx), p.Close()); err != nil {
			return err
		}
	}
	return nil
}

func TestAFlippedBitIsRefused(t *testing.T) {
	needBundle(t)
	good := copied(t)
	if err := take(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	// The first line of a signature file is a comment that nothing vouches for.
	untrusted := bytes.IndexByte(good[listing.SignatureName].Data, '\n')
	random := rand.New(rand.NewPCG(1, 2))
	for name, f := range good {
		n, every := len(f.Data), 1
		switch {
		case strings.HasSuffix(name, ".zst"):
			every = n / 50
		case name == listing.FileName:
			every = n / 200
		}
		from := 0
		if name == listing.SignatureName {
			from = untrusted
		}
		for i := from; i < n; i += 1 + random.IntN(every*2) {
			spoiled := bytes.Clone(f.Data)
			spoiled[i] ^= 1 << random.IntN(8)
			if name != listing.FileName && strings.TrimRight(string(spoiled), "\r\n") == strings.TrimRight(string(f.Data), "\r\n") {
				continue // how the last line ends means nothing
			}
			bad := fstest.MapFS{}
			for other, g := range good {
				bad[other] = g
			}
			bad[name] = &fstest.MapFile{Data: spoiled}
			if err := take(t.Context(), bad); failure.KindOf(err) != failure.Untrustworthy {
				t.Errorf("%s, byte %d of %d: %q instead of %q: %v", name, i, n, spoiled[i], f.Data[i], err)
			}
		}
	}
	for name := range good {
		bad := fstest.MapFS{}
		for other, g := range good {
			if other != name {
				bad[other] = g
			}
		}
		if err := take(t.Context(), bad); err == nil {
			t.Errorf("%s is missing, and nobody minds", name)
		}
	}
}

// TestPackagesOfAnotherAreRefused exchanges two packages, each of them good.
func TestPackagesOfAnotherAreRefused(t *testing.T) {
	needBundle(t)
	bad := copied(t)
	names := archives()
	bad[names[0]], bad[names[1]] = bad[names[1]], bad[names[0]]
	if err := take(t.Context(), bad); failure.KindOf(err) != failure.Untrustworthy {
		t.Error(err)
	}
}

func TestPluginsOfAnotherMachineAreNotGiven(t *testing.T) {
	needBundle(t)
	b := newBundle(copied(t), "linux/sparc")
	if items, err := b.list(); err != nil || len(items) != len(listing.Names())+len(planned()) {
		t.Errorf("%d items, %v", len(items), err)
	}
	_, err := b.open(listing.Names()[0])
	if failure.KindOf(err) != failure.NotReady || !strings.Contains(err.Error(), "linux/sparc") {
		t.Error(err)
	}
}

func TestPlannedPluginsAreNoPlugins(t *testing.T) {
	items, err := List()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, it := range items {
		if it.Planned == "" {
			continue
		}
		names = append(names, it.Name)
		if it.Manifest != nil || it.Version != "" || it.Summary == "" || len(it.Summary) > 80 {
			t.Errorf("%+v", it)
		}
		if got, err := Get(it.Name); err != nil || got.Planned != it.Planned {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := Open(it.Name); Included() && (failure.KindOf(err) != failure.NotReady || !strings.Contains(err.Error(), it.Planned)) {
			t.Errorf("%s: %v", it.Name, err)
		}
	}
	if want := []string{"incident-response-plugin", "rbac-plugin", "siem-plugin", "threat-intelligence-plugin"}; !slices.Equal(names, want) {
		t.Errorf("planned are %v", names)
	}
	if _, err := Get("no-such-plugin"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

// TestWithoutABundle is what go build in a fresh clone makes.
func TestWithoutABundle(t *testing.T) {
	b := newBundle(fstest.MapFS{"README.md": {Data: []byte("text")}}, "linux/amd64")
	if b.included() {
		t.Error("a page is taken for a bundle")
	}
	if items, err := b.list(); err != nil || len(items) != len(planned()) {
		t.Errorf("%+v, %v", items, err)
	}
	_, got := b.get(listing.Names()[0])
	_, opened := b.open(listing.Names()[0])
	_, key := b.key()
	for _, err := range []error{got, opened, key} {
		if !errors.Is(err, ErrNoBundle) || failure.KindOf(err) != failure.NotReady || !strings.Contains(err.Error(), "make build") {
			t.Error(err)
		}
	}
	if _, err := b.open("no-such-plugin"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	if _, err := b.open("rbac-plugin"); failure.KindOf(err) != failure.NotReady || !strings.Contains(err.Error(), "roles") {
		t.Error(err)
	}
}

// BenchmarkList reads the catalogue as the first caller of a process does; it
// should take well under 2 ms.
func BenchmarkList(b *testing.B) {
	needBundle(b)
	for b.Loop() {
		if _, err := newBundle(embedded().dir, "linux/amd64").list(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestListIsCheap allows many times the memory that it takes (80 KB), of which
// unpacking a package takes more still. How long it takes says BenchmarkList: on
// a busy machine that is anything.
func TestListIsCheap(t *testing.T) {
	needBundle(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := newBundle(embedded().dir, "linux/amd64").list(); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("a list takes %d bytes", took)
	}
}

// TestListReadsNoPackage: it cannot unpack what is not there.
func TestListReadsNoPackage(t *testing.T) {
	needBundle(t)
	dir := copied(t)
	for _, name := range archives() {
		delete(dir, name)
	}
	if items, err := newBundle(dir, "linux/amd64").list(); err != nil || items[0].Manifest == nil {
		t.Error(err)
	}
}
