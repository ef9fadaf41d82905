package vulndb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state/boltfile"
	"golang.org/x/sys/unix"
)

// forms are what Import takes, for messages.
const forms = "db.tar.gz as Trivy publishes it, an OCI layout (a directory or a tar file of one), the directory db of a Trivy cache, or trivy.db with metadata.json beside it; trivy-java.db likewise"

// Import takes in a database from a file or directory. By its content it is
//
//   - an archive of trivy.db and metadata.json, such as Trivy's db.tar.gz;
//   - an OCI layout, a directory or an archive of one, with such an archive as layer;
//   - a directory that has both files, such as db in the cache of Trivy, or the
//     archive as "oras pull" leaves it;
//   - the file of a database itself, with metadata.json beside it.
//
// trivy-java.db in place of trivy.db makes it a Java database. On an error the
// databases are as they were.
func (s *Store) Import(ctx context.Context, path string, t Terms) (*Result, error) {
	return s.receive(ctx, "vulndb import", t, func(st *stage) (*Generation, error) {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, failure.Wrap(failure.NotReady, err)
		case errors.Is(err, fs.ErrPermission):
			return nil, failure.Wrap(failure.NotAllowed, err)
		case err != nil:
			return nil, err
		}
		about := &Generation{Origin: path}
		if info.IsDir() {
			err = st.directory(ctx, path, t, about)
		} else {
			err = st.file(ctx, path, t, about)
		}
		return about, named(path, err)
	})
}

// named says which file an error is about.
func named(path string, err error) error {
	var p *fs.PathError
	if err == nil || errors.As(err, &p) {
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}

// file takes a database from a file, whatever it is.
func (st *stage) file(ctx context.Context, path string, t Terms, about *Generation) error {
	f, err := openPlain(path)
	if err != nil {
		return err
	}
	defer f.Close()
	v, err := st.s.verifier(path, t)
	if err != nil {
		return err
	}
	if v != nil {
		// A copy is proved and then read: what lies elsewhere could be changed
		// between the one and the other.
		if _, _, err := st.write(ctx, "signed", "copy", io.TeeReader(f, v), -1, st.s.opts.MaxBytes); err != nil {
			return err
		}
		if about.Signer, err = vouched(path, v); err != nil {
			return err
		}
		copied := filepath.Join(st.dir, "signed")
		own, err := os.Open(copied)
		if err != nil {
			return err
		}
		defer os.Remove(copied)
		defer own.Close()
		f = own
	}
	return st.content(ctx, f, path, v != nil)
}

// content takes a database from an open file, by what it begins with.
func (st *stage) content(ctx context.Context, f *os.File, path string, signed bool) error {
	head := make([]byte, 512)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return err
	}
	head = head[:n]
	var k Kind
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}), bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return st.archive(ctx, f, false)
	case len(head) == 512 && string(head[257:262]) == "ustar":
		return st.archive(ctx, f, true)
	case boltfile.Begins(head):
		k = Vulnerabilities
	case bytes.HasPrefix(head, []byte("SQLite format 3\x00")):
		k = Java
	case n == 0:
		return failure.Errorf(failure.Untrustworthy, "the file is empty")
	default:
		return failure.Hint(failure.Errorf(failure.Untrustworthy, "this is no vulnerability database: it begins with %.16q", head), "what is: "+forms)
	}
	if signed {
		return failure.Hint(failure.Errorf(failure.Untrustworthy, "the signature says nothing of metadata.json"), "sign and import an archive of both: tar czf db.tar.gz "+k.file()+" metadata.json")
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	meta, err := openPlain(filepath.Join(filepath.Dir(path), metadataFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // which seal will say
	} else if err == nil {
		err = st.metadata(meta)
		meta.Close()
	}
	if err != nil {
		return err
	}
	return st.database(ctx, k, f, info.Size())
}

// directory takes a database from a directory. Its files are opened beneath it.
func (st *stage) directory(ctx context.Context, path string, t Terms, about *Generation) error {
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	defer root.Close()
	has := func(name string) bool {
		info, err := root.Lstat(name)
		return err == nil && info.Mode().IsRegular()
	}
	switch {
	case has("trivy.db") || has("trivy-java.db"):
		if err := st.s.unsigned(path); err != nil {
			return err
		}
		for _, k := range []Kind{Vulnerabilities, Java} {
			if !has(k.file()) {
				continue
			}
			f, size, err := openBeneath(root, k.file())
			if err != nil {
				return err
			}
			err = st.database(ctx, k, f, size)
			f.Close()
			if err != nil {
				return err
			}
		}
		if !has(metadataFile) {
			return nil // which seal will say
		}
		f, _, err := openBeneath(root, metadataFile)
		if err != nil {
			return err
		}
		defer f.Close()
		return st.metadata(f)
	case has("index.json"):
		if err := st.s.unsigned(path); err != nil {
			return err
		}
		return st.layout(ctx, directoryLayout{root})
	}
	for _, name := range []string{"db.tar.gz", "javadb.tar.gz"} {
		if has(name) {
			about.Origin = filepath.Join(path, name)
			return st.file(ctx, about.Origin, t, about)
		}
	}
	for _, name := range []string{"db", "java-db"} {
		for _, k := range []Kind{Vulnerabilities, Java} {
			if has(filepath.Join(name, k.file())) {
				return failure.Hint(failure.Errorf(failure.Usage, "the database is a level deeper"), "name it: "+filepath.Join(path, name))
			}
		}
	}
	return failure.Hint(failure.Errorf(failure.Untrustworthy, "there is no vulnerability database in this directory"), "what is one: "+forms)
}

// openBeneath opens a regular file of a tree, and waits for no pipe.
func openBeneath(root *os.Root, name string) (*os.File, int64, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = failure.Errorf(failure.Untrustworthy, "%s is not a file", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// Adopt takes in a database that was just built in a directory, out of from. No
// signature is asked for: it was made here.
func (s *Store) Adopt(ctx context.Context, dir, from string, t Terms) (*Result, error) {
	return s.receive(ctx, "vulndb build", t, func(st *stage) (*Generation, error) {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		for _, name := range []string{metadataFile, Vulnerabilities.file()} {
			f, size, err := openBeneath(root, name)
			if err != nil {
				return nil, err
			}
			if name == metadataFile {
				err = st.metadata(f)
			} else {
				err = st.database(ctx, Vulnerabilities, f, size)
			}
			f.Close()
			if err != nil {
				return nil, err
			}
		}
		return &Generation{Origin: from}, nil
	})
}
