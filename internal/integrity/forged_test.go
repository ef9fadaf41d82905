package integrity

import (
	"crypto/md5"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An intruder with root who knows how changes are classified tries to make his
// own come out as a package's update. What only forges a whole update, version
// and digests and all, is out of reach of the databases (TestPackageArchive).

// add appends a line to a file of the tree.
func (i *image) add(name, line string) {
	i.Helper()
	f, err := os.OpenFile(i.path(name), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	i.must(err)
	_, err = fmt.Fprintln(f, line)
	i.must(err)
	i.must(f.Close())
}

// claim makes dpkg's records of a package say that a path is its own, with the
// content that is there.
func (i *image) claim(pkg, path string) {
	i.Helper()
	b, err := os.ReadFile(i.path(path))
	i.must(err)
	i.add("var/lib/dpkg/info/"+pkg+".list", "/"+path)
	i.add("var/lib/dpkg/info/"+pkg+".md5sums", fmt.Sprintf("%x  %s", md5.Sum(b), path))
}

// upgraded is an image in which package one has gone from 1.0 to 2.0.
func upgraded(t *testing.T) *image {
	i := startImage(t)
	i.install("one", "2.0", files{"/usr/bin/one": "one 2.0", "/usr/lib/libone.so.2": "lib 2.0", "/usr/lib/libone.so": "->libone.so.2", "/usr/lib/one/fresh": "y", "/etc/one.conf": "# one\n"})
	return i
}

// noUpdate fails when changes at paths pass for an update of a package, or are
// of less than medium severity.
func (i *image) noUpdate(r *Report, paths ...string) {
	i.Helper()
	for _, p := range paths {
		at := slices.IndexFunc(r.Changes, func(c Change) bool { return string(c.Path) == p })
		if at < 0 {
			i.Errorf("%s: no change", p)
		} else if c := r.Changes[at]; c.Class == PackageUpdate || c.Class == "" || c.Severity.String() == "low" || c.Severity.String() == "info" {
			i.Errorf("%s is %s %s: %s", p, c.Class, c.Severity, c.Reason)
		}
	}
}

// TestForgedAddition: the records of a package that has not changed name a file
// that it did not have.
func TestForgedAddition(t *testing.T) {
	i := startImage(t)
	i.put("usr/bin/evil", "evil")
	i.claim("two", "usr/bin/evil")
	i.expectClasses(i.compare(CompareOptions{}), map[string]string{
		"/usr/bin/evil": "package-modified high", "/var/lib/dpkg/info/two.list": "package-modified high", "/var/lib/dpkg/info/two.md5sums": "package-modified high",
	})
}

// TestForgedClaim: a package that is new claims a file of another, which still
// has it or not.
func TestForgedClaim(t *testing.T) {
	for what, gone := range map[string]bool{"both have it": false, "only the new one has it": true} {
		t.Run(what, func(t *testing.T) {
			i := startImage(t)
			i.put("usr/bin/two", "evil")
			i.install("three", "1.0", files{"/usr/lib/three": "x"})
			i.claim("three", "usr/bin/two")
			if gone {
				list := i.path("var/lib/dpkg/info/two.list")
				b, err := os.ReadFile(list)
				i.must(err)
				i.must(os.WriteFile(list, []byte(strings.Replace(string(b), "/usr/bin/two\n", "", 1)), 0o644))
			}
			r := i.compare(CompareOptions{})
			i.noUpdate(r, "/usr/bin/two")
			if got := class(r, "/usr/lib/three"); got != "package-update info" {
				t.Errorf("what the package brought is %q", got)
			}
		})
	}
}

// TestForgedDatabase: a package manager that was not there before vouches for
// nothing, not even for setuid.
func TestForgedDatabase(t *testing.T) {
	i := startImage(t)
	i.put("usr/bin/evil", "evil")
	i.must(os.Chmod(i.path("usr/bin/evil"), 0o755|os.ModeSetuid))
	i.put("lib/apk/db/installed", "P:evil\nV:1\nA:x86_64\nF:usr/bin\nR:evil\na:0:0:4755\nZ:Q1"+sha1of("evil")+"\n\n")
	r := i.compare(CompareOptions{})
	i.noUpdate(r, "/usr/bin/evil")
	if len(r.Ownership.Managers) != 1 || len(r.Ownership.Problems) != 1 || !strings.Contains(r.Ownership.Problems[0], "no package of apk") {
		t.Errorf("%+v", r.Ownership)
	}
}

// TestForgedOverride: dpkg-statoverride is no word of a package's.
func TestForgedOverride(t *testing.T) {
	i := upgraded(t)
	for _, name := range []string{"usr/bin/one", "usr/bin/two"} {
		i.must(os.Chmod(i.path(name), 0o755|os.ModeSetuid))
		i.add("var/lib/dpkg/statoverride", "root root 4755 /"+name)
	}
	i.expectClasses(i.compare(CompareOptions{}), map[string]string{"/usr/bin/one": "suspicious high", "/usr/bin/two": "suspicious high"})
}

// TestRightsInAnUpdate: an update explains content, and no change of rights
// that the database does not record.
func TestRightsInAnUpdate(t *testing.T) {
	i := upgraded(t)
	i.must(os.Chmod(i.path("usr/bin/one"), 0o777))
	i.must(os.Chmod(i.path("usr/lib/one/fresh"), 0o666))
	i.must(os.Chmod(i.path("usr/lib"), 0o777)) // a directory of both packages
	i.must(os.Chown(i.path("usr/lib/one"), 12345, 0))
	acl := []byte("\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x07\x00\x39\x30\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x07\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff")
	if err := unix.Setxattr(i.path("usr/lib/libone.so.2"), "system.posix_acl_access", acl, 0); err != nil {
		t.Skipf("NOT RUN: no access control lists on this filesystem: %v", err)
	}
	i.expectClasses(i.compare(CompareOptions{}), map[string]string{
		"/usr/bin/one": "package-modified high", "/usr/lib/one/fresh": "package-modified high", "/usr/lib": "package-modified high",
		"/usr/lib/one": "package-modified high", "/usr/lib/libone.so.2": "package-modified high",
	})
}

// TestSetuidOfAnother: the same bits for another user are a new right.
func TestSetuidOfAnother(t *testing.T) {
	i := startImage(t)
	i.put("usr/bin/mine", "x")
	i.must(os.Chown(i.path("usr/bin/mine"), 12345, 12345))
	i.must(os.Chmod(i.path("usr/bin/mine"), 0o755|os.ModeSetuid|os.ModeSetgid))
	i.take()
	i.must(os.Chown(i.path("usr/bin/mine"), 0, 12345)) // takes the bits away
	i.must(os.Chmod(i.path("usr/bin/mine"), 0o755|os.ModeSetuid|os.ModeSetgid))
	i.expectClasses(i.compare(CompareOptions{}), map[string]string{"/usr/bin/mine": "suspicious high"})
}

// TestLinksInAnUpdate: a link of an updated package leads to a package's file,
// and not through a directory that may be a link, or to where anybody writes.
func TestLinksInAnUpdate(t *testing.T) {
	for target, update := range map[string]bool{
		"libone.so.2": true, "../lib/libone.so.2": true, "/usr/lib/libone.so.2": true,
		"/opt/x/../../usr/lib/libone.so.2": false, "../lib/../lib/libone.so.2": false, "/tmp": false, "/usr/lib/libone.so.9": false,
	} {
		i := upgraded(t)
		i.claimDirectory("two", "/tmp")
		i.must(os.Remove(i.path("usr/lib/libone.so")))
		i.must(os.Symlink(target, i.path("usr/lib/libone.so")))
		r := i.compare(CompareOptions{})
		if got := class(r, "/usr/lib/libone.so"); (got == "package-update info") != update {
			t.Errorf("to %s it is %q", target, got)
		}
	}
}

func (i *image) claimDirectory(pkg, path string) {
	i.Helper()
	i.add("var/lib/dpkg/info/"+pkg+".list", path)
}

// TestDirectoryBecomesLink: in an update as well, a directory in whose place
// there is a link, or a file in whose place there is a directory, is told.
func TestDirectoryBecomesLink(t *testing.T) {
	i := upgraded(t)
	i.must(os.RemoveAll(i.path("usr/lib/one")))
	i.must(os.Symlink("two", i.path("usr/lib/one")))
	i.must(os.Remove(i.path("usr/bin/one")))
	i.must(os.Mkdir(i.path("usr/bin/one"), 0o755))
	i.noUpdate(i.compare(CompareOptions{}), "/usr/lib/one", "/usr/bin/one")
}

// TestHidingPlaces: names that package managers use explain nothing by
// themselves.
func TestHidingPlaces(t *testing.T) {
	i := upgraded(t)
	i.put("usr/bin/two.dpkg-old", "evil")
	i.put("var/lib/dpkg/info/one.d/evil.list", "evil")
	i.put("var/lib/dpkg/info/one.payload", "evil")
	i.put("etc/rc2.d/S01evil", "#!/bin/sh\n")
	i.must(os.Chmod(i.path("etc/rc2.d/S01evil"), 0o755))
	i.must(os.Symlink("/tmp/cache", i.path("usr/lib/one/__pycache__")))
	i.must(os.Remove(i.path("var/lib/dpkg/info/one.md5sums")))
	i.must(os.Symlink("/tmp/sums", i.path("var/lib/dpkg/info/one.md5sums")))
	i.must(os.Chmod(i.path("var/lib/dpkg/info/one.list"), 0o666))
	i.put("etc/ld.so.cache", "an index")
	r := i.compare(CompareOptions{})
	if got := class(r, "/etc/ld.so.cache"); got != "unowned low" {
		t.Errorf("what an update does write is %q", got)
	}
	i.noUpdate(r, "/usr/bin/two.dpkg-old", "/etc/rc2.d/S01evil", "/usr/lib/one/__pycache__", "/var/lib/dpkg/info/one.d/evil.list", "/var/lib/dpkg/info/one.payload", "/var/lib/dpkg/info/one.md5sums", "/var/lib/dpkg/info/one.list")
}

// TestForgedConffile: a program does not become configuration by being called so.
func TestForgedConffile(t *testing.T) {
	i := startImage(t)
	status := i.path("var/lib/dpkg/status")
	b, err := os.ReadFile(status)
	i.must(err)
	text := strings.Replace(string(b), " /etc/two.conf ", " /usr/bin/two "+strings.Repeat("0", 32)+"\n /etc/two.conf ", 1)
	if text == string(b) {
		t.Fatal("no conffile in the status")
	}
	i.must(os.WriteFile(status, []byte(text), 0o644))
	i.must(os.WriteFile(i.path("usr/bin/two"), []byte("evil"), 0o755))
	i.must(os.WriteFile(i.path("usr/bin/two.dpkg-dist"), []byte("evil"), 0o755))
	i.expectClasses(i.compare(CompareOptions{}), map[string]string{"/usr/bin/two": "suspicious high", "/usr/bin/two.dpkg-dist": "suspicious high"})
}

// TestMovedAway: what a file was moved away from is judged as well.
func TestMovedAway(t *testing.T) {
	i := startImage(t)
	i.put("etc/watchdog", "the same text")
	i.take()
	i.install("three", "1.0", files{"/usr/lib/three": "the same text"})
	i.must(os.Remove(i.path("etc/watchdog")))
	i.must(os.Mkdir(i.path("srv"), 0o755))
	i.must(os.Rename(i.path("usr/lib/two/data"), i.path("srv/data")))
	r := i.compare(CompareOptions{})
	for path, want := range map[string]string{"/usr/lib/three": "unowned", "/srv/data": "package-modified"} {
		at := slices.IndexFunc(r.Changes, func(c Change) bool { return string(c.Path) == path })
		if c := r.Changes[at]; c.Kind != Moved || string(c.Class) != want {
			t.Errorf("%s is %s %s: %s", path, c.Kind, c.Class, c.Reason)
		}
	}
}

// TestOwnersGone: removing the table of packages makes no change an update.
func TestOwnersGone(t *testing.T) {
	i := upgraded(t)
	c, err := i.Find(t.Context(), "default")
	i.must(err)
	i.must(os.Remove(i.ownersFile(c)))
	r := i.compare(CompareOptions{})
	i.noUpdate(r, "/usr/bin/one")
	if len(r.Ownership.Problems) == 0 {
		t.Error("nothing is said about the table")
	}
}

// TestArchiveNotAtHand: who brings archives is told of an update whose archive
// is not among them.
func TestArchiveNotAtHand(t *testing.T) {
	i := startImage(t)
	i.must(os.Remove(i.install("one", "2.0", files{"/usr/bin/one": "one 2.0"})))
	if got := class(i.compare(CompareOptions{}), "/usr/bin/one"); got != "package-update info" {
		t.Errorf("without archives it is %q", got)
	}
	if got := class(i.compare(CompareOptions{PackageArchive: i.debs}), "/usr/bin/one"); got != "package-update medium" {
		t.Errorf("it is %q", got)
	}
}

// TestAcceptInParts: a package whose changes were accepted in two parts is
// known in its new version afterwards, and its finding is resolved.
func TestAcceptInParts(t *testing.T) {
	i := upgraded(t)
	r := i.compare(CompareOptions{})
	i.accept(AcceptOptions{Paths: [][]byte{[]byte("/usr/bin/one")}})
	i.accept(AcceptOptions{All: true, Report: r.ID})
	if open := i.openFindings(); len(open) != 0 {
		t.Errorf("open: %q", open)
	}
	i.must(os.WriteFile(i.path("usr/bin/one"), []byte("evil"), 0o755))
	i.claim("one", "usr/bin/one")
	i.noUpdate(i.compare(CompareOptions{}), "/usr/bin/one")
}

// TestDatabaseChangesBeforeAccept: the table of packages gets the version that
// was reported, and no later one.
func TestDatabaseChangesBeforeAccept(t *testing.T) {
	i := upgraded(t)
	i.compare(CompareOptions{})
	status := i.path("var/lib/dpkg/status")
	b, err := os.ReadFile(status)
	i.must(err)
	i.must(os.WriteFile(status, []byte(strings.Replace(string(b), "Version: 2.0", "Version: 3.0", 1)), 0o644))
	a := i.accept(AcceptOptions{All: true})
	o, err := i.loadOwners(a.Entry)
	i.must(err)
	for _, p := range o.Packages() {
		if p.Name == "one" && p.Version != "1.0" {
			t.Errorf("the table has %s, of which nothing was reported", p)
		}
	}
}

// sha1of is a digest as apk writes it.
func sha1of(text string) string {
	sum := sha1.Sum([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// TestForgedVersion: a version that was written into the database, of a package
// whose files nobody wrote anew, is no update. A real one is, though it leaves
// a configuration file as it was.
func TestForgedVersion(t *testing.T) {
	i := startImage(t)
	time.Sleep(1100 * time.Millisecond) // the files are older than the baseline, by the second
	i.take()
	i.install("one", "2.0", files{"/usr/bin/one": "one 2.0"})
	status := i.path("var/lib/dpkg/status")
	b, err := os.ReadFile(status)
	i.must(err)
	text := strings.Replace(string(b), "Package: two\n", "Package: two\nX-Two: x\n", 1)
	head, tail, _ := strings.Cut(text, "X-Two: x\n")
	i.must(os.WriteFile(status, []byte(head+strings.Replace(tail, "Version: 1.0", "Version: 1.1", 1)), 0o644))
	i.must(os.WriteFile(i.path("usr/bin/two"), []byte("evil"), 0o755))
	i.claim("two", "usr/bin/two")
	i.put("usr/lib/two/evil", "evil")
	i.claim("two", "usr/lib/two/evil")
	r := i.compare(CompareOptions{})
	i.noUpdate(r, "/usr/bin/two", "/usr/lib/two/evil", "/var/lib/dpkg/info/two.md5sums", "/var/lib/dpkg/info/two.list")
	if got := class(r, "/usr/bin/one"); got != "package-update info" {
		t.Errorf("the real update is %q", got)
	}
	if p := r.Ownership.Problems; len(p) != 1 || !strings.Contains(p[0], "two 1.1 (dpkg) was version 1.0 before, and /usr/lib/two/data was not written anew") {
		t.Errorf("%q", p)
	}
	i.install("two", "1.2", files{"/usr/bin/two": "two 1.2", "/usr/lib/two/data": "data", "/etc/two.conf": "# two\n"})
	r = i.compare(CompareOptions{})
	if got := class(r, "/usr/bin/two"); got != "package-update info" || len(r.Ownership.Problems) != 0 {
		t.Errorf("the real update is %q, %q", got, r.Ownership.Problems)
	}
	// Accepted in part, it still is one, though the rest is as in the baseline.
	i.accept(AcceptOptions{Paths: [][]byte{[]byte("/usr/lib/two/data")}})
	r = i.compare(CompareOptions{})
	if got := class(r, "/usr/bin/two"); got != "package-update info" || len(r.Ownership.Problems) != 0 {
		t.Errorf("after accepting a part of it, it is %q, %q", got, r.Ownership.Problems)
	}
}
