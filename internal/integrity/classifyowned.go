package integrity

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/packages"
	"github.com/mobileops/mobileops/pkg/filehash"
	"golang.org/x/sys/unix"
)

// owned judges what is there and belongs to a package, or to several that
// share it. Of a directory, and with rpm of a file for several architectures,
// it is enough that one of them explains it. Otherwise all of them must: dpkg
// and apk let packages share a file only when it is the same in each, so one
// that claims the file of another does not speak for it.
func (c *classifier) owned(ctx context.Context, ch *Change, files []packages.File) verdict {
	one := ch.Now.Info.Type() == unix.S_IFDIR || !slices.ContainsFunc(files, func(f packages.File) bool { return f.Package.Manager != packages.RPM })
	v := c.ownedBy(ctx, ch, &files[0])
	for i := 1; i < len(files) && one == (v.class != PackageUpdate); i++ {
		if other := c.ownedBy(ctx, ch, &files[i]); one == (other.class == PackageUpdate) {
			v = other
		}
	}
	if v.class == PackageUpdate && ch.Kind == Changed && !one {
		return c.takenOver(ch, files, v)
	}
	return v
}

// takenOver judges a package's file that was another's before: that other one
// must have changed with it, or have left the name to a diversion.
func (c *classifier) takenOver(ch *Change, files []packages.File, v verdict) verdict {
	if c.then == nil {
		return v
	}
	then, owned := c.then.Lookup(ch.Path)
	if !owned || c.updated(then) || slices.ContainsFunc(files, func(f packages.File) bool { return f.Alternative || f.Package.Name == then.Name }) {
		return v
	}
	if now, there := c.versions[then.Name+":"+then.Arch]; !there || now != then {
		return v
	}
	return verdict{class: PackageModified, pkg: v.pkg, least: finding.Medium, most: finding.Critical,
		reason: fmt.Sprintf("it was of %s, which has not changed, and another package claims it now", then)}
}

func (c *classifier) ownedBy(ctx context.Context, ch *Change, f *packages.File) verdict {
	v := verdict{class: PackageUpdate, pkg: f.Package, most: finding.Info}
	updated := c.updated(f.Package)
	match, why := c.content(ctx, ch.Now, f)
	vouched := false // by an archive
	if c.archives != nil && match != differs {
		arch, inArchive := c.archived[archiveKey(f.Package, ch.Path)]
		switch {
		case !inArchive:
			why = join(why, "no archive of this version is at hand")
			if ch.Now.Info.Type() != unix.S_IFDIR {
				v.most = finding.Medium // who brings archives wants to know
			}
		default:
			match, why = c.content(ctx, ch.Now, arch)
			if match == differs {
				return verdict{class: Suspicious, pkg: f.Package, least: finding.Critical, most: finding.Critical,
					reason: "as the package database says, and not as in the package's archive: the database was altered, or the archive is another one"}
			}
			vouched = match == matches
			f = arch
		}
	}
	switch match {
	case differs:
		return c.modified(ch, f, v.pkg, why)
	case unknown:
		switch {
		case f.Ghost:
			return verdict{class: Conffile, pkg: v.pkg, reason: "its package lets it have any content", most: finding.Medium}
		case !updated:
			return verdict{class: PackageModified, pkg: v.pkg, reason: join("its package has not changed", why), least: finding.Medium, most: finding.Critical}
		case wasDirectory(ch), !c.leadsToPackage(ch.Now):
			return verdict{class: PackageModified, pkg: v.pkg, reason: why, most: finding.Critical}
		}
		v.reason = "its package, which has changed, records no target of it; it leads to a package's file"
	case matches:
		v.reason = why
		switch {
		case vouched:
			v.reason = "as in the archive of " + v.pkg.String()
		case updated:
			v.reason = join(c.source(v.pkg), why)
		case changesContent(ch):
			return verdict{class: PackageModified, pkg: v.pkg, least: finding.High, most: finding.Critical,
				reason: "its content has changed and its package has not, and yet it is what the package database says: it was wrong before, or the database was altered"}
		case c.unheardOf(ch, v.pkg):
			return verdict{class: PackageModified, pkg: v.pkg, least: finding.High, most: finding.Critical,
				reason: "its package has not changed and did not have it, and now the package database says so: the database was altered"}
		default:
			v.most = finding.Low
			v.reason = join(v.reason, "its content is as in the package database, and its package has not changed")
		}
	}
	recorded := c.permissions(ch.Now, f)
	why = ""
	switch {
	case recorded == differs:
		why = "its owner or permissions are not those of its package"
	case !vouched && !updated && changesRights(ch):
		why = "its owner, permissions or links were changed, and its package was not"
	case recorded == unknown && opens(ch):
		why = "its owner, permissions or links are others than before, or everybody may write it, and the package database does not record them"
	case addsRights(ch):
		why = "it has an access control list or attributes that no package brings"
	}
	if why != "" {
		return verdict{class: PackageModified, pkg: v.pkg, reason: why, least: finding.Medium, most: finding.Critical}
	}
	// What dpkg knows of permissions are overrides, which packages do not bring.
	v.rights = recorded == matches && (vouched || v.pkg.Manager != packages.Dpkg)
	return v
}

// unheardOf tells whether a package that has not changed did not have at a
// path what it is said to have there now.
func (c *classifier) unheardOf(ch *Change, p packages.Package) bool {
	if c.then == nil || ch.Kind == Changed {
		return false
	}
	then, owned := c.then.Lookup(ch.Path)
	return !owned || then.Name != p.Name && ch.Now.Info.Type() != unix.S_IFDIR
}

// wasDirectory tells whether there was a directory before: what is in it, or
// seems to be, is another matter now.
func wasDirectory(ch *Change) bool {
	return slices.ContainsFunc(ch.Attributes, func(a Attribute) bool { return a.Name == "type" && a.Old == typeName(unix.S_IFDIR) })
}

// opens tells whether a change is one of owner or permissions, or adds what
// everybody may write.
func opens(ch *Change) bool {
	if n := ch.Now; n.Info.Type() != unix.S_IFLNK && n.Info.Mode&0o002 != 0 && n.Info.Mode&unix.S_ISVTX == 0 {
		return true
	}
	return slices.ContainsFunc(ch.Attributes, func(a Attribute) bool {
		return a.Name == "mode" || a.Name == "uid" || a.Name == "gid" || a.Name == "links" && ch.Now.Info.Type() != unix.S_IFDIR
	})
}

// addsRights tells whether a change gives an entry an access control list,
// another attribute or a flag. Unpacking a package anew takes them away.
func addsRights(ch *Change) bool {
	if ch.Kind == Added && slices.ContainsFunc(ch.Now.Xattrs, func(x filehash.Xattr) bool { return strings.HasPrefix(x.Name, "system.posix_acl_") }) {
		return true
	}
	return slices.ContainsFunc(ch.Attributes, func(a Attribute) bool {
		switch a.Name {
		case "acl", "flags", "xattrs":
			return a.New != "none"
		}
		return false
	})
}

// changesContent tells whether a change is one of what is in a file or where a
// link leads.
func changesContent(ch *Change) bool {
	return ch.Kind == Changed && slices.ContainsFunc(ch.Attributes, func(a Attribute) bool {
		return a.Name == "content" || a.Name == "target" || a.Name == "type"
	})
}

// source says on what word a content is taken for the package's.
func (c *classifier) source(p packages.Package) string {
	was, known := c.before[p.Name+":"+p.Arch]
	switch {
	case c.then == nil:
		return "consistent with the package database"
	case !known:
		return "consistent with the package database; the package is new"
	}
	return fmt.Sprintf("consistent with the package database; the package went from %s to %s", was.Version, p.Version)
}

// updated tells whether a package was installed or changed since the baseline.
func (c *classifier) updated(p packages.Package) bool {
	if c.distrust || c.forged[p] {
		return false
	}
	if c.then == nil {
		return true // nobody knows: what the database says is all there is
	}
	return c.before[p.Name+":"+p.Arch] != p
}

// modified judges a package's file that is not as it is recorded.
func (c *classifier) modified(ch *Change, f *packages.File, pkg packages.Package, why string) verdict {
	switch {
	case f.Ghost:
		return verdict{class: Conffile, pkg: pkg, reason: "its package lets it have any content", most: finding.Medium}
	case f.Conffile && !programs(ch):
		return verdict{class: Conffile, pkg: pkg, reason: "a configuration file that is not as its package brought it", most: finding.Critical}
	case executable(ch.Now):
		return verdict{class: Suspicious, pkg: pkg, reason: "a program or library that is in no known version of its package: " + why, least: finding.High, most: finding.Critical}
	}
	return verdict{class: PackageModified, pkg: pkg, reason: why, least: finding.Medium, most: finding.Critical}
}

// executable tells whether a file is run or loaded into what is run.
func executable(n *baseline.Record) bool {
	if n.Info.Type() != unix.S_IFREG {
		return false
	}
	name := string(n.Name)
	for _, part := range []string{".so", ".ko", ".so.", ".ko."} {
		if strings.HasSuffix(name, part) || len(part) == 4 && strings.Contains(name, part) {
			return true
		}
	}
	return n.Info.Mode&0o111 != 0
}

// match is the outcome of a comparison that may not be possible.
type match int

const (
	unknown match = iota
	matches
	differs
)

// content compares what is there with what is recorded of its content or, of a
// link, of where it leads. The reason says more, where there is more to say.
func (c *classifier) content(ctx context.Context, n *baseline.Record, f *packages.File) (match, string) {
	switch n.Info.Type() {
	case unix.S_IFDIR:
		if !f.Digest.IsZero() || f.LinkTarget != "" {
			return differs, "it is a directory now"
		}
		return matches, ""
	case unix.S_IFLNK:
		return c.link(n, f)
	case unix.S_IFREG:
	default:
		return differs, "it is no regular file any more"
	}
	if f.LinkTarget != "" {
		return differs, "its package has a symbolic link there"
	}
	if n.Content != filehash.Hashed {
		return unknown, "its content was not read"
	}
	if f.Digest.IsZero() {
		return unknown, "its package records no digest of it"
	}
	h := f.Digest.New()
	if h == nil {
		return unknown, "its package records a digest of an unknown kind"
	}
	d, done := c.digests[digestKey{n, f.Digest.Algorithm}]
	if !done {
		d.sum, d.err = c.single.digest(ctx, n, h)
	}
	if d.err != nil {
		return unknown, "it could not be read again: " + d.err.Error()
	}
	if !f.Digest.Equal(d.sum) {
		return differs, fmt.Sprintf("its %s is not the one recorded for %s", f.Digest.Algorithm, f.Package)
	}
	return matches, ""
}

// digestKey is a content and how it is to be hashed.
type digestKey struct {
	rec       *baseline.Record
	algorithm string
}

type digest struct {
	sum []byte
	err error
}

// hash computes the digests that the databases ask for, on all cores: they are
// MD5 mostly, and take longer than everything else.
func (c *classifier) hash(ctx context.Context) {
	var keys []digestKey
	seen := map[digestKey]bool{}
	for i := range c.report.Changes {
		n := c.report.Changes[i].Now
		if n == nil || n.Content != filehash.Hashed {
			continue
		}
		for _, f := range c.now[string(c.report.Changes[i].Path)] {
			if k := (digestKey{n, f.Digest.Algorithm}); !f.Digest.IsZero() && !seen[k] {
				seen[k] = true
				keys = append(keys, k)
			}
		}
	}
	out := make([]digest, len(keys))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(keys)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(keys) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				d := packages.Digest{Algorithm: keys[i].algorithm}
				if h := d.New(); h != nil {
					out[i].sum, out[i].err = c.single.digest(ctx, keys[i].rec, h)
				}
			}
		})
	}
	wg.Wait()
	c.digests = make(map[digestKey]digest, len(keys))
	for i, k := range keys {
		if out[i].sum != nil || out[i].err != nil {
			c.digests[k] = out[i]
		}
	}
}

// link compares where a link leads. apk records the digest of that text, and
// dpkg nothing.
func (c *classifier) link(n *baseline.Record, f *packages.File) (match, string) {
	switch {
	case f.LinkTarget != "" && f.LinkTarget == string(n.Target):
		if f.Alternative {
			return matches, "as update-alternatives set it"
		}
		return matches, ""
	case f.LinkTarget == "" && !f.Digest.IsZero() && f.Digest.New() != nil:
		h := f.Digest.New()
		h.Write(n.Target)
		if f.Digest.Equal(h.Sum(nil)) {
			return matches, ""
		}
		return differs, "it does not lead where its package has it lead"
	case f.LinkTarget != "":
		return differs, "it leads to " + string(n.Target) + ", and its package has it lead to " + f.LinkTarget
	}
	return unknown, "its package records no target of it"
}

// leadsToPackage tells whether a record is a link to a package's file.
func (c *classifier) leadsToPackage(n *baseline.Record) bool {
	return n.Info.Type() == unix.S_IFLNK && len(c.now[string(leadsTo(n))]) > 0
}

// permissions compares owner and permissions with what is recorded.
func (c *classifier) permissions(n *baseline.Record, f *packages.File) match {
	if f.Mode == nil || n.Info.Type() == unix.S_IFLNK {
		return unknown
	}
	if *f.Mode&0o7777 != n.Info.Mode&0o7777 || *f.Mode&unix.S_IFMT != 0 && *f.Mode&unix.S_IFMT != n.Info.Type() {
		return differs
	}
	for _, o := range []struct {
		name, file string
		id         uint32
	}{{f.Owner, "/etc/passwd", n.Info.UID}, {f.Group, "/etc/group", n.Info.GID}} {
		if o.name == "" {
			continue
		}
		id, ok := c.number(o.file, o.name)
		switch {
		case !ok:
			return unknown
		case id != o.id:
			return differs
		}
	}
	return matches
}

// number returns the number of a user or group of the tree, which is in its
// passwd(5) or group(5), or is written as "#" and the number.
func (c *classifier) number(file, name string) (uint32, bool) {
	text, isNumber := strings.CutPrefix(name, "#")
	if !isNumber {
		if name == "root" {
			return 0, true
		}
		if c.accounts[file] == nil {
			c.accounts[file] = c.single.accounts(file)
		}
		text = c.accounts[file][name]
	}
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err == nil
}

// changesRights tells whether a change is one of who may do what with a file.
func changesRights(ch *Change) bool {
	return slices.ContainsFunc(ch.Attributes, func(a Attribute) bool {
		switch a.Name {
		case "mode", "uid", "gid", "acl", "caps", "flags", "selinux", "xattrs", "type":
			return true
		case "links": // a hard link keeps a program at hand that an update replaces
			return true
		}
		return false
	})
}

// unpack asks the archives about all files that are a package's, package by
// package: each archive is read once.
func (c *classifier) unpack(ctx context.Context) error {
	type wanted struct{ path, recorded []byte }
	byPackage := map[packages.Package][]wanted{}
	for i := range c.report.Changes {
		p := c.report.Changes[i].Path
		for _, f := range c.now[string(p)] {
			w := wanted{p, p}
			if f.Recorded != "" {
				w.recorded = []byte(f.Recorded)
			}
			byPackage[f.Package] = append(byPackage[f.Package], w)
		}
	}
	c.archived = map[string]*packages.File{}
	for pkg, list := range byPackage {
		paths := make([][]byte, len(list))
		for i, w := range list {
			paths[i] = w.recorded
		}
		files, found, err := c.archives.Lookup(ctx, pkg, paths)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			c.report.Ownership.Problems = append(c.report.Ownership.Problems, err.Error())
			continue
		}
		for i, w := range list {
			if found {
				c.archived[archiveKey(pkg, w.path)] = &files[i]
			}
		}
	}
	return nil
}

func archiveKey(p packages.Package, path []byte) string {
	return p.String() + " " + p.Arch + "\x00" + string(path)
}
