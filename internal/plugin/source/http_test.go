package source

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

func TestFromTheWeb(t *testing.T) {
	content := pkg(3<<20, "web")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("credentials that nobody gave")
		}
		_, _ = w.Write(content)
	}))
	defer s.Close()
	var last, total int64
	o := Options{TempDir: t.TempDir(), Progress: func(done, of int64) { last, total = done, of }}
	found, err := Resolve(t.Context(), s.URL+"/x?token=secret", o)
	if err == nil && (found.Kind != HTTP || strings.Contains(found.Origin, "secret")) {
		t.Errorf("%+v", found)
	}
	holds(t, found, err, content, o.TempDir)
	if last != int64(len(content)) || total != -1 && total != last {
		t.Errorf("progress %d of %d", last, total)
	}
	found, err = Resolve(t.Context(), s.URL+"/x#blake3="+digestOf(content), o)
	holds(t, found, err, content, o.TempDir)
	_, err = Resolve(t.Context(), s.URL+"/x#blake3="+digestOf(nil), o)
	wantCode(t, err, CodeDigest, failure.Untrustworthy)
	o.MaxPackage = 1 << 20
	_, err = Resolve(t.Context(), s.URL+"/x", o)
	wantCode(t, err, CodeTooLarge, failure.Untrustworthy)
	empty(t, o.TempDir)
}

// unheard is an address of this host at which nobody listens, and which nobody
// else is given meanwhile.
func unheard(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", at.(*unix.SockaddrInet4).Port)
}

// hostileServer does what its path says.
func hostileServer(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		flush := func() { _ = http.NewResponseController(w).Flush() }
		switch r.URL.Path {
		case "/silent":
			<-r.Context().Done()
		case "/stops":
			_, _ = w.Write(pkg(1000, "x"))
			flush()
			<-r.Context().Done()
		case "/drips":
			_, _ = w.Write(pkg(4, "x"))
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte("x")); err != nil {
					return
				}
				flush()
				time.Sleep(10 * time.Millisecond)
			}
		case "/endless":
			for block := pkg(1<<20, "x"); ; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		case "/truncated":
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write(pkg(5000, "x"))
			panic(http.ErrAbortHandler)
		case "/cut":
			_, _ = w.Write(pkg(5000, "x"))
			flush()
			panic(http.ErrAbortHandler)
		case "/claims":
			w.Header().Set("Content-Length", strconv.Itoa(1<<40))
			_, _ = w.Write(pkg(5000, "x"))
		case "/page":
			fmt.Fprint(w, "<!DOCTYPE html><title>Log in</title>")
		case "/empty":
		case "/headers":
			for i := range 100 {
				w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 4000))
			}
			_, _ = w.Write(pkg(5000, "x"))
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/elsewhere":
			http.Redirect(w, r, "http://192.0.2.1/x", http.StatusFound)
		case "/file":
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		case "/401", "/403", "/404", "/500", "/204", "/206":
			n, _ := strconv.Atoi(r.URL.Path[1:])
			w.WriteHeader(n)
		}
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

func TestHostileServers(t *testing.T) {
	s := hostileServer(t)
	for path, tc := range map[string]struct {
		code Code
		kind failure.Kind
	}{
		"/silent": {CodeStalled, failure.Failed}, "/stops": {CodeStalled, failure.Failed}, "/drips": {CodeStalled, failure.Failed},
		"/endless": {CodeTooLarge, failure.Untrustworthy}, "/truncated": {CodeTruncated, failure.Failed}, "/cut": {CodeTruncated, failure.Failed},
		"/claims": {CodeTooLarge, failure.Untrustworthy}, "/page": {CodeMalformed, failure.Untrustworthy}, "/empty": {CodeMalformed, failure.Untrustworthy},
		"/headers": {CodeUnreachable, failure.Failed}, "/loop": {CodeRedirect, failure.Untrustworthy}, "/elsewhere": {CodePlainHTTP, failure.Usage}, "/file": {CodeSpec, failure.Usage},
		"/401": {CodeDenied, failure.NotAllowed}, "/403": {CodeDenied, failure.NotAllowed}, "/404": {CodeMissing, failure.Failed},
		"/500": {CodeUnreachable, failure.Failed}, "/204": {CodeUnreachable, failure.Failed}, "/206": {CodeUnreachable, failure.Failed},
	} {
		t.Run(path[1:], func(t *testing.T) {
			o := Options{TempDir: t.TempDir(), MaxPackage: 4 << 20, Stall: time.Minute, Timeout: 2 * time.Minute}
			switch path {
			case "/silent", "/stops":
				o.Stall = 300 * time.Millisecond
			case "/drips":
				o.Timeout = time.Second
			}
			found, err := Resolve(t.Context(), s.URL+path, o)
			if err == nil {
				t.Fatalf("%+v", found)
			}
			wantCode(t, err, tc.code, tc.kind)
			empty(t, o.TempDir)
		})
	}
}

// A byte now and then is no transfer: it does not keep anybody for as long as a
// large package may take.
func TestDripFeed(t *testing.T) {
	s := hostileServer(t)
	o := Options{TempDir: t.TempDir(), Stall: time.Second, Timeout: 20 * time.Second}
	_, err := Resolve(t.Context(), s.URL+"/drips", o)
	wantCode(t, err, CodeStalled, failure.Failed)
	if err == nil || strings.Contains(err.Error(), "did not arrive within") || !strings.Contains(err.Error(), "/drips: ") {
		t.Errorf("%v", err)
	}
	empty(t, o.TempDir)
}

func TestInterruptedAndUnreachable(t *testing.T) {
	s := hostileServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	o := Options{TempDir: t.TempDir(), Progress: func(int64, int64) { cancel() }}
	_, err := Resolve(ctx, s.URL+"/stops", o)
	if failure.KindOf(err) != failure.Interrupted {
		t.Errorf("%v", err)
	}
	empty(t, o.TempDir)
	_, err = Resolve(t.Context(), "http://"+unheard(t)+"/x?token=secret", o)
	wantCode(t, err, CodeUnreachable, failure.Failed)
	if err != nil && strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
	o.TempDir = "/nonexistent"
	full := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(pkg(100, "x")) }))
	defer full.Close()
	_, err = Resolve(t.Context(), full.URL, o)
	wantCode(t, err, CodeDisk, failure.Failed)
}

func TestEncryption(t *testing.T) {
	content := pkg(1000, "tls")
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) }))
	defer plain.Close()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/down" {
			http.Redirect(w, r, plain.URL, http.StatusFound)
			return
		}
		_, _ = w.Write(content)
	}))
	defer s.Close()
	o := Options{TempDir: t.TempDir()}
	_, err := Resolve(t.Context(), s.URL, o)
	wantCode(t, err, CodeUnreachable, failure.Failed) // nobody vouches for its certificate
	o.RootCAs = x509.NewCertPool()
	o.RootCAs.AddCert(s.Certificate())
	found, err := Resolve(t.Context(), s.URL, o)
	holds(t, found, err, content, o.TempDir)
	_, err = Resolve(t.Context(), s.URL+"/down", o)
	wantCode(t, err, CodeRedirect, failure.Untrustworthy)
	o.PlainHTTP = true // allows plain http where it is asked for, and not after https
	_, err = Resolve(t.Context(), s.URL+"/down", o)
	wantCode(t, err, CodeRedirect, failure.Untrustworthy)
	for host, want := range map[string]bool{"localhost": true, "127.0.0.1": true, "127.9.9.9": true, "::1": true, "localhost.example.org": false, "10.0.0.1": false, "0.0.0.0": false, "": false} {
		if loopback(host) != want {
			t.Errorf("loopback(%q) is not %v", host, want)
		}
	}
}

// TestCredentialsStayWithTheirHost redirects to another server and back.
func TestCredentialsStayWithTheirHost(t *testing.T) {
	content := pkg(1000, "auth")
	var first *httptest.Server
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("another server was told the password")
		}
		http.Redirect(w, r, first.URL+"/back", http.StatusFound)
	}))
	defer other.Close()
	first = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := r.BasicAuth()
		switch r.URL.Path {
		case "/back":
			if ok {
				t.Error("whoever redirects here can use the password")
			}
		case "/token":
			if r.Header.Get("Authorization") != "Bearer t0k3n" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
		default:
			if !ok || user != "ops" || password != "secret" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
		}
		if r.URL.Path == "/away" {
			http.Redirect(w, r, other.URL, http.StatusFound)
			return
		}
		_, _ = w.Write(content)
	}))
	defer first.Close()
	var asked []string
	cred := Credential{Username: "ops", Password: "secret"}
	o := Options{TempDir: t.TempDir(), Credentials: func(_ context.Context, host string) (Credential, error) {
		asked = append(asked, host)
		return cred, nil
	}}
	found, err := Resolve(t.Context(), first.URL+"/x", o)
	holds(t, found, err, content, o.TempDir)
	found, err = Resolve(t.Context(), first.URL+"/away", o)
	holds(t, found, err, content, o.TempDir)
	if len(asked) != 2 || "http://"+asked[0] != first.URL {
		t.Errorf("asked for %q", asked)
	}
	cred = Credential{Token: "t0k3n"}
	found, err = Resolve(t.Context(), first.URL+"/token", o)
	holds(t, found, err, content, o.TempDir)
	cred = Credential{Username: "ops", Password: "wrong"}
	_, err = Resolve(t.Context(), first.URL+"/x", o)
	wantCode(t, err, CodeDenied, failure.NotAllowed)
	o.Credentials = func(context.Context, string) (Credential, error) { return Credential{}, fmt.Errorf("no such file") }
	_, err = Resolve(t.Context(), first.URL+"/x", o)
	wantCode(t, err, CodeDenied, failure.NotAllowed)
}

func TestRedirectToThisHostFromOutside(t *testing.T) {
	c := newClient(Options{PlainHTTP: true})
	from := httptest.NewRequest("GET", "http://example.org/x", nil)
	for _, to := range []string{
		"127.0.0.1:9", "localhost", "a.localhost", "localhost.", "0.0.0.0:9", "[::]:9", "[::ffff:127.0.0.1]:9",
		"169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "100.100.100.200",
	} {
		err := c.redirect(httptest.NewRequest("GET", "http://"+to+"/x", nil), []*http.Request{from})
		wantCode(t, err, CodeRedirect, failure.Untrustworthy)
	}
	if err := c.redirect(httptest.NewRequest("GET", "http://cdn.example.net/x", nil), []*http.Request{from}); err != nil {
		t.Error(err)
	}
}

func TestProxyIsTheOneThatWasPassed(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:9") // would refuse every connection
	t.Setenv("http_proxy", "http://127.0.0.1:9")
	content := pkg(1000, "proxy")
	var through atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Host == "packages.invalid" {
			through.Add(1)
			_, _ = w.Write(content)
		}
	}))
	defer proxy.Close()
	u, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{TempDir: t.TempDir(), PlainHTTP: true, Stall: 2 * time.Minute} // longer than a resolver asks
	_, err = Resolve(t.Context(), "http://packages.invalid/x", o)
	wantCode(t, err, CodeUnreachable, failure.Failed)
	o.Proxy = func(*http.Request) (*url.URL, error) { return u, nil }
	found, err := Resolve(t.Context(), "http://packages.invalid/x", o)
	holds(t, found, err, content, o.TempDir)
	if through.Load() != 1 {
		t.Errorf("%d requests", through.Load())
	}
}

func TestTransferEndsExactlyAtTheLimit(t *testing.T) {
	for _, n := range []int{4, 1000, 256 << 10, 256<<10 + 1} {
		content := pkg(n, "x")
		b := &body{Reader: bytes.NewReader(content), size: -1, where: "x"}
		o := Options{TempDir: t.TempDir(), MaxPackage: int64(n)}.withDefaults()
		found, err := keep(t.Context(), b, promise{}, o)
		holds(t, found, err, content, o.TempDir)
		for _, p := range []promise{{size: int64(n) - 1}, {size: int64(n) + 1, digest: digestOf(content)}, {digest: digestOf([]byte("y"))}} {
			o.MaxPackage = 1 << 30
			if found, err := keep(t.Context(), &body{Reader: bytes.NewReader(content), size: -1, where: "x"}, p, o); err == nil {
				t.Errorf("%+v for %+v", found, p)
			}
			empty(t, o.TempDir)
		}
	}
}

// Nothing is left of a download when this process is killed at any moment.
func TestDownloadHasNoName(t *testing.T) {
	content := pkg(1000, "x")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) }))
	defer s.Close()
	o := Options{TempDir: t.TempDir()}
	o.Progress = func(int64, int64) { empty(t, o.TempDir) }
	found, err := Resolve(t.Context(), s.URL+"/x", o)
	empty(t, o.TempDir)
	holds(t, found, err, content, o.TempDir)
}
