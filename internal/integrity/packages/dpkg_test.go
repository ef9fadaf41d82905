package packages

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// debTree makes a .deb of files: their paths, with content; "-> x" is a link,
// a path that ends with a slash a directory.
func buildDeb(t *testing.T, dir, control string, files map[string]string, conffiles []string, options ...string) string {
	t.Helper()
	need(t, "dpkg-deb")
	tree := t.TempDir()
	put(t, tree, "DEBIAN/control", control)
	if len(conffiles) > 0 {
		put(t, tree, "DEBIAN/conffiles", strings.Join(conffiles, "\n")+"\n")
	}
	var sums strings.Builder
	for _, p := range sortedKeys(files) {
		content := files[p]
		switch target, link := strings.CutPrefix(content, "-> "); {
		case strings.HasSuffix(p, "/"):
			must(t, os.MkdirAll(filepath.Join(tree, p), 0o755))
		case link:
			must(t, os.MkdirAll(filepath.Dir(filepath.Join(tree, p)), 0o755))
			must(t, os.Symlink(target, filepath.Join(tree, p)))
		default:
			put(t, tree, p, content)
			if !slices.Contains(conffiles, p) {
				fmt.Fprintf(&sums, "%x  %s\n", Digest{Algorithm: "md5"}.of(content), strings.TrimPrefix(p, "/"))
			}
		}
	}
	if !slices.Contains(options, "no md5sums") {
		put(t, tree, "DEBIAN/md5sums", sums.String())
	}
	options = slices.DeleteFunc(options, func(o string) bool { return o == "no md5sums" })
	must(t, os.MkdirAll(dir, 0o755))
	out := run(t, "dpkg-deb", append(append([]string{"--root-owner-group"}, options...), "-b", tree, dir)...)
	_, out, _ = strings.Cut(out, "in '")
	return strings.TrimSuffix(strings.TrimSpace(out), "'.")
}

func (d Digest) of(content string) []byte {
	h := d.New()
	h.Write([]byte(content))
	return h.Sum(nil)
}

func sortedKeys[V any](m map[string]V) []string {
	var list []string
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

func control(name, version, arch string, more ...string) string {
	c := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: nobody <nobody@example.org>\nDescription: of a test\n", name, version, arch)
	for _, m := range more {
		c += m + "\n"
	}
	return c
}

// dpkgRoot is an empty root into which dpkg installs.
func dpkgRoot(t *testing.T) string {
	t.Helper()
	need(t, "dpkg", "update-alternatives", "dpkg-divert", "dpkg-statoverride")
	root := t.TempDir()
	for _, d := range []string{"usr/bin", "usr/sbin", "usr/lib", "etc/alternatives", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/alternatives", "tmp"} {
		must(t, os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	put(t, root, "var/lib/dpkg/status", "")
	for _, d := range []string{"bin", "sbin", "lib"} {
		must(t, os.Symlink("usr/"+d, filepath.Join(root, d)))
	}
	return root
}

func install(t *testing.T, root string, debs ...string) {
	t.Helper()
	run(t, "dpkg", append([]string{"--root=" + root, "--force-not-root", "--force-depends", "--force-architecture", "--log=/dev/null", "--force-script-chrootless", "-i"}, debs...)...)
}

func md5Of(content string) string {
	return Digest{"md5", Digest{Algorithm: "md5"}.of(content)}.String()
}

// TestDpkg: what dpkg installed is known by the names on the disk, however the
// packages call it, with what diversions, alternatives and overrides make of it.
func TestDpkg(t *testing.T) {
	root, debs := dpkgRoot(t), t.TempDir()
	one := buildDeb(t, debs, control("one", "1.0-1", "all"), map[string]string{
		"/bin/one": "one", "/usr/bin/tool": "tool of one", "/etc/one.conf": "conf", "/usr/share/one/a name with blanks": "x", "/usr/bin/link": "-> one", "/usr/share/one/empty/": "",
	}, []string{"/etc/one.conf"})
	two := buildDeb(t, debs, control("two", "2:2.0", "amd64", "Multi-Arch: same"), map[string]string{"/lib/two.so": "two", "/usr/share/two/shared": "s"}, nil)
	twoArm := buildDeb(t, debs, control("two", "2:2.0", "arm64", "Multi-Arch: same"), map[string]string{"/lib/two-arm.so": "two", "/usr/share/two/shared": "s"}, nil)
	none := buildDeb(t, debs, control("none", "3", "all"), map[string]string{"/usr/bin/none": "no sums"}, nil, "no md5sums")
	gone := buildDeb(t, debs, control("gone", "4", "all"), map[string]string{"/usr/bin/gone": "gone", "/etc/gone.conf": "left"}, []string{"/etc/gone.conf"})
	tool := buildDeb(t, debs, control("tool", "5", "all"), map[string]string{"/usr/bin/tool": "tool of tool"}, nil)
	run(t, "dpkg", "--root="+root, "--add-architecture", "arm64")
	install(t, root, one, two, twoArm, none, gone)
	run(t, "dpkg", "--root="+root, "--force-not-root", "--log=/dev/null", "-r", "gone")
	run(t, "dpkg-divert", "--root", root, "--package", "tool", "--divert", "/usr/bin/tool.real", "--rename", "--add", "/usr/bin/tool")
	run(t, "dpkg-divert", "--root", root, "--local", "--divert", "/usr/bin/none.local", "--rename", "--add", "/usr/bin/none")
	install(t, root, tool)
	run(t, "dpkg-statoverride", "--root", root, "--add", "root", "daemon", "4750", "/usr/bin/one")
	// An interrupted dpkg leaves what it has not written to status yet.
	put(t, root, "var/lib/dpkg/updates/0001", "Package: tool\nStatus: install ok half-configured\nArchitecture: all\nVersion: 6\n")
	for file, priority := range map[string]string{"/usr/bin/one": "10", "/usr/lib/two.so": "5"} {
		run(t, "update-alternatives", "--root", root, "--log", "/dev/null", "--install", "/usr/bin/editor", "editor", file, priority)
	}
	alt := root + "/var/lib/dpkg/alternatives/editor"
	b, err := os.ReadFile(alt)
	must(t, err)
	// Packages that were built before dpkg made them itself have no md5sums.
	must(t, os.Remove(root+"/var/lib/dpkg/info/none.md5sums"))

	s := open(t, root)
	pkg := func(name, version, arch string) Package { return Package{Dpkg, name, version, arch} }
	pOne, pNone, pTool := pkg("one", "1.0-1", "all"), pkg("none", "3", "all"), pkg("tool", "6", "all")
	mode := uint32(0o4750)
	for path, want := range map[string][]File{
		"/bin/one":                          {{Package: pOne, Digest: Digest{"md5", Digest{Algorithm: "md5"}.of("one")}, Mode: &mode, Owner: "root", Group: "daemon"}},
		"/usr/bin/one":                      {{Package: pOne, Digest: Digest{"md5", Digest{Algorithm: "md5"}.of("one")}, Mode: &mode, Owner: "root", Group: "daemon"}},
		"/usr/lib/two.so":                   {{Package: pkg("two", "2:2.0", "amd64"), Digest: Digest{"md5", Digest{Algorithm: "md5"}.of("two")}}},
		"/usr/share/two/shared":             {{Package: pkg("two", "2:2.0", "amd64"), Digest: Digest{"md5", Digest{Algorithm: "md5"}.of("s")}}, {Package: pkg("two", "2:2.0", "arm64"), Digest: Digest{"md5", Digest{Algorithm: "md5"}.of("s")}}},
		"/etc/one.conf":                     {{Package: pOne, Digest: Digest{"md5", Digest{Algorithm: "md5"}.of("conf")}, Conffile: true}},
		"/usr/share/one/a name with blanks": {{Package: pOne, Digest: Digest{"md5", Digest{Algorithm: "md5"}.of("x")}}},
		"/usr/bin/link":                     {{Package: pOne}},
		"/usr/share/one/empty":              {{Package: pOne}},
		"/usr/bin/tool":                     {{Package: pTool, Digest: Digest{"md5", Digest{Algorithm: "md5"}.of("tool of tool")}}},
		"/usr/bin/tool.real":                {{Package: pOne, Digest: Digest{"md5", Digest{Algorithm: "md5"}.of("tool of one")}, Recorded: "/usr/bin/tool"}},
		"/usr/bin/none":                     nil,
		"/usr/bin/none.local":               {{Package: pNone, Recorded: "/usr/bin/none"}},
		"/etc/gone.conf":                    nil, // of a package that was removed
		"/usr/bin/gone":                     nil,
		"/usr/bin/editor":                   {{Package: pOne, Alternative: true, LinkTarget: "/etc/alternatives/editor"}},
		"/etc/alternatives/editor":          {{Package: pOne, Alternative: true, LinkTarget: "/usr/bin/one"}},
	} {
		got := lookup(t, s, path)[0]
		if fmt.Sprintf("%+v", texts(got)) != fmt.Sprintf("%+v", texts(want)) {
			t.Errorf("%s:\ngot  %v\nwant %v", path, texts(got), texts(want))
		}
	}

	// A choice by hand counts when it is one of the choices.
	must(t, os.WriteFile(alt, bytes.Replace(b, []byte("auto"), []byte("manual"), 1), 0o644))
	link := root + "/etc/alternatives/editor"
	for target, want := range map[string]string{"/usr/lib/two.so": "/usr/lib/two.so", "/tmp/evil": "/usr/bin/one"} {
		must(t, os.Remove(link))
		must(t, os.Symlink(target, link))
		if f := lookup(t, s, "/etc/alternatives/editor")[0]; len(f) != 1 || f[0].LinkTarget != want {
			t.Errorf("by hand to %s: %v", target, texts(f))
		}
	}
}

// texts makes files comparable.
func texts(files []File) []string {
	var list []string
	for _, f := range files {
		mode := "-"
		if f.Mode != nil {
			mode = fmt.Sprintf("%o", *f.Mode)
		}
		list = append(list, fmt.Sprintf("%v %s digest %v conffile %v mode %s %s:%s link %q alternative %v recorded %q", f.Package, f.Package.Arch, f.Digest, f.Conffile, mode, f.Owner, f.Group, f.LinkTarget, f.Alternative, f.Recorded))
	}
	return list
}

// TestDpkgOfThisMachine compares with dpkg itself on the machine where the test
// runs.
func TestDpkgOfThisMachine(t *testing.T) {
	need(t, "dpkg-query")
	if _, err := os.Stat("/var/lib/dpkg/status"); err != nil {
		t.Skip("NOT RUN: this machine has no dpkg database")
	}
	s := open(t, "/")
	installed := run(t, "dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version} ${Architecture}\n")
	var want []string
	for l := range strings.Lines(installed) {
		if state, rest, _ := strings.Cut(strings.TrimSpace(l), " "); hasFiles(state) {
			want = append(want, rest)
		}
	}
	list, err := s.Packages(t.Context())
	must(t, err)
	var got []string
	for _, p := range list {
		if p.Manager == Dpkg {
			got = append(got, p.Name+" "+p.Version+" "+p.Arch)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d packages, %d by dpkg", len(got), len(want))
	}

	real := s.list[0].(*dpkgDB).real
	files := map[string][]string{} // by Each, where no diversion is
	var all []string
	must(t, s.Each(t.Context(), func(path []byte, f *File) error {
		if f.Package.Manager == Dpkg && f.Recorded == "" {
			files[f.Package.Name+":"+f.Package.Arch] = append(files[f.Package.Name+":"+f.Package.Arch], string(path))
			all = append(all, string(path))
		}
		return nil
	}))
	rng := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		p := list[rng.IntN(len(list))]
		out, err := exec.Command("dpkg-query", "-L", p.Name+":"+p.Arch).Output()
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for l := range strings.Lines(string(out)) {
			if l = strings.TrimSuffix(l, "\n"); strings.HasPrefix(l, "/") && l != "/." {
				want = append(want, real(l))
			}
		}
		if got := files[p.Name+":"+p.Arch]; !slices.Equal(got, want) && !strings.Contains(string(out), "divert") {
			t.Errorf("%v: %d paths, %d by dpkg", p, len(got), len(want))
		}
	}

	var paths [][]byte
	for range 200 {
		paths = append(paths, []byte(all[rng.IntN(len(all))]))
	}
	found, err := s.Lookup(t.Context(), paths)
	must(t, err)
	// dpkg knows only the name that the package uses.
	args := []string{"-S"}
	for _, p := range paths {
		args = append(args, string(p))
		if other := strings.TrimPrefix(string(p), "/usr"); other != "" {
			args = append(args, other)
		}
	}
	out, _ := exec.Command("dpkg-query", args...).Output() // of names that are nobody's it complains
	owners := map[string][]string{}
	diverted := map[string]bool{}
	for l := range strings.Lines(string(out)) {
		who, path, ok := strings.Cut(strings.TrimSuffix(l, "\n"), ": ")
		if !ok {
			continue
		}
		path = real(path)
		if strings.Contains(who, "diversion by") {
			diverted[path] = true
			continue
		}
		for _, o := range strings.Split(who, ", ") {
			o, _, _ = strings.Cut(o, ":")
			owners[path] = append(owners[path], o)
		}
	}
	compared := 0
	for i, p := range paths {
		var got []string
		for _, f := range found[i] {
			if !f.Alternative {
				got = append(got, f.Package.Name)
			}
		}
		want := slices.Clone(owners[string(p)]) // a path may be asked for twice
		slices.Sort(want)
		slices.Sort(got)
		if want = slices.Compact(want); diverted[string(p)] || strings.ContainsAny(string(p), "*?[\\") {
			continue
		}
		compared++
		if !slices.Equal(slices.Compact(got), want) {
			t.Errorf("%s: %d owners, %d by dpkg: %.200q, %.200q", p, len(got), len(want), got, want)
		}
	}
	if compared < 150 {
		t.Errorf("only %d of %d paths were compared", compared, len(paths))
	}
}

// TestDebsums: of planted changes, all and only those are found that debsums
// finds.
func TestDebsums(t *testing.T) {
	need(t, "debsums")
	root, debs := dpkgRoot(t), t.TempDir()
	files := map[string]string{}
	for i := range 60 {
		files[fmt.Sprintf("/usr/share/sums/file%d", i)] = fmt.Sprint("content ", i)
	}
	files["/etc/sums.conf"] = "conf"
	install(t, root, buildDeb(t, debs, control("sums", "1", "all"), files, []string{"/etc/sums.conf"}), buildDeb(t, debs, control("other", "1", "all"), map[string]string{"/bin/other": "o"}, nil))
	for i := 0; i < 60; i += 7 {
		put(t, root, fmt.Sprintf("usr/share/sums/file%d", i), "changed")
	}
	put(t, root, "etc/sums.conf", "by the admin")
	put(t, root, "usr/bin/other", "changed")
	must(t, os.Remove(root+"/usr/share/sums/file1"))

	var got []string
	must(t, open(t, root).Each(t.Context(), func(path []byte, f *File) error {
		if f.Digest.IsZero() {
			return nil
		}
		b, err := os.ReadFile(root + string(path))
		if err != nil || !f.Digest.Equal(f.Digest.of(string(b))) {
			got = append(got, string(path))
		}
		return nil
	}))
	cmd := exec.Command("debsums", "--root="+root, "-a", "-c")
	out, _ := cmd.Output() // its status says that there are differences
	var want []string
	for l := range strings.Lines(string(out)) {
		want = append(want, open(t, root).list[0].(*dpkgDB).real(strings.TrimPrefix(strings.TrimSpace(l), root)))
	}
	if !slices.Contains(want, "/usr/share/sums/file1") { // which debsums tells on stderr
		want = append(want, "/usr/share/sums/file1")
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) || len(want) < 10 {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestDistroless: an image that has nothing but status.d.
func TestDistroless(t *testing.T) {
	root := t.TempDir()
	put(t, root, "var/lib/dpkg/status.d/base", "Package: base-files\nVersion: 12.4\nArchitecture: amd64\n")
	put(t, root, "var/lib/dpkg/status.d/base.md5sums", "d41d8cd98f00b204e9800998ecf8427e  ./usr/lib/os-release\nd41d8cd98f00b204e9800998ecf8427e  usr/share/x y\n")
	put(t, root, "var/lib/dpkg/status.d/tzdata", "Package: tzdata\nVersion: 1\nArchitecture: all\n")
	s := open(t, root)
	l := lookup(t, s, "/usr/lib/os-release", "/usr/share/x y", "/etc/passwd")
	if len(l[0]) != 1 || l[0][0].Package.Name != "base-files" || l[0][0].Digest.String() != md5Of("") || len(l[1]) != 1 || len(l[2]) > 0 {
		t.Errorf("%+v", l)
	}
	if all, err := s.Packages(t.Context()); err != nil || len(all) != 2 || len(listing(t, s)) != 2 {
		t.Errorf("%v, %v", all, err)
	}
}

// TestDpkgProblems: what is wrong with one package does not hide the others,
// and is told.
func TestDpkgProblems(t *testing.T) {
	root := t.TempDir()
	put(t, root, "var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\nPackage: b\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\nPackage: c\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n")
	put(t, root, "var/lib/dpkg/info/a.list", "/.\n/usr/bin/a\n")
	put(t, root, "var/lib/dpkg/info/a.md5sums", "d41d8cd98f00b204e9800998ecf8427e  usr/bin/a\nnot a line\n")
	put(t, root, "var/lib/dpkg/info/c.list", "/.\n/usr/bin/c\n")
	put(t, root, "var/lib/dpkg/info/c.md5sums", "\\d41d8cd98f00b204e9800998ecf8427e  usr/bin/c\n")
	s := open(t, root)
	l, err := s.Lookup(t.Context(), [][]byte{[]byte("/usr/bin/a"), []byte("/usr/bin/b"), []byte("/usr/bin/c")})
	must(t, err)
	if len(l[0]) != 1 || l[0][0].Digest.IsZero() || len(l[1]) > 0 || len(l[2]) != 1 || l[2][0].Digest.IsZero() {
		t.Errorf("%+v", l)
	}
	p := s.Problems()
	var c *CorruptError
	if len(p) != 2 || !slices.ContainsFunc(p, func(err error) bool { return asCorrupt(err, &c) && c.Line == 2 }) {
		t.Errorf("%v", p)
	}
}

// TestNoDatabase: no package manager is no error.
func TestNoDatabase(t *testing.T) {
	s := open(t, t.TempDir())
	if l := lookup(t, s, "/bin/sh"); len(s.Managers()) > 0 || len(l[0]) > 0 {
		t.Errorf("%v %v", s.Managers(), l)
	}
	if _, err := Open(t.TempDir() + "/none"); err == nil {
		t.Error("a root that is not there: no error")
	}
}

// TestLinksStayInside: links in a root lead nowhere else.
func TestLinksStayInside(t *testing.T) {
	outside := t.TempDir()
	put(t, outside, "status", "Package: evil\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n")
	put(t, outside, "info/evil.list", "/usr/bin/evil\n")
	root := t.TempDir()
	must(t, os.MkdirAll(root+"/var/lib", 0o755))
	must(t, os.Symlink(outside, root+"/var/lib/dpkg"))
	if s := open(t, root); len(s.Managers()) > 0 {
		t.Errorf("%v was read from outside", s.Managers())
	}
	// An absolute link is one within the root.
	must(t, os.Rename(outside, root+"/moved"))
	must(t, os.Remove(root+"/var/lib/dpkg"))
	must(t, os.Symlink("/moved", root+"/var/lib/dpkg"))
	if l := lookup(t, open(t, root), "/usr/bin/evil"); len(l[0]) != 1 {
		t.Errorf("%+v", l)
	}
	// A FIFO in place of a file does not make anybody wait.
	must(t, os.Remove(root+"/moved/info/evil.list"))
	run(t, "mkfifo", root+"/moved/info/evil.list")
	s := open(t, root)
	if _, err := s.Lookup(t.Context(), [][]byte{[]byte("/x")}); err != nil || len(s.Problems()) != 1 {
		t.Errorf("%v, %v", err, s.Problems())
	}
}

// TestConffiles: the flags behind a digest are none of the path's, and of what
// is to be removed or not there yet no digest counts.
func TestConffiles(t *testing.T) {
	sum := "d41d8cd98f00b204e9800998ecf8427e"
	got := parseConffiles([]byte(" /etc/a " + sum + "\n /etc/old " + sum + " obsolete\n /etc/gone " + sum + " remove-on-upgrade\n /etc/new newconffile\n /etc/with a blank " + sum + "\n relative " + sum + "\n"))
	for path, want := range map[string]bool{"/etc/a": true, "/etc/old": true, "/etc/gone": false, "/etc/new": false, "/etc/with a blank": true} {
		if c, ok := got[path]; !ok || (c.sum != nil) != want {
			t.Errorf("%s: %v %x", path, ok, c.sum)
		}
	}
	if len(got) != 5 {
		t.Errorf("%v", got)
	}
}
