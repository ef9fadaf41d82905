package source

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// How a package lies in a registry: a manifest of an OCI image whose type is
// ArtifactType and whose only layer is the package.
const (
	ArtifactType  = "application/vnd.mobileops.plugin.v1"
	LayerTypeZstd = "application/vnd.mobileops.plugin.v1+tar+zstd"
	LayerTypeGzip = "application/vnd.mobileops.plugin.v1+tar+gzip"
)

// Annotations of the manifest, beside those of OCI. They are for people and
// catalogues; nothing here believes them.
const (
	annotationName     = "vnd.mobileops.plugin.name"
	annotationSequence = "vnd.mobileops.plugin.sequence"
	annotationDigest   = "vnd.mobileops.plugin.blake3"
	annotationMin      = "vnd.mobileops.plugin.min-version"
)

const maxManifest = 1 << 20 // bytes

const ociScheme = "oci://"

func fetchOCI(ctx context.Context, spec string, opts Options) (*Found, error) {
	if opts.Offline {
		return nil, offline(spec)
	}
	found, err := pull(ctx, spec, promise{}, opts)
	if err != nil {
		return nil, err
	}
	found.Kind = Registry
	return found, nil
}

// reference reads oci://HOST/REPO:TAG or oci://HOST/REPO@DIGEST.
func reference(spec string) (registry.Reference, error) {
	const hint = "write it as oci://registry.example.org/plugins/name:1.0.0, or with @sha256: and a digest"
	rest := strings.TrimPrefix(spec, ociScheme)
	host, _, _ := strings.Cut(rest, "/")
	if strings.Contains(host, "@") {
		return registry.Reference{}, refuse(CodeSpec, "passwords belong into the configuration, where they are not shown to every user of this host", "%s has a password in it", quoted(spec))
	}
	ref, err := registry.ParseReference(rest)
	if err != nil {
		return ref, refuse(CodeSpec, hint, "%s is not a package in a registry: %v", quoted(spec), err)
	}
	if ref.Reference == "" {
		return ref, refuse(CodeSpec, hint, "%s says neither a tag nor a digest", quoted(spec))
	}
	if d, err := ref.Digest(); err == nil && d.Algorithm() != digest.SHA256 {
		return ref, refuse(CodeSpec, "name it by its sha256", "%s: digests are of sha256 here", quoted(spec))
	}
	return ref, nil
}

// repository returns the client of a repository. All requests, those for tokens
// too, go through c.
func (c *client) repository(ref registry.Reference) *remote.Repository {
	host := ref.Host()
	name, _, _ := strings.Cut(host, ":")
	if strings.HasPrefix(host, "[") {
		name, _, _ = strings.Cut(host[1:], "]")
	}
	return &remote.Repository{
		Reference: ref,
		PlainHTTP: c.opts.PlainHTTP || loopback(name) && c.opts.RootCAs == nil,
		Client: &auth.Client{
			Client: &c.http, Cache: auth.NewCache(), ClientID: "mobileops", Header: http.Header{"User-Agent": {"mobileops"}},
			Credential: func(ctx context.Context, host string) (auth.Credential, error) {
				if c.opts.Credentials == nil {
					return auth.EmptyCredential, nil
				}
				cred, err := c.opts.Credentials(ctx, host)
				if err != nil {
					return auth.EmptyCredential, &Error{Code: CodeDenied, Msg: "credentials for " + host, Err: err}
				}
				return auth.Credential{Username: cred.Username, Password: cred.Password, AccessToken: cred.Token}, nil
			},
		},
		ManifestMediaTypes: []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex},
		MaxMetadataBytes:   maxManifest,
	}
}

// pull gets a package from a registry. The digest of its manifest is proved
// where the reference has one, and that of the package always.
func pull(ctx context.Context, spec string, p promise, opts Options) (*Found, error) {
	ref, err := reference(spec)
	if err != nil {
		return nil, err
	}
	c := newClient(opts)
	defer c.close()
	where := ociScheme + ref.String()
	ctx, w := c.watched(ctx, where)
	defer w.end()
	repo := c.repository(ref)
	desc, m, err := manifest(ctx, repo, ref)
	if err != nil {
		return nil, registryError(ctx, where, err)
	}
	layer, err := layerOf(m, where)
	if err != nil {
		return nil, err
	}
	if p.size > 0 && layer.Size != p.size {
		return nil, refuse(CodeDigest, "", "%s has %d bytes, but %d were promised", where, layer.Size, p.size)
	}
	rc, err := repo.Blobs().Fetch(ctx, layer)
	if err != nil {
		return nil, registryError(ctx, where, err)
	}
	defer rc.Close()
	if p.size = layer.Size; layer.Size > opts.MaxPackage {
		return nil, tooLarge(where, opts.MaxPackage)
	}
	p.second, p.sum = sha256.New(), layer.Digest.Encoded()
	found, err := keep(ctx, &body{Reader: w.reader(rc), size: layer.Size, where: where}, p, opts)
	if err != nil {
		return nil, err
	}
	ref.Reference = desc.Digest.String()
	found.Origin = ociScheme + ref.String()
	return found, nil
}

// manifest gets and proves the manifest.
func manifest(ctx context.Context, repo *remote.Repository, ref registry.Reference) (desc ocispec.Descriptor, m ocispec.Manifest, err error) {
	where := ociScheme + ref.String()
	desc, rc, err := repo.Manifests().FetchReference(ctx, ref.Reference)
	if err != nil {
		return desc, m, err
	}
	defer rc.Close()
	if desc.Size > maxManifest {
		return desc, m, refuse(CodeTooLarge, "", "%s: its manifest has %d bytes, more than %d", where, desc.Size, maxManifest)
	}
	data, err := content.ReadAll(rc, desc)
	if err != nil {
		return desc, m, &Error{Code: CodeDigest, Msg: where, Err: err, Hint: "the registry sends something else than it says"}
	}
	if d, err := ref.Digest(); err == nil && d != digest.FromBytes(data) {
		return desc, m, refuse(CodeDigest, "", "%s: the registry sends a manifest of the digest %s", where, digest.FromBytes(data))
	}
	switch desc.MediaType {
	case ocispec.MediaTypeImageManifest:
	case ocispec.MediaTypeImageIndex:
		return desc, m, refuse(CodeMediaType, "name one of its manifests by digest", "%s is an index of several manifests", where)
	default:
		return desc, m, refuse(CodeMediaType, "", "%s is of type %.100q, not a plugin", where, desc.MediaType)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return desc, m, &Error{Code: CodeMalformed, Msg: where + ": its manifest", Err: err}
	}
	return desc, m, nil
}

// layerOf returns the package in a manifest.
func layerOf(m ocispec.Manifest, where string) (ocispec.Descriptor, error) {
	if m.ArtifactType != ArtifactType {
		kind := m.ArtifactType
		if kind == "" {
			kind = m.Config.MediaType
		}
		return ocispec.Descriptor{}, refuse(CodeMediaType, "packages get there with: mobileops plugin push", "%s is of type %.100q, not a plugin", where, kind)
	}
	if len(m.Layers) != 1 {
		return ocispec.Descriptor{}, refuse(CodeMediaType, "", "%s has %d layers, not one package", where, len(m.Layers))
	}
	l := m.Layers[0]
	if l.MediaType != LayerTypeZstd && l.MediaType != LayerTypeGzip {
		return l, refuse(CodeMediaType, "", "%s: its layer is of type %.100q, not a package", where, l.MediaType)
	}
	if l.Digest.Validate() != nil || l.Digest.Algorithm() != digest.SHA256 || l.Size < 1 {
		return l, refuse(CodeMalformed, "", "%s: its layer has the digest %.100q and %d bytes", where, l.Digest, l.Size)
	}
	return l, nil
}

// registryError says what a registry's refusal means.
func registryError(ctx context.Context, where string, err error) error {
	var own *Error
	var answer *errcode.ErrorResponse
	switch {
	case errors.As(err, &own):
		return err
	case errors.Is(err, errdef.ErrNotFound):
		return refuse(CodeMissing, "look at the name and the tag", "%s is not in the registry", where)
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return refuse(CodeDenied, "configure credentials for this registry", "%s: the registry wants a user and a password", where)
	case errors.As(err, &answer):
		code := CodeUnreachable
		hint := ""
		switch answer.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			code, hint = CodeDenied, "configure credentials for this registry"
		case http.StatusNotFound:
			code, hint = CodeMissing, "look at the name and the tag"
		}
		return &Error{Code: code, Msg: where, Hint: hint, Err: fmt.Errorf("the registry says %d %.200q", answer.StatusCode, answer.Errors.Error())}
	case errors.Is(err, errdef.ErrInvalidDigest), errors.Is(err, content.ErrInvalidDescriptorSize), errors.Is(err, content.ErrMismatchedDigest),
		strings.Contains(err.Error(), "digest mismatch"): // of the headers, for which the library has no type
		return &Error{Code: CodeDigest, Msg: where, Err: err}
	}
	return failed(ctx, where, err)
}
