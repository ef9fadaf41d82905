package pack

import (
	"maps"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/pkg/filehash"
)

// paths is a tree of the names that a package has: the files that its manifest
// lists, the manifest, the signature, and the directories that these imply. It
// is also what a walk of filehash selects by.
type paths struct {
	below map[string]*paths // nil for a file
	few   []string          // the only names to look at, nil for all
}

// newPaths makes the tree of a manifest; of one of its files alone when only
// is not "".
func newPaths(m *manifest.Manifest, only string) *paths {
	top := &paths{below: map[string]*paths{}}
	if only != "" {
		top.add(only)
		top.narrow()
		return top
	}
	top.add(manifest.FileName)
	top.add(manifest.SignatureName)
	for name := range m.Files {
		top.add(name)
	}
	return top
}

func (p *paths) add(name string) {
	for part := range strings.SplitSeq(name, "/") {
		if p.below == nil { // beneath a file, which manifests do not have
			p.below = map[string]*paths{}
		}
		next := p.below[part]
		if next == nil {
			next = &paths{}
			p.below[part] = next
		}
		p = next
	}
}

// narrow has a walk look at the names of this tree alone.
func (p *paths) narrow() {
	p.few = slices.Sorted(maps.Keys(p.below))
	for _, next := range p.below {
		next.narrow()
	}
}

// find returns the place of a clean name, nil when there is none.
func (p *paths) find(name string) *paths {
	for part := range strings.SplitSeq(name, "/") {
		if p = p.below[part]; p == nil {
			return nil
		}
	}
	return p
}

func (p *paths) isDir() bool { return p.below != nil }

// Select implements filehash.Selector: everything is reported, and what is
// known is read.
func (p *paths) Select(name []byte) (filehash.Want, any) {
	if next := p.below[string(name)]; next != nil && !next.isDir() {
		return filehash.WantEntry | filehash.WantContent, next
	}
	return filehash.WantEntry, nil
}

// Enter implements filehash.Selector.
func (p *paths) Enter(name []byte) filehash.Selector {
	if next := p.below[string(name)]; next != nil && next.isDir() {
		return next
	}
	return nil
}

// Names implements filehash.Selector.
func (p *paths) Names() ([]string, bool) { return p.few, p.few != nil }

// SelectRoot implements filehash.RootSelector.
func (p *paths) SelectRoot() (filehash.Want, any) { return filehash.WantEntry, nil }
