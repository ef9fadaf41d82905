package policy

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

// Names returns the names of the attributes in the set, in the order of the
// constants.
func (a Attr) Names() []string { panic("skeleton") }

// ParseAttrs reads a list of attribute names and named sets, in order; a name
// with a leading minus is taken away again.
func ParseAttrs(names []string) (Attr, error) { panic("skeleton") }

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
