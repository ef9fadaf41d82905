package packages

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
)

// Limits on a directory of archives.
const (
	maxArchives     = 1 << 17
	maxArchiveDepth = 16
)

// Archives are the package files in a directory and the directories below it:
// .deb, .rpm and .apk files, whatever they are called otherwise.
type Archives struct {
	root     *os.Root
	dir      string
	byPkg    map[Package]archive
	problems []error
}

// archive is a package file.
type archive struct {
	format *archiveFormat
	path   string // below the directory
}

// archiveFormat is how the archives with one extension are read.
type archiveFormat struct {
	ext string
	// identify reads no further than it must to tell which package it is.
	identify func(f *os.File) (Package, error)
	// files calls found with what is at each of the wanted names: absolute
	// paths as the package has them. Errors are *CorruptError without a File.
	files func(ctx context.Context, f *os.File, want archiveWant) error
}

// archiveWant are the files that are looked for in an archive.
type archiveWant struct {
	has   func(name string) bool
	found func(name string, f File)
}

func archiveFormats() []*archiveFormat {
	return []*archiveFormat{debFormat(), apkFormat(), rpmFormat()}
}

// OpenArchives looks through dir and reads of each archive which package it
// is. What cannot be read as one is left out and told by Problems. Links are
// not followed out of dir.
func OpenArchives(dir string) (*Archives, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, failure.Errorf(failure.KindOf(err), "package archives: %w", err)
	}
	a := &Archives{root: root, dir: dir, byPkg: map[Package]archive{}}
	formats := archiveFormats()
	files := 0
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && p == ".":
			return err
		case err != nil:
			a.problems = append(a.problems, err)
			return nil
		case d.IsDir() && strings.Count(p, "/") >= maxArchiveDepth:
			a.problems = append(a.problems, fmt.Errorf("%s is deeper than %d directories, and was not looked at", a.name(p), maxArchiveDepth))
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		i := slices.IndexFunc(formats, func(f *archiveFormat) bool { return strings.HasSuffix(p, f.ext) })
		if i < 0 {
			return nil
		}
		if files++; files > maxArchives {
			return failure.Errorf(failure.Usage, "%s holds more than %d package files: name a directory with fewer", dir, maxArchives)
		}
		a.identify(archive{formats[i], p})
		return nil
	})
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("package archives: %w", err)
	}
	return a, nil
}

func (a *Archives) name(p string) string { return path.Join(a.dir, p) }

// identify adds an archive to the index.
func (a *Archives) identify(ar archive) {
	f, err := a.open(ar.path)
	if err != nil {
		a.problems = append(a.problems, err)
		return
	}
	defer f.Close()
	p, err := ar.format.identify(f)
	if err != nil {
		a.problems = append(a.problems, a.in(ar.path, err))
		return
	}
	if old, ok := a.byPkg[p]; !ok || ar.path < old.path {
		a.byPkg[p] = ar
	}
}

// open opens a regular file in the directory.
func (a *Archives) open(p string) (*os.File, error) {
	st, err := a.root.Stat(p)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() { // opening a FIFO would wait
		return nil, &CorruptError{File: a.name(p), Offset: -1, Reason: "not a regular file"}
	}
	return a.root.Open(p)
}

// in says in which file an error is.
func (a *Archives) in(p string, err error) error {
	var c *CorruptError
	if errors.As(err, &c) && c.File == "" {
		c.File = a.name(p)
		return err
	}
	return fmt.Errorf("%s: %w", a.name(p), err)
}

// Close closes the archives.
func (a *Archives) Close() error { return a.root.Close() }

// Problems returns why files that looked like archives are none.
func (a *Archives) Problems() []error { return a.problems }

// Packages returns the packages of which an archive is there, sorted.
func (a *Archives) Packages() []Package {
	list := make([]Package, 0, len(a.byPkg))
	for p := range a.byPkg {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Package) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version), strings.Compare(a.Arch, b.Arch))
	})
	return list
}

// Lookup returns what the archive of exactly this package has at each of the
// absolute paths: the digest of the content, type, permissions, owner, target;
// a zero File where it has nothing. found says whether there is such an
// archive. A path may name a file by the merged /usr or without it; that of a
// diverted file is File.Recorded.
func (a *Archives) Lookup(ctx context.Context, pkg Package, paths [][]byte) (files []File, found bool, err error) {
	ar, ok := a.byPkg[pkg]
	if !ok {
		return nil, false, nil
	}
	f, err := a.open(ar.path)
	if err != nil {
		return nil, true, err
	}
	defer f.Close()
	files = make([]File, len(paths))
	index := map[string][]int{} // merged name → questions
	merged := mergedUsr()
	for i, p := range paths {
		c, _ := merged.canonical(p, nil)
		index[string(c)] = append(index[string(c)], i)
	}
	var room []byte
	questions := func(name string) []int {
		var c []byte
		c, room = merged.canonical([]byte(name), room)
		return index[string(c)]
	}
	err = ar.format.files(ctx, f, archiveWant{
		has: func(name string) bool { return len(questions(name)) > 0 },
		found: func(name string, f File) {
			f.Package = pkg
			for _, i := range questions(name) {
				// One name may stand for two paths; that which is exactly the
				// one asked for counts.
				if files[i].Package == (Package{}) || name == string(paths[i]) {
					files[i] = f
				}
			}
		},
	})
	if err != nil {
		return nil, true, a.in(ar.path, err)
	}
	return files, true, nil
}

// mergedUsr makes the names of the split and of the merged /usr the same.
func mergedUsr() *aliases {
	var list []alias
	for _, d := range linkedDirs {
		if !strings.HasPrefix(d, "/usr/") && !strings.HasPrefix(d, "/var/") {
			list = append(list, alias{d + "/", "/usr" + d + "/"})
		}
	}
	return newAliases(list)
}
