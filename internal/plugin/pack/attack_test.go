package pack

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/archive/rawtar"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/pkg/filehash"
)

// attack is a package that is refused: entries, or bytes in their place.
type attack struct {
	what    string
	code    archive.Code
	entries []rawtar.Entry
	packed  []byte
}

// attacks spoil packages of a publisher that is trusted, and forge others.
func attacks(t testing.TB, p *publisher) []attack {
	mallory := newPublisher(t)
	good := func() *forged { return forge(t, p, three()...) }
	entries := func(spoil func(*forged)) []rawtar.Entry {
		f := good()
		spoil(f)
		return f.entries()
	}
	instead := func(i int, e rawtar.Entry) []rawtar.Entry { return entries(func(f *forged) { f.files[i] = e }) }
	signed := func(rel trust.Release) []rawtar.Entry {
		return entries(func(f *forged) { f.signature.Body = string(p.sign(t, []byte(f.manifest.Body), rel)) })
	}
	// remade signs what the manifest has become.
	remade := func(old, now string) []rawtar.Entry {
		return entries(func(f *forged) {
			if !strings.Contains(f.manifest.Body, old) {
				t.Fatalf("no %q in\n%s", old, f.manifest.Body)
			}
			f.manifest.Body = strings.Replace(f.manifest.Body, old, now, 1)
			f.signature.Body = string(p.sign(t, []byte(f.manifest.Body), release("demo", "1.2.0")))
		})
	}
	expired := release("demo", "1.2.0")
	expired.Expires = now
	whole := good().packed()
	tarred := rawtar.Archive(good().entries()...)
	digest := filehash.SumBytes([]byte("aaa")).String()
	return []attack{
		// Names.
		{what: "traversal", code: archive.CodeTraversal, entries: instead(1, rawtar.Entry{Name: "../a", Body: "aaa"})},
		{what: "traversal that stays inside", code: archive.CodeTraversal, entries: instead(1, rawtar.Entry{Name: "files/x/../a", Body: "aaa"})},
		{what: "traversal in place of the manifest", code: archive.CodeTraversal, entries: entries(func(f *forged) { f.manifest.Name = "../plugin.yaml" })},
		{what: "absolute", code: archive.CodeAbsolute, entries: instead(1, rawtar.Entry{Name: "/etc/cron.d/a", Body: "aaa"})},
		{what: "absolute by pax", code: archive.CodeAbsolute, entries: entries(func(f *forged) {
			f.files = slices.Insert(f.files, 1, rawtar.Pax("path", "/etc/passwd"))
		})},
		{what: "newline", code: archive.CodePathBytes, entries: instead(1, rawtar.Entry{Name: "files/\na", Body: "aaa"})},
		{what: "deep", code: archive.CodeDepth, entries: instead(1, rawtar.Entry{Name: strings.Repeat("d/", 40) + "a", Prefix: strings.Repeat("d/", 40) + "d", Body: "aaa"})},

		// What is no file.
		{what: "symlink", code: archive.CodeType, entries: instead(1, rawtar.Symlink("files/a", "../mobileops-demo"))},
		{what: "symlink outside", code: archive.CodeType, entries: instead(1, rawtar.Symlink("files/a", "/etc/shadow"))},
		{what: "symlink in place of the manifest", code: archive.CodeType, entries: entries(func(f *forged) { f.manifest = rawtar.Symlink("plugin.yaml", "x") })},
		{what: "symlink that later files lie beneath", code: CodeExtraFile, entries: instead(1, rawtar.Symlink("files", "/etc"))},
		{what: "hard link", code: archive.CodeHardLink, entries: instead(1, rawtar.Entry{Name: "files/a", Type: '1', Link: "LICENSE"})},
		{what: "hard link outside", code: archive.CodeHardLink, entries: instead(1, rawtar.Entry{Name: "files/a", Type: '1', Link: "/etc/shadow"})},
		{what: "character device", code: archive.CodeDevice, entries: instead(1, rawtar.Entry{Name: "files/a", Type: '3'})},
		{what: "block device", code: archive.CodeDevice, entries: instead(1, rawtar.Entry{Name: "files/a", Type: '4'})},
		{what: "pipe", code: archive.CodeDevice, entries: instead(1, rawtar.Entry{Name: "files/a", Type: '6'})},
		{what: "directory", code: CodeExtraFile, entries: instead(1, rawtar.Dir("files"))},
		{what: "directory in place of the program", code: archive.CodeType, entries: instead(2, rawtar.Dir("mobileops-demo"))},
		{what: "directory first", code: archive.CodeType, entries: entries(func(f *forged) { f.manifest = rawtar.Dir("./") })},
		{what: "directory of the tree later", code: archive.CodeType, entries: instead(1, rawtar.Dir("."))},
		{what: "extended attributes", code: archive.CodeXattr, entries: entries(func(f *forged) {
			f.files = slices.Insert(f.files, 2, rawtar.Pax("SCHILY.xattr.security.capability", "x"))
		})},

		// Modes.
		{what: "setuid", code: archive.CodeSetID, entries: entries(func(f *forged) { f.files[2].Mode = 0o4755 })},
		{what: "setgid", code: archive.CodeSetID, entries: entries(func(f *forged) { f.files[1].Mode = 0o2644 })},
		{what: "a program that was none", code: CodeMode, entries: entries(func(f *forged) { f.files[1].Mode = 0o755 })},
		{what: "a program that is none", code: CodeMode, entries: entries(func(f *forged) { f.files[2].Mode = 0o644 })},
		{what: "writable by all", code: CodeMode, entries: entries(func(f *forged) { f.files[1].Mode = 0o666 })},
		{what: "sticky", code: CodeMode, entries: entries(func(f *forged) { f.files[2].Mode = 0o1755 })},
		{what: "a manifest of another mode", code: CodeMode, entries: entries(func(f *forged) { f.manifest.Mode = 0o600 })},

		// What is there, and in which order.
		{what: "duplicate", code: archive.CodeDuplicate, entries: entries(func(f *forged) { f.files = append(f.files, f.files[2]) })},
		{what: "duplicate of the manifest", code: archive.CodeDuplicate, entries: entries(func(f *forged) { f.files = append(f.files, f.manifest) })},
		{what: "manifest twice at the beginning", code: archive.CodeDuplicate, entries: entries(func(f *forged) { f.signature = f.manifest })},
		{what: "case clash", code: archive.CodeCaseClash, entries: entries(func(f *forged) { f.files = slices.Insert(f.files, 1, rawtar.File("license")) })},
		{what: "case clash with the manifest", code: archive.CodeCaseClash, entries: entries(func(f *forged) { f.files = append(f.files, rawtar.File("Plugin.yaml")) })},
		{what: "case of the program", code: CodeExtraFile, entries: entries(func(f *forged) { f.files[2].Name = "Mobileops-demo" })},
		{what: "extra file", code: CodeExtraFile, entries: entries(func(f *forged) { f.files = append(f.files, rawtar.File("zzz")) })},
		{what: "extra file between", code: CodeExtraFile, entries: entries(func(f *forged) { f.files = slices.Insert(f.files, 0, rawtar.File("A")) })},
		{what: "missing first", code: CodeMissingFile, entries: entries(func(f *forged) { f.files = f.files[1:] })},
		{what: "missing between", code: CodeMissingFile, entries: entries(func(f *forged) { f.files = slices.Delete(f.files, 1, 2) })},
		{what: "missing last", code: CodeMissingFile, entries: entries(func(f *forged) { f.files = f.files[:2] })},
		{what: "nothing beside the manifest", code: CodeMissingFile, entries: entries(func(f *forged) { f.files = nil })},
		{what: "another order", code: CodeMissingFile, entries: entries(func(f *forged) { f.files[0], f.files[1] = f.files[1], f.files[0] })},
		{what: "signature first", code: CodeNotPackage, entries: entries(func(f *forged) { f.manifest, f.signature = f.signature, f.manifest })},
		{what: "signature last", code: CodeUnsigned, entries: entries(func(f *forged) {
			f.files = append(f.files, f.signature)
			f.signature, f.files = f.files[0], f.files[1:]
		})},
		{what: "manifest last", code: CodeNotPackage, entries: entries(func(f *forged) {
			f.manifest, f.signature, f.files = f.files[0], f.files[1], []rawtar.Entry{f.files[2], f.manifest, f.signature}
		})},
		{what: "another archive", code: CodeNotPackage, entries: []rawtar.Entry{rawtar.File("a"), rawtar.File("b")}},
		{what: "an empty archive", code: CodeNotPackage, entries: []rawtar.Entry{}},

		// Content.
		{what: "other content", code: CodeDigest, entries: entries(func(f *forged) { f.files[1].Body = "aab" })},
		{what: "other content of the program", code: CodeDigest, entries: entries(func(f *forged) { f.files[2].Body = "#!/bin/sh\necho hallo\n" })},
		{what: "longer", code: CodeDigest, entries: entries(func(f *forged) { f.files[1].Body = "aaaa" })},
		{what: "shorter", code: CodeDigest, entries: entries(func(f *forged) { f.files[1].Body = "aa" })},
		{what: "empty", code: CodeDigest, entries: entries(func(f *forged) { f.files[1].Body = "" })},
		{what: "files exchanged", code: CodeDigest, entries: entries(func(f *forged) { f.files[0].Body, f.files[1].Body = f.files[1].Body, f.files[0].Body })},
		{what: "huge", code: archive.CodeTooLarge, entries: entries(func(f *forged) { f.files[1].Size = rawtar.Base256(1 << 40) })},

		// Signatures.
		{what: "unsigned", code: CodeUnsigned, entries: entries(func(f *forged) { f.signature = f.files[0]; f.files = f.files[1:] })},
		{what: "manifest alone", code: CodeUnsigned, entries: good().entries()[:1]},
		{what: "empty signature", code: CodeUnsigned, entries: entries(func(f *forged) { f.signature.Body = "" })},
		{what: "signature that is none", code: archive.Code(trust.CodeMalformedSignature), entries: entries(func(f *forged) { f.signature.Body = "yes\n" })},
		{what: "huge signature", code: archive.CodeTooLarge, entries: entries(func(f *forged) { f.signature.Body = strings.Repeat("x", MaxSignatureBytes+1) })},
		{what: "huge manifest", code: archive.CodeTooLarge, entries: entries(func(f *forged) { f.manifest.Body += "#" + strings.Repeat("x", manifest.MaxBytes) })},
		{what: "another key", code: CodeWrongKey, entries: forge(t, mallory, three()...).entries()},
		{what: "signature by another key", code: CodeWrongKey, entries: entries(func(f *forged) {
			f.signature.Body = string(mallory.sign(t, []byte(f.manifest.Body), release("demo", "1.2.0")))
		})},
		{what: "signature of another manifest", code: CodeBadSignature, entries: entries(func(f *forged) {
			f.signature.Body = string(p.sign(t, []byte(f.manifest.Body+"#\n"), release("demo", "1.2.0")))
		})},
		{what: "manifest changed after signing", code: CodeBadSignature, entries: entries(func(f *forged) {
			f.manifest.Body = strings.Replace(f.manifest.Body, "A plugin for tests", "A plugin for games", 1)
		})},
		{what: "digest changed after signing", code: CodeBadSignature, entries: entries(func(f *forged) {
			f.files[1].Body = "bbb"
			f.manifest.Body = strings.Replace(f.manifest.Body, digest, filehash.SumBytes([]byte("bbb")).String(), 1)
		})},
		{what: "comment changed after signing", code: CodeBadSignature, entries: entries(func(f *forged) {
			f.signature.Body = strings.Replace(f.signature.Body, "sequence=7", "sequence=8", 1)
		})},
		{what: "another plugin's signature", code: CodeNameMismatch, entries: signed(release("other", "1.2.0"))},
		{what: "another version's signature", code: CodeNameMismatch, entries: signed(release("demo", "1.3.0"))},
		{what: "expired", code: CodeExpired, entries: signed(expired)},

		// Manifests that are signed.
		{what: "unknown field", code: archive.CodeManifest, entries: remade("summary:", "colour: red\nsummary:")},
		{what: "no files", code: archive.CodeManifest, entries: func() []rawtar.Entry { // as if a source directory were signed
			f := good()
			f.manifest.Body, f.files = source1, nil
			f.signature.Body = string(p.sign(t, []byte(source1), release("demo", "1.2.0")))
			return f.entries()
		}()},
		{what: "a path outside", code: archive.CodeManifest, entries: remade("files/a", "../a")},

		// The archive and its packing.
		{what: "trailing archive", code: archive.CodeTrailing, packed: rawtar.Zstd(slices.Concat(tarred, tarred))},
		{what: "trailing byte", code: archive.CodeTrailing, packed: append(slices.Clone(whole), 0)},
		{what: "trailing frame", code: archive.CodeTrailing, packed: slices.Concat(whole, rawtar.Zstd([]byte("x")))},
		{what: "two gzip members", code: archive.CodeTrailing, packed: slices.Concat(rawtar.Gzip(tarred[:2048]), rawtar.Gzip(tarred[2048:]))},
		{what: "no end", code: archive.CodeTruncated, packed: rawtar.Zstd(tarred[:len(tarred)-1024])},
		{what: "cut in a file", code: archive.CodeTruncated, packed: whole[:len(whole)-40]},
		{what: "checksum", code: archive.CodeCorrupt, packed: func() []byte { b := slices.Clone(whole); b[len(b)-1] ^= 1; return b }()},
		{what: "not packed", code: archive.CodeFormat, packed: tarred},
		{what: "a script", code: archive.CodeFormat, packed: []byte(program)},
		{what: "nothing", code: archive.CodeTruncated, packed: nil},
		{what: "bomb in a file", code: archive.CodeBomb, packed: bomb(t, p)},
	}
}

// bomb is a package that is signed well, with a file of a hundred times the
// memory that it may take.
func bomb(t testing.TB, p *publisher) []byte {
	t.Helper()
	zeros := strings.Repeat("\x00", 96<<20)
	files := append(three(), rawtar.Entry{Name: "zeros", Body: zeros})
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(rawtar.Archive(forge(t, p, files...).entries()...)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestAttacksAreRefused(t *testing.T) {
	p := newPublisher(t)
	if err := take(t, p, forge(t, p, three()...).packed()); err != nil {
		t.Fatalf("what nobody spoiled: %v", err)
	}
	met := map[archive.Code]bool{}
	for _, a := range attacks(t, p) {
		data := a.packed
		if a.entries != nil {
			data = rawtar.Zstd(rawtar.Archive(a.entries...))
		}
		err := take(t, p, data)
		refusedAs(t, a.what, err, a.code)
		if k := failure.KindOf(err); k != failure.Untrustworthy {
			t.Errorf("%s: kind %v", a.what, k)
		}
		met[a.code] = true
	}
	for _, c := range []archive.Code{CodeNotPackage, CodeUnsigned, CodeWrongKey, CodeBadSignature, CodeExpired, CodeNameMismatch, CodeDigest, CodeMode, CodeMissingFile, CodeExtraFile} {
		if !met[c] {
			t.Errorf("no attack is refused as %s", c)
		}
	}
}

// TestEveryCutIsRefused cuts a package at every byte.
func TestEveryCutIsRefused(t *testing.T) {
	p := newPublisher(t)
	whole := forge(t, p, three()...).packed()
	for n := range whole {
		if err := take(t, p, whole[:n]); CodeOf(err) != archive.CodeTruncated {
			t.Errorf("cut at %d of %d: %v", n, len(whole), err)
		}
	}
}

// TestChangedBytesChangeNothing changes every byte of an archive before it is
// packed, so that no checksum but ours helps. A byte of a file is refused, and
// whatever is accepted, such as another owner, gives what was signed.
func TestChangedBytesChangeNothing(t *testing.T) {
	p := newPublisher(t)
	f := forge(t, p, three()...)
	var whole []byte
	content := map[int]bool{} // which bytes are of a file; those of headers are false, and padding is in neither
	for _, e := range f.entries() {
		for i := range rawtar.BlockBytes {
			content[len(whole)+i] = false
		}
		for i := range len(e.Body) {
			content[len(whole)+rawtar.BlockBytes+i] = e.Name != manifest.SignatureName || i > strings.IndexByte(e.Body, '\n')
		}
		whole = append(whole, e.Bytes()...)
	}
	whole = append(whole, make([]byte, 2*rawtar.BlockBytes)...)
	accepted := 0
	for i, ofFile := range content {
		data := slices.Clone(whole)
		data[i] ^= 0x20
		got := map[string]string{}
		pkg, err := new(packed).open(rawtar.FixSums(data))
		if err == nil {
			if err = pkg.Verify(p.keys, now); err == nil {
				copier := newCopier(t.Context())
				err = pkg.source.each(t.Context(), pkg.Manifest, func(name string, f manifest.File, r io.Reader) error {
					var b strings.Builder
					err := copier.copy(&b, name, f, r)
					got[name] = b.String()
					return err
				})
			}
			pkg.Close()
		}
		switch {
		case err != nil && (failure.KindOf(err) != failure.Untrustworthy || CodeOf(err) == ""):
			t.Errorf("byte %d: %v", i, err)
		case err != nil:
		case ofFile:
			t.Errorf("byte %d is of a file, and nobody noticed", i)
		default:
			accepted++
			if len(got) != len(f.files) || got["LICENSE"] != "licence" || got["files/a"] != "aaa" || got["mobileops-demo"] != program {
				t.Errorf("byte %d makes another package: %q", i, got)
			}
		}
	}
	t.Logf("%d bytes of %d may be changed", accepted, len(content))
}

// open reads an archive that is not packed.
func (s *packed) open(data []byte) (*Package, error) {
	s.closeFile = func() error { return nil }
	return s.begin(archive.NewUnpacked(data, limits(), archive.Rules{Admit: s.admit}))
}

// TestNothingIsReadBeforeTheSignature: what comes after the first two entries
// is not looked at before Verify, however bad it is.
func TestNothingIsReadBeforeTheSignature(t *testing.T) {
	p, mallory := newPublisher(t), newPublisher(t)
	f := forge(t, p, three()...)
	data := rawtar.Gzip(slices.Concat(f.manifest.Bytes(), f.signature.Bytes(), bytes.Repeat([]byte("garbage!"), 1000)))
	pkg, err := OpenReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer pkg.Close()
	refusedAs(t, "keys of another", pkg.Verify(mallory.keys, now), CodeWrongKey)
	if err := pkg.Verify(p.keys, now); err != nil {
		t.Fatal(err)
	}
	refusedAs(t, "then", pkg.Prove(t.Context()), archive.CodeCorrupt)
	// Of a directory nothing else is opened, not even listed.
	dir := t.TempDir()
	put(t, dir, manifest.FileName, f.manifest.Body, 0o644)
	put(t, dir, manifest.SignatureName, f.signature.Body, 0o644)
	if err := os.Symlink("/etc/shadow", filepath.Join(dir, "mobileops-demo")); err != nil {
		t.Fatal(err)
	}
	tree, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	refusedAs(t, "keys of another, a directory", tree.Verify(mallory.keys, now), CodeWrongKey)
	if err := tree.Verify(p.keys, now); err != nil {
		t.Fatal(err)
	}
	refusedAs(t, "then, a directory", tree.Prove(t.Context()), archive.CodeType)
}

// TestFilesAreNotGivenUnverified: a program that forgets Verify gets nothing.
func TestFilesAreNotGivenUnverified(t *testing.T) {
	p, mallory := newPublisher(t), newPublisher(t)
	pkg, err := OpenReader(bytes.NewReader(built(t, p)))
	if err != nil {
		t.Fatal(err)
	}
	defer pkg.Close()
	dst := filepath.Join(t.TempDir(), "partial")
	for _, err := range []error{pkg.Unpack(t.Context(), dst), pkg.Prove(t.Context())} {
		if !errors.Is(err, errNotVerified) {
			t.Errorf("%v", err)
		}
	}
	if err := pkg.Verify(p.keys, now); err != nil {
		t.Fatal(err)
	}
	refusedAs(t, "keys of another", pkg.Verify(mallory.keys, now), CodeWrongKey)
	if err := pkg.Unpack(t.Context(), dst); !errors.Is(err, errNotVerified) {
		t.Errorf("after a refusal: %v", err)
	}
	if err := pkg.Verify(p.keys, now); err != nil {
		t.Fatal(err)
	}
	if err := pkg.Unpack(t.Context(), dst); err != nil {
		t.Fatal(err)
	}
	if err := pkg.Prove(t.Context()); !errors.Is(err, errReadOnce) {
		t.Errorf("an archive a second time: %v", err)
	}
}

func TestExpiryAndKeys(t *testing.T) {
	p := newPublisher(t)
	data := built(t, p)
	for _, tc := range []struct {
		what string
		now  time.Time
		code archive.Code
	}{
		{"before", expires.Add(-time.Second), ""},
		{"at", expires, CodeExpired},
		{"after", expires.AddDate(1, 0, 0), CodeExpired},
		{"not asked", time.Time{}, ""},
	} {
		pkg, err := OpenReader(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		refusedAs(t, tc.what, pkg.Verify(p.keys, tc.now), tc.code)
		pkg.Close()
	}
	empty := t.TempDir()
	if err := os.Chmod(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	keys, err := trust.OpenKeys(empty)
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := OpenReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer pkg.Close()
	err = pkg.Verify(keys, now)
	refusedAs(t, "no keys", err, CodeNoKeys)
	if failure.KindOf(err) != failure.NotReady || !strings.Contains(err.Error(), "mobileops plugin trust add") {
		t.Errorf("%v", err)
	}
}

// TestUnpackRefusesWhatIsThere: a directory that exists is left alone.
func TestUnpackRefusesWhatIsThere(t *testing.T) {
	p := newPublisher(t)
	pkg, err := OpenReader(bytes.NewReader(built(t, p)))
	if err != nil {
		t.Fatal(err)
	}
	defer pkg.Close()
	if err := pkg.Verify(p.keys, now); err != nil {
		t.Fatal(err)
	}
	dst := t.TempDir()
	put(t, dst, "mine", "mine", 0o644)
	if err := pkg.Unpack(t.Context(), dst); !errors.Is(err, os.ErrExist) {
		t.Errorf("%v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dst, "mine")); err != nil || string(b) != "mine" {
		t.Errorf("what was there: %q, %v", b, err)
	}
}

// TestInterruptedUnpackLeavesNothing, and neither does a source that fails.
func TestInterruptedUnpackLeavesNothing(t *testing.T) {
	p := newPublisher(t)
	data := built(t, p)
	broken := errors.New("input/output error")
	for n := 0; n <= len(data); n += 97 {
		parent := t.TempDir()
		pkg, err := OpenReader(io.MultiReader(bytes.NewReader(data[:n]), failing{broken}))
		if err == nil {
			if err = pkg.Verify(p.keys, now); err == nil {
				err = pkg.Unpack(t.Context(), filepath.Join(parent, "partial"))
			}
			pkg.Close()
		}
		if !errors.Is(err, broken) || failure.KindOf(err) != failure.Failed {
			t.Errorf("after %d bytes of %d: %v", n, len(data), err)
		}
		if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
			t.Errorf("after %d bytes: %v is left, %v", n, left, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
