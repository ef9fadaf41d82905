package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// Limits of getting a feed from a server.
const (
	connectTimeout = 10 * time.Second
	fetchTimeout   = 5 * time.Minute
	maxRedirects   = 5
	maxPacked      = 64 << 20 // bytes as they come over the network
)

// errUnmodified says that a server has no other version than the one at hand.
var errUnmodified = errors.New("not modified")

// IsURL tells whether a source is to be got over HTTP. No other scheme is one.
func IsURL(source string) bool {
	lower := strings.ToLower(source)
	return strings.HasPrefix(lower, "http://") || strings.HasPrefix(lower, "https://")
}

// NameOf makes a name for a feed of its source: the last part of its path without
// extensions.
func NameOf(source string) string {
	name := source
	if u, err := url.Parse(source); IsURL(source) && err == nil {
		name = path.Base(u.Path)
		if name == "/" || name == "." {
			name = u.Hostname()
		}
	}
	name = strings.ToLower(filepath.Base(name))
	for {
		ext := filepath.Ext(name)
		if ext == "" || ext == name || len(ext) > 8 {
			break
		}
		name = strings.TrimSuffix(name, ext)
	}
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.' {
			return r
		}
		return '_'
	}, name)
	return strings.TrimLeft(clean[:min(len(clean), maxName)], "-._")
}

// openSource opens a feed. With the tags of the version at hand, the error of one
// that is still the same is errUnmodified.
func openSource(ctx context.Context, source string, known *Feed) (body io.ReadCloser, etag, modified string, err error) {
	if IsURL(source) {
		return fetch(ctx, source, known)
	}
	if strings.Contains(source, "://") {
		return nil, "", "", failure.Errorf(failure.Usage, "%q is neither a file nor a URL that begins with https:// or http://", source)
	}
	// A FIFO that nobody writes to must not hold the lock for ever, and a device
	// never ends.
	f, err := os.OpenFile(source, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, "", "", err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = failure.Errorf(failure.Usage, "%s is no regular file", source)
	}
	if err != nil {
		f.Close()
		return nil, "", "", err
	}
	return f, "", "", nil
}

func fetch(ctx context.Context, source string, known *Feed) (body io.ReadCloser, etag, modified string, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer func() {
		if err != nil {
			cancel()
		}
	}()
	u, err := url.Parse(source)
	if err != nil || u.Host == "" {
		return nil, "", "", failure.Errorf(failure.Usage, "%q is not a URL", source)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return nil, "", "", err
	}
	req.Header.Set("User-Agent", "mobileops")
	if known != nil && known.ETag != "" {
		req.Header.Set("If-None-Match", known.ETag)
	}
	if known != nil && known.Modified != "" {
		req.Header.Set("If-Modified-Since", known.Modified)
	}
	client := &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: connectTimeout}).DialContext,
			TLSHandshakeTimeout:    connectTimeout,
			ResponseHeaderTimeout:  30 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			DisableKeepAlives:      true,
			ForceAttemptHTTP2:      true,
		},
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			switch {
			case len(via) > maxRedirects:
				return fmt.Errorf("more than %d redirections", maxRedirects)
			case next.URL.Scheme != "https" && next.URL.Scheme != "http":
				return fmt.Errorf("redirected to a URL that begins with %q", next.URL.Scheme)
			case next.URL.Scheme == "http" && via[0].URL.Scheme == "https":
				return errors.New("redirected from https to http")
			}
			return nil
		},
	}
	res, err := client.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) { // it repeats the URL, with a password that may be in it
			err = fmt.Errorf("%s: %w", u.Redacted(), wrapped.Err)
		}
		return nil, "", "", err
	}
	switch {
	case res.StatusCode == http.StatusNotModified && known != nil:
		err = errUnmodified
	case res.StatusCode != http.StatusOK:
		err = fmt.Errorf("%s: the server says %s", u.Redacted(), res.Status)
	case res.ContentLength > maxPacked:
		err = fmt.Errorf("%s: %w: it is longer than %d MiB", u.Redacted(), ErrNoFeed, maxPacked>>20)
	}
	if err != nil {
		res.Body.Close()
		return nil, "", "", err
	}
	short := func(s string) string {
		if len(s) > 1024 {
			return ""
		}
		return s
	}
	return &fetched{res.Body, 0, cancel}, short(res.Header.Get("ETag")), short(res.Header.Get("Last-Modified")), nil
}

// fetched is the answer of a server, up to the limit.
type fetched struct {
	io.ReadCloser
	n      int64
	cancel context.CancelFunc
}

func (f *fetched) Read(b []byte) (int, error) {
	n, err := f.ReadCloser.Read(b)
	if f.n += int64(n); f.n > maxPacked {
		return 0, fmt.Errorf("%w: it is longer than %d MiB", ErrNoFeed, maxPacked>>20)
	}
	return n, err
}

func (f *fetched) Close() error {
	defer f.cancel()
	return f.ReadCloser.Close()
}
