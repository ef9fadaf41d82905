// Package catalogue is the catalogue of plugins that comes with mobileops. It
// is a part of the program, so plugin search, info and install work without a
// network.
//
// "make bundle" builds the plugins below plugins/, packs and signs them, and
// puts them into the directory bundle here, which go:embed takes into the
// program. A program that was built by go build alone, in a fresh clone, has
// none: List then has what is planned, and Open says what to do.
//
// What proves what:
//
//	key.pub → catalogue.json.minisig → catalogue.json → digest of each package
//	key.pub → plugin.yaml.minisig → plugin.yaml → each file (package pack)
//
// The key is a release's own, or one that was made for the build and thrown
// away after it. Either is as trustworthy as the program that it is a part of,
// and no more: who can change the one can change the other.
//
// List reads catalogue.json and no package. docs/formats/plugin-catalogue.md
// describes the files.
package catalogue

import (
	"bytes"
	"embed"
	"errors"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"sync"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/catalogue/listing"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/pkg/filehash"
)

var (
	// ErrUnknown is returned for a name that is not in the catalogue.
	ErrUnknown = failure.New(failure.No, "no plugin of this name comes with mobileops")
	// ErrNoBundle is returned where this program was built without plugins.
	ErrNoBundle = failure.New(failure.NotReady, "this mobileops was built without the plugins that come with it (make build)")
)

// Item is a plugin of the catalogue.
type Item struct {
	Name        string
	Version     string // "" of one that is planned, as are the following
	Summary     string
	Description string
	Planned     string             // why it is not there yet; "" when it is there
	Manifest    *manifest.Manifest // that of the package; shared, not to be changed
	Sequence    uint64
	Size        int64 // of the package, in bytes
}

//go:embed all:bundle
var files embed.FS

// embedded is the bundle of this program.
var embedded = sync.OnceValue(func() *bundle {
	dir, err := fs.Sub(files, "bundle")
	if err != nil { // only a bad name can be wrong
		panic(err)
	}
	return newBundle(dir, runtime.GOOS+"/"+runtime.GOARCH)
})

// Included reports whether this program has plugins at all.
func Included() bool { return embedded().included() }

// List returns what is there, by name, and then what is planned. A program
// without plugins has what is planned alone; see Included.
func List() ([]Item, error) { return embedded().list() }

// Get returns the item of a name, which may be planned. Its errors are
// ErrUnknown, and ErrNoBundle for a plugin that other builds have.
func Get(name string) (Item, error) { return embedded().get(name) }

// Open returns the package of a plugin, an archive that pack.OpenReader reads
// and that is signed by Key. Its errors are those of Get; one that is planned,
// or is here for another kind of machine, is of kind failure.NotReady.
func Open(name string) (io.Reader, error) { return embedded().open(name) }

// Key returns the public key that all packages are signed by: ErrNoBundle when
// there are none.
func Key() (trust.PublicKey, error) { return embedded().key() }

// bundle reads a directory that "make bundle" wrote.
type bundle struct {
	dir      fs.FS
	platform string // of this program
	load     func() (*listing.Listing, error)
}

func newBundle(dir fs.FS, platform string) *bundle {
	b := &bundle{dir: dir, platform: platform}
	b.load = sync.OnceValues(b.read)
	return b
}

func (b *bundle) included() bool {
	_, err := fs.Stat(b.dir, listing.FileName)
	return err == nil
}

// read proves and decodes catalogue.json, once.
func (b *bundle) read() (*listing.Listing, error) {
	if !b.included() {
		return nil, ErrNoBundle
	}
	data, err := fs.ReadFile(b.dir, listing.FileName)
	if err != nil {
		return nil, err
	}
	signature, err := fs.ReadFile(b.dir, listing.SignatureName)
	if err != nil {
		return nil, err
	}
	key, err := fs.ReadFile(b.dir, listing.KeyName)
	if err != nil {
		return nil, err
	}
	return listing.Read(data, signature, key)
}

func (b *bundle) list() ([]Item, error) {
	l, err := b.load()
	if errors.Is(err, ErrNoBundle) {
		return planned(), nil
	}
	if err != nil {
		return nil, err
	}
	items := make([]Item, 0, len(l.Plugins)+4)
	for _, p := range l.Plugins {
		m := p.Manifest
		items = append(items, Item{
			Name: m.Name, Version: m.Version, Summary: m.Summary, Description: m.Description,
			Manifest: m, Sequence: p.Sequence, Size: p.Size,
		})
	}
	return append(items, planned()...), nil
}

func (b *bundle) get(name string) (Item, error) {
	items, err := b.list()
	if err != nil {
		return Item{}, err
	}
	for _, it := range items {
		if it.Name == name {
			return it, nil
		}
	}
	if slices.Contains(listing.Names(), name) {
		return Item{}, ErrNoBundle
	}
	return Item{}, ErrUnknown
}

func (b *bundle) open(name string) (io.Reader, error) {
	it, err := b.get(name)
	if err != nil {
		return nil, err
	}
	if it.Planned != "" {
		return nil, failure.Errorf(failure.NotReady, "%s is planned: %s", name, it.Planned)
	}
	l, err := b.load()
	if err != nil {
		return nil, err
	}
	if l.Platform != b.platform {
		return nil, failure.Hint(failure.Errorf(failure.NotReady, "this mobileops runs on %s, and the plugins in it are for %s", b.platform, l.Platform),
			"whoever builds mobileops for another machine sets GOARCH for make build")
	}
	data, err := fs.ReadFile(b.dir, listing.Archive(name))
	if err != nil {
		return nil, err
	}
	for _, p := range l.Plugins {
		if p.Manifest.Name == name && (int64(len(data)) != p.Size || filehash.SumBytes(data).String() != p.Digest) {
			return nil, failure.Errorf(failure.Untrustworthy, "the package of %s that is part of this mobileops is damaged: install mobileops again", name)
		}
	}
	return bytes.NewReader(data), nil
}

func (b *bundle) key() (trust.PublicKey, error) {
	if _, err := b.load(); err != nil {
		return trust.PublicKey{}, err
	}
	text, err := fs.ReadFile(b.dir, listing.KeyName)
	if err != nil {
		return trust.PublicKey{}, err
	}
	return trust.ParsePublicKey(text)
}

// Names returns the names that belong to the catalogue, also in a program that
// was built without it, and those that are planned: no plugin of others may have
// one.
func Names() []string {
	names := listing.Names()
	for _, item := range planned() {
		names = append(names, item.Name)
	}
	return names
}
