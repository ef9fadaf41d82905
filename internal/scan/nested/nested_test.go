package nested

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

type member struct {
	name   string
	body   []byte
	method uint16
}

func pack(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, m := range members {
		f, err := w.CreateHeader(&zip.FileHeader{Name: m.name, Method: m.method})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(m.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestAnOrdinaryArchivePasses(t *testing.T) {
	lib := pack(t, member{"META-INF/MANIFEST.MF", []byte("Manifest-Version: 1.0\n"), zip.Deflate})
	war := pack(t, member{"WEB-INF/lib/a.jar", lib, zip.Store}, member{"WEB-INF/lib/b.jar", lib, zip.Deflate}, member{"index.html", []byte("x"), zip.Deflate})
	if err := Check(bytes.NewReader(war), int64(len(war)), Limits{Temp: t.TempDir()}); err != nil {
		t.Error(err)
	}
}

func TestArchivesWithoutEndAreRefused(t *testing.T) {
	for _, method := range []uint16{zip.Store, zip.Deflate} {
		b := pack(t, member{"x", []byte("x"), method})
		for i := range DefaultDepth + 1 {
			b = pack(t, member{fmt.Sprintf("%d.jar", i), b, method})
		}
		err := Check(bytes.NewReader(b), int64(len(b)), Limits{Temp: t.TempDir()})
		if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "0.jar") {
			t.Errorf("method %d: %v", method, err)
		}
	}
}

func TestArchivesOfZerosAreRefused(t *testing.T) {
	b := pack(t, member{"a.jar", make([]byte, 4<<20), zip.Deflate})
	if err := Check(bytes.NewReader(b), int64(len(b)), Limits{Bytes: 1 << 20, Temp: t.TempDir()}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v", err)
	}
	b = pack(t, member{"META-INF/LICENSE.txt", make([]byte, maxMember+1), zip.Deflate})
	if err := Check(bytes.NewReader(b), int64(len(b)), Limits{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v", err)
	}
	var many []member
	for i := range 10 {
		many = append(many, member{fmt.Sprintf("%d.jar", i), nil, zip.Store})
	}
	b = pack(t, many...)
	if err := Check(bytes.NewReader(b), int64(len(b)), Limits{Archives: 5}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v", err)
	}
}

func TestWhatIsNoArchiveIsSaid(t *testing.T) {
	if err := Check(strings.NewReader("no archive"), 10, Limits{}); !errors.Is(err, zip.ErrFormat) {
		t.Errorf("error %v", err)
	}
}

func FuzzCheck(f *testing.F) {
	inner := pack(f, member{"META-INF/MANIFEST.MF", []byte("a: b\n"), zip.Deflate})
	f.Add(pack(f, member{"a.jar", inner, zip.Deflate}, member{"b.war", inner, zip.Store}))
	f.Add(pack(f, member{"a.jar", []byte("broken"), zip.Store}))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = Check(bytes.NewReader(b), int64(len(b)), Limits{Depth: 3, Archives: 20, Bytes: 1 << 20, Temp: t.TempDir()})
		_, _ = io.Discard.Write(b)
	})
}
