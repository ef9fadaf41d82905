// Package source gets packages of plugins from where they are: a file or a
// directory, a web server, an index of many packages, or a registry for
// containers.
//
// Resolve takes what an operator typed and returns a Found: a path of a file or
// directory on this host, and where it came from. What is behind the path is
// proved by others: a package carries its own signature, which internal/plugin/pack
// verifies. Nothing here makes a package trusted, so a server that is broken
// into can refuse packages and no more. What this package does protect is the
// way there:
//
//   - Nothing is read without a limit of size and time, and nothing is left
//     behind when it fails.
//   - An index is signed, so that nobody else can say which version is the
//     newest; it expires, and never goes back to an earlier serial number, so
//     that nobody can hide an update for long (see docs/formats/plugin-index.md).
//   - What an index, a registry or a URL promises as digest is checked while the
//     bytes arrive.
//   - Requests are encrypted, also after redirects, except to this host itself
//     or when the operator allowed it. A password goes to the host it is for.
//
// Sources: OCI Image Manifest 1.1 and Distribution 1.1 (opencontainers.org);
// RFC 9110 (HTTP); "The Update Framework" for freeze and rollback attacks.
package source

import (
	"context"
	"crypto/x509"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/trust"
)

// Defaults of Options.
const (
	DefaultMaxPackage = 512 << 20
	DefaultTimeout    = 15 * time.Minute
	DefaultStall      = 30 * time.Second
)

// Kind says from what sort of place a package comes.
type Kind string

// The kinds.
const (
	File      Kind = "file"
	Directory Kind = "directory"
	HTTP      Kind = "http"
	InIndex   Kind = "index"
	Registry  Kind = "oci"
)

// Credential is what one host wants to know. The zero value is nothing.
type Credential struct {
	Username, Password string
	Token              string // sent as a bearer token; the other two are not sent then
}

// Options say where to look and within which limits. The zero value of a limit
// is its default. Nothing is taken from the environment.
type Options struct {
	Indexes []Index     // where names are looked up, in any order
	Keys    *trust.Keys // who may sign an index
	// Accept is called with every index that was verified and is newer than
	// what Index.Seen says, before anything in it is used. The caller keeps it
	// and passes it as Index.Seen from then on: without it an old index could
	// be passed off as the newest.
	Accept   func(index string, seen Seen) error
	CacheDir string // where indexes are kept; "": nowhere, and then Search finds nothing
	TempDir  string // where packages are put until Found.Close; "": the system's
	Offline  bool   // names are looked up in what CacheDir has, and files are the only other source

	Version string // of a name, not the newest; "": the newest
	Product string // version of mobileops, for min_version; "": any will do

	MaxPackage int64         // bytes of one package
	Timeout    time.Duration // of one transfer
	Stall      time.Duration // without a byte

	Proxy       func(*http.Request) (*url.URL, error)                      // nil: none
	Credentials func(ctx context.Context, host string) (Credential, error) // by host:port as in the URL; nil: none
	RootCAs     *x509.CertPool                                             // nil: those of the system
	PlainHTTP   bool                                                       // http to other hosts, too
	Progress    func(done, total int64)                                    // bytes; total is -1 when unknown; may be nil
	Now         func() time.Time                                           // nil: time.Now
}

func (o Options) withDefaults() Options {
	if o.MaxPackage <= 0 {
		o.MaxPackage = DefaultMaxPackage
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Stall <= 0 {
		o.Stall = DefaultStall
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	return o
}

// Found is a package on this host.
type Found struct {
	Spec   string // as it was asked for
	Kind   Kind
	Path   string // of the file, or of the directory with Kind Directory; that of a download is good in this process, until Close
	Origin string // where it came from, for records: a path, a URL, oci://HOST/REPO@sha256:...
	Digest string // BLAKE3-256, 64 hexadecimal digits; "" for what was already on this host
	Size   int64  // bytes; 0 for what was already on this host

	// What the index says that it is, with Kind InIndex. The caller compares it
	// with the signed manifest: an index decides which version is meant, not
	// what it contains.
	Name, Version string
	Sequence      uint64
	Index         string   // name of the index
	Notes         []string // what the operator should know, such as the age of a cached index

	temporary *os.File // what was downloaded; nil: nothing was
}

// Open opens the file, or the directory, for reading.
func (f *Found) Open() (*os.File, error) { return os.Open(f.Path) }

// Close removes what was downloaded. What was already on this host stays.
func (f *Found) Close() error {
	if f.temporary == nil {
		return nil
	}
	file := f.temporary
	f.temporary = nil
	return file.Close()
}

// Resolve finds what spec names:
//
//	PATH           a package or its directory; has a slash, begins with a dot or ends like a package
//	https://...    a package; #blake3=DIGEST after it pins its content
//	NAME           in the one index that has it
//	NAME@INDEX     in this index
//	oci://HOST[:PORT]/REPO:TAG or oci://HOST[:PORT]/REPO@sha256:DIGEST
//
// The caller closes the Found. Errors are of type *Error, of package trust for
// an index that is not trusted, or context.Canceled.
func Resolve(ctx context.Context, spec string, opts Options) (*Found, error) {
	opts = opts.withDefaults()
	found, err := resolve(ctx, spec, opts)
	if err != nil {
		return nil, err
	}
	found.Spec = spec
	return found, nil
}

func resolve(ctx context.Context, spec string, opts Options) (*Found, error) {
	scheme, _, isURL := strings.Cut(spec, "://")
	switch {
	case spec == "" || len(spec) > maxURL || strings.ContainsAny(spec, "\x00\n\r"):
		return nil, refuse(CodeSpec, "", "%.80q names no package", spec)
	case isURL && (scheme == "http" || scheme == "https"):
		return fetchURL(ctx, spec, opts)
	case isURL && scheme == "oci":
		return fetchOCI(ctx, spec, opts)
	case isURL && scheme == "file":
		u, err := url.Parse(spec)
		if err != nil || u.Host != "" || !filepath.IsAbs(u.Path) {
			return nil, refuse(CodeSpec, "write it as file:///directory/file, or without file://", "%.200q is not the URL of a file", spec)
		}
		return local(u.Path)
	case isURL:
		return nil, refuse(CodeSpec, "there are https, http, oci and file", "%.80q is not a kind of address that packages are got from", scheme+"://")
	case isPath(spec):
		return local(spec)
	}
	name, index, picked := strings.Cut(spec, "@")
	if CheckName(name) != nil || picked && checkIndexName(index) != nil {
		return nil, refuse(CodeSpec, "a file or directory is written with a slash: ./"+name, "%.80q is neither a path nor the name of a plugin", spec)
	}
	return fetchNamed(ctx, name, index, opts)
}

// isPath tells a path from a name by how it is written, never by what happens
// to lie in the working directory.
func isPath(spec string) bool {
	return strings.Contains(spec, "/") || strings.HasPrefix(spec, ".") || isPackageName(spec)
}

// packageEndings are what the names of packages end with.
func packageEndings() []string { return []string{".plugin.tar.zst", ".plugin.tar.gz"} }

func isPackageName(name string) bool {
	for _, ending := range packageEndings() {
		if strings.HasSuffix(name, ending) && len(name) > len(ending) {
			return true
		}
	}
	return false
}

// local is a package that is already here.
func local(path string) (*Found, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, &Error{Code: CodeMissing, Msg: path, Err: err}
	}
	st, err := os.Stat(abs)
	switch {
	case os.IsPermission(err):
		return nil, failure.Hint(failure.Wrap(failure.NotAllowed, err), "run as who may read it")
	case err != nil:
		return nil, &Error{Code: CodeMissing, Err: err}
	case st.IsDir():
		return &Found{Kind: Directory, Path: abs, Origin: abs}, nil
	case st.Mode().Type() != fs.ModeDir && !st.Mode().IsRegular():
		return nil, refuse(CodeSpec, "", "%s is neither a file nor a directory", path)
	}
	return &Found{Kind: File, Path: abs, Origin: abs}, nil
}
