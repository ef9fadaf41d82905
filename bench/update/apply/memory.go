package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// large is a package that nobody would want to hold in memory.
type large struct {
	what   string
	files  int
	size   int // of each
	format string
}

// memory measures the peaks of processes that apply large packages: where nothing
// is installed, over what is, and from a package that has little of it.
func (b *bench) memory() error {
	for _, l := range []large{
		{"one file of 2 GB", 1, 2e9, "zst"},
		{"one file of 2 GB", 1, 2e9, "gz"},
		{"200,000 files", 200_000, 100, "zst"},
		{"200,000 files", 200_000, 100, "gz"},
	} {
		if err := b.peak(l); err != nil {
			return fmt.Errorf("%s, %s: %w", l.what, l.format, err)
		}
	}
	return nil
}

func (b *bench) peak(l large) error {
	defer func() {
		for _, d := range []string{"opt", "state", "log", "run", "large.tar." + l.format, "large.tar." + l.format + ".minisig"} {
			os.RemoveAll(b.at(d))
		}
	}()
	steps := []struct {
		what    string
		kind    string
		files   int
		version int
	}{{"first", "full", l.files, 1}, {"again, with changes", "full", l.files, 2}, {"overlay", "overlay", min(l.files, 100), 3}}
	if l.files == 1 { // three versions of it need more room than is promised
		steps = steps[:1]
	}
	for i, s := range steps {
		pkg := b.at("large.tar." + l.format)
		if err := b.packLarge(pkg, l, s.kind, s.files, s.version); err != nil {
			return err
		}
		number := fmt.Sprint(i + 1)
		if err := b.do([]string{b.mobileops, "update", "sign", pkg, "--force", "--key", b.at("key", "k.key"), "--name", "large", "--version", number, "--sequence", number}); err != nil {
			return err
		}
		r, err := b.measure(b.mobileops, "update", "apply", pkg)
		if err != nil {
			return err
		}
		b.peaks[fmt.Sprintf("%s, %s, %s", l.what, s.what, l.format)] = r.rss
	}
	return nil
}

// packLarge packs content as it is made, so that only the package is on the disk.
// One file in a thousand is of the version, the others are the same in all.
func (b *bench) packLarge(to string, l large, kind string, files, version int) (err error) {
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	program := map[string][]string{"zst": {"zstd", "-q", "-c"}, "gz": {"gzip", "-1", "-c"}}[l.format]
	cmd := exec.CommandContext(b.ctx, program[0], program[1:]...)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	return errors.Join(writeLarge(in, l, kind, files, version), in.Close(), cmd.Wait())
}

func writeLarge(to io.Writer, l large, kind string, files, version int) error {
	w := tar.NewWriter(to)
	manifest := "schema: mobileops.package/v1\nkind: " + kind + "\n"
	if err := w.WriteHeader(&tar.Header{Name: ".mobileops/package.yaml", Mode: 0o644, Size: int64(len(manifest)), ModTime: released}); err != nil {
		return err
	}
	if _, err := io.WriteString(w, manifest); err != nil {
		return err
	}
	c := newContent()
	const piece = 1 << 20
	var buf []byte
	for i := range files {
		v := 0
		if kind == "overlay" || i%1000 == 0 {
			v = version
		}
		name := filepath.Join(fmt.Sprintf("%03d", i/1000), fmt.Sprintf("file-%06d", i))
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(l.size), ModTime: released}); err != nil {
			return err
		}
		for at := 0; at < l.size; at += piece {
			buf = c.fill(buf[:0], min(piece, l.size-at), i+at, v)
			if _, err := w.Write(buf); err != nil {
				return err
			}
		}
	}
	return w.Close()
}
