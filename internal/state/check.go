package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	bolt "go.etcd.io/bbolt"
)

// Report is what Check found.
type Report struct {
	Path      string         `json:"path"`
	Exists    bool           `json:"exists"`
	Schema    int            `json:"schema,omitempty"`
	SizeBytes int64          `json:"size_bytes"`
	FreeBytes int64          `json:"free_bytes"` // what Compact could give back
	Txid      uint64         `json:"transaction"`
	Sealed    bool           `json:"sealed"` // every page was compared with the checksum it was written with
	Buckets   []BucketReport `json:"buckets"`
	Problems  []string       `json:"problems"` // why it is not to be trusted
	Warnings  []string       `json:"warnings"` // what should be put right
}

// BucketReport says how much a bucket at the top level holds.
type BucketReport struct {
	Name string `json:"name"`
	Keys int    `json:"keys"` // in it and the buckets within it
}

// Check reads all of state.db and returns what it found. When the file is not
// to be trusted, the error is ErrCorrupt, ErrForeign or ErrNewer and the report
// says why. It changes nothing. With no state.db the report says so, and the
// error is nil.
func (s *Store) Check(ctx context.Context) (Report, error) {
	r := Report{Path: s.Path(), Buckets: []BucketReport{}, Problems: []string{}, Warnings: []string{}}
	if _, err := os.Lstat(s.Path()); errors.Is(err, fs.ErrNotExist) {
		return r, nil
	} else if err != nil {
		return r, access(err)
	}
	l, err := s.acquire(ctx, false)
	if err != nil {
		return r, err
	}
	defer l.release()
	r.warnModes(s.dir)
	return r, s.checkFile(ctx, s.Path(), s.sumPath(), readSeal(s.sumPath()), &r)
}

// warnModes notes permissions that let others at the state.
func (r *Report) warnModes(dir string) {
	for _, path := range []string{dir, r.Path} {
		if st, err := os.Stat(path); err == nil && st.Mode().Perm()&0o077 != 0 {
			r.Warnings = append(r.Warnings, fmt.Sprintf("%s has mode %04o, so other users can reach it (chmod go= %s)", path, st.Mode().Perm(), path))
		}
	}
}

// checkFile fills r with what is in one database file.
func (s *Store) checkFile(ctx context.Context, path, sumPath string, seal *seal, r *Report) (err error) {
	defer func() {
		if err != nil && len(r.Problems) == 0 && (errors.Is(err, ErrCorrupt) || errors.Is(err, ErrForeign) || errors.Is(err, ErrNewer)) {
			var v *verdict
			if errors.As(err, &v) {
				r.Problems = append(r.Problems, v.err.Error())
			} else {
				r.Problems = append(r.Problems, err.Error())
			}
		}
	}()
	r.Exists = true
	if err := examine(ctx, path, seal, r); err != nil {
		return advise(err, path)
	}
	return openFile(ctx, path, sumPath, seal, false, func(o *opened) error {
		return o.db.View(func(tx *Tx) error {
			v, err := s.checkSchema(tx)
			r.Schema = v
			if err != nil {
				return err
			}
			// Nothing of this should be news after examine; it is bbolt's own
			// opinion, and the channel must be read to its end.
			for err := range tx.Check() {
				if len(r.Problems) < maxProblems {
					r.Problems = append(r.Problems, err.Error())
				}
			}
			if len(r.Problems) > 0 {
				return fmt.Errorf("%w: %s", ErrCorrupt, r.Problems[0])
			}
			return r.count(ctx, tx)
		})
	})
}

// examine checks a file by plain reads: its seal, and every page.
func examine(ctx context.Context, path string, seal *seal, r *Report) error {
	f, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return access(err)
	}
	defer f.Close()
	h, err := seal.header(f)
	if err != nil {
		return err
	}
	r.SizeBytes, r.Txid = h.Size, h.Txid
	r.Sealed = seal != nil && seal.txid == h.Txid
	if !r.Sealed {
		r.Warnings = append(r.Warnings, "its checksums are not those of the last transaction, so only its structure was checked; the next change writes them anew")
	}
	// The structure first: it can name more than one thing that is wrong.
	if r.Problems, err = structure(ctx, f, h); err != nil {
		return err
	}
	if r.Problems == nil {
		r.Problems = []string{}
	}
	if err := seal.verify(ctx, f, h, true); err != nil {
		if len(r.Problems) > 0 {
			return fmt.Errorf("%w: %s", ErrCorrupt, r.Problems[0])
		}
		return err
	}
	if free, err := readFreelist(f, h); err == nil {
		for id := uint64(2); id < h.Pages; id++ {
			if free.has(id) {
				r.FreeBytes += h.PageSize
			}
		}
	}
	r.FreeBytes += h.Size - int64(h.Pages)*h.PageSize
	return nil
}

func (r *Report) count(ctx context.Context, tx *Tx) error {
	return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.Buckets = append(r.Buckets, BucketReport{Name: string(name), Keys: b.Stats().KeyN})
		return nil
	})
}
