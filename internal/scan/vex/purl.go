package vex

import (
	"net/url"
	"strings"
)

// purl is a package URL (https://github.com/package-url/purl-spec), taken apart.
type purl struct {
	kind, namespace, name, version, subpath string
	qualifiers                              map[string]string
}

// maxPURL bounds what is taken apart, in bytes.
const maxPURL = 4 << 10

// parsePURL takes a package URL apart; ok is false when it is none.
func parsePURL(s string) (p purl, ok bool) {
	rest, ok := strings.CutPrefix(s, "pkg:")
	if !ok || len(s) > maxPURL {
		return p, false
	}
	rest = strings.TrimLeft(rest, "/")
	if i := strings.IndexByte(rest, '#'); i >= 0 {
		p.subpath, rest = strings.Trim(decode(rest[i+1:]), "/"), rest[:i]
	}
	if i := strings.IndexByte(rest, '?'); i >= 0 {
		p.qualifiers = map[string]string{}
		for pair := range strings.SplitSeq(rest[i+1:], "&") {
			if k, v, _ := strings.Cut(pair, "="); k != "" && v != "" {
				p.qualifiers[strings.ToLower(k)] = decode(v)
			}
		}
		rest = rest[:i]
	}
	kind, rest, ok := strings.Cut(rest, "/")
	if !ok || kind == "" {
		return p, false
	}
	p.kind = strings.ToLower(kind)
	// A version follows the last @ that is not the first character of the name, as
	// that of an npm scope is when it was not encoded.
	if i := strings.LastIndexByte(rest, '@'); i > 0 && rest[i-1] != '/' {
		p.version, rest = decode(rest[i+1:]), rest[:i]
	}
	rest = strings.Trim(rest, "/")
	if i := strings.LastIndexByte(rest, '/'); i >= 0 {
		p.namespace, rest = decode(rest[:i]), rest[i+1:]
	}
	if p.name = decode(rest); p.name == "" {
		return p, false
	}
	switch p.kind {
	case "pypi":
		p.name = strings.ReplaceAll(strings.ToLower(p.name), "_", "-")
	case "github", "bitbucket", "composer", "deb", "oci":
		p.namespace, p.name = strings.ToLower(p.namespace), strings.ToLower(p.name)
	case "apk", "rpm":
		p.namespace = strings.ToLower(p.namespace)
	}
	return p, true
}

func decode(s string) string {
	if d, err := url.PathUnescape(s); err == nil {
		return d
	}
	return s
}

// covers reports whether what p names includes what q names: what p leaves out,
// such as a version, can be anything.
func (p *purl) covers(q *purl) bool {
	if p.kind != q.kind || p.namespace != q.namespace || p.name != q.name ||
		p.version != "" && p.version != q.version || p.subpath != "" && p.subpath != q.subpath {
		return false
	}
	for k, v := range p.qualifiers {
		if q.qualifiers[k] != v {
			return false
		}
	}
	return true
}
