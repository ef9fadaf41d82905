package binaries

import (
	"crypto/md5"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/integrity/facts"
	"golang.org/x/sys/unix"
)

// tree is a host with a few programs and a database of dpkg.
type tree struct {
	testing.TB
	root string
	sums strings.Builder
	list strings.Builder
}

func newTree(t testing.TB) *tree {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: needs root to make files of other users and with capabilities")
	}
	tr := &tree{TB: t, root: t.TempDir()}
	if err := os.Chmod(tr.root, 0o755); err != nil {
		t.Fatal(err)
	}
	tr.packaged("/usr/bin/sudo", "sudo", 0o4755)
	tr.packaged("/usr/bin/wall", "wall", 0o2755)
	tr.packaged("/usr/bin/ping", "ping", 0o755)
	tr.packaged("/usr/bin/ls", "ls", 0o755)
	tr.packaged("/usr/bin/other", "other", 0o755)
	tr.capable("/usr/bin/ping")
	tr.database()
	return tr
}

func (t *tree) put(path, content string, mode uint32) {
	t.Helper()
	full := filepath.Join(t.root, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(full, mode); err != nil {
		t.Fatal(err)
	}
}

func (t *tree) packaged(path, content string, mode uint32) {
	t.Helper()
	t.put(path, content, mode)
	fmt.Fprintf(&t.sums, "%x  %s\n", md5.Sum([]byte(content)), strings.TrimPrefix(path, "/"))
	fmt.Fprintf(&t.list, "%s\n", path)
}

func (t *tree) capable(path string) {
	t.Helper()
	caps := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // cap_net_raw=ep
	if err := unix.Setxattr(filepath.Join(t.root, path), "security.capability", caps, 0); err != nil {
		t.Skipf("NOT RUN: no capabilities on the filesystem of %s: %v", t.root, err)
	}
}

func (t *tree) database() {
	t.Helper()
	t.put("/var/lib/dpkg/status", "Package: tools\nStatus: install ok installed\nArchitecture: all\nVersion: 1.0\nMaintainer: x <x@example.org>\nDescription: x\n\n", 0o644)
	t.put("/var/lib/dpkg/info/tools.list", t.list.String(), 0o644)
	t.put("/var/lib/dpkg/info/tools.md5sums", t.sums.String(), 0o644)
}

func (t *tree) collect() *facts.Snapshot {
	t.Helper()
	sources, list, err := Collector{Root: t.root}.Collect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if sources[0].State != facts.OK {
		t.Fatalf("%+v", sources)
	}
	return facts.New(time.Now(), []string{facts.Binaries}, sources, list)
}

func (t *tree) drift(old *facts.Snapshot, want ...string) {
	t.Helper()
	changes, _ := facts.Diff(old, t.collect())
	got := []string{}
	for _, c := range changes {
		s := string(c.Kind) + " " + c.Severity.String() + " " + Path(c.Fact())
		for _, a := range c.Attributes {
			s += " " + a.Name
		}
		got = append(got, s)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, append([]string{}, want...)) {
		t.Errorf("drift\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestPrograms(t *testing.T) {
	tr := newTree(t)
	tr.put("/usr/local/bin/own", "own", 0o4755)
	tr.put("/var/lib/docker/overlay2/x/diff/usr/bin/su", "layer", 0o4755)
	tr.put("/usr/share/setgid-without-x", "x", 0o2644)
	s := tr.collect()
	var got []string
	for _, f := range s.Facts {
		a := f.Attributes
		got = append(got, fmt.Sprintf("%s %s|%s|%s|%s|%s|%s", Path(&f), a["special"], a["mode"], a["capabilities"], a["package"], a["content"], a["risks"]))
	}
	want := []string{
		"/usr/bin/ls critical|0755|none|tools|as packaged|none",
		"/usr/bin/ping capabilities|0755|cap_net_raw=ep|tools|as packaged|none",
		"/usr/bin/sudo critical, setuid|4755|none|tools|as packaged|none",
		"/usr/bin/wall setgid|2755|none|tools|as packaged|none",
		"/usr/local/bin/own setuid|4755|none|none|of no package|of no package",
	}
	if !slices.Equal(got, want) {
		t.Errorf("programs\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestDrift(t *testing.T) {
	tr := newTree(t)
	old := tr.collect()
	tr.drift(old)
	restore := func() {
		os.RemoveAll(filepath.Join(tr.root, "srv"))
		tr.put("/usr/bin/sudo", "sudo", 0o4755)
		tr.put("/usr/bin/ls", "ls", 0o755)
		tr.put("/usr/bin/other", "other", 0o755)
		tr.put("/usr/bin/ping", "ping", 0o755)
		tr.capable("/usr/bin/ping")
		tr.drift(old)
	}
	for name, c := range map[string]struct {
		do   func()
		want []string
	}{
		"a new setuid file":             {func() { tr.put("/srv/x/evil", "evil", 0o4755) }, []string{"added high /srv/x/evil"}},
		"an old program becomes setuid": {func() { tr.put("/usr/bin/other", "other", 0o4755) }, []string{"added high /usr/bin/other"}},
		"capabilities alone":            {func() { tr.capable("/usr/bin/other") }, []string{"added high /usr/bin/other"}},
		"a critical program replaced":   {func() { tr.put("/usr/bin/ls", "evil", 0o755) }, []string{"changed high /usr/bin/ls content digest risks"}},
		"a setuid program replaced":     {func() { tr.put("/usr/bin/sudo", "evil", 0o4755) }, []string{"changed high /usr/bin/sudo content digest risks"}},
		"others can write it":           {func() { tr.put("/usr/bin/sudo", "sudo", 0o4757) }, []string{"changed high /usr/bin/sudo mode risks"}},
		"a setuid bit taken away":       {func() { tr.put("/usr/bin/sudo", "sudo", 0o755) }, []string{"changed high /usr/bin/sudo mode special"}},
	} {
		t.Run(name, func(t *testing.T) {
			inner := *tr
			inner.TB = t
			c.do()
			inner.drift(old, c.want...)
			restore()
		})
	}
	// An update of the package: low, as the package says that it is right.
	tr.sums.Reset()
	tr.list.Reset()
	for _, p := range []struct {
		path, content string
		mode          uint32
	}{{"/usr/bin/sudo", "sudo 2", 0o4755}, {"/usr/bin/wall", "wall", 0o2755}, {"/usr/bin/ping", "ping", 0o755}, {"/usr/bin/ls", "ls", 0o755}, {"/usr/bin/other", "other", 0o755}} {
		tr.packaged(p.path, p.content, p.mode)
	}
	tr.capable("/usr/bin/ping")
	tr.database()
	tr.drift(old, "changed low /usr/bin/sudo digest")
}

// TestGone: what goes while it is looked at was not left out.
func TestGone(t *testing.T) {
	var s search
	for _, err := range []error{unix.ENOENT, unix.ENOTDIR} {
		s.trouble(&os.PathError{Op: "getxattr", Path: "/x", Err: err})
	}
	if s.unread != 0 || s.denied != 0 {
		t.Errorf("%d unread, %d denied", s.unread, s.denied)
	}
	s.trouble(unix.EIO)
	if s.unread != 1 {
		t.Error("a disk that fails is not told")
	}
}

// TestThisHost: what find(1) finds on the root filesystem is told.
func TestThisHost(t *testing.T) {
	sources, list, err := Collector{}.Collect(t.Context())
	if err != nil || len(sources) != 1 {
		t.Fatal(err, sources)
	}
	// Somewhere on a machine that is in use there may be what nobody can read just now.
	if os.Geteuid() == 0 && sources[0].State != facts.OK && (sources[0].State != facts.Partial || !strings.Contains(sources[0].Detail, "could not be read")) {
		t.Errorf("%+v", sources)
	}
	told := map[string]bool{}
	for _, f := range list {
		told[Path(&f)] = true
	}
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/usr/lib"} {
		filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil
			}
			if info, err := d.Info(); err == nil && info.Mode()&os.ModeSetuid != 0 && info.Mode()&0o111 != 0 && !told[p] {
				t.Errorf("%s is setuid and not told", p)
			}
			return nil
		})
	}
}

func TestParseMounts(t *testing.T) {
	const text = `22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
23 22 8:2 / /home rw,nosuid - ext4 /dev/sda2 rw
24 22 8:3 / /srv/with\040space rw - xfs /dev/sda3 rw
25 22 0:20 / /proc rw - proc proc rw
26 22 0:21 / /mnt/net rw - nfs4 host:/x rw
27 22 8:3 / /again rw - xfs /dev/sda3 rw
28 22 8:4 / /data rw - ext4 /dev/sda4 rw
29 28 8:5 / /data rw,nosuid - ext4 /dev/sda5 rw
30 22 0:9 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw
`
	list, err := parseMounts(text)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range list {
		got = append(got, f.dir)
	}
	if want := []string{"/", "/srv/with space"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if f := holding(list, "/srv/with space/x"); f.dir != "/srv/with space" || !f.data() {
		t.Errorf("%+v", f)
	}
}

func FuzzParse(f *testing.F) {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	f.Add(string(b), []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(`1 2 3:4 / /\04 rw - ext4 x`, []byte{})
	f.Fuzz(func(t *testing.T, text string, caps []byte) {
		parseMounts(text)
		unescape(text)
		parseCapabilities(caps)
	})
}
