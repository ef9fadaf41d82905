package packages

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// Where dpkg keeps what it knows, below the root.
const (
	dpkgDir      = "/var/lib/dpkg"
	dpkgStatus   = dpkgDir + "/status"
	dpkgStatusD  = dpkgDir + "/status.d" // of distroless images: a file for each package
	dpkgUpdates  = dpkgDir + "/updates"  // what a running or killed dpkg has not yet put into status
	dpkgInfo     = dpkgDir + "/info"
	maxPackages  = 1 << 18
	maxConffiles = 1 << 16 // of a package
)

// dpkgPackage is a package that has files on the system.
type dpkgPackage struct {
	Package
	same      bool   // Multi-Arch: same, its info files have the architecture in their names
	statusD   string // the name of its file in status.d, else ""
	conffiles []byte // the lines of its Conffiles field, in the status file
}

// infoNames are the names that its NAME.ext may have, the likelier first.
func (p *dpkgPackage) infoNames(ext string) [2]string {
	plain, arch := p.Name+ext, p.Name+":"+p.Arch+ext
	if p.same {
		return [2]string{arch, plain}
	}
	return [2]string{plain, arch}
}

// conffile is a line of a Conffiles field.
type conffile struct {
	sum []byte // MD5, nil when none is recorded
}

// parseConffiles reads the continuation lines of a Conffiles field:
// " /etc/x 0123…" with "obsolete" or "remove-on-upgrade" behind it at times.
// What is to be removed, or is not there yet ("newconffile"), has no digest.
func parseConffiles(lines []byte) map[string]conffile {
	if len(lines) == 0 {
		return nil
	}
	m := make(map[string]conffile, bytes.Count(lines, []byte("\n"))+1)
	for len(lines) > 0 && len(m) < maxConffiles {
		var line []byte
		line, lines = cutLine(lines)
		line = bytes.TrimSpace(line)
		remove := false
		for _, flag := range []string{" obsolete", " remove-on-upgrade"} {
			if rest, ok := bytes.CutSuffix(line, []byte(flag)); ok {
				line, remove = rest, remove || flag != " obsolete"
			}
		}
		i := bytes.LastIndexByte(line, ' ')
		if i < 1 || line[0] != '/' {
			continue
		}
		var c conffile
		if sum := decodeHex(line[i+1:]); len(sum) == 16 && !remove {
			c.sum = sum
		}
		m[string(bytes.TrimRight(line[:i], " "))] = c
	}
	return m
}

func decodeHex(b []byte) []byte {
	sum := make([]byte, hex.DecodedLen(len(b)))
	if n, err := hex.Decode(sum, b); err != nil || n == 0 {
		return nil
	}
	return sum
}

// cutLine returns the first line and what is behind its newline.
func cutLine(b []byte) (line, rest []byte) {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}

// hasFiles tells the states in which the files of a package are unpacked, at
// least in part, from those in which nothing or only conffiles remain.
func hasFiles(state string) bool {
	switch state {
	case "installed", "unpacked", "half-configured", "half-installed", "triggers-awaited", "triggers-pending":
		return true
	}
	return false
}

// stanza is what is read of a package's paragraph.
type stanza struct {
	dpkgPackage
	state string // the third word of Status; "" without that field
	line  int    // where it begins
}

// parseStatus calls fn with the paragraphs of a status file (deb-control(5)).
// They refer to data.
func parseStatus(file string, data []byte, fn func(stanza) error) error {
	line := 0
	bad := func(reason string) error { return &CorruptError{File: file, Line: line, Reason: reason} }
	var s stanza
	begun, inConffiles := false, false
	end := func() error {
		if !begun {
			return nil
		}
		if s.Name == "" {
			return &CorruptError{File: file, Line: s.line, Reason: "a package without a name"}
		}
		return fn(s)
	}
	for len(data) > 0 {
		l := data
		var text []byte
		text, data = cutLine(data)
		line++
		if len(text) == 0 {
			if err := end(); err != nil {
				return err
			}
			s, begun, inConffiles = stanza{}, false, false
			continue
		}
		if !begun {
			begun, s.line = true, line
			s.Manager = Dpkg
		}
		if text[0] == ' ' || text[0] == '\t' {
			if inConffiles { // keep all lines of the field together
				s.conffiles = l[:0:0]
				n := len(text) + 1
				for {
					next, rest := cutLine(data)
					if len(next) == 0 || next[0] != ' ' && next[0] != '\t' {
						break
					}
					n += len(next) + 1
					data = rest
					line++
				}
				s.conffiles, inConffiles = l[:min(n, len(l))], false
			}
			continue
		}
		inConffiles = false
		// Only these fields are looked at; most lines are none of them.
		var value *string
		switch text[0] {
		case 'P':
			value = field(text, "Package:", &s.Name)
		case 'V':
			value = field(text, "Version:", &s.Version)
		case 'A':
			value = field(text, "Architecture:", &s.Arch)
		case 'M':
			if rest, ok := bytes.CutPrefix(text, []byte("Multi-Arch:")); ok {
				s.same = string(bytes.TrimSpace(rest)) == "same"
			}
		case 'S':
			if rest, ok := bytes.CutPrefix(text, []byte("Status:")); ok {
				words := strings.Fields(string(rest))
				if len(words) != 3 {
					return bad("a Status that is not three words")
				}
				s.state = words[2]
			}
		case 'C':
			inConffiles = bytes.HasPrefix(text, []byte("Conffiles:"))
		}
		if value != nil {
			*value = string(bytes.TrimSpace(text[bytes.IndexByte(text, ':')+1:]))
			if value == &s.Name && !validName(s.Name) {
				return bad(fmt.Sprintf("%q cannot be a package's name", s.Name))
			}
			if value == &s.Arch && s.Arch != "" && !validName(s.Arch) {
				return bad(fmt.Sprintf("%q cannot be an architecture", s.Arch))
			}
		} else if bytes.IndexByte(text, ':') < 1 {
			return bad("neither a field nor its continuation")
		}
	}
	return end()
}

func field(text []byte, name string, value *string) *string {
	if len(text) >= len(name) && string(text[:len(name)]) == name {
		return value
	}
	return nil
}

// validName tells what may be part of a file's name in info.
func validName(s string) bool {
	if s == "" || len(s) > 200 || s[0] == '.' {
		return false
	}
	for _, c := range []byte(s) {
		ok := c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || strings.IndexByte("+-.~_", c) >= 0
		if !ok {
			return false
		}
	}
	return true
}

// readStatus returns the packages that have files, in the order of their names.
func readStatus(ctx context.Context, t *tree) ([]dpkgPackage, error) {
	var list []dpkgPackage
	data, err := t.read(dpkgStatus, maxDatabase)
	switch {
	case err == nil:
		list = make([]dpkgPackage, 0, bytes.Count(data, []byte("\nPackage:"))+1)
		err = parseStatus(t.name(dpkgStatus), data, func(s stanza) error {
			if hasFiles(s.state) {
				list = append(list, s.dpkgPackage)
			}
			return tooMany(t.name(dpkgStatus), len(list))
		})
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err == nil {
		list, err = readUpdates(t, list)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		list, err = readStatusD(t, list)
	}
	slices.SortStableFunc(list, func(a, b dpkgPackage) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.Arch, b.Arch)
	})
	return list, err
}

func tooMany(file string, n int) error {
	if n > maxPackages {
		return &CorruptError{File: file, Offset: -1, Reason: fmt.Sprintf("more than %d packages", maxPackages)}
	}
	return nil
}

// readUpdates puts in what dpkg has noted but not yet written to the status
// file: numbered files, each with the paragraph of a package.
func readUpdates(t *tree, list []dpkgPackage) ([]dpkgPackage, error) {
	d, names, err := t.listed(dpkgUpdates)
	if err != nil || d == nil {
		return list, err
	}
	defer d.close()
	for _, name := range names {
		if strings.Trim(name, "0123456789") != "" {
			continue // "tmp.i", which is being written
		}
		data, err := d.read(name, maxSmall, nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue // dpkg has just put it into the status file
		}
		if err != nil {
			return nil, err
		}
		err = parseStatus(d.name+"/"+name, data, func(s stanza) error {
			list = slices.DeleteFunc(list, func(p dpkgPackage) bool { return p.Name == s.Name && p.Arch == s.Arch })
			if hasFiles(s.state) {
				list = append(list, s.dpkgPackage)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// readStatusD adds the packages of a distroless image: status.d/NAME is a
// paragraph without a Status, status.d/NAME.md5sums its files.
func readStatusD(t *tree, list []dpkgPackage) ([]dpkgPackage, error) {
	d, names, err := t.listed(dpkgStatusD)
	if err != nil || d == nil {
		return list, err
	}
	defer d.close()
	for _, name := range names {
		if strings.HasSuffix(name, ".md5sums") || strings.HasPrefix(name, ".") {
			continue
		}
		data, err := d.read(name, maxSmall, nil)
		if err != nil {
			return nil, err
		}
		err = parseStatus(d.name+"/"+name, data, func(s stanza) error {
			if s.state == "" || hasFiles(s.state) {
				s.statusD = name
				list = append(list, s.dpkgPackage)
			}
			return tooMany(d.name, len(list))
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}
