package source

import (
	"context"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// fetchURL gets the package at a URL. A fragment #blake3=DIGEST says what it
// has to be.
func fetchURL(ctx context.Context, spec string, opts Options) (*Found, error) {
	u, err := parseURL(spec)
	if err != nil {
		return nil, err
	}
	var p promise
	if u.Fragment != "" {
		digest, ok := strings.CutPrefix(u.Fragment, "blake3=")
		if !ok || !isDigest(digest) {
			return nil, refuse(CodeSpec, "write #blake3= and 64 hexadecimal digits, as b3sum prints them", "#%.100s is not the digest of a package", u.Fragment)
		}
		p.digest = digest
		u.Fragment, u.RawFragment = "", ""
	}
	if opts.Offline {
		return nil, offline(shown(u))
	}
	found, err := fetchFile(ctx, u, p, opts)
	if err != nil {
		return nil, err
	}
	found.Kind = HTTP
	return found, nil
}

func offline(where string) error {
	return refuse(CodeUnreachable, "leave out --offline, or get the file and name its path", "%s is not on this host", where)
}

// fetchFile gets a package from the web.
func fetchFile(ctx context.Context, u *url.URL, p promise, opts Options) (*Found, error) {
	c := newClient(opts)
	defer c.close()
	b, err := c.get(ctx, u)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return keep(ctx, b, p, opts)
}

// openLocal opens a file of an index that lies on this host, beneath the
// directory of the index.
func openLocal(dir, name string) (*body, error) {
	where := filepath.Join(dir, name)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, &Error{Code: CodeMissing, Err: err}
	}
	defer root.Close()
	st, err := root.Stat(name)
	if err != nil {
		return nil, &Error{Code: CodeMissing, Msg: where, Err: err}
	}
	if !st.Mode().IsRegular() {
		return nil, refuse(CodeMalformed, "", "%s is not a regular file", where)
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe may have come in its place
	if err != nil {
		return nil, &Error{Code: CodeMissing, Msg: where, Err: err}
	}
	if st, err = f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, refuse(CodeMalformed, "", "%s is not a regular file", where)
	}
	return &body{Reader: io.Reader(f), size: st.Size(), where: where, close: func() { _ = f.Close() }}, nil
}

// isDigest reports whether s is 64 hexadecimal digits in lower case.
func isDigest(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}
