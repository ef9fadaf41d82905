package manifest

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/document"
	"github.com/mobileops/mobileops/internal/failure"
)

// Resolve puts the values of the configuration in the places that refer to
// them. A network value is host:port or a URL, of which the port may be that of
// its scheme (https 443, http 80); it becomes host:port with a lower-case name
// or an address as RFC 5952 writes it. Paths must be absolute and clean. A value
// that is none of these is an error of kind failure.Usage that names the key.
//
// The admin's configuration decides here what the plugin may reach: that is
// what "config:" is for.
func (p Permissions) Resolve(values Values) (ResolvedPermissions, error) {
	var problems []error
	resolve := func(kind string, list []string) (out []string) {
		for _, s := range list {
			path, ok := strings.CutPrefix(s, ConfigPrefix)
			found := []string{s}
			if ok {
				found = values.Lookup(path)
			}
			for i, v := range found {
				if v == "" && ok {
					continue // it names nothing
				}
				got, err := resolving(kind)(v)
				if err != nil {
					where := s
					if ok {
						where = path
						if strings.Contains(path, "[]") {
							where = fmt.Sprintf("%s, number %d", path, i+1)
						}
					}
					problems = append(problems, fmt.Errorf("%s: %s %w", document.Printable(where), quote(withoutPassword(v)), err))
					continue
				}
				if !contains(out, got) {
					out = append(out, got)
				}
			}
		}
		return out
	}
	p.Network = resolve("network", p.Network)
	p.Unix = resolve("unix", p.Unix)
	p.Read = resolve("read", p.Read)
	p.Write = resolve("write", p.Write)
	p.Exec = resolve("exec", p.Exec)
	p.Findings, p.FindingsFrom, p.Audit = slices.Clone(p.Findings), slices.Clone(p.FindingsFrom), slices.Clone(p.Audit)
	if len(problems) > 0 {
		return ResolvedPermissions{}, failure.Wrap(failure.Usage, errors.Join(problems...))
	}
	return ResolvedPermissions(p), nil
}

// resolveAddress makes host:port of host:port or a URL.
func resolveAddress(s string) (string, error) {
	if !strings.Contains(s, "://") {
		return parseAddress(s)
	}
	u, err := url.Parse(s)
	if err != nil {
		return "", errors.New("is not a URL") // what url.Parse says has all of it, with a password
	}
	switch u.Scheme {
	case "udp", "unix", "file":
		return "", fmt.Errorf("is of %s, and plugins reach the network by TCP", u.Scheme)
	}
	port := u.Port()
	if port == "" {
		switch u.Scheme {
		case "https":
			port = "443"
		case "http":
			port = "80"
		default:
			return "", fmt.Errorf("has no port, and %s has none that is usual: write %s://HOST:PORT", u.Scheme, u.Scheme)
		}
	}
	host := u.Hostname()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return parseAddress(host + ":" + port)
}

// withoutPassword takes from a URL what stands before the host.
func withoutPassword(s string) string {
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return s
	}
	scheme, _, ok := strings.Cut(s[:i], "://")
	if !ok {
		return "…" + s[i:]
	}
	return scheme + "://…" + s[i:]
}

// MayDial tells whether a plugin may connect to an address of network "tcp" or
// "unix".
func (p ResolvedPermissions) MayDial(network, address string) bool {
	switch network {
	case "tcp":
		canonical, err := parseAddress(address)
		return err == nil && contains(p.Network, canonical)
	case "unix":
		return checkSocket(address) == nil && contains(p.Unix, address)
	}
	return false
}

// List is that of Permissions.
func (p ResolvedPermissions) List() []Line { return Permissions(p).List() }
