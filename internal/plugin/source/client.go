package source

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	pluginmanifest "github.com/mobileops/mobileops/internal/plugin/manifest"
)

const (
	maxURL       = 2048 // bytes
	maxRedirects = 5
)

// client makes the requests of one Resolve or Refresh.
type client struct {
	http http.Client
	opts Options
}

func newClient(opts Options) *client {
	c := &client{opts: opts}
	c.http.Transport = &guard{opts: opts, next: &http.Transport{
		Proxy:                  opts.Proxy,
		DialContext:            (&net.Dialer{Timeout: opts.Stall}).DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: opts.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    opts.Stall,
		ResponseHeaderTimeout:  opts.Stall,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // sizes are those of the files
		DisableKeepAlives:      false,
		ForceAttemptHTTP2:      true,
		IdleConnTimeout:        time.Second, // a Resolve is over soon
	}}
	c.http.CheckRedirect = c.redirect
	return c
}

// close ends connections that are kept for another request.
func (c *client) close() { c.http.CloseIdleConnections() }

// guard refuses requests that are not encrypted, whoever makes them: a
// registry may name the server that gives out its tokens.
type guard struct {
	opts Options
	next *http.Transport
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := g.opts.encrypted(req.URL); err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	return g.next.RoundTrip(req)
}

func (g *guard) CloseIdleConnections() { g.next.CloseIdleConnections() }

// encrypted refuses plain http, except to this host or when it was allowed.
func (o *Options) encrypted(u *url.URL) error {
	if u.Scheme == "https" || u.Scheme == "http" && (o.PlainHTTP || loopback(u.Hostname())) {
		return nil
	}
	if u.Scheme == "http" {
		return refuse(CodePlainHTTP, "use https; if the network between is to be trusted, allow plain http in the configuration",
			"%s is not encrypted", shown(u))
	}
	return refuse(CodeSpec, "", "%s is not an address of the web", shown(u))
}

// loopback reports whether a host is this one. Names are not looked up, since
// whoever answers for them could say so; localhost never leaves (RFC 6761).
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// inside reports whether a host is this one by any of its names, or an address
// that is known only on its link, such as that at which clouds hand out
// credentials: a server elsewhere has no business to make us ask there.
func inside(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if loopback(host) || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	addr = addr.Unmap()
	return err == nil && (addr.IsUnspecified() || addr.IsLinkLocalUnicast() || pluginmanifest.IsMetadata(addr))
}

// shown is a URL for messages and records, without what may be secret in it.
func shown(u *url.URL) string {
	c := *u
	c.User, c.RawQuery, c.Fragment, c.RawFragment = nil, "", "", ""
	return c.String()
}

// redirect lets a server send us on a few times. A password is for the host
// that it was given for, and never goes along: net/http makes the headers of
// every request anew from the first, so each one is looked at.
func (c *client) redirect(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	hint := "ask for the address where it is now"
	if len(via) > maxRedirects {
		return refuse(CodeRedirect, "", "%s redirects more than %d times", shown(first), maxRedirects)
	}
	left := !sameOrigin(first, req.URL)
	for _, r := range via {
		if r.URL.Scheme == "https" && req.URL.Scheme == "http" {
			return refuse(CodeRedirect, hint, "%s redirects to %s, which is not encrypted", shown(first), shown(req.URL))
		}
		left = left || !sameOrigin(first, r.URL)
	}
	if to := req.URL.Hostname(); inside(to) && !inside(first.Hostname()) {
		return refuse(CodeRedirect, hint, "%s redirects to this host or what belongs to it, %s", shown(first), shown(req.URL))
	}
	if left {
		req.Header.Del("Authorization")
	}
	return nil
}

func sameOrigin(a, b *url.URL) bool { return a.Scheme == b.Scheme && strings.EqualFold(a.Host, b.Host) }

// parseURL reads the URL of a package or an index.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || len(s) > maxURL || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, refuse(CodeSpec, "", "this is no URL that a package could be at: %s", quoted(s))
	case u.User != nil:
		return nil, refuse(CodeSpec, "passwords belong into the configuration, where they are not shown to every user of this host", "%s has a password in it", shown(u))
	}
	return u, nil
}

// quoted shows what somebody typed, without what looks like a password.
func quoted(s string) string {
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		if at := strings.LastIndexByte(rest, '@'); at >= 0 {
			s = scheme + "://...@" + rest[at+1:]
		}
	}
	return fmt.Sprintf("%.200q", s)
}

// body is the answer to a request. Reading it fails when nothing comes for
// Options.Stall, less than minRate over as long, or all of it takes longer than
// Options.Timeout.
type body struct {
	io.Reader
	size  int64 // -1: unknown
	where string
	close func()
}

func (b *body) Close() error {
	b.close()
	return nil
}

// get asks for u. The caller closes the body.
func (c *client) get(ctx context.Context, u *url.URL) (*body, error) {
	if err := c.opts.encrypted(u); err != nil {
		return nil, err
	}
	where := shown(u)
	ctx, watch := c.watched(ctx, where)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		watch.end()
		return nil, refuse(CodeSpec, "", "%s: %v", where, err)
	}
	req.Header.Set("User-Agent", "mobileops")
	req.Header.Set("Accept-Encoding", "identity")
	if err := c.authorize(ctx, req); err != nil {
		watch.end()
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		err = failed(ctx, where, err)
		watch.end()
		return nil, err
	}
	if err := answered(res.StatusCode, where); err != nil {
		_ = res.Body.Close()
		watch.end()
		return nil, err
	}
	return &body{Reader: watch.reader(res.Body), size: res.ContentLength, where: where, close: func() {
		_ = res.Body.Close()
		watch.end()
	}}, nil
}

// authorize adds what the host of req wants to know.
func (c *client) authorize(ctx context.Context, req *http.Request) error {
	if c.opts.Credentials == nil {
		return nil
	}
	cred, err := c.opts.Credentials(ctx, req.URL.Host)
	switch {
	case err != nil:
		return &Error{Code: CodeDenied, Msg: "credentials for " + req.URL.Host, Err: err}
	case cred.Token != "":
		req.Header.Set("Authorization", "Bearer "+cred.Token)
	case cred.Username != "" || cred.Password != "":
		req.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(cred.Username+":"+cred.Password)))
	}
	return nil
}

// answered reads the status of an answer.
func answered(status int, where string) error {
	switch status {
	case http.StatusOK:
		return nil
	case http.StatusNotFound, http.StatusGone:
		return refuse(CodeMissing, "look at the address", "%s is not there: the server says %d", where, status)
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return refuse(CodeDenied, "configure credentials for this host", "%s: the server says %d %s", where, status, http.StatusText(status))
	}
	return refuse(CodeUnreachable, "", "%s: the server says %d %s", where, status, http.StatusText(status))
}

// minRate is how many bytes a second come at least of a transfer that goes on. A
// server that sends a byte now and then would keep whoever waits for as long as a
// large package may take.
const minRate = 1 << 10

// watch gives up a transfer that stalls or takes too long.
type watch struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	stop   context.CancelFunc
	stall  time.Duration
	where  string
	timer  *time.Timer
	once   sync.Once
}

func (c *client) watched(ctx context.Context, where string) (context.Context, *watch) {
	w := &watch{stall: c.opts.Stall, where: where}
	ctx, w.stop = context.WithTimeoutCause(ctx, c.opts.Timeout,
		refuse(CodeStalled, "try again; if the line is slow, allow it more time", "%s did not arrive within %v", where, c.opts.Timeout))
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.timer = time.AfterFunc(w.stall, func() {
		w.cancel(refuse(CodeStalled, "try again", "%s: nothing came for %v", where, w.stall))
	})
	return w.ctx, w
}

func (w *watch) end() {
	w.once.Do(func() {
		w.timer.Stop()
		w.cancel(context.Canceled)
		w.stop()
	})
}

// reader returns r, whose reads count as signs of life, and whose errors are
// why the transfer was given up.
func (w *watch) reader(r io.Reader) io.Reader {
	return &watchedReader{Reader: r, w: w, since: time.Now()}
}

type watchedReader struct {
	io.Reader
	w     *watch
	since time.Time
	came  int64 // bytes since then
}

func (r *watchedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.w.timer.Reset(r.w.stall)
	}
	if r.came += int64(n); err == nil {
		if took := time.Since(r.since); took >= r.w.stall {
			if float64(r.came) < minRate*took.Seconds() {
				err = refuse(CodeStalled, "try again; if it stays so, get the package elsewhere and install the file",
					"%s: only %d bytes came in %v", r.w.where, r.came, took.Round(time.Millisecond))
				r.w.cancel(err)
				return n, err
			}
			r.since, r.came = time.Now(), 0
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = failed(r.w.ctx, "", err)
	}
	return n, err
}
