package packages

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"
)

// known fails a fuzz test on an error that does not say what is damaged.
func known(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnsupported) {
		t.Errorf("%T: %v", err, err)
	}
}

func FuzzDpkgStatus(f *testing.F) {
	f.Add([]byte("Package: a\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: same\nVersion: 1:2-3\nConffiles:\n /etc/a 0123456789abcdef0123456789abcdef obsolete\n /etc/b newconffile\n /etc/c d41d8cd98f00b204e9800998ecf8427e remove-on-upgrade\nDescription: x\n y\n .\n\nPackage: b\nStatus: deinstall ok config-files\n"))
	f.Add([]byte("Package: ../../x\n"))
	f.Add([]byte("Conffiles:\n x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		known(t, parseStatus("status", b, func(s stanza) error {
			for path, c := range parseConffiles(s.conffiles) {
				if path == "" || c.sum != nil && len(c.sum) != 16 {
					t.Errorf("%q: %x", path, c.sum)
				}
			}
			for _, n := range s.infoNames(".list") {
				if !validName(s.Name) || filepath.Base(n) != n {
					t.Errorf("the list of %q would be read from %q", s.Name, n)
				}
			}
			return nil
		}))
	})
}

func FuzzDpkgSums(f *testing.F) {
	f.Add([]byte("d41d8cd98f00b204e9800998ecf8427e  usr/bin/a b\nd41d8cd98f00b204e9800998ecf8427e *./x\n\\d41d8cd98f00b204e9800998ecf8427e  a\\nb\\\\\n\nbad\n"))
	f.Add([]byte("g41d8cd98f00b204e9800998ecf8427e  x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		known(t, eachSum("sums", b, func(path, digits []byte) bool {
			sum, ok := unhex(digits)
			if ok != (decodeHex(digits) != nil) || ok && !bytes.Equal(sum[:], decodeHex(digits)) {
				t.Errorf("%q is %x", digits, sum)
			}
			p, _ := clean(path, nil)
			if len(p) == 0 || p[0] != '/' {
				t.Errorf("%q", p)
			}
			n++
			return ok
		}))
		if n > bytes.Count(b, []byte("\n"))+1 {
			t.Errorf("%d paths", n)
		}
	})
}

func FuzzDpkgLinks(f *testing.F) {
	f.Add([]byte("/usr/bin/a\n/usr/bin/a.real\n:\n/x\n/y\npkg\n"))
	f.Add([]byte("root crontab 2755 /usr/bin/crontab\n#12 #13 0640 /a b\n"))
	f.Add([]byte("auto\n/usr/bin/editor\neditor.1.gz\n/usr/share/man/man1/editor.1.gz\n\n/usr/bin/vim\n30\n/usr/share/man/man1/vim.1.gz\n/bin/nano\n40\n\n\n"))
	f.Add([]byte("manual\n/usr/bin/x\n\n/bin/y\n-3\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := parseDiversions("diversions", b)
		known(t, err)
		_, err = parseOverrides("statoverride", b)
		known(t, err)
		g, err := parseAlternatives("alternatives", b)
		known(t, err)
		if err == nil {
			m := map[string]alternative{}
			g.addTo(m, "name", func(string) string { return "/bin/y" })
		}
	})
}

// FuzzDpkgRoot: any content of a package's list and sums gives the same files
// by Lookup as by Each.
func FuzzDpkgRoot(f *testing.F) {
	f.Add([]byte("/.\n/usr\n/usr/bin\n/usr/bin/a\n/bin/b\n"), []byte("d41d8cd98f00b204e9800998ecf8427e  usr/bin/a\nd41d8cd98f00b204e9800998ecf8427e  bin/b\n"))
	f.Add([]byte("/bin/b\n/usr/bin/b\n"), []byte("x"))
	f.Fuzz(func(t *testing.T, list, sums []byte) {
		root := t.TempDir()
		must(t, os.Symlink("usr/bin", root+"/bin"))
		put(t, root, "var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\nConffiles:\n /etc/a d41d8cd98f00b204e9800998ecf8427e\n")
		put(t, root, "var/lib/dpkg/info/a.list", string(list))
		put(t, root, "var/lib/dpkg/info/a.md5sums", string(sums))
		put(t, root, "var/lib/dpkg/diversions", "/usr/bin/d\n/usr/bin/d.real\nother\n")
		s := open(t, root)
		var paths [][]byte
		var files []string
		must(t, s.Each(t.Context(), func(path []byte, f *File) error {
			paths = append(paths, bytes.Clone(path))
			files = append(files, f.Package.Name)
			return nil
		}))
		found, err := s.Lookup(t.Context(), paths)
		must(t, err)
		for i := range paths {
			if len(found[i]) == 0 || found[i][0].Package.Name != files[i] {
				t.Errorf("%q: %+v", paths[i], found[i])
			}
		}
		for _, err := range s.Problems() {
			known(t, err)
		}
	})
}

func FuzzAPKInstalled(f *testing.F) {
	f.Add([]byte(apkInstalledText()))
	f.Add([]byte("P:x\nZ:Q1\n"))
	f.Add([]byte("F:\nR:\nM:0:0:9\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		packages := 0
		known(t, parseInstalled(t.Context(), "installed", b, func(Package) { packages++ }, func(path []byte, f *File) error {
			if len(path) < 2 || path[0] != '/' || f.Mode == nil || *f.Mode > 0o7777 || f.Digest.New() == nil && !f.Digest.IsZero() {
				t.Errorf("%q: %+v", path, f)
			}
			return nil
		}))
		if packages > len(b) {
			t.Error(packages)
		}
	})
}

// rpmTestHeader is a small header: a name, a version and two files.
func rpmTestHeader(name string) []byte {
	type tag struct {
		id, kind, count uint32
		data            string
	}
	tags := []tag{
		{rpmName, rpmTypeString, 1, name + "\x00"}, {rpmVersion, rpmTypeString, 1, "1\x00"}, {rpmRelease, rpmTypeString, 1, "2\x00"}, {rpmArch, rpmTypeString, 1, "noarch\x00"},
		{rpmBasenames, rpmTypeStringArray, 2, "a\x00b\x00"}, {rpmDirnames, rpmTypeStringArray, 1, "/usr/bin/\x00"}, {rpmDirIndexes, rpmTypeInt32, 2, "\x00\x00\x00\x00\x00\x00\x00\x00"},
		{rpmFileModes, rpmTypeInt16, 2, "\x81\xa4\x81\xed"}, {rpmFileDigests, rpmTypeStringArray, 2, strings.Repeat("0a", 32) + "\x00\x00"}, {rpmFileDigestAlgo, rpmTypeInt32, 1, "\x00\x00\x00\x08"}, {rpmFileStates, 1, 2, "\x00\x01"},
		{rpmFileFlags, rpmTypeInt32, 2, "\x00\x00\x00\x01\x00\x00\x00\x40"},
	}
	var entries, data []byte
	be := binary.BigEndian
	for _, t := range tags {
		for _, v := range []uint32{t.id, t.kind, uint32(len(data)), t.count} {
			entries = be.AppendUint32(entries, v)
		}
		data = append(data, t.data...)
	}
	h := be.AppendUint32(be.AppendUint32(nil, uint32(len(tags))), uint32(len(data)))
	return append(append(h, entries...), data...)
}

func fuzzHeader(t *testing.T, b []byte) {
	h, err := parseRPMHeader(b)
	known(t, err)
	if err != nil {
		return
	}
	p, err := h.pkg()
	known(t, err)
	f, err := h.files(true)
	known(t, err)
	if err == nil {
		for i := range f.names {
			f.path(i, nil)
			f.file(i, p)
			f.installed(i)
		}
	}
}

func FuzzRPMHeader(f *testing.F) {
	f.Add(rpmTestHeader("x"))
	f.Fuzz(fuzzHeader)
}

func FuzzRPMFile(f *testing.F) {
	lead := make([]byte, rpmLeadSize)
	copy(lead, "\xed\xab\xee\xdb\x03")
	magic := []byte{0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0}
	sigs := append(bytes.Clone(magic), 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 3, 0xe8, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)
	f.Add(append(append(append(lead, sigs...), magic...), rpmTestHeader("x")...))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readRPM(bytes.NewReader(b), int64(len(b)))
		known(t, err)
		if err == nil {
			known(t, h.wanted(archiveWant{has: func(string) bool { return true }, found: func(string, File) {}}))
		}
	})
}

// FuzzRPMDatabase gives the same bytes to all three readers; the first says
// which is to be the one.
func FuzzRPMDatabase(f *testing.F) {
	f.Add(makeNDB([][]byte{rpmTestHeader("x"), rpmTestHeader("x")}), []byte{})
	for _, name := range []string{"small.sqlite", "small.bdb"} {
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, []byte{})
	}
	wal, err := os.ReadFile("testdata/small.sqlite-wal")
	if err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile("testdata/small.sqlite")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, wal)
	f.Fuzz(func(t *testing.T, b, wal []byte) {
		count := 0
		fn := func(blob []byte) error {
			if count++; count > len(b)+len(wal) {
				t.Fatal("it goes round in circles")
			}
			fuzzHeader(t, blob)
			return nil
		}
		size := int64(len(b))
		known(t, readSQLite(bytes.NewReader(b), size, bytes.NewReader(wal), int64(len(wal)), "Packages", fn))
		known(t, readNDB(bytes.NewReader(b), size, fn))
		known(t, readBDB(bytes.NewReader(b), size, fn))
	})
}

func FuzzOwners(f *testing.F) {
	o := &Owners{aliases: newAliases([]alias{{"/bin/", "/usr/bin/"}}), packages: []Package{{Dpkg, "a", "1", "all"}, {RPM, "b", "2", "noarch"}}}
	o.set([]owned{{5, 0}, {7, 1}, {1 << 63, 0}})
	f.Add(o.Encode())
	f.Add((&Owners{aliases: newAliases(nil)}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := DecodeOwners(b)
		known(t, err)
		if err != nil {
			return
		}
		o.Lookup([]byte("/bin/x"))
		again, err := DecodeOwners(o.Encode())
		if err != nil || again.Paths() != o.Paths() || len(again.Packages()) != len(o.Packages()) {
			t.Errorf("it is not read again: %v", err)
		}
	})
}

// makeDeb writes a package without dpkg-deb.
func makeDeb(compress string) []byte {
	pack := func(b []byte) []byte {
		var z bytes.Buffer
		switch compress {
		case ".gz":
			return b
		case ".xz":
			w, err := xz.NewWriter(&z)
			if err != nil {
				panic(err)
			}
			w.Write(gunzip(b))
			w.Close()
			return z.Bytes()
		}
		return gunzip(b)
	}
	ar := []byte(arMagic)
	member := func(name string, b []byte) {
		h := make([]byte, arHeader)
		copy(h, strings.Repeat(" ", arHeader-2)+"`\n")
		copy(h, name)
		copy(h[16:], "0")
		copy(h[48:], itoa(len(b)))
		ar = append(append(ar, h...), b...)
		if len(b)%2 == 1 {
			ar = append(ar, '\n')
		}
	}
	member("debian-binary", []byte("2.0\n"))
	member("control.tar"+compress, pack(tarPart(true, "./control", control("x", "1", "all"), "./conffiles", "/etc/x\n")))
	member("data.tar"+compress, pack(tarPart(true, "./usr/bin/x", "content", "./etc/x", "conf")))
	return ar
}

func itoa(n int) string {
	s := ""
	for ; n > 0; n /= 10 {
		s = string(rune('0'+n%10)) + s
	}
	return s
}

func gunzip(b []byte) []byte {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		panic(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		panic(err)
	}
	return out
}

func FuzzDeb(f *testing.F) {
	for _, c := range []string{"", ".gz", ".xz"} {
		f.Add(makeDeb(c))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := openDeb(bytes.NewReader(b), int64(len(b)))
		known(t, err)
		if err != nil {
			return
		}
		_, err = d.identify()
		known(t, err)
		known(t, d.files(t.Context(), archiveWant{has: func(string) bool { return true }, found: func(name string, f File) {
			if !strings.HasPrefix(name, "/") || strings.Contains(name, "/../") {
				t.Errorf("%q", name)
			}
		}}))
	})
}

func FuzzAPKFile(f *testing.F) {
	f.Add(makeAPK(true))
	f.Add(makeAPK(false))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := identifyAPK(bytes.NewReader(b))
		known(t, err)
		known(t, readAPK(t.Context(), bytes.NewReader(b), archiveWant{has: func(string) bool { return true }, found: func(string, File) {}}))
	})
}

// TestMadeDeb holds the seeds of FuzzDeb to what dpkg-deb makes of them.
func TestMadeDeb(t *testing.T) {
	need(t, "dpkg-deb")
	for _, c := range []string{"", ".gz", ".xz"} {
		file := put(t, t.TempDir(), "x.deb", string(makeDeb(c)))
		if out := run(t, "dpkg-deb", "-c", file); !strings.Contains(out, "./usr/bin/x") {
			t.Errorf("%q: %s", c, out)
		}
		f := openArchives(t, filepath.Dir(file)).must(t, Package{Dpkg, "x", "1", "all"}, "/usr/bin/x", "/etc/x")
		if f[0].Digest.String() != "sha256:"+sha256Hex("content") || !f[1].Conffile {
			t.Errorf("%q: %+v", c, f)
		}
	}
}
