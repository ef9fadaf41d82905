package manifest

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Lengths of names, in bytes.
const (
	minName    = 2
	maxName    = 48
	maxWord    = 32 // of a command, a flag
	maxKey     = 64 // of an option
	maxSource  = 64
	maxUser    = 32
	maxPath    = 1024
	maxSocket  = 107 // sun_path of unix(7) without its NUL
	maxAddress = 262 // 253 of a name, ":65535", and brackets
)

// isName tells whether s is lower-case words with hyphens between:
// [a-z][a-z0-9]*(-[a-z0-9]+)*.
func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z':
		case i > 0 && c >= '0' && c <= '9':
		case i > 0 && c == '-' && i+1 < len(s) && s[i+1] != '-':
		default:
			return false
		}
	}
	return s != ""
}

// isKey tells whether s is the name of an option: [a-z][a-z0-9_]*.
func isKey(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || i > 0 && (c >= '0' && c <= '9' || c == '_')) {
			return false
		}
	}
	return s != ""
}

// isSource tells whether s can be the source of findings: "integrity",
// "plugin/vulnerability-scanner-plugin".
func isSource(s string) bool {
	plugin, ok := strings.CutPrefix(s, "plugin/")
	if ok {
		return isName(plugin)
	}
	return isName(s)
}

// isUser tells whether s can be a user of the host, as useradd(8) has it.
func isUser(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c == '_' || i > 0 && (c >= '0' && c <= '9' || c == '-' || c == '.')) {
			return false
		}
	}
	return s != "" && len(s) <= maxUser
}

// isCommandPath tells whether s is how a command of mobileops is called:
// "update apply".
func isCommandPath(s string) bool {
	words := strings.Split(s, " ")
	for _, w := range words {
		if !isName(w) {
			return false
		}
	}
	return len(words) <= 4
}

// unhooked are nouns of mobileops that hooks are never run on: those with which
// plugins are put right, and those that a shell runs at every key.
var unhooked = []string{"plugin", "config", "state", "completion", "docs", "compat", "version", "help"}

// Unhooked tells whether no hook is ever run before or after the commands of a
// noun of mobileops.
func Unhooked(noun string) bool { return slices.Contains(unhooked, noun) }

// checkPath says what is wrong with an absolute path.
func checkPath(p string) error {
	if err := checkText(p, false); err != nil {
		return fmt.Errorf("has %w", err)
	}
	switch {
	case p == "":
		return errors.New("is empty; write an absolute path")
	case len(p) > maxPath:
		return fmt.Errorf("has %d bytes; %d are allowed", len(p), maxPath)
	case p[0] != '/':
		return errors.New("is not absolute; write it from /")
	case path.Clean(p) != p:
		return fmt.Errorf("is not clean; write %s", quote(path.Clean(p)))
	}
	return nil
}

func checkSocket(p string) error {
	if err := checkPath(p); err != nil {
		return err
	}
	if len(p) > maxSocket {
		return fmt.Errorf("has %d bytes; the path of a socket has at most %d", len(p), maxSocket)
	}
	return nil
}

// parseAddress reads host:port and returns the one form of it that permissions
// are compared in: names in lower case without a dot at their end, addresses as
// RFC 5952 writes them, in brackets when they have colons.
func parseAddress(s string) (string, error) {
	const want = "is not host:port, such as logs.example.org:6514 or [2001:db8::1]:443"
	if len(s) > maxAddress {
		return "", fmt.Errorf("has %d bytes; an address has at most %d", len(s), maxAddress)
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", errors.New(want + ": it has no port")
	}
	host, port := s[:i], s[i+1:]
	n, err := parseInt(port)
	if err != nil || n < 1 || n > 65535 {
		return "", errors.New(want + ": a port is a number from 1 to 65535")
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		a, err := netip.ParseAddr(inner)
		if !ok || err != nil || !a.Is6() || a.Zone() != "" {
			return "", errors.New(want + ": in brackets is an IPv6 address without a zone")
		}
		return netip.AddrPortFrom(a.Unmap(), uint16(n)).String(), nil
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Is6() {
			return "", errors.New(want + ": an IPv6 address is in brackets")
		}
		return netip.AddrPortFrom(a, uint16(n)).String(), nil
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if err := checkHost(host); err != nil {
		return "", fmt.Errorf("%s: %w", want, err)
	}
	return host + ":" + strconv.FormatInt(n, 10), nil
}

// checkHost says what is wrong with the name of a host (RFC 1123, and the
// underscore that containers have in theirs). A name that ends in a number is
// refused, since some programs read 127.1 and 0x7f.1 as addresses.
func checkHost(host string) error {
	if host == "" {
		return errors.New("it has no host")
	}
	if len(host) > 253 {
		return errors.New("the name is longer than 253 characters")
	}
	labels := strings.Split(host, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return errors.New("a part of the name is empty, too long, or begins or ends with a hyphen")
		}
		for i := range len(l) {
			if c := l[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return errors.New("the name has other characters than letters, digits and hyphens (one of another alphabet is written as xn--…)")
			}
		}
	}
	if last := labels[len(labels)-1]; isDigits(last) || strings.HasPrefix(last, "0x") {
		return errors.New("it looks like an address, and is none")
	}
	return nil
}
