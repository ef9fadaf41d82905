// Package scaffold writes the beginning of a plugin, as mobileops plugin init
// does: a directory that builds, tests and can be signed as it is.
//
// Each language has its files beneath templates/, with the ending .txt so that
// neither Go nor an editor takes them for parts of mobileops. Words between @
// stand for what differs:
//
//	@NAME@           the name of the plugin
//	@GO@             the version of Go that mobileops needs
//	@MODULEVERSION@  the version of the module of mobileops, for go.mod
//	@MINIMUM@        the line min_version of plugin.yaml, or that line as a comment
//
// Invariants: a file that exists is never written to, and after an error nothing
// that Write made is left. What Write makes has a plugin.yaml that package
// manifest reads.
package scaffold

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/buildinfo"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
)

// Languages that Write knows.
const (
	Go    = "go"
	Shell = "sh"
)

// Languages returns them.
func Languages() []string { return []string{Go, Shell} }

//go:embed templates
var templates embed.FS

// goVersion is that of go.mod of mobileops: a module that needs this one needs
// at least the same.
const goVersion = "1.26.3"

// Write writes the files of a new plugin into a directory, which is made when it
// is not there, and returns their names, sorted. Errors are of kind
// failure.Usage for a bad name or language, and when one of the files exists.
// Whether the name is one of mobileops' own commands is for the caller to ask
// (manifest.Manifest.CheckAgainst).
func Write(dir, name, lang string) ([]string, error) {
	return write(dir, name, lang, buildinfo.Get().Version)
}

// file is one to be written.
type file struct {
	name    string
	content []byte
	mode    fs.FileMode
}

func write(dir, name, lang, version string) (names []string, err error) {
	files, err := render(name, lang, version)
	if err != nil {
		return nil, err
	}
	for _, f := range files { // before the first is written
		if _, err := os.Lstat(path.Join(dir, f.name)); err == nil {
			return nil, exists(path.Join(dir, f.name))
		}
		names = append(names, f.name)
	}
	made, err := makeDir(dir)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for i, f := range files {
		if err := create(root, f); err != nil {
			for _, g := range files[:i] {
				err = errors.Join(err, root.Remove(g.name))
			}
			if made {
				err = errors.Join(err, os.Remove(dir))
			}
			if errors.Is(err, fs.ErrExist) {
				return nil, exists(path.Join(dir, f.name))
			}
			return nil, access(err)
		}
	}
	return names, nil
}

// makeDir makes a directory, and says whether it was not there.
func makeDir(dir string) (bool, error) {
	err := os.Mkdir(dir, 0o777) // less the umask, as for any directory of the user's
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, failure.Wrap(failure.NotReady, err)
	case !errors.Is(err, fs.ErrExist):
		return false, access(err)
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return false, failure.Hint(failure.Errorf(failure.Usage, "%s is no directory", dir), "choose another place")
	}
	return false, nil
}

func create(root *os.Root, f file) error {
	out, err := root.OpenFile(f.name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, f.mode)
	if err != nil {
		return err
	}
	_, err = out.Write(f.content)
	if err := errors.Join(err, out.Close()); err != nil {
		return errors.Join(err, root.Remove(f.name))
	}
	return nil
}

func exists(name string) error {
	return failure.Hint(failure.Errorf(failure.Usage, "%s exists; nothing was written", name), "choose another directory, or move it away")
}

// access says what helps against missing rights.
func access(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return failure.Wrap(failure.NotAllowed, err)
	}
	return err
}

// render fills in the files of a language, sorted by their names.
func render(name, lang, version string) ([]file, error) {
	if !slices.Contains(Languages(), lang) {
		return nil, failure.Errorf(failure.Usage, "there is no scaffold in %q; languages are %s", lang, strings.Join(Languages(), " and "))
	}
	words := strings.NewReplacer("@NAME@", name, "@GO@", goVersion, "@MODULEVERSION@", moduleVersion(version), "@MINIMUM@", minimum(version))
	dir := "templates/" + lang
	entries, err := templates.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []file
	for _, e := range entries {
		data, err := templates.ReadFile(dir + "/" + e.Name())
		if err != nil {
			return nil, err
		}
		f := file{name: target(e.Name(), name), content: []byte(words.Replace(string(data))), mode: 0o666}
		if strings.HasPrefix(string(data), "#!") {
			f.mode = 0o777
		}
		if f.name == manifest.FileName {
			if err := checkName(name, f.content); err != nil {
				return nil, err
			}
		}
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return files, nil
}

// target is the name of the file that a template is for.
func target(template, name string) string {
	t := strings.TrimSuffix(template, ".txt")
	if hidden, ok := strings.CutPrefix(t, "dot-"); ok {
		return "." + hidden
	}
	if t == "mobileops-NAME" {
		return "mobileops-" + name
	}
	return t
}

// checkName asks package manifest, which knows what names may be: all else in
// plugin.yaml is ours.
func checkName(name string, yaml []byte) error {
	m, err := manifest.Parse(yaml)
	if err == nil && m.Name == name {
		return nil
	}
	return failure.Errorf(failure.Usage, "%q cannot be the name of a plugin: 2 to 48 lower-case letters and digits with single hyphens between, a letter first, such as disk-watch", name)
}

// Forms of versions: of releases and their candidates, and of what Go makes up
// from a commit (https://go.dev/ref/mod#pseudo-versions).
const (
	anyVersion    = `^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`
	pseudoVersion = `[.-][0-9]{14}-[0-9a-f]{12}$`
)

// bare is a version without the v that Go puts before it, and without what it
// says about changes since: "" when there is none.
func bare(version string) string {
	v, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), "+")
	if !regexp.MustCompile(anyVersion).MatchString(v) {
		return ""
	}
	return v
}

// moduleVersion is the version of mobileops that go.mod requires. Where this one
// was built without any, it is one that can only be replaced by a checkout.
func moduleVersion(version string) string {
	if v := bare(version); v != "" {
		return "v" + v
	}
	return "v0.0.0"
}

// minimum is the line of plugin.yaml that says which mobileops it needs: this
// one, if it is a release.
func minimum(version string) string {
	v := bare(version)
	if v == "" || regexp.MustCompile(pseudoVersion).MatchString(v) {
		return fmt.Sprintf("# min_version: %-20s # of mobileops", "1.0.0")
	}
	return fmt.Sprintf("min_version: %-22s # of mobileops", v)
}
