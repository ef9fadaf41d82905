package vulndb

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/trust"
)

// SignedName is the name that a signature must give what is taken in here, so
// that one of a package is not taken for one of a database.
const SignedName = "vulndb"

// maxSignature bounds a signature file, in bytes.
const maxSignature = 16 << 10

// verifier returns what proves the file that is, or was, at path by its
// signature; nil when databases are taken unsigned here.
func (s *Store) verifier(path string, t Terms) (*trust.Verifier, error) {
	if s.opts.Keys == nil {
		if t.Signature != "" {
			return nil, failure.Hint(failure.Errorf(failure.NotReady, "nobody is trusted to sign databases"), "vulndb.keys names the directory of their keys")
		}
		return nil, nil
	}
	keys, err := s.opts.Keys()
	if err != nil {
		return nil, err
	}
	sig, err := readSignature(path, t)
	if err != nil {
		return nil, err
	}
	v, err := keys.Verifier(sig)
	if err != nil {
		return nil, trust.About(path, err)
	}
	rel := v.Release()
	if rel.Name != SignedName {
		return nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "%s is signed as %q, not as %q", path, rel.Name, SignedName), "sign it again: mobileops update sign FILE --name "+SignedName)
	}
	if err := rel.Current(s.opts.Now(), time.Time{}); err != nil {
		return nil, trust.About(path, err)
	}
	return v, nil
}

func readSignature(path string, t Terms) ([]byte, error) {
	name := t.Signature
	if name == "" {
		name = trust.SignaturePath(path)
	}
	f, err := openPlain(name)
	if errors.Is(err, fs.ErrNotExist) && t.Signature == "" {
		return nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "%s is not signed, and vulndb.keys says who must sign databases", path), "its signature is "+name+", or name it: --signature FILE")
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSignature+1))
	if err == nil && len(data) > maxSignature {
		err = failure.Errorf(failure.Untrustworthy, "%s is no signature of minisign: it has more than %d bytes", name, maxSignature)
	}
	return data, err
}

// unsigned refuses what cannot have a signature where one is asked for.
func (s *Store) unsigned(path string) error {
	if s.opts.Keys == nil {
		return nil
	}
	return failure.Hint(failure.Errorf(failure.Untrustworthy, "%s cannot be signed, and vulndb.keys says who must sign databases", path), "import one archive, such as db.tar.gz or an OCI layout in a tar file, with its signature")
}

// vouched reports whether all that was written to v is what was signed, and by
// whom; v may be nil.
func vouched(path string, v *trust.Verifier) (signer string, err error) {
	if v == nil {
		return "", nil
	}
	if err := v.Verify(); err != nil {
		return "", trust.About(path, err)
	}
	return fmt.Sprintf("%s (%s)", v.Key().ID(), v.Release().Version), nil
}
