package watch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/mobileops/mobileops/internal/integrity"
	"golang.org/x/sys/unix"
)

// mount is a line of /proc/self/mountinfo, see proc_pid_mountinfo(5).
type mount struct {
	id, parent int
	dev        string // "8:1"
	root       []byte // the directory of the filesystem that is mounted
	point      []byte // where
	kind       string // "ext4"
	fsid       [fsidSize]byte
	covered    bool // the policy reaches into it
}

// mounts is the mount table of this process at one moment. It is immutable.
type mounts struct {
	list     []*mount
	children map[int][]*mount
	top      *mount // where every path begins
	byFsid   map[[fsidSize]byte][]*mount
}

// MountError says which line of a mount table cannot be read.
type MountError struct {
	Line   int // from 1
	Reason string
}

func (e *MountError) Error() string { return fmt.Sprintf("mountinfo: line %d: %s", e.Line, e.Reason) }

// maxMounts bounds a mount table: the kernel's own limit is 100,000.
const maxMounts = 200000

// parseMounts reads a mount table.
func parseMounts(data []byte) (*mounts, error) {
	t := &mounts{children: map[int][]*mount{}, byFsid: map[[fsidSize]byte][]*mount{}}
	byID := map[int]bool{}
	line := 0
	for text := range bytes.Lines(data) {
		line++
		f := bytes.Fields(text)
		if len(f) < 9 {
			return nil, &MountError{line, "fewer than 9 fields"}
		}
		if line > maxMounts {
			return nil, &MountError{line, "too many mounts"}
		}
		id, err1 := strconv.Atoi(string(f[0]))
		parent, err2 := strconv.Atoi(string(f[1]))
		if err1 != nil || err2 != nil {
			return nil, &MountError{line, "no number of a mount"}
		}
		m := &mount{id: id, parent: parent, dev: string(f[2]), root: unescape(f[3]), point: unescape(f[4])}
		for i := 6; i+1 < len(f); i++ {
			if string(f[i]) == "-" {
				m.kind = string(f[i+1])
				break
			}
		}
		if len(m.point) == 0 || m.point[0] != '/' {
			return nil, &MountError{line, "the mount point is no absolute path"}
		}
		t.list = append(t.list, m)
		byID[id] = true
	}
	for _, m := range t.list {
		if m.parent != m.id && byID[m.parent] {
			t.children[m.parent] = append(t.children[m.parent], m)
		} else if t.top == nil || len(m.point) == 1 {
			t.top = m
		}
	}
	if t.top == nil {
		return nil, &MountError{line, "no root"}
	}
	return t, nil
}

// unescape turns the \040 of the kernel back into bytes.
func unescape(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) {
			if n, err := strconv.ParseUint(string(b[i+1:i+4]), 8, 8); err == nil {
				out = append(out, byte(n))
				i += 3
				continue
			}
		}
		out = append(out, b[i])
	}
	return out
}

// owner returns the mount that a path lies on. It need not exist.
func (t *mounts) owner(path []byte) *mount {
	at := t.top
	for range t.list { // no chain is longer than that
		var next *mount
		for _, m := range t.children[at.id] {
			// What is mounted higher up hides what was mounted below it before.
			if under(path, m.point) && under(m.point, at.point) && (next == nil || len(m.point) <= len(next.point)) {
				next = m
			}
		}
		if next == nil {
			break
		}
		at = next
	}
	return at
}

// under tells whether a path is dir or below it.
func under(path, dir []byte) bool {
	return len(dir) == 1 || bytes.HasPrefix(path, dir) && (len(path) == len(dir) || path[len(dir)] == '/')
}

// cover finds out which mounts the policy of a baseline reaches into, and asks
// for their ids. Other mounts are not touched: a network filesystem whose
// server is gone would hang.
func (t *mounts) cover(o *integrity.Opened) {
	starts := make([][]byte, 0, len(o.Policy.Paths))
	for _, p := range o.Policy.Paths {
		starts = append(starts, o.Outside([]byte(p)))
	}
	devs := map[string]bool{}
	for _, s := range starts {
		m := t.owner(s)
		m.covered = true
		devs[m.dev] = true
	}
	for _, m := range t.list {
		if m.covered || t.owner(m.point) != m {
			continue
		}
		for _, s := range starts {
			if !under(m.point, s) || !o.Policy.CrossFilesystems && !devs[m.dev] {
				continue
			}
			inside := o.Inside(m.point)
			if o.Rule(inside) != nil || !o.State(inside).Prune() {
				m.covered = true
			}
		}
	}
	ids := map[string][fsidSize]byte{}
	for _, m := range t.list {
		if !m.covered {
			continue
		}
		var st unix.Statfs_t
		if unix.Statfs(string(m.point), &st) == nil {
			binary.NativeEndian.PutUint32(m.fsid[:], uint32(st.Fsid.Val[0]))
			binary.NativeEndian.PutUint32(m.fsid[4:], uint32(st.Fsid.Val[1]))
			ids[m.dev] = m.fsid
		}
	}
	for _, m := range t.list {
		if id, ok := ids[m.dev]; ok {
			if !m.covered {
				m.fsid = id
			}
			t.byFsid[m.fsid] = append(t.byFsid[m.fsid], m)
		}
	}
}

// seenAt returns the covered paths of this host at which a directory of a
// filesystem, given by its path there, can be seen.
func (t *mounts) seenAt(id [fsidSize]byte, inside []byte) [][]byte {
	var out [][]byte
	for _, m := range t.byFsid[id] {
		if !m.covered || !under(inside, m.root) {
			continue
		}
		rest := inside
		if len(m.root) > 1 {
			rest = inside[len(m.root):]
		}
		path := joinPaths(m.point, rest)
		if t.owner(path) == m {
			out = append(out, path)
		}
	}
	return out
}

// widest returns the mount that shows most of a filesystem.
func (t *mounts) widest(id [fsidSize]byte) *mount {
	var best *mount
	for _, m := range t.byFsid[id] {
		if (best == nil || len(m.root) < len(best.root)) && t.owner(m.point) == m {
			best = m
		}
	}
	return best
}

// joinPaths puts a path that is empty or begins with a slash behind a directory.
func joinPaths(dir, rest []byte) []byte {
	if len(rest) <= 1 {
		return bytes.Clone(dir)
	}
	if len(dir) == 1 {
		return bytes.Clone(rest)
	}
	return append(bytes.Clone(dir), rest...)
}
