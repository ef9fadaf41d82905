package audit

import (
	"regexp"
	"strings"
	"sync"
)

// Redacted stands where a secret was.
const Redacted = "[redacted]"

// patterns are compiled when the first act is recorded, not at start-up.
var patterns = sync.OnceValue(func() (p struct{ userinfo, badUserinfo, port, assignment, inText, name, place *regexp.Regexp }) {
	// The first are secrets whatever they are glued to, as in PGPASSWORD.
	const secret = `(?:[a-z0-9]*(?:password|passwd|passphrase|token|secret)|pass(?:code)?|pwd|api[-_.]?key|access[-_.]?key|private[-_.]?key|credentials?|auth(?:orization)?|bearer|cookie|session[-_.]?id)`
	// scheme://user:password@ ; a password may hold an "@", a host cannot. One
	// slash is what becomes of it as a path.
	p.userinfo = regexp.MustCompile(`(?i)([a-z][a-z0-9+.-]*:/{1,2})([^/?#\s@:]*)(:[^/?#\s]*)?@`)
	// A password with a slash in it should have been escaped, and was not. What
	// is a port and a path is none.
	p.badUserinfo = regexp.MustCompile(`(?i)([a-z][a-z0-9+.-]*:/{1,2})[^/?#\s@:]*:(\S*)@`)
	p.port = regexp.MustCompile(`^[0-9]*(?:[/?#]|$)`)
	// name=value and name: value, also within a query string or a list.
	const announced = `(?i)((?:^|[^a-z0-9])(?:[a-z0-9]+[-_.])*` + secret + `(?:[-_.][a-z0-9]+)*["']?\s*[=:]\s*)`
	p.assignment = regexp.MustCompile(announced + `([^&;,\n]+)`)
	// The sentence goes on after the value, which for a header is two words.
	p.inText = regexp.MustCompile(announced + `((?:(?:bearer|basic|digest|token)\s+)?[^&;,\s]+)`)
	p.name = regexp.MustCompile(`(?i)^(?:[a-z0-9]+[-_.])*` + secret + `$`)
	// password-file=/etc/x says where the secret is, not what it is.
	p.place = regexp.MustCompile(`(?i)[-_.](?:file|path|dir)["']?\s*[=:]\s*$`)
	return p
})

// Redact returns args, the words of a command line, without their secrets: the
// values of the flags named in secretFlags (long names without dashes) and of
// flags whose name says that they are secret, user and password in URLs, and
// the value in name=value and "name: value" where the name says so. A secret
// that nothing announces cannot be known.
func Redact(args []string, secretFlags map[string]bool) []string {
	p := patterns()
	out := make([]string, 0, len(args))
	next := false // the word is the value of the flag before it
	for i, arg := range args {
		if arg == "--" { // what follows are not flags, but may hold secrets
			for _, rest := range args[i:] {
				out = append(out, redactWord(rest))
			}
			return out
		}
		if next {
			next = false
			out = append(out, Redacted)
			continue
		}
		if flag, ok := strings.CutPrefix(arg, "-"); ok && flag != "" {
			flag = strings.TrimPrefix(flag, "-")
			name, _, has := strings.Cut(flag, "=")
			if secretFlags[name] || p.name.MatchString(name) {
				if has {
					out = append(out, arg[:strings.Index(arg, "=")+1]+Redacted)
				} else {
					out = append(out, arg)
					next = true
				}
				continue
			}
		}
		out = append(out, redactWord(arg))
	}
	return out
}

func redactWord(s string) string { return redact(s, patterns().assignment) }

// redactText is for a sentence, such as an error message, that repeats words of
// the command line.
func redactText(s string) string { return redact(s, patterns().inText) }

func redact(s string, assignment *regexp.Regexp) string {
	p := patterns()
	s = p.userinfo.ReplaceAllStringFunc(s, func(m string) string {
		g := p.userinfo.FindStringSubmatch(m)
		if g[3] == "" && g[2] == "git" { // the customary user of a repository, not a secret
			return m
		}
		return g[1] + Redacted + "@"
	})
	s = p.badUserinfo.ReplaceAllStringFunc(s, func(m string) string {
		g := p.badUserinfo.FindStringSubmatch(m)
		if p.port.MatchString(g[2]) {
			return m
		}
		return g[1] + Redacted + "@"
	})
	return assignment.ReplaceAllStringFunc(s, func(m string) string {
		g := assignment.FindStringSubmatch(m)
		if p.place.MatchString(g[1]) {
			return m
		}
		return g[1] + Redacted
	})
}
