package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/pkg/filehash"
	"github.com/zeebo/blake3"
)

// manifestSeeds are manifests without their first and last line.
func manifestSeeds() []string {
	digest := strings.Repeat("0123456789abcdef", 4)
	return []string{
		"",
		"d 755 0 0 0 - - bin\nf 4755 0 0 30 " + digest + " - bin/platform\n",
		"c 644 10 20 29 " + digest + " " + digest + ".100644 etc/platform.conf\n",
		"D 0 0 0 0 - - var ../../../data/var\n",
		"l 777 0 0 0 - " + digest + ".120777 etc/current a%20b%25\n",
		"u 600 1000 1000 0 - - a%0Ab\n",
		"u 0600 00 0 +1 - - a\n",                                                     // numbers that are not written like this
		"f 644 0 0 1 " + strings.ToUpper(digest) + " - a\n",                          // nor are digests
		"f 644 0 0 1 " + strings.Repeat("0", 64) + " - a\n",                          // this is -
		"f 644 0 0 1 - - %41%0a\n",                                                   // nor paths
		"f 644 0 0 1 - - ../a\nf 644 0 0 1 - - b\n",                                  // out of the tree
		"f 644 0 0 1 - - b\nf 644 0 0 1 - - a\n",                                     // out of order
		"f 644 0 0 1 - -\n", "f 644 0 0 1 - - a b\n", "l 777 0 0 0 - - a\n", "x\n\n", // fields
		"f 644 0 0 99999999999999999999 - - a\n", "f 644 4294967296 0 0 - - a\n", "f 644 0 0 0 - " + digest + ".x a\n",
	}
}

// withEnds makes a manifest of lines, with the checksum that they have.
func withEnds(lines []byte) []byte {
	b := append([]byte(manifestSchema+"\n"), lines...)
	sum := blake3.Sum256(b)
	return fmt.Appendf(b, "end %d %x\n", bytes.Count(lines, []byte("\n")), sum)
}

// FuzzManifest: what is read without an error is what would be written, byte for
// byte, so that no two manifests say the same and no line says two things.
func FuzzManifest(f *testing.F) {
	for _, s := range manifestSeeds() {
		f.Add([]byte(s), true)
		f.Add(withEnds([]byte(s)), false)
		f.Add(append(withEnds([]byte(s)), '\n'), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, ends bool) {
		if ends {
			data = withEnds(data)
		}
		var list []*Entry
		if err := readManifest(bytes.NewReader(data), func(e *Entry) error { list = append(list, e); return nil }); err != nil {
			var bad *ManifestError
			if !errors.As(err, &bad) || !errors.Is(err, ErrDamaged) {
				t.Fatalf("%v is not where it is damaged", err)
			}
			return
		}
		for _, e := range list {
			if !filepath.IsLocal(e.Path) {
				t.Fatalf("%q leads out of the tree", e.Path)
			}
		}
		var again bytes.Buffer
		if err := writeManifest(&again, slices.Values(list)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Bytes(), data) {
			t.Fatalf("read %q\nwritten %q", data, again.Bytes())
		}
	})
}

// TestManifestIsWrittenInOneWay: the seeds that no writer of ours has written are
// refused, and the others are not.
func TestManifestIsWrittenInOneWay(t *testing.T) {
	for i, s := range manifestSeeds() {
		err := readManifest(bytes.NewReader(withEnds([]byte(s))), func(*Entry) error { return nil })
		if good := i < 6; good != (err == nil) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// oneGeneration makes a store in which there is the directory of generation 1.
func oneGeneration(t testing.TB) *Store {
	dir := t.TempDir()
	s := New(Options{Dir: dir + "/app.store", Target: dir + "/app"})
	if err := os.MkdirAll(s.Tree(1), 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

// FuzzGeneration: a description is read or damaged, and one that was read can be
// written and read again.
func FuzzGeneration(f *testing.F) {
	s := oneGeneration(f)
	path := filepath.Join(s.generation(1), nameGeneration)
	for _, seed := range []string{
		"", "{}", "null", "[]", `{"schema":"mobileops.update.generation/v1","number":1}`, `{"schema":"mobileops.update.generation/v1","number":2}`,
		`{"schema":"mobileops.update.generation/v2","number":1}`,
		`{"schema":"mobileops.update.generation/v1","number":1,"kind":"update","created":"2026-12-01T22:00:00Z","base":0,"package":{"name":"platform","sequence":18446744073709551615,"expires":"2027-01-01T00:00:00Z"},"packages":{"platform":{"name":"platform"}},"package_manifest":{"Name":"platform"},"config":["etc/**"],"stats":{"files":-1},"config_changes":[{"path":"a","outcome":"merged","conflicts":[{"base":{"first":1,"count":2}}]}],"config_seen":{"":"unfinished"},"edited":["a\u0000b"]}`,
		`{"schema":"mobileops.update.generation/v1","number":1,"created":"0000-00-00"}`,
		`{"schema":"mobileops.update.generation/v1","number":1e0,"base":1e400}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		g, err := s.Generation(1)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("%v is not damage", err)
			}
			return
		}
		if g.Number != 1 || g.Schema != generationSchema {
			t.Fatalf("generation %d, schema %q", g.Number, g.Schema)
		}
		if err := g.write(s.generation(1)); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if _, err := s.Generation(1); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
	})
}

// FuzzStamps: a file that is not what was written, for this manifest, gives no
// stamps, so that everything is read. What gives some is what would be written.
func FuzzStamps(f *testing.F) {
	s := oneGeneration(f)
	dir := s.generation(1)
	list := []*Entry{{Path: "bin", Kind: Dir}, {Path: "bin/a", Kind: File, Size: 1}, {Path: "link", Kind: Link, Target: "bin"}}
	var manifest bytes.Buffer
	if err := writeManifest(&manifest, slices.Values(list)); err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, nameManifest), manifest.Bytes(), 0o644); err != nil {
		f.Fatal(err)
	}
	first := newStamps(len(list))
	first.set(1, stamp{7, filehash.Time{Sec: -1, Nsec: 999_999_999}})
	first.write(dir)
	path := filepath.Join(dir, nameStamps)
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	if m := s.readStamps(1, len(list)); m == nil || m.at(1).ino != 7 {
		f.Fatalf("read %v", m)
	}
	end := len(good) - len(filehash.Sum{})
	for _, seed := range [][]byte{nil, good, good[:end], good[:len(good)-1], append(bytes.Clone(good), 0), []byte(stampsSchema), bytes.Replace(good, []byte("v1"), []byte("v2"), 1)} {
		f.Add(seed, false)
	}
	f.Add(good[:end], true)
	f.Add(append(bytes.Clone(good[:end]), make([]byte, stampSize)...), true) // an entry more
	f.Add(good[:end-stampSize], true)
	f.Add(bytes.Replace(good[:end], []byte("v1\n"), []byte("v1\n\x01"), 1), true)
	other := bytes.Clone(good[:end])
	other[len(stampsSchema)] ^= 1 // of another manifest
	f.Add(other, true)
	f.Fuzz(func(t *testing.T, data []byte, sealed bool) {
		if sealed {
			sum := filehash.SumBytes(data)
			data = append(bytes.Clone(data), sum[:]...)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		m := s.readStamps(1, len(list))
		if m == nil {
			return
		}
		if !bytes.Equal(data[:len(stampsSchema)+len(filehash.Sum{})], good[:len(stampsSchema)+len(filehash.Sum{})]) {
			t.Fatalf("%q is not of this manifest", data)
		}
		m.write(dir)
		if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("read %q\nwritten %q, %v", data, again, err)
		}
	})
}
