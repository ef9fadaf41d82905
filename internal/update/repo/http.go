package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync/atomic"
	"time"
)

// maxRedirects is how often a server may send to another path of its own.
const maxRedirects = 5

// httpSource is a directory on a web server.
type httpSource struct {
	base   url.URL
	client http.Client
	limits Limits
}

func newHTTPSource(base *url.URL, client *http.Client, limits Limits) *httpSource {
	s := &httpSource{base: *base, limits: limits}
	if client != nil {
		s.client = *client
	} else {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.DisableCompression = true // lengths are those of the files
		t.MaxResponseHeaderBytes = 64 << 10
		s.client.Transport = t
	}
	s.client.CheckRedirect = checkRedirect
	return s
}

func (s *httpSource) String() string { return s.base.Redacted() }

// checkRedirect lets a server move files about on itself, and from http to
// https. A redirect to another host would let whoever controls one server make
// every host of a fleet knock at an address of their choice, and one to http
// would show everybody on the way what this host lacks.
func checkRedirect(req *http.Request, via []*http.Request) error {
	from := via[0].URL
	switch {
	case len(via) > maxRedirects:
		return refuse(CodeRedirect, "", "%s redirects more than %d times", from.Redacted(), maxRedirects)
	case from.Scheme == req.URL.Scheme && strings.EqualFold(from.Host, req.URL.Host):
		return nil
	case from.Scheme == "http" && req.URL.Scheme == "https" && strings.EqualFold(from.Hostname(), req.URL.Hostname()):
		return nil
	}
	e := refuse(CodeRedirect, "", "%s redirects to %q", from.Redacted(), req.URL.Redacted())
	e.Hint = "redirects to other hosts or to http are not followed; if it has moved: mobileops config set update.repository URL"
	return e
}

func (s *httpSource) fetch(ctx context.Context, name string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.limits.Request, refuse(CodeStalled, "", "%s did not arrive within %v", name, s.limits.Request))
	defer cancel()
	body, _, err := s.get(ctx, name, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := readLimited(body, name, limit)
	if err != nil && context.Cause(ctx) != nil {
		return nil, context.Cause(ctx)
	}
	return data, err
}

// open watches the transfer: one that brings less than Limits.StallBytes
// within Limits.Stall is given up, so that no server can keep a host waiting
// for ever by a byte now and then.
func (s *httpSource) open(ctx context.Context, name string, offset int64) (io.ReadCloser, int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchedBody{ctx: ctx, cancel: cancel, done: make(chan struct{})}
	go w.watch(s.limits.Stall, s.limits.StallBytes, name)
	body, from, err := s.get(ctx, name, offset)
	if errors.Is(err, errRange) {
		body, from, err = s.get(ctx, name, 0)
	}
	if err != nil {
		w.stop()
		return nil, 0, err
	}
	w.ReadCloser = body
	return w, from, nil
}

// watchedBody counts what arrives.
type watchedBody struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{}
	ended  atomic.Bool
	bytes  atomic.Int64
}

func (w *watchedBody) Read(b []byte) (int, error) {
	n, err := w.ReadCloser.Read(b)
	w.bytes.Add(int64(n))
	if err != nil && err != io.EOF && context.Cause(w.ctx) != nil {
		err = context.Cause(w.ctx)
	}
	return n, err
}

func (w *watchedBody) Close() error {
	w.stop()
	return w.ReadCloser.Close()
}

func (w *watchedBody) stop() {
	if w.ended.CompareAndSwap(false, true) {
		close(w.done)
		w.cancel(nil)
	}
}

func (w *watchedBody) watch(every time.Duration, least int64, name string) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for before := int64(0); ; {
		select {
		case <-w.done:
			return
		case <-tick.C:
		}
		now := w.bytes.Load()
		if now-before < least {
			e := refuse(CodeStalled, "", "%s: %d bytes within %v", name, now-before, every)
			e.Hint = "what has arrived is kept: the same command goes on there"
			w.cancel(e)
			return
		}
		before = now
	}
}

// errRange says that the file has nothing where the answer should begin.
var errRange = errors.New("range not satisfiable")

// get asks for a file from offset on, and says where the answer begins.
func (s *httpSource) get(ctx context.Context, name string, offset int64) (io.ReadCloser, int64, error) {
	u := s.base
	u.Path, u.RawPath = path.Join("/", u.Path, name), ""
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, 0, &Error{Code: CodeUnreachable, Err: err}
	}
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "mobileops")
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	res, err := s.client.Do(req)
	if err != nil {
		if res != nil { // a redirect that was refused
			res.Body.Close()
		}
		return nil, 0, unreachable(ctx, err)
	}
	from, err := answered(res, &u, offset)
	if err != nil {
		res.Body.Close()
		return nil, 0, err
	}
	return res.Body, from, nil
}

// answered reads the status of an answer.
func answered(res *http.Response, u *url.URL, offset int64) (from int64, err error) {
	switch res.StatusCode {
	case http.StatusOK:
		return 0, nil
	case http.StatusPartialContent:
		var first int64
		if _, err := fmt.Sscanf(res.Header.Get("Content-Range"), "bytes %d-", &first); err == nil && first == offset {
			return offset, nil
		}
		return 0, refuse(CodeMalformed, "", "%s: a part was asked for and another one sent", u.Redacted())
	case http.StatusRequestedRangeNotSatisfiable:
		return 0, errRange
	case http.StatusNotFound, http.StatusGone, http.StatusForbidden: // object stores say 403 for what is not there
		return 0, refuse(CodeMissing, "", "%s: %s", u.Redacted(), res.Status)
	}
	return 0, refuse(CodeUnreachable, "", "%s: %s", u.Redacted(), res.Status)
}

// unreachable is why there was no answer.
func unreachable(ctx context.Context, err error) error {
	var refused *Error
	if errors.As(err, &refused) {
		return refused
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var u *url.Error
	if errors.As(err, &u) { // its text would show a password in the URL
		if parsed, perr := url.Parse(u.URL); perr == nil {
			return &Error{Code: CodeUnreachable, Msg: parsed.Redacted(), Err: u.Err}
		}
		err = u.Err
	}
	return &Error{Code: CodeUnreachable, Err: err}
}
