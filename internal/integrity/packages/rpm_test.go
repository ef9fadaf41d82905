package packages

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/adler32"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// need skips a test when a program that it cannot do without is missing.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT RUN: %v (apt-get install rpm debsums db5.3-util)", err)
		}
	}
}

// run runs a program and returns what it printed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out, stderr.Bytes())
	}
	return string(out)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put writes a file below a directory.
func put(t *testing.T, dir, name, content string) string {
	t.Helper()
	p := filepath.Join(dir, name)
	must(t, os.MkdirAll(filepath.Dir(p), 0o755))
	must(t, os.WriteFile(p, []byte(content), 0o644))
	return p
}

// alphaSpec has a file of every kind, and packages that bring so many more
// headers that the tables of a database have several levels.
const alphaSpec = `
Name: alpha
Version: 1.2
Release: 3
Epoch: 7
Summary: A package of a test
License: none
BuildArch: noarch
%description
It has a file of every kind.
%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/etc %{buildroot}/var/log %{buildroot}/usr/share/alpha
echo hello > %{buildroot}/usr/bin/alpha
echo 'a name' > "%{buildroot}/usr/share/alpha/with a blank"
for i in $(seq 300); do echo $i > %{buildroot}/usr/share/alpha/file$i; done
chmod 4755 %{buildroot}/usr/bin/alpha
ln -s alpha %{buildroot}/usr/bin/al
echo conf > %{buildroot}/etc/alpha.conf
for i in $(seq 60); do echo $i > %{buildroot}/usr/bin/part$i; done
%files
%attr(4755, root, daemon) /usr/bin/alpha
/usr/bin/al
/usr/share/alpha
%config(noreplace) /etc/alpha.conf
%ghost /var/log/alpha.log
` + "%{lua: for i = 1, 60 do print('%package part'..i..'\\nSummary: x\\n%description part'..i..'\\nx\\n%files part'..i..'\\n/usr/bin/part'..i..'\\n') end}\n"

// buildRPMs returns the directory of the packages of alphaSpec.
func buildRPMs(t *testing.T) string {
	t.Helper()
	need(t, "rpm", "rpmbuild")
	top := t.TempDir()
	spec := put(t, top, "alpha.spec", alphaSpec)
	run(t, "rpmbuild", "-bb", "--define", "_topdir "+top, "--define", "_build_id_links none", spec)
	return filepath.Join(top, "RPMS", "noarch")
}

// installRPMs installs packages into a new root.
func installRPMs(t *testing.T, dir string) string {
	t.Helper()
	root := t.TempDir()
	files, err := filepath.Glob(dir + "/*.rpm")
	must(t, err)
	args := []string{"--root", root, "--dbpath", "/var/lib/rpm", "--define", "_db_backend sqlite", "--nodeps", "--noscripts", "--nosignature", "-i"}
	run(t, "rpm", append(args, files...)...)
	return root
}

func lookup(t *testing.T, s *Set, paths ...string) [][]File {
	t.Helper()
	var list [][]byte
	for _, p := range paths {
		list = append(list, []byte(p))
	}
	out, err := s.Lookup(t.Context(), list)
	must(t, err)
	for _, err := range s.Problems() {
		t.Error(err)
	}
	return out
}

func open(t *testing.T, root string) *Set {
	t.Helper()
	s, err := Open(root)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// alphaFiles are what every source must tell of the package's files.
func checkAlpha(t *testing.T, files []File) {
	t.Helper()
	if len(files) != 6 {
		t.Fatalf("%d files", len(files))
	}
	pkg := Package{RPM, "alpha", "7:1.2-3", "noarch"}
	sum := func(s string) string { return "sha256:" + sha256Hex(s) }
	for i, want := range []struct {
		digest         string
		mode           uint32
		conf, ghost    bool
		target, groups string
	}{
		{sum("hello\n"), 0o104755, false, false, "", "daemon"},
		{"none", 0o120777, false, false, "alpha", "root"},
		{sum("conf\n"), 0o100644, true, false, "", "root"},
		{"none", 0, false, true, "", ""},
		{sum("a name\n"), 0o100644, false, false, "", "root"},
		{"none", 0o040755, false, false, "", "root"},
	} {
		f := files[i]
		if f.Package != pkg || f.Digest.String() != want.digest || f.Conffile != want.conf || f.Ghost != want.ghost || f.LinkTarget != want.target {
			t.Errorf("%d: %+v", i, f)
		}
		if want.ghost {
			continue
		}
		if f.Mode == nil || *f.Mode != want.mode || f.Owner != "root" || f.Group != want.groups {
			t.Errorf("%d: mode %o, %s:%s", i, *f.Mode, f.Owner, f.Group)
		}
	}
}

var alphaPaths = []string{"/usr/bin/alpha", "/usr/bin/al", "/etc/alpha.conf", "/var/log/alpha.log", "/usr/share/alpha/with a blank", "/usr/share/alpha"}

// listing is all that a set knows, as text.
func listing(t *testing.T, s *Set) []string {
	t.Helper()
	var list []string
	must(t, s.Each(t.Context(), func(path []byte, f *File) error {
		mode := ""
		if f.Mode != nil {
			mode = fmt.Sprintf("%o", *f.Mode)
		}
		list = append(list, fmt.Sprintf("%s %v %v %v %v %s %s:%s %s", path, f.Package, f.Digest, f.Conffile, f.Ghost, mode, f.Owner, f.Group, f.LinkTarget))
		return nil
	}))
	for _, err := range s.Problems() {
		t.Error(err)
	}
	slices.Sort(list)
	return list
}

// TestRPM: what rpm itself installed is read as rpm tells it; so is the same in
// SQLite's write-ahead log, written by SQLite, and in the other two formats. Of
// those, Berkeley DB is written by its own library. Debian's rpm cannot write
// ndb, so that is written by this test, after rpmpkg.c.
func TestRPM(t *testing.T) {
	need(t, "db5.3_load", "sqlite3")
	root := installRPMs(t, buildRPMs(t))
	dir := filepath.Join(root, "var/lib/rpm")
	query := run(t, "rpm", "--root", root, "--dbpath", "/var/lib/rpm", "-qa", "--qf", "[%{FILENAMES} %{=NAME} %{=EVR} %{FILEMODES:octal} %{FILEDIGESTS} %{FILELINKTOS}\n]")
	s := open(t, root)
	if m := s.Managers(); !slices.Equal(m, []Manager{RPM}) {
		t.Fatal(m)
	}
	var got []string
	must(t, s.Each(t.Context(), func(path []byte, f *File) error {
		got = append(got, fmt.Sprintf("%s %s %s %o %s %s", path, f.Package.Name, f.Package.Version, *f.Mode, hex.EncodeToString(f.Digest.Sum), f.LinkTarget))
		return nil
	}))
	want := strings.Split(strings.TrimSuffix(query, "\n"), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) || len(want) < 360 {
		t.Errorf("%d files, %d by rpm:\n%s\nby rpm:\n%s", len(got), len(want), strings.Join(got[:5], "\n"), strings.Join(want[:5], "\n"))
	}
	checkAlpha(t, flat(lookup(t, s, alphaPaths...)))
	if l := lookup(t, s, "/usr/bin/none", "/usr/bin/part17"); len(l[0]) > 0 || len(l[1]) != 1 || l[1][0].Package.Name != "alpha-part17" {
		t.Errorf("%+v", l)
	}
	all := listing(t, s)

	var blobs [][]byte
	main, err := os.Open(dir + "/rpmdb.sqlite")
	must(t, err)
	defer main.Close()
	wal, err := os.Open(dir + "/rpmdb.sqlite-wal")
	must(t, err)
	defer wal.Close()
	must(t, readRPMSQLite(main, wal, func(b []byte) error {
		blobs = append(blobs, bytes.Clone(b))
		return nil
	}))
	if len(blobs) != 61 {
		t.Fatalf("%d headers", len(blobs))
	}

	for name, write := range map[string]func(t *testing.T, dir string){
		"ndb":               func(t *testing.T, dir string) { must(t, os.WriteFile(dir+"/Packages.db", makeNDB(blobs), 0o644)) },
		"bdb":               func(t *testing.T, dir string) { loadBDB(t, dir+"/Packages", blobs, "") },
		"bdb, big endian":   func(t *testing.T, dir string) { loadBDB(t, dir+"/Packages", blobs, "db_lorder=4321\n") },
		"bdb, pages of 512": func(t *testing.T, dir string) { loadBDB(t, dir+"/Packages", blobs, "db_pagesize=512\n") },
		"sqlite, log of others": func(t *testing.T, dir string) {
			copyFile(t, main.Name(), dir+"/rpmdb.sqlite")
			put(t, dir, "rpmdb.sqlite-wal", strings.Repeat("no log", 100))
		},
		"sqlite, in its log": func(t *testing.T, dir string) {
			writeLog(t, main.Name(), dir, "DELETE FROM Packages; INSERT INTO Packages SELECT * FROM o.Packages;")
		},
		"sqlite, not committed": func(t *testing.T, dir string) {
			writeLog(t, main.Name(), dir, "PRAGMA cache_size=1; DELETE FROM Packages; INSERT INTO Packages SELECT * FROM o.Packages; BEGIN; UPDATE Packages SET blob = randomblob(9000);")
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			must(t, os.MkdirAll(root+"/usr/lib/sysimage/rpm", 0o755))
			must(t, os.MkdirAll(root+"/var/lib", 0o755))
			must(t, os.Symlink("../../usr/lib/sysimage/rpm", root+"/var/lib/rpm"))
			write(t, root+"/usr/lib/sysimage/rpm")
			s := open(t, root)
			if got := listing(t, s); !slices.Equal(got, all) {
				t.Errorf("%d files, want %d", len(got), len(all))
			}
			checkAlpha(t, flat(lookup(t, s, alphaPaths...)))
		})
	}
}

func flat(list [][]File) (files []File) {
	for _, l := range list {
		files = append(files, l...)
	}
	return files
}

// writeLog has SQLite execute statements in a copy of a database, "o" being the
// original, and copies database and log into dir while both are in use.
func writeLog(t *testing.T, from, dir, statements string) {
	t.Helper()
	work := t.TempDir()
	copyFile(t, from, work+"/db")
	cmd := exec.Command("sqlite3", "-bail", work+"/db")
	cmd.Stdin = strings.NewReader(fmt.Sprintf("PRAGMA journal_mode=WAL;\nPRAGMA wal_autocheckpoint=0;\nATTACH '%s' AS o;\n%s\n.shell cp %s/db %s/rpmdb.sqlite && cp %s/db-wal %s/rpmdb.sqlite-wal\n", from, statements, work, dir, work, dir))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if st, err := os.Stat(dir + "/rpmdb.sqlite-wal"); err != nil || st.Size() < 100<<10 {
		t.Fatalf("the log is not what this test is about: %v %v", st, err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, b, 0o644))
}

// loadBDB has Berkeley DB write a hash as rpm's Packages was: numbers as keys,
// headers as data, and under the key 0 the last number.
func loadBDB(t *testing.T, path string, blobs [][]byte, options string) {
	t.Helper()
	var in bytes.Buffer
	fmt.Fprintf(&in, "VERSION=3\nformat=bytevalue\ntype=hash\n%sHEADER=END\n", options)
	key := func(n int) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(n)) }
	fmt.Fprintf(&in, " %x\n %x\n", key(0), key(len(blobs)))
	for i, b := range blobs {
		fmt.Fprintf(&in, " %x\n %x\n", key(i+1), b)
	}
	in.WriteString("DATA=END\n")
	cmd := exec.Command("db5.3_load", path)
	cmd.Stdin = &in
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// makeNDB writes an ndb database, with a free slot in it.
func makeNDB(blobs [][]byte) []byte {
	le := binary.LittleEndian
	db := make([]byte, ndbPage)
	slots := append([][]byte{nil}, blobs...)
	for (len(slots)+2)*ndbSlot > len(db) {
		db = append(db, make([]byte, ndbPage)...)
	}
	le.PutUint32(db, ndbMagic)
	le.PutUint32(db[12:], uint32(len(db)/ndbPage))
	for at := 2 * ndbSlot; at < len(db); at += ndbSlot {
		le.PutUint32(db[at:], ndbSlotMagic)
	}
	for i, b := range slots {
		if b == nil {
			continue
		}
		room := (ndbHeadSize + len(b) + ndbTailSize + ndbBlock - 1) / ndbBlock * ndbBlock
		blob := make([]byte, room)
		le.PutUint32(blob, ndbHeadMagic)
		le.PutUint32(blob[4:], uint32(i))
		le.PutUint32(blob[12:], uint32(len(b)))
		copy(blob[ndbHeadSize:], b)
		tail := blob[room-ndbTailSize:]
		le.PutUint32(tail, adler32.Checksum(blob[:room-ndbTailSize]))
		le.PutUint32(tail[4:], uint32(len(b)))
		le.PutUint32(tail[8:], ndbTailMagic)
		slot := db[(i+2)*ndbSlot:]
		le.PutUint32(slot[4:], uint32(i))
		le.PutUint32(slot[8:], uint32(len(db)/ndbBlock))
		le.PutUint32(slot[12:], uint32(room/ndbBlock))
		db = append(db, blob...)
	}
	return db
}

// TestRPMStates: what rpm did not put on the disk belongs to nobody.
func TestRPMStates(t *testing.T) {
	rpms := buildRPMs(t)
	root := t.TempDir()
	run(t, "rpm", "--root", root, "--dbpath", "/var/lib/rpm", "--nodeps", "--noscripts", "--nosignature", "--excludepath", "/usr/share", "-i", rpms+"/alpha-1.2-3.noarch.rpm")
	l := lookup(t, open(t, root), "/usr/bin/alpha", "/usr/share/alpha/file7")
	if len(l[0]) != 1 || len(l[1]) != 0 {
		t.Errorf("%+v", l)
	}
}

// TestRPMDamaged: a cut or altered database is an error that says where.
func TestRPMDamaged(t *testing.T) {
	root := installRPMs(t, buildRPMs(t))
	good, err := os.ReadFile(root + "/var/lib/rpm/rpmdb.sqlite")
	must(t, err)
	for _, n := range []int{0, 50, 4096, len(good) / 2} {
		root := t.TempDir()
		put(t, root, "var/lib/rpm/rpmdb.sqlite", string(good[:n]))
		s := open(t, root)
		_, err := s.Lookup(t.Context(), [][]byte{[]byte("/usr/bin/alpha")})
		var c *CorruptError
		if !asCorrupt(err, &c) || !strings.HasSuffix(c.File, "/var/lib/rpm/rpmdb.sqlite") {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
}

// TestSQLiteCircle: a log that claims billions of pages does not make a circle
// of pages go round as often.
func TestSQLiteCircle(t *testing.T) {
	db, err := os.ReadFile("testdata/small.sqlite")
	must(t, err)
	const page = 512
	be := binary.BigEndian
	salt := []byte("saltsalt")
	h := append(be.AppendUint32(nil, 0x377f0683), make([]byte, 20)...)
	be.PutUint32(h[4:], 3007000)
	be.PutUint32(h[8:], page)
	copy(h[16:], salt)
	c0, c1 := walSum(be, 0, 0, h)
	wal := be.AppendUint32(be.AppendUint32(h, c0), c1)
	content := make([]byte, page) // an inner page, all of whose children are itself
	content[0] = 0x05
	be.PutUint16(content[3:], 100)
	for i := range 100 {
		be.PutUint16(content[12+2*i:], 400)
	}
	be.PutUint32(content[400:], 2)
	be.PutUint32(content[8:], 2)
	frame := append(be.AppendUint32(nil, 2), 0xff, 0xff, 0xff, 0xf0)
	c0, c1 = walSum(be, c0, c1, frame)
	c0, c1 = walSum(be, c0, c1, content)
	wal = append(append(wal, frame...), salt...)
	wal = append(be.AppendUint32(be.AppendUint32(wal, c0), c1), content...)
	err = readSQLite(bytes.NewReader(db), int64(len(db)), bytes.NewReader(wal), int64(len(wal)), "Packages", func([]byte) error { return nil })
	var c *CorruptError
	if !asCorrupt(err, &c) || !strings.Contains(c.Reason, "circle") {
		t.Errorf("%v", err)
	}
}

// TestRPMKeys: the keys that rpm keeps as packages are none.
func TestRPMKeys(t *testing.T) {
	root := t.TempDir()
	put(t, root, "var/lib/rpm/Packages.db", string(makeNDB([][]byte{rpmTestHeader("gpg-pubkey"), rpmTestHeader("x")})))
	s := open(t, root)
	list, err := s.Packages(t.Context())
	if err != nil || len(list) != 1 || list[0] != (Package{RPM, "x", "1-2", "noarch"}) {
		t.Errorf("%v, %v", list, err)
	}
	if l := lookup(t, s, "/usr/bin/a", "/usr/bin/b"); len(l[0]) != 1 || !l[0][0].Conffile || len(l[1]) != 0 {
		t.Errorf("%+v", l)
	}
}
