package packages

import (
	"bytes"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// linkedDirs are the directories that distributions replaced by links to
// others, while packages went on naming the old ones: the merged /usr, /usr/bin
// and /usr/sbin made one, /var/run and /var/lock moved to /run. What is below
// such a directory has two names; the one without a link on the way is the
// canonical one.
//
// Sources: https://systemd.io/THE_CASE_FOR_THE_USR_MERGE, hier(7), FHS 3.0
// sections 3.15 and 5.13.
var linkedDirs = [...]string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libo32", "/libx32", "/usr/sbin", "/usr/lib64", "/var/run", "/var/lock"}

// alias replaces the beginning of paths: from "/bin/" to "/usr/bin/".
type alias struct{ from, to string }

// aliases are those of one root.
type aliases struct {
	list  []alias
	first [256]bool // second bytes of what is replaced: most paths begin with "/u"
}

// readAliases looks which of linkedDirs are links below the root.
func readAliases(t *tree) *aliases {
	var list []alias
	for _, d := range linkedDirs {
		if target := readlink(t, d); target != "" {
			list = append(list, alias{d + "/", path.Join("/", path.Dir(d), target) + "/"})
			if path.IsAbs(target) {
				list[len(list)-1].to = path.Clean(target) + "/"
			}
		}
	}
	return newAliases(list)
}

func readlink(t *tree, p string) string {
	fd, err := t.open(p, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(fd, "", buf[:])
	if err != nil || n == 0 || n == len(buf) {
		return ""
	}
	return string(buf[:n])
}

// newAliases makes each alias lead to its last target: /sbin to /usr/sbin and
// that to /usr/bin is /sbin to /usr/bin. One that leads in a circle is dropped.
func newAliases(list []alias) *aliases {
	a := new(aliases)
	for _, l := range list {
		for range len(list) {
			for _, o := range list {
				if rest, ok := strings.CutPrefix(l.to, o.from); ok {
					l.to = o.to + rest
				}
			}
		}
		circle := len(l.to) < 2 || len(l.to) > unix.PathMax
		for _, o := range list {
			circle = circle || strings.HasPrefix(l.to, o.from)
		}
		if !circle {
			a.list = append(a.list, l)
			a.first[l.from[1]] = true
		}
	}
	return a
}

// canonical returns the name of p without links on the way. It returns p or
// something in the room of buf, and the room for the next call.
func (a *aliases) canonical(p, buf []byte) (name, room []byte) {
	if len(p) < 2 || !a.first[p[1]] {
		return p, buf
	}
	for i := range a.list {
		l := &a.list[i]
		if len(p) > len(l.from) && string(p[:len(l.from)]) == l.from {
			buf = append(append(buf[:0], l.to...), p[len(l.from):]...)
			return buf, buf
		}
	}
	return p, buf
}

// clean makes a path that others wrote absolute: databases write
// "usr/bin/x", "./usr/bin/x" and "/usr/bin/x".
func clean(p, buf []byte) (name, room []byte) {
	if len(p) > 0 && p[0] == '/' {
		return p, buf
	}
	p = bytes.TrimPrefix(p, []byte("./"))
	buf = append(append(buf[:0], '/'), p...)
	return buf, buf
}
