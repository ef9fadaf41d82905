package vulndb

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// repository returns the client of a repository, and what closes its
// connections. All requests, those for tokens too, go the same way.
func repository(ref registry.Reference, o PullOptions) (*remote.Repository, func()) {
	host := ref.Host()
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	transport := &http.Transport{
		Proxy:                  o.Proxy,
		DialContext:            (&net.Dialer{Timeout: o.Stall}).DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    o.Stall,
		ResponseHeaderTimeout:  o.Stall,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // sizes are those of the files
		ForceAttemptHTTP2:      true,
		IdleConnTimeout:        time.Second,
	}
	client := &http.Client{Transport: &guard{plain: o.PlainHTTP, next: transport}, CheckRedirect: redirect}
	repo := &remote.Repository{
		Reference: ref,
		PlainHTTP: o.PlainHTTP || loopback(name) && o.RootCAs == nil,
		Client: &auth.Client{
			Client: client, Cache: auth.NewCache(), ClientID: "mobileops", Header: http.Header{"User-Agent": {"mobileops"}},
			Credential: func(ctx context.Context, host string) (auth.Credential, error) {
				if o.Credentials == nil {
					return auth.EmptyCredential, nil
				}
				c, err := o.Credentials(ctx, host)
				return auth.Credential{Username: c.Username, Password: c.Password, AccessToken: c.Token}, err
			},
		},
		ManifestMediaTypes: []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex},
		MaxMetadataBytes:   maxManifest,
	}
	return repo, transport.CloseIdleConnections
}

// guard refuses requests that are not encrypted, whoever makes them: a registry
// may name the server that gives out its tokens.
type guard struct {
	plain bool
	next  http.RoundTripper
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if u := req.URL; u.Scheme != "https" && !(u.Scheme == "http" && (g.plain || loopback(u.Hostname()))) {
		return nil, failure.Hint(failure.Errorf(failure.Usage, "%s://%s is not encrypted", u.Scheme, u.Host), "if the network between is to be trusted: --plain-http")
	}
	return g.next.RoundTrip(req)
}

// loopback reports whether a host is this one, without asking who it is.
func loopback(host string) bool {
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// redirect lets a registry send us on a few times, but not off encryption, nor to
// this host, and never takes a password along to another one.
func redirect(req *http.Request, via []*http.Request) error {
	first, last := via[0].URL, via[len(via)-1].URL
	switch {
	case len(via) > 5:
		return failure.Errorf(failure.Untrustworthy, "%s redirects too often", first.Host)
	case last.Scheme == "https" && req.URL.Scheme == "http":
		return failure.Errorf(failure.Untrustworthy, "%s redirects to %s, which is not encrypted", first.Host, req.URL.Host)
	case loopback(req.URL.Hostname()) && !loopback(first.Hostname()):
		return failure.Errorf(failure.Untrustworthy, "%s redirects to this host, %s", first.Host, req.URL.Host)
	}
	for _, r := range via {
		if r.URL.Scheme != req.URL.Scheme || !strings.EqualFold(r.URL.Host, req.URL.Host) {
			req.Header.Del("Authorization")
		}
	}
	return nil
}

// stalledError says that a transfer was given up.
type stalledError struct {
	all bool // it took too long as a whole
	d   time.Duration
}

func (e *stalledError) Error() string {
	if e.all {
		return fmt.Sprintf("it did not arrive within %v", e.d)
	}
	return fmt.Sprintf("nothing came for %v", e.d)
}

// watch gives up a transfer that stalls or takes too long.
type watch struct {
	cancel context.CancelCauseFunc
	stop   context.CancelFunc
	timer  *time.Timer
	stall  time.Duration
}

func watched(ctx context.Context, o PullOptions) (context.Context, *watch) {
	w := &watch{stall: o.Stall}
	ctx, w.stop = context.WithTimeoutCause(ctx, o.Timeout, &stalledError{true, o.Timeout})
	ctx, w.cancel = context.WithCancelCause(ctx)
	w.timer = time.AfterFunc(w.stall, func() { w.cancel(&stalledError{false, w.stall}) })
	return ctx, w
}

func (w *watch) end() {
	w.timer.Stop()
	w.cancel(context.Canceled)
	w.stop()
}

// reader returns r, whose bytes are signs of life.
func (w *watch) reader(r io.Reader) io.Reader { return &watchedReader{r, w} }

type watchedReader struct {
	io.Reader
	w *watch
}

func (r *watchedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.w.timer.Reset(r.w.stall)
	}
	return n, err
}
