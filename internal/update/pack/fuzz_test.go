package pack

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/archive/rawtar"
	"github.com/mobileops/mobileops/internal/failure"
)

// fuzzLimits keep every input short.
func fuzzLimits() archive.Limits {
	l := archive.DefaultLimits()
	l.TotalBytes, l.FileBytes, l.Entries = 1<<20, 1<<20, 1000
	l.RatioFrom, l.WindowBytes = 1<<20, 1<<20
	return l
}

// FuzzReader reads archives as unpacking gives them: a fuzzer that has to find
// checksums finds little else. Whatever is accepted keeps what Entry promises;
// that other programs read the same from it is what package archive is held to.
func FuzzReader(f *testing.F) {
	for _, a := range attacks() {
		if data := rawtar.Archive(a.entries...); len(data) < 16<<10 {
			f.Add(data)
		}
	}
	f.Add(sound())
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			return
		}
		data = rawtar.FixSums(data)
		m, all, err := readUnpacked(t, data, fuzzLimits())
		if checkRefusal(t, err) {
			return
		}
		for _, e := range all {
			checkPromises(t, m, &e)
		}
	})
}

// sound is an archive with something of everything.
func sound() []byte {
	return rawtar.Archive(rawtar.Dir(".mobileops/"), manifestEntry("setuid: [{path: a, mode: \"4755\"}]\ndata: [var]\n"), rawtar.With(rawtar.File("a"), rawtar.Moded(0o4755)),
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
	var e *archive.Error
	if !errors.As(err, &e) || failure.KindOf(err) != failure.Untrustworthy || err.Error() == "" {
		t.Fatalf("not an *archive.Error: %v", err)
	}
	return true
}

func checkPromises(t *testing.T, m *Manifest, e *told) {
	t.Helper()
	if err := rawtar.Broken(e.Name, e.Link, e.Kind == archive.Symlink, e.ModTime); err != nil {
		t.Error(err)
	}
	if e.Meta != (e.Name == MetaDir || strings.HasPrefix(e.Name, MetaDir+"/")) {
		t.Errorf("%q, meta %v", e.Name, e.Meta)
	}
	if e.Mode&^0o777 != 0 && (e.Kind != archive.File || m.setID(e.Name) != e.Mode) {
		t.Errorf("%q: mode %o", e.Name, e.Mode)
	}
	if e.Kind != archive.Symlink && e.Kind != archive.File && e.Kind != archive.Dir {
		t.Errorf("%q: kind %v", e.Name, e.Kind)
	}
}

// FuzzManifest reads manifests. One that is accepted is written and read
// again, and its patterns can be asked.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(fullManifest))
	for _, s := range []string{
		"schema: mobileops.package/v1\n", "schema: mobileops.package/v1\nkind: full\ndata: [var]\n",
		"schema: mobileops.package/v1\nconfig: ['**', 'a/**/b', '[a-z]/*']\n", "a: &a [*a, *a]\n", "- - - - -\n", "{[", "schema: !!binary eA==\n",
		"schema: mobileops.package/v1\n<<: {name: a}\n", "schema: mobileops.package/v1\nhooks: {before: {command: [a], timeout: 1h1m}}\n", "\xff\xfe", "? a\n: b\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l := fuzzLimits()
		l.ManifestBytes = 16 << 10
		m, err := ParseManifest(data, l)
		if err != nil {
			if codeOf(err) != archive.CodeManifest {
				t.Fatalf("not an *archive.Error: %v", err)
			}
			return
		}
		if err := m.Validate(); err != nil {
			t.Fatalf("read, and not valid: %v", err)
		}
		m.IsConfig("etc/platform/main.conf")
		m.IsData("var/lib/x")
		text, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		l.ManifestBytes = 1 << 20
		again, err := ParseManifest(text, l)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if twice, err := again.encode(); err != nil || !bytes.Equal(twice, text) {
			t.Fatalf("%s\nbecame\n%s", text, twice)
		}
	})
}
