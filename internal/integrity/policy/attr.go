package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/document"
)

// Attr is a set of attributes of a file system entry that are compared with
// the baseline.
type Attr uint32

// The attributes. An attribute that an entry does not have (the content of a
// FIFO, the target of a regular file) is never compared for it.
const (
	Type     Attr = 1 << iota // regular file, directory, link, device, FIFO, socket
	Mode                      // permission bits with setuid, setgid and sticky
	UID                       // numeric owner
	GID                       // numeric group
	Size                      // length in bytes
	Mtime                     // last change of the content; any owner can set it
	Ctime                     // last change of the inode; only the kernel sets it
	Btime                     // creation of the inode, where the file system keeps it
	Inode                     // inode number
	Links                     // number of hard links
	Content                   // BLAKE3 of every byte
	Target                    // what a symbolic link points at
	Device                    // major and minor number of a device node
	Flags                     // immutable and append-only
	Xattrs                    // extended attributes other than the three below
	ACL                       // POSIX access and default lists
	Caps                      // file capabilities
	SELinux                   // security label
	DirTimes                  // see ForDir

	attrEnd
)

// names holds the name of each bit, in order.
var names = [...]string{
	"type", "mode", "uid", "gid", "size", "mtime", "ctime", "btime", "inode",
	"links", "content", "target", "device", "flags", "xattrs", "acl", "caps",
	"selinux", "dirtimes",
}

const (
	// All is every attribute.
	All = attrEnd - 1
	// Standard is what a policy compares unless it says otherwise.
	//
	// Ctime is in it: on an idle host it does not move, only the kernel sets
	// it, and it gives away a file that was changed and put back with its old
	// times. It does move with a restore from a backup, a change of the link
	// count or a relabelling, all of which an admin wants to hear of.
	//
	// Inode and Btime are not: every atomic rewrite with the same content
	// (configuration management, restores, copy-up in an overlay) changes
	// them, and whatever replaces an inode also moves Ctime. AIDE's i+n+c
	// groups report the same event three times.
	Standard = All &^ (Inode | Btime | DirTimes)
)

// set is a name for several attributes.
type set struct {
	name  string
	attrs Attr
}

// sets are the named sets. "content" is not among them: it is an attribute.
var sets = [...]set{
	{"all", All},
	{"standard", Standard},
	{"stat", Type | Mode | UID | GID | Size | Mtime | Ctime | Inode | Links | Device},
	{"perms", Type | Mode | UID | GID | Flags | ACL | Caps | SELinux},
	{"times", Mtime | Ctime | Btime},
	{"none", 0},
}

// AttrNames returns what parseAttrs knows: the attributes, then the named sets.
func AttrNames() (attrs, setNames []string) {
	for _, s := range sets {
		setNames = append(setNames, s.name)
	}
	return slices.Clone(names[:]), setNames
}

// Names returns the names of the attributes in the set, in the order of the
// constants.
func (a Attr) Names() []string {
	var out []string
	for i, n := range names {
		if a&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	return out
}

// String returns the names joined with commas, the name of a set where one
// is exactly that.
func (a Attr) String() string {
	for _, s := range sets {
		if s.attrs == a {
			return s.name
		}
	}
	return strings.Join(a.Names(), ",")
}

// parseAttrs reads a list of names of attributes and sets, from left to
// right: a name adds to a, a name after a minus takes away. The error names the
// first one that is unknown, and the known one that is nearest to it.
func parseAttrs(a Attr, list []string) (Attr, error) {
	for _, item := range list {
		name, minus := strings.CutPrefix(item, "-")
		bits, ok := lookupAttr(name)
		switch {
		case !ok:
			return 0, fmt.Errorf("unknown attribute %q%s", name, document.DidYouMean(name, knownAttrs()))
		case minus:
			a &^= bits
		default:
			a |= bits
		}
	}
	return a, nil
}

func lookupAttr(name string) (Attr, bool) {
	if i := slices.Index(names[:], name); i >= 0 {
		return 1 << i, true
	}
	for _, s := range sets {
		if s.name == name {
			return s.attrs, true
		}
	}
	return 0, false
}

func knownAttrs() []string {
	attrs, setNames := AttrNames()
	return append(attrs, setNames...)
}

// ForDir returns what is compared of a directory for which the set a was
// chosen. The size, times and link count of a directory follow from its
// entries, which are under the baseline themselves: comparing them would
// report each added file twice, and raise an alarm for every temporary file
// beside a file that is rewritten atomically (/etc/resolv.conf). So they are
// left out unless the set contains DirTimes. Content never applies.
func (a Attr) ForDir() Attr {
	a &^= Content | Target | Device
	if a&DirTimes == 0 {
		a &^= Size | Mtime | Ctime | Links
	}
	return a &^ DirTimes
}
