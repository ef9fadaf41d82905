package vulndb

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// PullOptions say how a registry is talked to.
type PullOptions struct {
	Terms
	PlainHTTP bool // without TLS; to this host that is allowed anyway
	// Credentials returns what a host wants to know; nil: nothing.
	Credentials func(ctx context.Context, host string) (Credential, error)
	Proxy       func(*http.Request) (*url.URL, error) // nil: none
	RootCAs     *x509.CertPool                        // nil: those of the system
	Stall       time.Duration                         // nothing came for so long: given up; 0: a minute
	Timeout     time.Duration                         // all of it; 0: an hour
	Attempts    int                                   // in all, when a registry breaks off or has an error of its own; 0: 3
	Pause       time.Duration                         // before the second attempt, doubled each time; 0: 2 s
}

// Credential is what a registry wants to know.
type Credential struct{ Username, Password, Token string }

// Pull takes in the database that a registry has under a reference, such as
// registry.example.org/security/trivy-db:2, or with a digest in place of the tag.
// What the reference, the manifest and the layer promise is proved. When the
// current database is of that manifest already, only the manifest is fetched.
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions) (*Result, error) {
	r, err := parseReference(ref)
	if err != nil {
		return nil, err
	}
	o = o.orDefaults()
	return s.receive(ctx, "vulndb pull", o.Terms, func(st *stage) (*Generation, error) {
		pause := o.Pause
		for attempt := 1; ; attempt++ {
			about, err := st.pull(ctx, r, o)
			if err == nil || attempt >= o.Attempts || !again(err) || ctx.Err() != nil {
				return about, err
			}
			s.opts.Progress(fmt.Sprintf("attempt %d failed: %v", attempt, err), 0, 0)
			_ = os.Remove(filepath.Join(st.dir, download))
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-time.After(pause):
			}
			pause *= 2
		}
	})
}

func (o PullOptions) orDefaults() PullOptions {
	if o.Stall <= 0 {
		o.Stall = time.Minute
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Hour
	}
	if o.Attempts <= 0 {
		o.Attempts = 3
	}
	if o.Pause <= 0 {
		o.Pause = 2 * time.Second
	}
	return o
}

// download is the file of a stage that a layer is fetched into.
const download = "download"

// parseReference reads HOST/REPOSITORY:TAG or HOST/REPOSITORY@DIGEST.
func parseReference(ref string) (registry.Reference, error) {
	const hint = "write it as registry.example.org/trivy-db:2, or with @sha256: and a digest"
	rest := strings.TrimPrefix(ref, "oci://")
	host, _, _ := strings.Cut(rest, "/")
	if strings.Contains(host, "@") {
		return registry.Reference{}, failure.Hint(failure.Errorf(failure.Usage, "the reference has a password in it"), "passwords belong into the file of --credentials, where they are not shown to every user of this host")
	}
	r, err := registry.ParseReference(rest)
	if err != nil {
		return r, failure.Hint(failure.Errorf(failure.Usage, "%.200q is no reference to a database in a registry", ref), hint)
	}
	if r.Reference == "" {
		return r, failure.Hint(failure.Errorf(failure.Usage, "%.200q says neither a tag nor a digest", ref), hint)
	}
	return r, nil
}

// pull fetches the database once, and unpacks it.
func (st *stage) pull(ctx context.Context, ref registry.Reference, o PullOptions) (*Generation, error) {
	about, err := st.fetch(ctx, ref, o)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(st.dir, download)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer os.Remove(path)
	defer f.Close()
	return about, named(ref.String(), st.unpack(ctx, f))
}

// fetch gets the layer that is the packed database, and proves it.
func (st *stage) fetch(ctx context.Context, ref registry.Reference, o PullOptions) (*Generation, error) {
	ctx, w := watched(ctx, o)
	defer w.end()
	repo, done := repository(ref, o)
	defer done()
	desc, layer, err := manifest(ctx, repo, ref)
	if err != nil {
		return nil, refused(ctx, ref, err)
	}
	about := &Generation{Origin: ref.String(), Manifest: desc.Digest.String()}
	if g := st.s.pulled(ctx, about.Manifest, layer.MediaType); g != nil {
		return nil, &unchangedError{g}
	}
	if layer.Size > st.s.opts.MaxBytes {
		return nil, tooLarge(ref.String(), st.s.opts.MaxBytes)
	}
	v, err := st.s.verifier(ref.String(), o.Terms)
	if err != nil {
		return nil, err
	}
	rc, err := repo.Blobs().Fetch(ctx, *layer)
	if err != nil {
		return nil, refused(ctx, ref, err)
	}
	defer rc.Close()
	sum := layer.Digest.Verifier()
	var in io.Reader = io.TeeReader(w.reader(rc), sum)
	if v != nil {
		in = io.TeeReader(in, v)
	}
	if _, _, err := st.write(ctx, download, "fetch", in, layer.Size, layer.Size); err != nil {
		return nil, refused(ctx, ref, brokenOff(err))
	}
	if !sum.Verified() {
		return nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "%s is not what its manifest promises: its digest is another", ref), "get it again; if it stays so, somebody changed it: do not use it")
	}
	if about.Signer, err = vouched(ref.String(), v); err != nil {
		return nil, err
	}
	return about, nil
}

// pulled returns the current generation of the kind of a layer when it was
// pulled by that manifest and is as it was, and nil otherwise.
func (s *Store) pulled(ctx context.Context, manifest, mediaType string) *Generation {
	k := Vulnerabilities
	if mediaType == JavaLayerType {
		k = Java
	}
	sh, err := s.shelf(ctx, k)
	if err != nil {
		return nil
	}
	if g := sh.get(sh.current); g != nil && g.Manifest == manifest && s.glance(ctx, g) == nil {
		return g
	}
	return nil
}

// manifest fetches the manifest that a reference leads to, proves it, and
// returns its one layer. An index may stand before it.
func manifest(ctx context.Context, repo *remote.Repository, ref registry.Reference) (desc ocispec.Descriptor, layer *ocispec.Descriptor, err error) {
	reference := ref.Reference
	for range 3 {
		data, err := fetchManifest(ctx, repo, reference, &desc)
		if err != nil {
			return desc, nil, err
		}
		if desc.MediaType == ocispec.MediaTypeImageIndex {
			var index ocispec.Index
			if err := json.Unmarshal(data, &index); err != nil || len(index.Manifests) != 1 {
				return desc, nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "%s is an index of several manifests", ref), "name one of them by its digest")
			}
			reference = index.Manifests[0].Digest.String()
			continue
		}
		if layer, err = databaseLayer(data); err == nil && layer == nil {
			err = failure.Errorf(failure.Untrustworthy, "%s is no vulnerability database: it has no layer of type %s", ref, LayerType)
		}
		return desc, layer, err
	}
	return desc, nil, failure.Errorf(failure.Untrustworthy, "%s is an index of an index of an index", ref)
}

func fetchManifest(ctx context.Context, repo *remote.Repository, reference string, desc *ocispec.Descriptor) ([]byte, error) {
	d, rc, err := repo.Manifests().FetchReference(ctx, reference)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	if d.Size > maxManifest {
		return nil, failure.Errorf(failure.Untrustworthy, "the manifest has %d bytes, more than %d", d.Size, maxManifest)
	}
	data, err := content.ReadAll(rc, d)
	if err != nil {
		return nil, err
	}
	if want, err := digest.Parse(reference); err == nil && want != want.Algorithm().FromBytes(data) {
		return nil, failure.Errorf(failure.Untrustworthy, "the registry sends another manifest than that of the digest %s", want)
	}
	*desc = d
	return data, nil
}

// brokenError is a transfer that ended early, which may go better another time.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return "it broke off: " + e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

func brokenOff(err error) error {
	var own *failure.Error
	var path *os.PathError
	var short *sizeError
	if !errors.As(err, &short) && (errors.As(err, &own) || errors.As(err, &path)) {
		return err
	}
	return &brokenError{err}
}

// again reports whether another attempt may go better.
func again(err error) bool {
	var answer *errcode.ErrorResponse
	var broken *brokenError
	var stalled *stalledError
	var u *url.Error
	switch {
	case errors.As(err, &answer):
		return answer.StatusCode >= 500 || answer.StatusCode == http.StatusTooManyRequests
	case errors.As(err, &stalled):
		return false // it took its time already
	}
	return errors.As(err, &broken) || errors.As(err, &u)
}

// refused says what a registry's refusal means.
func refused(ctx context.Context, ref registry.Reference, err error) error {
	var own *failure.Error
	var answer *errcode.ErrorResponse
	var stalled *stalledError
	var broken *brokenError
	if cause := context.Cause(ctx); cause != nil && errors.As(cause, &stalled) {
		return failure.Hint(failure.Wrap(failure.Failed, fmt.Errorf("%s: %w", ref, stalled)), "try again; if the line is slow, allow it more time: --timeout")
	}
	const login = "name a file as docker login writes it: --credentials FILE"
	switch {
	case errors.Is(err, errdef.ErrNotFound):
		return failure.Hint(failure.Errorf(failure.Failed, "%s is not in the registry", ref), "look at the name and the tag")
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return failure.Hint(failure.Errorf(failure.NotAllowed, "%s: the registry wants a user and a password", ref), login)
	case errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden):
		return failure.Hint(failure.Errorf(failure.NotAllowed, "%s: the registry says %d", ref, answer.StatusCode), login)
	case errors.As(err, &answer):
		return failure.Hint(failure.Wrap(failure.Failed, fmt.Errorf("%s: the registry says %d: %w", ref, answer.StatusCode, err)), "try again later")
	case errors.Is(err, content.ErrMismatchedDigest), errors.Is(err, content.ErrInvalidDescriptorSize), errors.Is(err, content.ErrTrailingData), strings.Contains(err.Error(), "digest mismatch"):
		return failure.Hint(failure.Wrap(failure.Untrustworthy, fmt.Errorf("%s: %w", ref, err)), "the registry sends something else than it says")
	case errors.Is(err, context.Canceled), !errors.As(err, &broken) && errors.As(err, &own):
		if strings.Contains(err.Error(), ref.String()) {
			return err
		}
		return fmt.Errorf("%s: %w", ref, err)
	}
	return failure.Hint(failure.Wrap(failure.Failed, fmt.Errorf("%s: %w", ref, err)), "look at the address, the proxy and the network, and try again")
}
