package anchor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
)

// maxResponse bounds what is read from a server, in bytes.
const maxResponse = 1 << 20

// HTTP is a resource on a server. Writing is a PUT (or a POST) of the line,
// answered by any 2xx status, and a GET that must return it; reading is a GET,
// answered by 200 with lines of anchors (the last one of the host counts, so a
// server may keep one or all), or by 404 or 204 when there is none.
type HTTP struct {
	url    *url.URL
	opts   Options
	client *http.Client
}

func newHTTP(s string, o Options) (*HTTP, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return nil, failure.Errorf(failure.Usage, "%q is not a URL", s)
	}
	if u.User != nil {
		return nil, failure.Errorf(failure.Usage, "a URL with a password ends up in logs and process lists: use a token file")
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, failure.Errorf(failure.Usage, "%s: only https proves which server answered; http goes to this host alone", s)
	}
	return &HTTP{url: u, opts: o}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (h *HTTP) String() string { return h.url.String() }

// Readable tells that a server can be asked.
func (h *HTTP) Readable() bool { return true }

// connect makes the client and reads the files that it needs.
func (h *HTTP) connect() error {
	if h.client != nil {
		return nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if h.opts.CA != "" {
		pem, err := os.ReadFile(h.opts.CA)
		if err != nil {
			return failure.Wrap(failure.NotReady, err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return failure.Errorf(failure.NotReady, "%s holds no certificate (PEM)", h.opts.CA)
		}
	}
	h.client = &http.Client{
		Transport: &http.Transport{TLSClientConfig: conf, Proxy: h.opts.Proxy, ForceAttemptHTTP2: true, DisableKeepAlives: true},
		Timeout:   h.opts.timeout(),
		CheckRedirect: func(r *http.Request, _ []*http.Request) error {
			return fmt.Errorf("it redirects to %s: give that URL if it is the right one", r.URL.Redacted())
		},
	}
	return nil
}

// token reads the bearer token.
func (h *HTTP) token() (string, error) {
	if h.opts.TokenFile == "" {
		return "", nil
	}
	f, err := os.Open(h.opts.TokenFile)
	if err != nil {
		return "", failure.Wrap(failure.NotReady, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 8<<10))
	if err != nil {
		return "", failure.Wrap(failure.NotReady, err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if line = strings.TrimSpace(line); line == "" || strings.ContainsFunc(line, func(r rune) bool { return r <= ' ' || r >= 0x7F }) {
		return "", failure.Errorf(failure.NotReady, "the first line of %s is no token", h.opts.TokenFile)
	}
	return line, nil
}

// do sends a request and returns status and body.
func (h *HTTP) do(ctx context.Context, method, body string) (int, string, error) {
	if err := h.connect(); err != nil {
		return 0, "", err
	}
	token, err := h.token()
	if err != nil {
		return 0, "", err
	}
	req, err := http.NewRequestWithContext(ctx, method, h.url.String(), strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if body != "" {
		req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	}
	req.Header.Set("User-Agent", "mobileops")
	req.Header.Set("Cache-Control", "no-cache")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return 0, "", ctx.Err()
		}
		var u *url.Error
		if errors.As(err, &u) { // it repeats method and URL
			err = u.Err
		}
		return 0, "", fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
	if err != nil {
		return 0, "", fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if len(b) > maxResponse {
		return 0, "", fmt.Errorf("%w: it answers with more than %d bytes", ErrUnreachable, maxResponse)
	}
	return resp.StatusCode, string(b), nil
}

// Read asks the server for the last anchor of a host.
func (h *HTTP) Read(ctx context.Context, host string) (*Anchor, error) {
	status, body, err := h.do(ctx, http.MethodGet, "")
	if err != nil {
		return nil, err
	}
	switch status {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusNoContent:
		return nil, nil
	default:
		return nil, fmt.Errorf("%w: it answers %d %s", ErrUnreachable, status, http.StatusText(status))
	}
	last, strange := Last(body, host)
	if last == nil && strange > 0 {
		return nil, fmt.Errorf("%w: it answers with something else than anchors", ErrUnreachable)
	}
	if last == nil && h.method() == http.MethodPut && strings.Count(body, Version+" ") == 1 {
		// A PUT would replace it, and another host would lose its anchor.
		if other, err := Pasted(body, host); err == nil {
			return nil, fmt.Errorf("%w: the anchor of another host, %s, is kept there: give each host a URL of its own", ErrUnreachable, other.Host)
		}
	}
	return last, nil
}

func (h *HTTP) method() string {
	if h.opts.Method == "" {
		return http.MethodPut
	}
	return h.opts.Method
}

// Write sends an anchor and reads it back.
func (h *HTTP) Write(ctx context.Context, a Anchor) error {
	method := h.method()
	status, _, err := h.do(ctx, method, a.String()+"\n")
	if err != nil {
		return err
	}
	if status < 200 || status > 299 {
		return fmt.Errorf("%w: it answers %d %s to a %s", ErrUnreachable, status, http.StatusText(status), method)
	}
	back, err := h.Read(ctx, a.Host)
	if err != nil {
		return err
	}
	if back == nil || back.String() != a.String() {
		return fmt.Errorf("%w: it took the anchor and does not give it back", ErrUnreachable)
	}
	return nil
}
