package netstate

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/facts"
)

// maxConfig bounds a file of configuration that is read, and maxHosts what of
// /etc/hosts is told line by line: lists of blocked names have 100,000.
const (
	maxConfig = 32 << 20
	maxHosts  = 32 << 10 // bytes
)

// resolvers tells who answers for names: resolv.conf(5), the line "hosts" of
// nsswitch.conf(5), and hosts(5).
func resolvers(g *gathering) {
	err := g.config("resolv.conf", func(text string) {
		f := parseResolvConf(text)
		if target, err := os.Readlink(filepath.Join(g.Etc, "resolv.conf")); err == nil {
			f.Attributes["link"] = facts.Text(target)
		} else {
			f.Attributes["link"] = facts.None
		}
		g.add("resolver", "resolver", "resolv.conf", f)
	})
	err = errors.Join(err, g.config("nsswitch.conf", func(text string) {
		g.add("resolver", "resolver", "nsswitch.conf", facts.Fact{Severity: finding.Medium,
			Attributes: map[string]string{"hosts": parseNSSwitch(text)}})
	}), g.config("hosts", func(text string) {
		for key, names := range parseHosts(text) {
			g.add("resolver", "hosts", key, facts.Fact{Severity: finding.Medium, Attributes: map[string]string{"names": names}})
		}
	}))
	if err != nil {
		g.drop("resolver")
	}
	g.told("resolver", err, "")
}

// config reads a file of /etc; one that is not there says nothing.
func (g *gathering) config(name string, take func(text string)) error {
	f, err := os.Open(filepath.Join(g.Etc, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig))
	if err != nil {
		return err
	}
	take(string(b))
	return nil
}

// meaning yields the words of each line without its comment.
func meaning(text, comments string, each func(words []string)) {
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, maxConfig)
	for lines.Scan() {
		line := lines.Text()
		if i := strings.IndexAny(line, comments); i >= 0 {
			line = line[:i]
		}
		if words := strings.Fields(line); len(words) > 0 {
			each(words)
		}
	}
}

func parseResolvConf(text string) facts.Fact {
	var servers, options, sort []string
	search := facts.None
	meaning(text, "#;", func(w []string) {
		switch w[0] {
		case "nameserver":
			if len(w) > 1 {
				servers = append(servers, w[1])
			}
		case "search", "domain": // the last one counts
			search = strings.Join(w[1:], " ")
		case "options":
			options = append(options, w[1:]...)
		case "sortlist":
			sort = append(sort, w[1:]...)
		}
	})
	ordered := func(list []string) string { // the first server is asked first
		if len(list) == 0 {
			return facts.None
		}
		return bounded(strings.Join(list, " "))
	}
	return facts.Fact{Severity: finding.High, Attributes: map[string]string{
		"nameservers": ordered(servers), "search": bounded(search), "options": ordered(options), "sortlist": ordered(sort),
	}}
}

func parseNSSwitch(text string) string {
	hosts := facts.None
	meaning(text, "#", func(w []string) {
		if v, ok := strings.CutPrefix(strings.Join(w, " "), "hosts:"); ok {
			hosts = bounded(strings.TrimSpace(v))
		}
	})
	return hosts
}

// bounded makes a digest of what is too long to be an attribute.
func bounded(s string) string {
	if len(s) > maxHosts/2 {
		return "digest " + digest([]byte(s))
	}
	return facts.Text(s)
}

// parseHosts returns the names of each address, or one digest of all when they
// are too many to be told.
func parseHosts(text string) map[string]string {
	names, size := map[string][]string{}, 0
	var all []byte
	meaning(text, "#", func(w []string) {
		names[w[0]] = append(names[w[0]], w[1:]...)
		all = append(all, strings.Join(w, " ")+"\n"...)
	})
	size = len(all)
	if size > maxHosts {
		return map[string]string{"all": strconv.Itoa(len(names)) + " addresses, digest " + digest(all)}
	}
	out := map[string]string{}
	for addr, list := range names {
		out[facts.Text(addr)] = facts.Text(strings.Join(list, " ")) // the first name is the canonical one
	}
	return out
}
