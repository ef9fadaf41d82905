package license

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// Subject is what is judged: a package of one version, however often the target has
// it, or files that belong to no package and are under the same licence.
type Subject struct {
	Package string `json:"package,omitempty"` // "" for files
	Version string `json:"version,omitempty"`
	Type    string `json:"type,omitempty"` // "debian", "npm", "gobinary"
	PURL    string `json:"purl,omitempty"`
	// Places are where it is: the paths of the package, or of the files, sorted.
	Places []string `json:"places,omitempty"`
	// License is the expression, "" when nothing says anything.
	License   string   `json:"license,omitempty"`
	Copyright []string `json:"copyright,omitempty"`

	expression *Expression
	source     string
	notices    []*protocol.Notice // that are about it
}

// hasText reports whether the target brings a text that is about it.
func (s *Subject) hasText() bool {
	return slices.ContainsFunc(s.notices, attributes)
}

// attributes reports whether a notice is a text that attribution can be given with.
// A list of authors or of patents alone says nothing about the terms.
func attributes(n *protocol.Notice) bool {
	base := strings.ToUpper(path.Base(n.Path))
	return n.Text != "" && !strings.HasPrefix(base, "AUTHORS") && !strings.HasPrefix(base, "PATENTS")
}

// noticeIndex finds notices by where they are.
type noticeIndex struct {
	byPath map[string]*protocol.Notice
	byDir  map[string][]*protocol.Notice // licences and notices
	module map[string][]*protocol.Notice // by MODULE@VERSION of a module cache of Go
	common map[string]*protocol.Notice   // by the name in /usr/share/common-licenses
}

func indexNotices(r *protocol.Report) *noticeIndex {
	x := &noticeIndex{map[string]*protocol.Notice{}, map[string][]*protocol.Notice{}, map[string][]*protocol.Notice{}, map[string]*protocol.Notice{}}
	for i := range r.Notices {
		n := &r.Notices[i]
		x.byPath[n.Path] = n
		switch n.Kind {
		case protocol.NoticeCommon:
			x.common[path.Base(n.Path)] = n
		case protocol.NoticeLicense, protocol.NoticeNotice:
			dir := path.Dir(n.Path)
			x.byDir[dir] = append(x.byDir[dir], n)
			if b := path.Base(dir); b == "LICENSES" || b == "licenses" {
				x.byDir[path.Dir(dir)] = append(x.byDir[path.Dir(dir)], n)
			}
			if _, mod, ok := strings.Cut("/"+dir, "/pkg/mod/"); ok && strings.Contains(path.Base(dir), "@") {
				x.module[mod] = append(x.module[mod], n)
			}
		}
	}
	return x
}

// subjects returns what there is to judge in a report.
func subjects(r *protocol.Report) []*Subject {
	x := indexNotices(r)
	type identity struct{ kind, name, version string }
	all := map[identity]*Subject{}
	names := map[*Subject][]*Expression{}
	add := func(res *protocol.Result, p *protocol.Package) *Subject {
		id := identity{res.Type, p.Name, p.Version}
		s := all[id]
		if s == nil {
			s = &Subject{Package: p.Name, Version: p.Version, Type: res.Type, PURL: p.PURL, source: p.Source}
			all[id] = s
		}
		for _, l := range p.Licenses {
			names[s] = append(names[s], ParseName(l))
		}
		if place := cmp.Or(p.Path, res.Target); place != "" && !slices.Contains(s.Places, place) {
			s.Places = append(s.Places, place)
		}
		for _, n := range x.about(res, p) {
			if !slices.Contains(s.notices, n) {
				s.notices = append(s.notices, n)
			}
		}
		return s
	}
	for i := range r.Results {
		res := &r.Results[i]
		for j := range res.Packages {
			add(res, &res.Packages[j])
		}
	}
	// Without packages, a report still tells which licences they have.
	listed := map[string]bool{}
	for id := range all {
		listed[id.name] = true
	}
	for i := range r.Results {
		res := &r.Results[i]
		if res.Class != protocol.ClassLicense {
			continue
		}
		for _, l := range res.Licenses {
			if l.Package != "" && !listed[l.Package] {
				add(res, &protocol.Package{Name: l.Package, Path: l.Path, Licenses: []string{l.Name}})
			}
		}
	}
	var out []*Subject
	bySource := map[string]*Subject{}
	for _, s := range all {
		out = append(out, s)
	}
	sortSubjects(out)
	for _, s := range out {
		if s.source != "" && len(s.notices) > 0 && bySource[s.source] == nil {
			bySource[s.source] = s
		}
	}
	attached := map[*protocol.Notice]bool{}
	for _, s := range out {
		// A package of Debian may have its documentation in that of another of the
		// same source: then there is a symbolic link in place of the directory.
		if other := bySource[s.source]; len(s.notices) == 0 && s.source != "" && other != nil {
			s.notices = other.notices
		}
		s.finish(names[s])
		for _, n := range s.notices {
			attached[n] = true
		}
	}
	return append(out, loose(r, attached)...)
}

// finish works out the licence and the owners of a package.
func (s *Subject) finish(names []*Expression) {
	var texts []*Expression
	for _, n := range s.notices {
		for _, l := range n.Licenses {
			e := ParseName(l)
			if n.Kind == protocol.NoticeCopyright {
				// Trivy makes a list of all names in the file. What the file itself says is
				// better: it has "or".
				s.expression = Join(And, s.expression, e)
			} else {
				texts = append(texts, e)
			}
		}
		for _, c := range n.Copyright {
			if !slices.Contains(s.Copyright, c) {
				s.Copyright = append(s.Copyright, c)
			}
		}
	}
	if s.expression == nil {
		s.expression = Join(And, names...)
	}
	if s.expression == nil {
		s.expression = Join(And, texts...)
	}
	s.License = s.expression.String()
	slices.Sort(s.Places)
}

// about returns the notices that are about a package, by where its kind of package
// has them.
func (x *noticeIndex) about(res *protocol.Result, p *protocol.Package) []*protocol.Notice {
	if res.Class == protocol.ClassOS || res.Type == "debian" || res.Type == "ubuntu" {
		for _, file := range []string{"usr/share/doc/" + p.Name + "/copyright"} {
			if n := x.byPath[file]; n != nil {
				return []*protocol.Notice{n}
			}
		}
		return x.byDir["usr/share/licenses/"+p.Name]
	}
	var dirs []string
	if p.Path != "" {
		dir := path.Dir(p.Path)
		switch path.Ext(p.Path) {
		case ".gemspec":
			dirs = append(dirs, path.Join(path.Dir(dir), "gems", p.Name+"-"+p.Version))
		case ".jar", ".war", ".ear", ".par":
		default:
			dirs = append(dirs, dir)
		}
		if strings.HasSuffix(dir, ".dist-info") || strings.HasSuffix(dir, ".egg-info") {
			dirs = append(dirs, path.Join(path.Dir(dir), strings.ReplaceAll(p.Name, "-", "_")), path.Join(path.Dir(dir), p.Name))
		}
	}
	root := path.Dir(res.Target)
	switch res.Type {
	case "npm", "yarn", "pnpm", "bun":
		dirs = append(dirs, path.Join(root, "node_modules", p.Name))
	case "gomod", "gobinary":
		if n := x.module[moduleDir(p.Name)+"@"+goVersion(p.Version)]; n != nil {
			return n
		}
		dirs = append(dirs, path.Join(root, "vendor", p.Name))
	case "composer", "cargo":
		dirs = append(dirs, path.Join(root, "vendor", p.Name), path.Join(root, "vendor", p.Name+"-"+p.Version))
	case "bundler", "gemspec":
		dirs = append(dirs, path.Join(root, "vendor/bundle/gems", p.Name+"-"+p.Version))
	}
	var out []*protocol.Notice
	for i, d := range dirs {
		if !slices.Contains(dirs[:i], d) && d != "." {
			out = append(out, x.byDir[d]...)
		}
	}
	return out
}

// goVersion is a version as a module cache writes it.
func goVersion(v string) string { return "v" + strings.TrimPrefix(v, "v") }

// moduleDir writes a module's path as a module cache does, with ! before letters
// that are capitals.
func moduleDir(name string) string {
	var b strings.Builder
	for _, r := range name {
		if 'A' <= r && r <= 'Z' {
			b.WriteByte('!')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// loose returns the files that belong to no package, by their licence. A licence's
// text that nobody recognises is a licence of its own.
func loose(r *protocol.Report, attached map[*protocol.Notice]bool) []*Subject {
	by := map[string]*Subject{}
	for i := range r.Notices {
		n := &r.Notices[i]
		unrecognised := n.Kind == protocol.NoticeLicense && len(n.Licenses) == 0
		if attached[n] || n.Kind == protocol.NoticeCommon || strings.HasPrefix(n.Path, "usr/share/doc/") || len(n.Licenses) == 0 && !unrecognised {
			continue
		}
		var parts []*Expression
		for _, l := range n.Licenses {
			parts = append(parts, ParseName(l))
		}
		e := Join(And, parts...)
		if e == nil {
			e = &Expression{ID: "not recognised"}
		}
		s := by[e.String()]
		if s == nil {
			s = &Subject{Type: "files", License: e.String(), expression: e}
			by[e.String()] = s
		}
		s.Places = append(s.Places, n.Path)
		s.notices = append(s.notices, n)
	}
	out := slices.Collect(func(yield func(*Subject) bool) {
		for _, s := range by {
			slices.Sort(s.Places)
			if !yield(s) {
				return
			}
		}
	})
	sortSubjects(out)
	return out
}

func sortSubjects(s []*Subject) {
	slices.SortFunc(s, func(a, b *Subject) int {
		return cmp.Or(cmp.Compare(a.Package, b.Package), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Type, b.Type), cmp.Compare(a.License, b.License))
	})
}
