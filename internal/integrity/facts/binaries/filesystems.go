package binaries

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// filesystem is one that programs with rights can lie on.
type filesystem struct {
	dir string // where it is mounted
}

// data tells whether a filesystem is for data rather than for the system: there
// is no reason for programs with rights on it.
func (f filesystem) data() bool {
	return !slices.Contains([]string{"/", "/usr", "/usr/local", "/opt", "/boot", "/var", "/nix", "/gnu"}, f.dir) &&
		!strings.HasPrefix(f.dir, "/usr/") && !strings.HasPrefix(f.dir, "/nix/")
}

// holding returns the filesystem that a path is on.
func holding(list []filesystem, path string) filesystem {
	best := filesystem{"/"}
	for _, f := range list {
		if len(f.dir) > len(best.dir) && strings.HasPrefix(path, f.dir+"/") {
			best = f
		}
	}
	return best
}

// filesystems returns those to be walked.
func (c Collector) filesystems() ([]filesystem, error) {
	if c.Root != "" && c.Root != "/" {
		return []filesystem{{"/"}}, nil
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMounts(string(b))
}

// parseMounts reads /proc/self/mountinfo, see proc(5). Of mounts of the same
// directory of one filesystem it takes the first, and of mounts at the same
// place the last, which hides the others.
func parseMounts(text string) ([]filesystem, error) {
	at := map[string]int{}
	type mount struct {
		filesystem
		what string // device and the directory on it
		use  bool
	}
	var list []mount
	n := 0
	for line := range strings.Lines(text) {
		n++
		left, right, ok := strings.Cut(line, " - ")
		f, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(f) < 6 || len(r) < 1 {
			return nil, fmt.Errorf("mountinfo, line %d: %d and %d words", n, len(f), len(r))
		}
		m := mount{filesystem{unescape(f[4])}, f[2] + " " + f[3], local(r[0]) && !slices.Contains(strings.Split(f[5], ","), "nosuid")}
		if i, hidden := at[m.dir]; hidden {
			list[i].use = false
		}
		at[m.dir] = len(list)
		list = append(list, m)
	}
	var out []filesystem
	seen := map[string]bool{}
	for _, m := range list {
		if m.use && !seen[m.what] && !excluded(m.dir) {
			seen[m.what] = true
			out = append(out, m.filesystem)
		}
	}
	return out, nil
}

func excluded(dir string) bool {
	no := false
	each(excludedList, func(p string) { no = no || dir == p || strings.HasPrefix(dir, p+"/") })
	return no
}

// local tells whether a filesystem keeps files on this host.
func local(kind string) bool {
	switch kind {
	case "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "reiserfs", "bcachefs", "nilfs2", "ubifs", "jffs2", "overlay", "aufs",
		"tmpfs", "ramfs", "rootfs", "squashfs", "erofs", "iso9660", "udf", "ntfs3", "hfsplus":
		return true
	}
	return false
}

// unescape takes the octal escapes of mountinfo back.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
