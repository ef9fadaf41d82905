package integrity

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/generated"
	"github.com/mobileops/mobileops/internal/integrity/packages"
	"github.com/mobileops/mobileops/pkg/filehash"
	"golang.org/x/sys/unix"
)

// Ownership is what the classes of a report rest on.
type Ownership struct {
	Managers []packages.Manager `json:"managers"`           // whose databases were read; none: nothing is known
	Archive  string             `json:"archive,omitempty"`  // directory of package files that were compared with
	Problems []string           `json:"problems,omitempty"` // what of them could not be read
	Elapsed  time.Duration      `json:"-"`                  // what asking them took
}

// classifier says whose a change is: it holds what is there now against what
// the package databases record, and knows which packages have changed since the
// baseline.
//
// Root can write the databases. So a class is a way to sort a report, and never
// takes a change out of it; only package archives that the admin brings along
// can vouch for content.
type classifier struct {
	report   *Report
	set      *packages.Set
	archives *packages.Archives // nil: none
	then     *packages.Owners   // nil: the baseline has none
	distrust bool               // it has one that is not what it was: nothing counts as updated
	before   map[string]packages.Package
	forged   map[packages.Package]bool // that claim a version which nobody installed
	changed  []string                  // names of packages that were installed, removed or updated since
	single   *single
	now      map[string][]packages.File // by path
	versions map[string]packages.Package
	digests  map[digestKey]digest
	archived map[string]*packages.File    // by archiveKey
	accounts map[string]map[string]string // of /etc/passwd and /etc/group: name → number
}

// classify gives every change its class, and the severity that goes with it.
func (e *Engine) classify(ctx context.Context, r *Report, archiveDir string, was *baseline.Reader) error {
	if len(r.Changes) == 0 {
		return nil
	}
	started := time.Now()
	c := &classifier{report: r, accounts: map[string]map[string]string{}}
	own := &Ownership{Managers: []packages.Manager{}, Archive: archiveDir}
	r.Ownership = own
	defer func() { own.Elapsed = time.Since(started) }()
	var err error
	if archiveDir != "" {
		if c.archives, err = packages.OpenArchives(archiveDir); err != nil {
			return err
		}
		defer c.archives.Close()
	}
	if c.single, err = openSingle(r.Tree); err != nil {
		return err
	}
	defer c.single.Close()
	trouble := func(err error) { own.Problems = append(own.Problems, err.Error()) }
	if c.set, err = packages.Open(r.Tree); err != nil {
		trouble(err)
	} else {
		defer c.set.Close()
		own.Managers = append(own.Managers, c.set.Managers()...)
	}
	if len(own.Managers) > 0 {
		if c.then, err = e.loadOwners(r.Baseline); err != nil {
			// Who removes the table must not win by it.
			c.distrust = true
			trouble(fmt.Errorf("%w: nothing counts as an update of a package", err))
		}
		if err := c.look(ctx, was); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			// A damaged database knows nothing: the changes stand as they are.
			trouble(err)
			c.now, own.Managers = nil, []packages.Manager{}
		}
	}
	for i := range r.Changes {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.one(ctx, &r.Changes[i], len(own.Managers) > 0)
	}
	if c.set != nil {
		for _, p := range c.set.Problems() {
			trouble(p)
		}
	}
	if c.archives != nil {
		for _, p := range c.archives.Problems() {
			trouble(p)
		}
	}
	sortChanges(r.Changes)
	return nil
}

// look asks the databases about every path that matters: those of the changes,
// where moved files were, and where links lead to.
func (c *classifier) look(ctx context.Context, was *baseline.Reader) error {
	list, err := c.set.Packages(ctx)
	if err != nil {
		return err
	}
	stranger := c.strangers()
	list = slices.DeleteFunc(list, func(p packages.Package) bool { return stranger[p.Manager] })
	c.versions = byName(list)
	if c.then != nil {
		c.before = byName(c.then.Packages())
		cur := was.Cursor()
		defer cur.Close()
		if err := c.claimed(ctx, cur); err != nil {
			return err
		}
		for name, p := range c.versions {
			if c.before[name] != p && !c.forged[p] {
				c.changed = append(c.changed, name)
			}
		}
		for name := range c.before {
			if _, there := c.versions[name]; !there {
				c.changed = append(c.changed, name)
			}
		}
		slices.Sort(c.changed)
	}
	seen := map[string]bool{}
	var paths [][]byte
	want := func(p []byte) {
		if p != nil && !seen[string(p)] {
			seen[string(p)] = true
			paths = append(paths, p)
		}
	}
	for i := range c.report.Changes {
		ch := &c.report.Changes[i]
		want(ch.Path)
		want(ch.From)
		want(besides(ch.Path))
		if n := ch.Now; n != nil && n.Info.Type() == unix.S_IFLNK {
			want(leadsTo(n))
		}
	}
	files, err := c.set.Lookup(ctx, paths)
	if err != nil {
		return err
	}
	c.now = make(map[string][]packages.File, len(paths))
	for i, p := range paths {
		c.now[string(p)] = slices.DeleteFunc(files[i], func(f packages.File) bool {
			// No package is called like that; a report would show it as another one.
			return stranger[f.Package.Manager] || strings.ContainsAny(f.Package.Name, " ()\n\t")
		})
	}
	c.hash(ctx)
	if c.archives != nil {
		return c.unpack(ctx)
	}
	return ctx.Err()
}

// strangers returns the package managers that had no package when the baseline
// was taken. A database is a file that anybody with root can put somewhere, and
// apk's is a text: what is in one that is new says nothing.
func (c *classifier) strangers() map[packages.Manager]bool {
	if c.then == nil {
		return nil
	}
	known, strange := map[packages.Manager]bool{}, map[packages.Manager]bool{}
	for _, p := range c.then.Packages() {
		known[p.Manager] = true
	}
	own := c.report.Ownership
	own.Managers = slices.DeleteFunc(own.Managers, func(m packages.Manager) bool {
		if known[m] || len(known) == 0 {
			return false
		}
		strange[m] = true
		own.Problems = append(own.Problems, fmt.Sprintf("there was no package of %s when the baseline was taken: what its database says does not count before the next baseline", m))
		return true
	})
	return strange
}

// byName indexes packages by name and architecture, which dpkg can install side
// by side.
func byName(list []packages.Package) map[string]packages.Package {
	m := make(map[string]packages.Package, len(list))
	for _, p := range list {
		m[p.Name] = p
		m[p.Name+":"+p.Arch] = p
	}
	return m
}

// leadsTo returns where a symbolic link leads, as text alone; nil when that
// cannot be told from the text, or is where others than root put files.
func leadsTo(n *baseline.Record) []byte {
	t := string(n.Target)
	down := false
	for part := range strings.SplitSeq(t, "/") {
		if part == ".." && down {
			return nil // the directory before it may be a link itself
		}
		down = down || part != "" && part != "." && part != ".."
	}
	if !strings.HasPrefix(t, "/") {
		t = string(n.Dir) + "/" + t
	}
	to := []byte(path.Clean(t))
	// Packages have these directories, and not what is in them.
	for _, base := range []string{"/tmp", "/var/tmp", "/dev", "/proc", "/home", "/usr/local"} {
		if within(to, []byte(base)) {
			return nil
		}
	}
	return to
}

// besides returns the configuration file that a package manager or an admin's
// choice left this one beside, nil when it is none of those.
func besides(p []byte) []byte {
	for _, ext := range []string{".dpkg-old", ".dpkg-new", ".dpkg-dist", ".dpkg-bak", ".dpkg-tmp", ".ucf-old", ".ucf-new", ".ucf-dist", ".rpmnew", ".rpmsave", ".rpmorig", ".apk-new"} {
		if base, ok := bytes.CutSuffix(p, []byte(ext)); ok {
			return base
		}
	}
	return nil
}

// verdict is what the classifier says of a change.
type verdict struct {
	class  Class
	pkg    packages.Package
	reason string
	least  finding.Severity // raised to this
	most   finding.Severity // lowered to this
	rights bool             // also owner and permissions are those of the package
}

// one classifies one change.
func (c *classifier) one(ctx context.Context, ch *Change, known bool) {
	v := verdict{most: finding.Critical}
	gained := gainsRights(ch)
	switch {
	case known:
		v = c.judge(ctx, ch)
	case gained == "":
		return // no package manager: nobody knows whose it is
	}
	if gained != "" && !(v.class == PackageUpdate && v.rights && gained != newCapabilities) {
		v.class, v.least, v.most = Suspicious, finding.High, finding.Critical
		v.reason = join(gained, v.reason)
	}
	ch.Class, ch.Package, ch.Reason = v.class, v.pkg.String(), v.reason
	ch.Severity = max(min(ch.Severity, v.most), v.least)
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// judge says whose a change is.
func (c *classifier) judge(ctx context.Context, ch *Change) verdict {
	files := c.now[string(ch.Path)]
	if ch.Now == nil {
		return c.removed(ch.Path, files)
	}
	var v verdict
	if len(files) == 0 {
		v = c.unowned(ch)
	} else {
		v = c.owned(ctx, ch, files)
	}
	if ch.From != nil {
		// What it was moved away from must be explained as well.
		was := c.removed(ch.From, c.now[string(ch.From)])
		if v.class == PackageUpdate && was.class != PackageUpdate || v.class == Unowned && was.class == PackageModified {
			was.reason = fmt.Sprintf("%s, from where it was moved: %s", ch.From, was.reason)
			return was
		}
	}
	return v
}

// removed judges what is no longer there.
func (c *classifier) removed(p []byte, files []packages.File) verdict {
	var then packages.Package
	owned := false
	if c.then != nil {
		then, owned = c.then.Lookup(p)
	}
	if len(files) > 0 {
		f := &files[0]
		switch {
		case f.Conffile:
			return verdict{class: Conffile, pkg: f.Package, reason: "a configuration file of its package was removed", most: finding.Critical}
		case f.Ghost:
			return verdict{class: PackageUpdate, pkg: f.Package, reason: "its package says that it need not be there", most: finding.Low}
		case f.Alternative:
			return verdict{class: PackageModified, pkg: f.Package, reason: "update-alternatives still has this link", least: finding.Medium, most: finding.Critical}
		}
		return verdict{class: PackageModified, pkg: f.Package, reason: "its package still has it", least: finding.Medium, most: finding.Critical}
	}
	if !owned {
		if v, ok := c.explained(p, nil); ok {
			return v
		}
		return verdict{class: Unowned, reason: "no package had it", most: finding.Critical}
	}
	now, there := c.versions[then.Name+":"+then.Arch]
	switch {
	case !there:
		return verdict{class: PackageUpdate, pkg: then, reason: "its package was removed"}
	case now.Version != then.Version && !c.forged[now]:
		return verdict{class: PackageUpdate, pkg: now, reason: fmt.Sprintf("its package no longer has it since it went from %s to %s", then.Version, now.Version)}
	}
	return verdict{class: PackageModified, pkg: now, reason: "its package has the same version as before and no longer lists it", least: finding.High, most: finding.Critical}
}

// explained judges a file that no package has by what is known of packages'
// scripts and triggers.
// now is how it was found, nil when it was removed.
func (c *classifier) explained(p []byte, now *baseline.Record) (verdict, bool) {
	if record, ok := bytes.CutPrefix(p, []byte("/var/lib/dpkg/info/")); ok {
		if v, ok := c.dpkgRecord(record, now); ok {
			return v, true
		}
	}
	if now != nil && (now.Info.Type() == unix.S_IFREG && now.Info.Mode&0o111 != 0 || now.Info.Type() == unix.S_IFLNK && leadsTo(now) == nil) {
		return verdict{}, false // what scripts write are indexes and settings, and links to what packages have
	}
	if name, severity, ok := generated.By(p, c.changed); ok {
		return verdict{class: Unowned, reason: fmt.Sprintf("written by package scripts, and package %s has changed; its content cannot be compared with anything", name), most: severity}, true
	}
	return verdict{}, false
}

// dpkgRecords are the names that files about a package end with
// (deb-control(5) and the pages it refers to; "config" is debconf's).
var dpkgRecords = []string{"list", "md5sums", "conffiles", "preinst", "postinst", "prerm", "postrm", "config", "templates", "triggers", "shlibs", "symbols"}

// dpkgRecord judges a file of dpkg's own about a package: "NAME.EXTENSION" or
// "NAME:ARCHITECTURE.EXTENSION". Among them are the digests that classes rest
// on, and scripts that root runs at the next upgrade.
func (c *classifier) dpkgRecord(file []byte, now *baseline.Record) (verdict, bool) {
	dot := bytes.LastIndexByte(file, '.') // names may have dots in them
	if dot < 0 || !slices.Contains(dpkgRecords, string(file[dot+1:])) {
		return verdict{}, false
	}
	if now != nil && (now.Info.Type() != unix.S_IFREG || now.Info.UID != 0 || now.Info.Mode&0o022 != 0) {
		return verdict{}, false // nothing that dpkg writes
	}
	name := string(file[:dot])
	bare, _, _ := strings.Cut(name, ":")
	pkg, there := c.versions[name]
	switch {
	case slices.Contains(c.changed, name), slices.Contains(c.changed, bare):
		return verdict{class: PackageUpdate, pkg: pkg, reason: "dpkg's records about a package that has changed"}, true
	case there && c.then != nil:
		return verdict{class: PackageModified, pkg: pkg, least: finding.High, most: finding.Critical,
			reason: "dpkg's records about a package that has not changed: what else is said of this package may rest on them"}, true
	}
	return verdict{}, false
}

// unowned judges what is there and is no package's.
func (c *classifier) unowned(ch *Change) verdict {
	if base := besides(ch.Path); base != nil {
		files := c.now[string(base)]
		if slices.ContainsFunc(files, func(f packages.File) bool { return f.Conffile }) && !programs(ch) {
			return verdict{class: Conffile, pkg: files[0].Package, reason: "left beside the configuration file of its package", most: finding.Low}
		}
	}
	if v, ok := c.explained(ch.Path, ch.Now); ok {
		return v
	}
	if n := ch.Now; c.leadsToPackage(n) && within(ch.Path, []byte("/etc")) {
		if to := c.now[string(leadsTo(n))][0].Package; slices.Contains(c.changed, to.Name) {
			return verdict{class: Unowned, pkg: to, reason: "leads to a file of a package that has changed", most: finding.Medium}
		}
	}
	if c.then != nil {
		if then, owned := c.then.Lookup(ch.Path); owned && ch.Kind == Changed {
			return verdict{class: PackageModified, pkg: then, reason: "a package had it, and none has it now", least: finding.Medium, most: finding.Critical}
		}
	}
	if ch.Kind != Changed && systemDir(ch.Path) && ch.Now.Info.Type() != unix.S_IFDIR && ch.Severity > finding.Low {
		return verdict{class: Suspicious, reason: "among the system's programs, and no package has it", least: finding.High, most: finding.Critical}
	}
	return verdict{class: Unowned, reason: "no package has it", most: finding.Critical}
}

// systemDir tells whether a path is where packages alone put files: programs
// and libraries, other than those of the admin.
func systemDir(p []byte) bool {
	for _, base := range []string{"/usr/local", "/usr/src"} {
		if within(p, []byte(base)) {
			return false
		}
	}
	rest := bytes.TrimPrefix(p, []byte("/usr"))
	dir, _, _ := bytes.Cut(bytes.TrimPrefix(rest, []byte("/")), []byte("/"))
	switch string(dir) {
	case "bin", "sbin", "lib", "lib32", "lib64", "libx32", "libexec", "games":
		return bytes.HasPrefix(rest, []byte("/"))
	}
	return false
}

// programs tells whether a change leaves something among the system's programs
// that can be run.
func programs(ch *Change) bool { return systemDir(ch.Path) && executable(ch.Now) }

// newCapabilities is what gainsRights says of those: no database that is read
// records them.
const newCapabilities = "new capabilities"

// gainsRights says which right to act as somebody else a change gives a file,
// and "" for none.
func gainsRights(ch *Change) string {
	n := ch.Now
	if n == nil || n.Info.Type() != unix.S_IFREG {
		return ""
	}
	caps := slices.ContainsFunc(n.Xattrs, func(x filehash.Xattr) bool { return x.Name == "security.capability" })
	set := n.Info.Mode & (unix.S_ISUID | unix.S_ISGID)
	if n.Info.Mode&unix.S_ISGID != 0 && n.Info.Mode&unix.S_IXGRP == 0 {
		set &^= unix.S_ISGID // mandatory locking of old: no right
	}
	if ch.Kind == Changed || ch.Kind == Moved {
		was := set
		for _, a := range ch.Attributes {
			switch a.Name {
			case "mode":
				was = octal(a.Old)
			case "uid":
				was &^= unix.S_ISUID // as another user than before
			case "gid":
				was &^= unix.S_ISGID
			case "type":
				was = 0
			}
		}
		set &^= was
		caps = caps && slices.ContainsFunc(ch.Attributes, func(a Attribute) bool { return a.Name == "caps" })
	}
	switch {
	case set&unix.S_ISUID != 0:
		return fmt.Sprintf("newly setuid, and runs as user %d", n.Info.UID)
	case set&unix.S_ISGID != 0:
		return fmt.Sprintf("newly setgid, and runs as group %d", n.Info.GID)
	case caps:
		return newCapabilities
	}
	return ""
}

func octal(s string) (n uint32) {
	fmt.Sscanf(s, "%o", &n)
	return n
}

// sortChanges puts the worst first, and of what is as bad what is suspicious.
func sortChanges(list []Change) {
	slices.SortStableFunc(list, func(a, b Change) int {
		if a.Severity != b.Severity {
			return int(b.Severity) - int(a.Severity)
		}
		if x, y := a.Class == Suspicious, b.Class == Suspicious; x != y {
			if x {
				return -1
			}
			return 1
		}
		return bytes.Compare(a.Path, b.Path)
	})
}
