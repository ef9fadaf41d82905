// Package binaries tells which programs of a host run with the rights of
// another user or hold capabilities, wherever they lie, and how the programs
// that everything rests on are: both with the package that they belong to and
// whether their content is what the package recorded.
//
// Every local filesystem is walked, except those mounted nosuid, where such
// rights have no effect, network filesystems, and what excluded.txt names. The
// package database is what the host says of itself: whoever is root can have
// changed it. A baseline cannot be changed unseen, so both are compared.
//
// Sources: execve(2), capabilities(7), mount(8).
package binaries

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/integrity/packages"
	"github.com/mobileops/mobileops/pkg/filehash"
	"golang.org/x/sys/unix"
)

//go:embed critical.txt
var criticalList string

//go:embed excluded.txt
var excludedList string

// Source is the name of the one source of these facts.
const Source = "programs"

// Kind is the kind of these facts; the key is the path without its first slash.
const Kind = "program"

// Collector collects the facts of programs. The zero value looks at this host.
type Collector struct {
	Root     string             // the directory that stands for "/", with no other filesystem below; empty: this host, with all of them
	Jobs     int                // workers; 0: chosen by storage
	Counters *filehash.Counters // count while it looks; may be nil
}

// Path is the path of the program that a fact is about, as facts.Text writes it.
func Path(f *facts.Fact) string { return "/" + f.Key }

// program is a file that is told about.
type program struct {
	path     string
	info     filehash.Info
	caps     string
	critical bool
	on       filesystem
}

// special says what makes a program worth telling about.
func (p *program) special() []string {
	var list []string
	if p.info.Mode&unix.S_ISUID != 0 {
		list = append(list, "setuid")
	}
	if setgid(p.info.Mode) {
		list = append(list, "setgid")
	}
	if p.caps != "" {
		list = append(list, "capabilities")
	}
	if p.critical {
		list = append(list, "critical")
	}
	return list
}

// setgid: without the permission to execute, the bit means something else.
func setgid(mode uint32) bool { return mode&unix.S_ISGID != 0 && mode&unix.S_IXGRP != 0 }

// Collect looks at every program. It fails only when ctx is done.
func (c Collector) Collect(ctx context.Context) ([]facts.Source, []facts.Fact, error) {
	s := &search{root: c.Root, found: map[string]*program{}, walking: filehash.Options{Jobs: c.Jobs, Counters: c.Counters}}
	if s.root == "" {
		s.root = "/"
	}
	list, err := c.filesystems()
	if err == nil {
		for _, fsys := range list {
			if err := s.walk(ctx, fsys); err != nil {
				return nil, nil, err
			}
		}
		s.critical(list)
	}
	told, bad := s.describe(ctx)
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	src := facts.Source{Aspect: facts.Binaries, Name: Source, State: facts.OK}
	switch {
	case err != nil:
		src.State, src.Detail = facts.Failed, facts.Text(err.Error())
	case bad != nil:
		src.State, src.Detail = facts.Failed, facts.Text(bad.Error())
	case s.denied > 0:
		src.State, src.Detail = facts.Partial, fmt.Sprintf("%d directories and programs are only for other users to read", s.denied)
	case s.unread > 0:
		src.State, src.Detail = facts.Partial, fmt.Sprintf("%d directories and programs could not be read", s.unread)
	}
	return []facts.Source{src}, told, nil
}

// search is what has been found so far.
type search struct {
	root    string
	found   map[string]*program // by path
	walking filehash.Options
	denied  int
	unread  int
}

func (s *search) trouble(err error) {
	if errors.Is(err, fs.ErrPermission) {
		s.denied++
	} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) { // a directory that went, and a file has its name
		s.unread++
	}
}

// walk finds the programs with rights on one filesystem.
func (s *search) walk(ctx context.Context, on filesystem) error {
	base := filepath.Join(s.root, on.dir)
	top := &selector{path: strings.TrimSuffix(on.dir, "/") + "/"}
	each(excludedList, func(p string) { top.none = append(top.none, p) })
	opts := s.walking
	opts.Select = top
	err := filehash.Walk(ctx, base, opts, func(b *filehash.Batch) error {
		if b.Err != nil {
			s.trouble(b.Err)
		}
		for i := range b.Entries {
			e := &b.Entries[i]
			if e.Err != nil { // listed, and not to be looked at: it may be anything
				s.trouble(e.Err)
				continue
			}
			if e.Info.Type() != unix.S_IFREG || e.Info.Mode&0o111 == 0 {
				continue
			}
			path := join(on.dir, b.Dir, e.Name)
			caps, err := capabilities(filepath.Join(s.root, path))
			if err != nil {
				s.trouble(err)
			}
			if e.Info.Mode&unix.S_ISUID != 0 || setgid(e.Info.Mode) || caps != "" {
				s.found[path] = &program{path: path, info: e.Info, caps: caps, on: on}
			}
		}
		return nil
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		s.trouble(err)
	}
	return nil
}

// join is the path of an entry of a walk that began at top.
func join(top string, dir, name []byte) string {
	return strings.TrimSuffix(top, "/") + "/" + strings.TrimPrefix(string(bytes.TrimPrefix(append(append(bytes.Clone(dir), '/'), name...), []byte("/"))), "/")
}

// selector wants to hear of every file but what is excluded. To stat what
// cannot be a program would be a tenth of the work.
type selector struct {
	path string   // of the directory, with a slash at its end
	none []string // what is excluded below it
}

func (*selector) Select([]byte) (filehash.Want, any) {
	return filehash.WantEntry | filehash.OnlyRegular, nil
}
func (*selector) Names() ([]string, bool) { return nil, false }

// Enter makes a selector of its own only for the few directories below which
// something is excluded.
func (s *selector) Enter(name []byte) filehash.Selector {
	if len(s.none) == 0 {
		return s
	}
	p := s.path + string(name)
	if slices.Contains(s.none, p) {
		return nil
	}
	p += "/"
	below := slices.DeleteFunc(slices.Clone(s.none), func(none string) bool { return !strings.HasPrefix(none, p) })
	if len(below) == 0 {
		return anywhere
	}
	return &selector{p, below}
}

// anywhere excludes nothing.
var anywhere filehash.Selector = &selector{}

// critical adds the programs of the list that are there, at the path that they
// really have.
func (s *search) critical(list []filesystem) {
	seen := map[string]bool{}
	each(criticalList, func(pattern string) {
		paths := []string{pattern}
		if !strings.Contains(pattern, "/") {
			paths = nil
			for _, dir := range []string{"/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/"} {
				paths = append(paths, dir+pattern)
			}
		}
		for _, p := range paths {
			names, _ := filepath.Glob(filepath.Join(s.root, p))
			for _, name := range names {
				if seen[name] {
					continue
				}
				seen[name] = true
				s.addCritical(name, list)
			}
		}
	})
}

func (s *search) addCritical(name string, list []filesystem) {
	real, err := resolve(s.root, name)
	var st unix.Statx_t
	if err == nil {
		err = unix.Statx(unix.AT_FDCWD, filepath.Join(s.root, real), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st)
	}
	if err != nil {
		s.trouble(err)
		return
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	if p := s.found[real]; p != nil {
		p.critical = true
		return
	}
	s.found[real] = &program{path: real, critical: true, on: holding(list, real),
		info: filehash.Info{Mode: uint32(st.Mode), UID: st.Uid, GID: st.Gid, Size: int64(st.Size)}}
}

// resolve follows the links of a path below root, and returns it as seen from
// there.
func resolve(root, name string) (string, error) {
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return "", err
	}
	if root == "/" {
		return real, nil
	}
	rel, inside := strings.CutPrefix(real, root+"/")
	if !inside {
		return "", fmt.Errorf("%s leads out of %s", name, root)
	}
	return "/" + rel, nil
}

// each calls fn with each line of a list that says something.
func each(list string, fn func(string)) {
	for line := range strings.Lines(list) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			fn(line)
		}
	}
}

// maxPrograms bounds what is told. Every user can make files of their own
// setuid; more of them than this are an attack on whoever must read the list.
const maxPrograms = 20_000

// describe makes facts of what was found.
func (s *search) describe(ctx context.Context) ([]facts.Fact, error) {
	if len(s.found) > maxPrograms {
		return nil, fmt.Errorf("there are %d programs with rights, too many to tell (find them: find / -xdev -perm /6000)", len(s.found))
	}
	paths := make([]string, 0, len(s.found))
	for p := range s.found {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	owners, managed, bad := owned(ctx, s.root, paths)
	var list []facts.Fact
	for i, p := range paths {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var file *packages.File
		if bad == nil && len(owners[i]) > 0 {
			file = &owners[i][0]
		}
		list = append(list, s.describeOne(s.found[p], file, managed && bad == nil))
	}
	return list, bad
}

// owned looks up whose the programs are. Without a package manager, nobody
// knows.
func owned(ctx context.Context, root string, paths []string) (files [][]packages.File, managed bool, err error) {
	set, err := packages.Open(root)
	if err != nil {
		return nil, false, err
	}
	defer set.Close()
	if len(set.Managers()) == 0 {
		return make([][]packages.File, len(paths)), false, nil
	}
	raw := make([][]byte, len(paths))
	for i, p := range paths {
		raw[i] = []byte(p)
	}
	files, err = set.Lookup(ctx, raw)
	return files, true, err
}

func (s *search) describeOne(p *program, file *packages.File, managed bool) facts.Fact {
	attrs := map[string]string{
		"special": facts.Join(p.special()), "mode": fmt.Sprintf("%04o", p.info.Mode&0o7777),
		"owner": fmt.Sprintf("%d:%d", p.info.UID, p.info.GID), "capabilities": p.caps,
	}
	if p.caps == "" {
		attrs["capabilities"] = facts.None
	}
	f := facts.Fact{Aspect: facts.Binaries, Kind: Kind, Key: facts.Text(strings.TrimPrefix(p.path, "/")), Source: Source, Severity: finding.High, Attributes: attrs}
	if !p.privileged() {
		f.Severity = finding.Low // it came with a package
	}
	sums, err := contents(filepath.Join(s.root, p.path), file)
	if err != nil {
		s.trouble(err)
	} else {
		attrs["digest"] = sums.own
	}
	risks := p.risks(s.root)
	if managed {
		attrs["package"], attrs["content"] = facts.None, "of no package"
		if file != nil {
			attrs["package"] = facts.Text(file.Package.Name)
			switch {
			case err != nil || file.Digest.IsZero():
				attrs["content"] = "not recorded"
			case file.Digest.Equal(sums.recorded):
				attrs["content"] = "as packaged"
			case file.Conffile:
				attrs["content"] = "configured"
			default:
				attrs["content"] = "not as packaged"
				risks = append(risks, "not as packaged")
			}
		} else if p.privileged() {
			risks = append(risks, "of no package")
		}
		if file != nil && file.Mode != nil && *file.Mode&0o7777 != p.info.Mode&0o7777 {
			risks = append(risks, fmt.Sprintf("its package has mode %04o", *file.Mode&0o7777))
		}
	}
	attrs[facts.Risks] = facts.Join(risks)
	return f
}

func (p *program) privileged() bool {
	return p.caps != "" || p.info.Mode&unix.S_ISUID != 0 || setgid(p.info.Mode)
}

// risks names what about a program lets others than root change it.
func (p *program) risks(root string) []string {
	var list []string
	if p.info.Mode&unix.S_IWOTH != 0 {
		list = append(list, "everybody can write it")
	} else if p.info.Mode&unix.S_IWGRP != 0 && p.info.GID != 0 {
		list = append(list, fmt.Sprintf("group %d can write it", p.info.GID))
	}
	if p.info.UID != 0 && p.critical {
		list = append(list, fmt.Sprintf("belongs to user %d", p.info.UID))
	}
	if p.privileged() && p.on.data() {
		list = append(list, "on "+facts.Text(p.on.dir)+", which is mounted without nosuid")
	}
	var st unix.Stat_t
	if dir := filepath.Dir(p.path); unix.Stat(filepath.Join(root, dir), &st) == nil && (st.Uid != 0 || st.Mode&unix.S_IWOTH != 0) {
		list = append(list, "in "+facts.Text(dir)+", which is not root's alone")
	}
	return list
}
