package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/mobileops/mobileops/internal/archive/rawtar"
	"github.com/mobileops/mobileops/internal/failure"
)

// fuzzLimits keep every input short.
func fuzzLimits() Limits {
	l := DefaultLimits()
	l.TotalBytes, l.FileBytes, l.Entries = 1<<20, 1<<20, 1000
	l.RatioFrom, l.WindowBytes = 1<<20, 1<<20
	return l
}

// FuzzReader reads archives as unpacking gives them: a fuzzer that has to find
// checksums finds little else. Whatever is accepted keeps what Entry promises,
// and archive/tar reads the same from it: what two programs read differently
// is how packages deceive.
func FuzzReader(f *testing.F) {
	for _, a := range attacks() {
		if data := rawtar.Archive(a.entries...); a.entries != nil && len(data) < 16<<10 {
			f.Add(data)
		}
	}
	f.Add(sound())
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			return
		}
		data = rawtar.FixSums(data)
		all, err := readEntries(t, NewUnpacked(data, fuzzLimits(), Rules{}))
		if checkRefusal(t, err) {
			return
		}
		for _, e := range all {
			checkPromises(t, &e)
		}
		compareWithStandardLibrary(t, data, all)
	})
}

// FuzzUnpack reads packages as they come, packed.
func FuzzUnpack(f *testing.F) {
	for _, a := range attacks() {
		if a.entries == nil && len(a.packed) < 8<<10 {
			f.Add(a.packed)
		}
	}
	f.Add(rawtar.Gzip(sound()))
	f.Add(rawtar.Zstd(sound()))
	f.Add(rawtar.Zstd(sound(), zstd.WithEncoderCRC(false)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			return
		}
		all, err := readArchive(t, data, fuzzLimits())
		if checkRefusal(t, err) {
			return
		}
		for _, e := range all {
			checkPromises(t, &e)
		}
	})
}

// sound is an archive with something of everything.
func sound() []byte {
	return rawtar.Archive(rawtar.Dir("bin/"), rawtar.With(rawtar.File("a"), rawtar.Moded(0o755)),
		rawtar.Dir("var"), rawtar.Symlink("var/a", "b/c"), rawtar.Pax("path", strings.Repeat("d/", 30)+"a", "mtime", "1.5"), rawtar.File("x"),
		rawtar.OldGNU(rawtar.Entry{Name: "L", Type: 'L', Body: "long\x00"}), rawtar.OldGNU(rawtar.Entry{Name: "b", Size: rawtar.Base256(1), Body: "y"}))
}

// checkRefusal tells whether a package was refused, and sees that it was in
// the way that is promised.
func checkRefusal(t *testing.T, err error) bool {
	t.Helper()
	if err == nil {
		return false
	}
	var e *Error
	if !errors.As(err, &e) || failure.KindOf(err) != failure.Untrustworthy || err.Error() == "" {
		t.Fatalf("not an *Error: %v", err)
	}
	return true
}

func checkPromises(t *testing.T, e *told) {
	t.Helper()
	if err := rawtar.Broken(e.Name, e.Link, e.Kind == Symlink, e.ModTime); err != nil {
		t.Error(err)
	}
	if e.Mode&^0o777 != 0 {
		t.Errorf("%q: mode %o", e.Name, e.Mode)
	}
	if e.Kind != Symlink && e.Kind != File && e.Kind != Dir {
		t.Errorf("%q: kind %v", e.Name, e.Kind)
	}
}

// compareWithStandardLibrary reads an archive that was accepted with
// archive/tar.
func compareWithStandardLibrary(t *testing.T, data []byte, all []told) {
	t.Helper()
	tr := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("archive/tar refuses what was accepted: %v", err)
		}
		name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
		if h.Typeflag == tar.TypeXGlobalHeader || name == "" || name == "." {
			continue
		}
		if len(all) == 0 {
			t.Fatalf("archive/tar has %q besides", h.Name)
		}
		e := all[0]
		all = all[1:]
		kind := map[byte]Kind{tar.TypeReg: File, tar.TypeDir: Dir, tar.TypeSymlink: Symlink}[h.Typeflag]
		content, err := io.ReadAll(tr)
		if err != nil || e.Name != name || e.Kind != kind || e.Size != h.Size || e.content != string(content) || kind == Symlink && e.Link != h.Linkname {
			t.Fatalf("archive/tar reads %q, type %q, %d bytes, target %q; here %q, %s, %d bytes, target %q (%v)", h.Name, h.Typeflag, h.Size, h.Linkname, e.Name, e.Kind, e.Size, e.Link, err)
		}
	}
	if len(all) > 0 {
		t.Fatalf("archive/tar does not have %q", all[0].Name)
	}
}
