package vulndb

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/zeebo/blake3"
)

// Verification is what Verify found of one database or table.
type Verification struct {
	Kind       string      `json:"kind"` // a Kind, "kev" or "epss"
	Number     int         `json:"number,omitempty"`
	Generation *Generation `json:"-"`
	Current    bool        `json:"current"`
	Problem    string      `json:"problem,omitempty"` // "": it is what was taken in
	Err        error       `json:"-"`
}

// Verify reads all of every generation and table, and holds it against what was
// taken in: digest, structure and metadata. The error is ErrMissing when there is
// no database, and of kind failure.Untrustworthy when any of them is damaged; the
// list says which.
func (s *Store) Verify(ctx context.Context) (list []Verification, err error) {
	var bad error
	for _, k := range []Kind{Vulnerabilities, Java} {
		sh, err := s.shelf(ctx, k)
		if err != nil {
			return list, err
		}
		if k == Vulnerabilities && sh.current == 0 {
			bad = failure.Hint(ErrMissing, hintImport)
		}
		for i := len(sh.list) - 1; i >= 0; i-- {
			g := sh.list[i]
			v := Verification{Kind: string(k), Number: g.Number, Generation: g, Current: g.Current}
			held, err := s.pin(k, g.Number)
			if err == nil {
				err = s.prove(ctx, g)
				held.Close()
			} else if errors.Is(err, errGone) {
				if now, rerr := s.shelf(ctx, k); rerr == nil && now.get(g.Number) == nil {
					continue // pruned meanwhile
				}
				err = fmt.Errorf("%w: its directory is not there", ErrDamaged)
			}
			if failure.KindOf(err) == failure.Interrupted || ctx.Err() != nil {
				return list, context.Cause(ctx)
			}
			if err != nil {
				v.Err, v.Problem = err, err.Error()
				bad = worse(bad, g, sh, s, err)
			}
			list = append(list, v)
		}
	}
	return s.verifyIntel(list, bad)
}

// worse keeps the error that matters more: of the current generation, then the first.
func worse(bad error, g *Generation, sh *shelf, s *Store, err error) error {
	named := fmt.Errorf("%s: %w", g.title(), err)
	switch {
	case g.Current:
		return s.rescue(sh, named)
	case bad == nil:
		return failure.Hint(named, "it is not the current one; it goes away when it is too old to keep")
	}
	return bad
}

func (s *Store) verifyIntel(list []Verification, bad error) ([]Verification, error) {
	for _, k := range []string{kev, epss} {
		_, err := s.whole(k)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		v := Verification{Kind: k, Current: true, Err: err}
		if err != nil {
			v.Problem = err.Error()
			if bad == nil {
				bad = err
			}
		}
		list = append(list, v)
	}
	return list, bad
}

// prove reads all of a generation and holds it against the catalogue. Its
// error is ErrDamaged or one of the system.
func (s *Store) prove(ctx context.Context, g *Generation) error {
	f, fp, err := s.openDatabase(g)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := s.sameMetadata(g); err != nil {
		return err
	}
	if err := s.rehash(ctx, g, f); err != nil {
		return err
	}
	if err := s.examine(ctx, f, &Generation{Kind: g.Kind}); err != nil {
		return err
	}
	if fp != g.Seen {
		s.remember(ctx, g, fp)
	}
	return nil
}

// rehash compares the content of a database's file with its digest.
func (s *Store) rehash(ctx context.Context, g *Generation, f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() != g.Size {
		return fmt.Errorf("%w: %s has %d bytes, and had %d when it was taken in", ErrDamaged, f.Name(), st.Size(), g.Size)
	}
	hash := blake3.New()
	buf := make([]byte, 1<<20)
	for at := int64(0); at < g.Size; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := f.ReadAt(buf, at)
		if err != nil && err != io.EOF || n == 0 {
			return fmt.Errorf("read %s at byte %d: %w", f.Name(), at, err)
		}
		_, _ = hash.Write(buf[:n])
		at += int64(n)
		s.opts.Progress("hash", at, g.Size)
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); sum != g.Digest {
		return fmt.Errorf("%w: %s is not what was taken in: its digest is another", ErrDamaged, f.Name())
	}
	return nil
}

// sameMetadata holds metadata.json against the catalogue.
func (s *Store) sameMetadata(g *Generation) error {
	path := filepath.Join(s.path(g.Kind, g.Number), metadataFile)
	st, err := os.Lstat(path)
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	m, err := parseMetadata(data, g.Kind)
	if err != nil || m != g.Metadata {
		return fmt.Errorf("%w: %s is not what was taken in", ErrDamaged, path)
	}
	return nil
}
