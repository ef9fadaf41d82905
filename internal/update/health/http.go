package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

const (
	maxHeader    = 64 << 10
	maxBody      = 512 // of an answer that is an error, for the report
	maxRedirects = 5
)

// address is where a server is asked.
type address struct {
	url    *url.URL
	socket string // path of a UNIX socket; "": over the network
}

// parseAddress reads the address of a check: http://…, https://…, or
// unix:/path/of/socket:/path.
func parseAddress(s string) (*address, error) {
	if rest, ok := strings.CutPrefix(s, "unix:"); ok {
		a := &address{socket: rest}
		path := "/"
		if i := strings.LastIndex(rest, ":/"); i > 0 {
			a.socket, path = rest[:i], rest[i+1:]
		}
		if !strings.HasPrefix(a.socket, "/") {
			return nil, fmt.Errorf("%q: the path of a socket is absolute: unix:/run/app.sock:/healthz", s)
		}
		u, err := url.Parse("http://localhost" + path)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", s, err)
		}
		a.url = u
		return a, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf("%q is not an address that can be asked: http://, https:// or unix:/path/of/socket:/path", u.Redacted())
	}
	return &address{url: u}, nil
}

func (a *address) String() string {
	if a.socket != "" {
		return "unix:" + a.socket + ":" + a.url.RequestURI()
	}
	return a.url.Redacted()
}

// ask sends one request. Proxies are not used and connections not kept: what
// is asked is the server itself, as it is now.
func (a *address) ask(ctx context.Context) error {
	transport := &http.Transport{
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
	if a.socket != "" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", a.socket)
		}
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: sameHost}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url.String(), nil)
	if err != nil {
		return fmt.Errorf("%s: %w", a, err)
	}
	req.Header.Set("User-Agent", "mobileops")
	resp, err := client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // its text has the address once more
		}
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("%s: no answer in time", a)
		}
		return fmt.Errorf("%s: %w", a, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 200 && resp.StatusCode <= 299 {
		return nil
	}
	text := fmt.Sprintf("%s: answers %s", a, resp.Status)
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody)) // what it says beside its status may be cut off
	if body = bytes.TrimSpace(body); len(body) > 0 {
		text += ": " + string(body)
	}
	return errors.New(text)
}

// sameHost refuses what leads elsewhere: a server that is well somewhere else
// says nothing about this one.
func sameHost(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	if req.URL.Hostname() != first.Hostname() {
		return fmt.Errorf("redirects to another host, %s", req.URL.Host)
	}
	if first.Scheme == "https" && req.URL.Scheme != "https" {
		return errors.New("redirects from https to http")
	}
	if len(via) > maxRedirects {
		return fmt.Errorf("redirects more than %d times", maxRedirects)
	}
	return nil
}
