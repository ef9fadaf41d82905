package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/pkg/filehash"
)

// plugin is one that is built and ready to be packed.
type plugin struct {
	dir      string             // what pack.Build packs
	manifest *manifest.Manifest // as it will be in the package, with files
}

// stage builds a plugin, and puts everything that is packed into a directory of
// its own.
func (j *job) stage(ctx context.Context, name string) (*plugin, error) {
	src := filepath.Join(j.root, "plugins", name)
	program := filepath.Join(j.cacheDir(), "bin", "mobileops-"+name)
	if err := j.compile(ctx, name, program); err != nil {
		return nil, err
	}
	dir := filepath.Join(j.cacheDir(), "stage", name)
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := copyFile(program, filepath.Join(dir, filepath.Base(program)), 0o755); err != nil {
		return nil, err
	}
	// The licence is that of the repository unless a plugin has its own.
	sources := [][]string{{filepath.Join(j.root, "LICENSE")}}
	for _, pattern := range []string{manifest.FileName, "README*", "LICENSE*", "NOTICE*"} {
		found, err := filepath.Glob(filepath.Join(src, pattern))
		if err != nil {
			return nil, err
		}
		sources = append(sources, found)
	}
	for _, list := range sources {
		for _, from := range list {
			if err := copyFile(from, filepath.Join(dir, filepath.Base(from)), 0o644); err != nil {
				return nil, err
			}
		}
	}
	if err := os.CopyFS(filepath.Join(dir, "files"), os.DirFS(filepath.Join(src, "files"))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	m, err := describe(dir)
	if err == nil && m.Name != name {
		err = fmt.Errorf("it is called %s in %s", m.Name, manifest.FileName)
	}
	if err != nil {
		return nil, fmt.Errorf("plugins/%s: %w", name, err)
	}
	return &plugin{dir, m}, nil
}

// compile builds the program of a plugin. Neither where nor from which commit it
// is built shows in the program, so that it changes when its source does.
func (j *job) compile(ctx context.Context, name, program string) error {
	cmd := exec.CommandContext(ctx, j.goTool, "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", program, "./plugins/"+name)
	cmd.Dir = j.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+j.goos, "GOARCH="+j.goarch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build plugins/%s: %w\n%s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

// describe reads the manifest of a directory, and fills in its files as
// pack.Build will.
func describe(dir string) (*manifest.Manifest, error) {
	raw, err := os.ReadFile(filepath.Join(dir, manifest.FileName))
	if err != nil {
		return nil, err
	}
	m, err := manifest.Parse(raw)
	if err != nil {
		return nil, err
	}
	m.Files = map[string]manifest.File{}
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() == manifest.FileName {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		m.Files[filepath.ToSlash(name)] = manifest.File{
			Digest: filehash.SumBytes(data).String(), Size: int64(len(data)), Executable: info.Mode().Perm()&0o111 != 0,
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	// What is written and read again is what the listing is compared with.
	if raw, err = m.Marshal(); err != nil {
		return nil, err
	}
	return manifest.Parse(raw)
}

func copyFile(from, to string, mode fs.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, mode)
}
