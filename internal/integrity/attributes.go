package integrity

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/pkg/filehash"
	"golang.org/x/sys/unix"
)

// attributesOf returns what a policy's rule compares of an entry: directories
// follow their entries in size and times, and the mode of a symbolic link
// means nothing.
func attributesOf(r *policy.Rule, info *filehash.Info) policy.Attr {
	switch info.Type() {
	case unix.S_IFDIR:
		return r.Attrs.ForDir()
	case unix.S_IFLNK:
		return r.Attrs &^ (policy.Mode | policy.Flags)
	}
	return r.Attrs
}

// compare returns the attributes in which an entry differs from its record.
func compare(rec *baseline.Record, e *filehash.Entry, rule *policy.Rule) []Attribute {
	attrs := attributesOf(rule, &e.Info)
	old, now := &rec.Info, &e.Info
	if *old == *now && e.Content == filehash.Known {
		return nil // the common case by far: not a bit of the inode changed
	}
	var out []Attribute
	differ := func(a policy.Attr, name string, same bool, values func() (string, string)) {
		if attrs&a != 0 && !same {
			o, n := values()
			out = append(out, Attribute{name, o, n})
		}
	}
	if old.Type() != now.Type() {
		if rule.Attrs == 0 {
			return nil // only that it exists was asked for
		}
		// Another kind of file altogether: what else differs is no news.
		return []Attribute{{"type", typeName(old.Mode), typeName(now.Mode)}}
	}
	differ(policy.Mode, "mode", old.Mode == now.Mode, func() (string, string) { return modeText(old.Mode), modeText(now.Mode) })
	differ(policy.UID, "uid", old.UID == now.UID, func() (string, string) { return number(old.UID), number(now.UID) })
	differ(policy.GID, "gid", old.GID == now.GID, func() (string, string) { return number(old.GID), number(now.GID) })
	sizeSame := old.Size == now.Size || rule.Growing && now.Size > old.Size
	differ(policy.Size, "size", sizeSame, func() (string, string) { return number(old.Size), number(now.Size) })
	differ(policy.Mtime, "mtime", old.Mtime == now.Mtime, func() (string, string) { return timeText(old.Mtime), timeText(now.Mtime) })
	differ(policy.Ctime, "ctime", old.Ctime == now.Ctime, func() (string, string) { return timeText(old.Ctime), timeText(now.Ctime) })
	differ(policy.Btime, "btime", old.Btime == now.Btime, func() (string, string) { return timeText(old.Btime), timeText(now.Btime) })
	differ(policy.Inode, "inode", old.Ino == now.Ino && old.Dev == now.Dev, func() (string, string) { return number(old.Ino), number(now.Ino) })
	differ(policy.Links, "links", old.Links == now.Links, func() (string, string) { return number(old.Links), number(now.Links) })
	differ(policy.Flags, "flags", old.Flags == now.Flags, func() (string, string) { return flagsText(old.Flags), flagsText(now.Flags) })
	if now.Type() == unix.S_IFLNK {
		differ(policy.Target, "target", bytes.Equal(rec.Target, e.Target), func() (string, string) { return string(rec.Target), string(e.Target) })
	}
	if t := now.Type(); t == unix.S_IFCHR || t == unix.S_IFBLK {
		differ(policy.Device, "device", old.Rdev == now.Rdev, func() (string, string) { return deviceText(old.Rdev), deviceText(now.Rdev) })
	}
	if e.Content == filehash.Hashed && rec.Content == filehash.Hashed {
		same := rec.Sum == e.Sum
		if rule.Growing && now.Size > old.Size {
			same = old.Size == 0 || rec.Sum == e.Prefix // what was there is still there
		}
		differ(policy.Content, "content", same, func() (string, string) { return rec.Sum.String(), e.Sum.String() })
	}
	// Of a file that could not be read, now or then, there are no attributes
	// to compare; that is a problem of its own, not a change.
	if e.Content != filehash.Known && e.Content != filehash.Unreadable && rec.Content != filehash.Unreadable && e.Err == nil {
		out = append(out, compareXattrs(rec.Xattrs, e.Xattrs, attrs)...)
	}
	return out
}

// xattrAttr says under which attribute of a policy an extended attribute is.
func xattrAttr(name string) (policy.Attr, string) {
	switch name {
	case "system.posix_acl_access", "system.posix_acl_default":
		return policy.ACL, "acl"
	case "security.capability":
		return policy.Caps, "caps"
	case "security.selinux":
		return policy.SELinux, "selinux"
	}
	return policy.Xattrs, "xattrs"
}

// compareXattrs joins two sorted lists.
func compareXattrs(old, now []filehash.Xattr, attrs policy.Attr) []Attribute {
	if len(old) == 0 && len(now) == 0 {
		return nil
	}
	byName := map[string][2]*filehash.Xattr{}
	for i := range old {
		byName[old[i].Name] = [2]*filehash.Xattr{&old[i], nil}
	}
	for i := range now {
		p := byName[now[i].Name]
		p[1] = &now[i]
		byName[now[i].Name] = p
	}
	names := make([]string, 0, len(byName))
	for n := range byName {
		names = append(names, n)
	}
	slices.Sort(names)
	var out []Attribute
	for _, n := range names {
		p := byName[n]
		a, attr := xattrAttr(n)
		if attrs&a == 0 || p[0] != nil && p[1] != nil && bytes.Equal(p[0].Value, p[1].Value) {
			continue
		}
		out = append(out, Attribute{attr, xattrText(p[0]), xattrText(p[1])})
	}
	return out
}

// Found says in the words of attributes what there is now, for somebody who has
// nothing to compare it with; nothing of what was removed. Old is empty.
func (c *Change) Found() []Attribute {
	n := c.Now
	if n == nil {
		return nil
	}
	list := []Attribute{{Name: "type", New: typeName(n.Info.Mode)}}
	if n.Info.Type() == unix.S_IFLNK {
		list = append(list, Attribute{Name: "target", New: string(n.Target)})
	} else {
		list = append(list, Attribute{Name: "mode", New: modeText(n.Info.Mode)})
	}
	list = append(list, Attribute{Name: "uid", New: number(n.Info.UID)}, Attribute{Name: "gid", New: number(n.Info.GID)})
	if n.Info.Type() == unix.S_IFREG {
		list = append(list, Attribute{Name: "size", New: number(n.Info.Size)})
	}
	for i := range n.Xattrs {
		_, name := xattrAttr(n.Xattrs[i].Name)
		list = append(list, Attribute{Name: name, New: xattrText(&n.Xattrs[i])})
	}
	return list
}

func number[T int64 | uint32 | uint64](v T) string { return fmt.Sprint(v) }

func timeText(t filehash.Time) string {
	if t == (filehash.Time{}) {
		return "none"
	}
	return t.Time().UTC().Format(time.RFC3339Nano)
}

// modeText gives permissions as an admin types them: "0755", "4755".
func modeText(mode uint32) string { return fmt.Sprintf("%04o", mode&^uint32(unix.S_IFMT)) }

func typeName(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symbolic link"
	case unix.S_IFCHR:
		return "character device"
	case unix.S_IFBLK:
		return "block device"
	case unix.S_IFIFO:
		return "FIFO"
	case unix.S_IFSOCK:
		return "socket"
	}
	return fmt.Sprintf("unknown type %o", mode&unix.S_IFMT)
}

func flagsText(flags uint32) string {
	var names []string
	if flags&unix.STATX_ATTR_IMMUTABLE != 0 {
		names = append(names, "immutable")
	}
	if flags&unix.STATX_ATTR_APPEND != 0 {
		names = append(names, "append")
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ",")
}

func deviceText(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }
