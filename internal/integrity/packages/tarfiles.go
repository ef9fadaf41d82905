package packages

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxTarEntries bounds the entries of an archive.
const maxTarEntries = 1 << 22

// tarName makes "./usr/bin/x" and "usr/bin/x/" the absolute, clean path.
func tarName(name string) string { return path.Clean("/" + name) }

// tarFiles looks for the wanted files in the tar archive that open opens.
// Several names of one file (hard links) have its content only at the first
// one; when that is not wanted itself, the archive is read twice.
func tarFiles(ctx context.Context, want archiveWant, open func() (io.Reader, func(), error)) error {
	contents := map[string]Digest{}
	links := map[string][]File{} // of the name that has the content
	names := map[string][]string{}
	err := eachTar(ctx, open, func(h *tar.Header, r io.Reader) error {
		name := tarName(h.Name)
		if !want.has(name) {
			return nil
		}
		f, err := tarFile(h)
		if err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeReg:
			if f.Digest, err = hashContent(r); err != nil {
				return err
			}
			contents[name] = f.Digest
		case tar.TypeLink:
			first := tarName(h.Linkname)
			if _, ok := contents[first]; !ok {
				links[first], names[first] = append(links[first], f), append(names[first], name)
				return nil
			}
			f.Digest = contents[first]
		}
		want.found(name, f)
		return nil
	})
	if err != nil || len(links) == 0 {
		return err
	}
	err = eachTar(ctx, open, func(h *tar.Header, r io.Reader) error {
		first := tarName(h.Name)
		if h.Typeflag != tar.TypeReg || links[first] == nil {
			return nil
		}
		d, err := hashContent(r)
		for i, f := range links[first] {
			f.Digest = d
			want.found(names[first][i], f)
		}
		delete(links, first)
		return err
	})
	if err == nil && len(links) > 0 {
		err = errors.New("a link to a file that it does not have")
	}
	return err
}

// eachTar calls fn with every entry. What fn was given is only to be believed
// when there is no error in the end.
func eachTar(ctx context.Context, open func() (io.Reader, func(), error), fn func(*tar.Header, io.Reader) error) error {
	r, done, err := open()
	if err != nil {
		return err
	}
	defer done()
	t := tar.NewReader(r)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := t.Next()
		if err == io.EOF {
			// The checksum of a compressed archive is behind its end, and
			// counts for what was read before.
			_, err := io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		if n == maxTarEntries {
			return fmt.Errorf("more than %d entries", maxTarEntries)
		}
		if err := fn(h, t); err != nil {
			return err
		}
	}
}

func hashContent(r io.Reader) (Digest, error) {
	var h hash.Hash = sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return Digest{}, err
	}
	return Digest{"sha256", h.Sum(nil)}, nil
}

// tarFile returns what the header of an entry tells.
func tarFile(h *tar.Header) (File, error) {
	mode := uint32(h.Mode) & 0o7777
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeLink:
		mode |= unix.S_IFREG
	case tar.TypeDir:
		mode |= unix.S_IFDIR
	case tar.TypeSymlink:
		mode |= unix.S_IFLNK
	case tar.TypeChar:
		mode |= unix.S_IFCHR
	case tar.TypeBlock:
		mode |= unix.S_IFBLK
	case tar.TypeFifo:
		mode |= unix.S_IFIFO
	default:
		return File{}, fmt.Errorf("an entry of unknown type %q", h.Typeflag)
	}
	f := File{Mode: &mode, Owner: h.Uname, Group: h.Gname}
	if f.Owner == "" {
		f.Owner = "#" + strconv.Itoa(h.Uid)
	}
	if f.Group == "" {
		f.Group = "#" + strconv.Itoa(h.Gid)
	}
	if h.Typeflag == tar.TypeSymlink {
		f.LinkTarget = h.Linkname
	}
	return f, nil
}
