//go:build goexperiment.jsonv2

package trivy

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

const maxModuleFile = 4 << 20 // bytes of a Terraform file whose modules are followed

// localSource is what Terraform says of a module in another directory of the tree,
// as HCL and as JSON.
var localSource = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?:\bsource\s*=|"source"\s*:)\s*"(\.{1,2}(?:/[^"\n]*)?)"`)
})

// modules is which directories of Terraform files name which others as modules.
// Trivy follows a module that includes itself without end.
type modules struct {
	files map[string][]string // names of files by directory
	edges map[string][]string
}

func isTerraform(name string) bool {
	return strings.HasSuffix(name, ".tf") || strings.HasSuffix(name, ".tf.json") || strings.HasSuffix(name, ".tofu") || strings.HasSuffix(name, ".tofu.json")
}

// read notes what a file names.
func (m *modules) read(name string, info fs.FileInfo, c content) error {
	b := make([]byte, min(info.Size(), maxModuleFile))
	n, err := c.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if m.files == nil {
		m.files, m.edges = map[string][]string{}, map[string][]string{}
	}
	dir := path.Dir(name)
	m.files[dir] = append(m.files[dir], name)
	for _, s := range localSource().FindAllSubmatch(b[:n], -1) {
		if to := path.Join(dir, string(s[1])); !slices.Contains(m.edges[dir], to) {
			m.edges[dir] = append(m.edges[dir], to)
		}
	}
	return nil
}

// endless returns the files of directories that include themselves: what is left
// when those are taken out, again and again, that include none that is left, and
// then those that none includes.
func (m *modules) endless() (files []string) {
	reverse := map[string][]string{}
	for from, list := range m.edges {
		for _, to := range list {
			reverse[to] = append(reverse[to], from)
		}
	}
	gone := map[string]bool{}
	takeOut := func(to, back map[string][]string) {
		left := map[string]int{}
		var todo []string
		for dir := range m.files {
			for _, d := range to[dir] {
				if m.files[d] != nil && !gone[d] {
					left[dir]++
				}
			}
			if left[dir] == 0 && !gone[dir] {
				todo = append(todo, dir)
			}
		}
		for len(todo) > 0 {
			dir := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			gone[dir] = true
			for _, d := range back[dir] {
				if left[d]--; left[d] == 0 && !gone[d] {
					todo = append(todo, d)
				}
			}
		}
	}
	takeOut(m.edges, reverse)
	takeOut(reverse, m.edges)
	for dir, list := range m.files {
		if !gone[dir] {
			files = append(files, list...)
		}
	}
	slices.Sort(files)
	return files
}

// tell makes problems of files that are left out.
func (m *modules) tell(found *problems) []string {
	files := m.endless()
	for _, f := range files {
		found.add(protocol.Malformed, f, "the module includes itself, so it was not looked at as Terraform")
	}
	return files
}
