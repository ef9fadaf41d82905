package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/plugin/catalogue/listing"
	"github.com/mobileops/mobileops/internal/plugin/pack"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/pkg/filehash"
)

// packLevel is that of zstd: a bundle is packed seldom and carried around for
// years.
const packLevel = 19

// readme is the one file of the bundle that is in the repository.
const readme = "README.md"

// job is a bundle to be made.
type job struct {
	root         string // of the repository, absolute
	goos, goarch string
	goTool       string
	names        []string
	level        int
	signer       trust.Signer // nil: a throwaway key
}

func (j *job) bundleDir() string {
	return filepath.Join(j.root, "internal", "plugin", "catalogue", "bundle")
}

// cacheDir has what is built, for each platform: go build does not link again
// what is there already.
func (j *job) cacheDir() string {
	return filepath.Join(j.root, ".cache", "bundle", j.goos+"-"+j.goarch)
}

// run makes the bundle, and says whether that was needed.
func (j *job) run(ctx context.Context) (made bool, err error) {
	if err := os.MkdirAll(filepath.Join(j.cacheDir(), "out"), 0o755); err != nil {
		return false, err
	}
	unlock, err := lock(filepath.Join(j.root, ".cache", "bundle", "lock"))
	if err != nil {
		return false, err
	}
	defer unlock()
	plugins := make([]*plugin, len(j.names))
	for i, name := range j.names {
		if plugins[i], err = j.stage(ctx, name); err != nil {
			return false, err
		}
	}
	why := j.stale(plugins)
	if why == nil {
		return false, nil
	}
	if err := j.write(ctx, plugins); err != nil {
		return false, err
	}
	// What is written proves itself as it will at the next run.
	if err := j.stale(plugins); err != nil {
		return true, fmt.Errorf("the bundle that was just made is not what was to be made: %w", err)
	}
	return true, nil
}

// lock keeps two makes from writing at the same time.
func lock(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return f.Close, nil
}

// stale returns nil when the bundle is whole, signed, and has exactly these
// plugins, and otherwise why it has to be made again.
func (j *job) stale(plugins []*plugin) error {
	file := func(name string) []byte {
		data, _ := os.ReadFile(filepath.Join(j.bundleDir(), name)) // what is not there does not prove
		return data
	}
	data, key := file(listing.FileName), file(listing.KeyName)
	there, err := listing.Read(data, file(listing.SignatureName), key)
	if err != nil {
		return err
	}
	public, err := trust.ParsePublicKey(key)
	if err != nil {
		return err
	}
	if j.signer != nil && !j.signer.Public().Equal(public) {
		return fmt.Errorf("it is signed by the key %s, not by %s", public.ID(), j.signer.Public().ID())
	}
	wanted := &listing.Listing{Schema: listing.Schema, Platform: j.goos + "/" + j.goarch}
	for _, p := range plugins {
		archive := file(listing.Archive(p.manifest.Name))
		if err := p.isIn(archive, trust.Pinned(public)); err != nil {
			return fmt.Errorf("%s: %w", p.manifest.Name, err)
		}
		if err := add(wanted, p, archive); err != nil {
			return err
		}
	}
	if len(there.Plugins) != len(plugins) {
		return fmt.Errorf("it has %d plugins, not %d", len(there.Plugins), len(plugins))
	}
	// What nobody asked for would be embedded all the same.
	entries, err := os.ReadDir(j.bundleDir())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !slices.Contains(j.files(), e.Name()) {
			return fmt.Errorf("%s does not belong to it", e.Name())
		}
	}
	now, err := wanted.Marshal()
	if err == nil && !bytes.Equal(now, data) {
		err = fmt.Errorf("%s says something else", listing.FileName)
	}
	return err
}

// add enters a plugin and its package into the list.
func add(l *listing.Listing, p *plugin, archive []byte) error {
	sequence, err := listing.Sequence(p.manifest.Version)
	if err != nil {
		return fmt.Errorf("plugins/%s: %w", p.manifest.Name, err)
	}
	l.Plugins = append(l.Plugins, listing.Plugin{
		Sequence: sequence, Size: int64(len(archive)), Digest: filehash.SumBytes(archive).String(), Manifest: p.manifest,
	})
	return nil
}

// files are those that a bundle has.
func (j *job) files() []string {
	list := []string{readme, listing.FileName, listing.SignatureName, listing.KeyName}
	for _, name := range j.names {
		list = append(list, listing.Archive(name))
	}
	return list
}

// isIn returns nil when an archive is the package of the plugin, signed as it
// would be now. The digests in the manifest that is compared are those of what
// was just built; that the archive has the same is proved by its digest in the
// signed listing.
func (p *plugin) isIn(archive []byte, keys *trust.Keys) error {
	pkg, err := pack.OpenReader(bytes.NewReader(archive))
	if err != nil {
		return err
	}
	defer pkg.Close()
	if err := pkg.Verify(keys, time.Time{}); err != nil {
		return err
	}
	want, err := p.manifest.Marshal()
	if err != nil {
		return err
	}
	sequence, err := listing.Sequence(p.manifest.Version)
	if err != nil {
		return err
	}
	if rel := pkg.Release; !bytes.Equal(want, pkg.ManifestBytes) || rel.Sequence != sequence || !rel.Expires.Equal(listing.Expires()) {
		return errors.New("it changed")
	}
	return nil
}

// write makes everything anew, since the key is another one, and puts it in
// place. The list goes first and comes last, so what an interrupted run leaves
// is not taken for a bundle.
func (j *job) write(ctx context.Context, plugins []*plugin) error {
	signer := j.signer
	if signer == nil {
		key, err := newThrowaway()
		if err != nil {
			return err
		}
		signer = key
	}
	list := &listing.Listing{Schema: listing.Schema, Platform: j.goos + "/" + j.goarch}
	made := map[string][]byte{listing.KeyName: []byte(signer.Public().String() + "\n")}
	for _, p := range plugins {
		sequence, err := listing.Sequence(p.manifest.Version)
		if err != nil {
			return fmt.Errorf("plugins/%s: %w", p.manifest.Name, err)
		}
		var archive bytes.Buffer
		if _, err := pack.Build(ctx, p.dir, &archive, pack.BuildOptions{Signer: signer, Sequence: sequence, Expires: listing.Expires(), Level: j.level}); err != nil {
			return fmt.Errorf("pack plugins/%s: %w", p.manifest.Name, err)
		}
		if err := add(list, p, archive.Bytes()); err != nil {
			return err
		}
		made[listing.Archive(p.manifest.Name)] = archive.Bytes()
	}
	data, signature, err := list.Write(ctx, signer)
	if err != nil {
		return err
	}
	made[listing.SignatureName] = signature
	entries, err := os.ReadDir(j.bundleDir())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == listing.FileName || !slices.Contains(j.files(), e.Name()) {
			if err := os.RemoveAll(filepath.Join(j.bundleDir(), e.Name())); err != nil {
				return err
			}
		}
	}
	for name, content := range made {
		if err := j.place(name, content); err != nil {
			return err
		}
	}
	return j.place(listing.FileName, data)
}

// place puts a file into the bundle in one step.
func (j *job) place(name string, content []byte) error {
	tmp := filepath.Join(j.cacheDir(), "out", name)
	if err := os.WriteFile(tmp, content, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(j.bundleDir(), name))
}
