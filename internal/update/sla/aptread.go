package sla

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Limits of what programs print.
const (
	maxLine     = 16 << 10 // bytes
	maxPackages = 200_000
	maxOffers   = 1000 // versions of one package
	maxFrom     = 1000 // places that one version comes from
)

// ParseError says where in what a program printed the parser gave up.
type ParseError struct {
	What   string // "apt-cache policy"
	Line   int    // from 1
	Reason string
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("line %d of the output of %s: %s", e.Line, e.What, e.Reason)
}

// eachLine calls fn with every line, without its end.
func eachLine(r io.Reader, what string, fn func(line string) error) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 4096), maxLine)
	n := 0
	for sc.Scan() {
		n++
		if err := fn(sc.Text()); err != nil {
			return &ParseError{what, n, err.Error()}
		}
	}
	if err := sc.Err(); err != nil {
		return &ParseError{what, n + 1, err.Error()}
	}
	return nil
}

// installed is a package that is here.
type installed struct {
	name    string // with the architecture after a colon where it is foreign
	arch    string
	version string
	source  string // the source package that it was built from
	held    bool
}

// queryFormat has the fields of installed; see dpkg-query(1).
const queryFormat = "${Package}\t${Architecture}\t${Version}\t${source:Package}\t${db:Status-Want}\t${db:Status-Status}\n"

// parseInstalled reads what dpkg-query prints. Packages of which nothing or only
// configuration files are left are not here.
func parseInstalled(b []byte) (list []installed, err error) {
	err = eachLine(bytes.NewReader(b), "dpkg-query", func(line string) error {
		f := strings.Split(line, "\t")
		if len(f) != 6 {
			return fmt.Errorf("it has %d fields instead of 6", len(f))
		}
		if f[5] == "not-installed" || f[5] == "config-files" {
			return nil
		}
		for i, s := range f[:4] {
			if !validName(s, false) {
				return fmt.Errorf("field %d is not the name or version of a package: %q", i+1, clip(s, MaxName))
			}
		}
		if strings.ContainsAny(f[0]+f[1], ":,") || strings.HasPrefix(f[0], "-") {
			return fmt.Errorf("%q is not the name of a package", clip(f[0], MaxName))
		}
		if len(list) == maxPackages {
			return fmt.Errorf("there are more than %d packages", maxPackages)
		}
		list = append(list, installed{name: f[0], arch: f[1], version: f[2], source: f[3], held: f[4] == "hold"})
		return nil
	})
	return list, err
}

// qualify gives a package the name that apt has for it: that of a foreign
// architecture carries it.
func (p *installed) qualify(native string) {
	if p.arch != native && p.arch != "all" {
		p.name += ":" + p.arch
	}
}

// parseIndexes reads what apt-get indextargets prints in indexFormat. A field
// that does not exist stands there as its own name.
func parseIndexes(b []byte) (list []index, err error) {
	err = eachLine(bytes.NewReader(b), "apt-get indextargets", func(line string) error {
		f := strings.Split(line, "\t")
		if len(f) != 8 {
			return fmt.Errorf("it has %d fields instead of 8", len(f))
		}
		if len(list) == maxPackages {
			return fmt.Errorf("there are more than %d package lists", maxPackages)
		}
		for i := range f {
			if strings.HasPrefix(f[i], "$(") {
				f[i] = ""
			}
		}
		list = append(list, index{file: f[0], metaKey: f[1], release: f[2], repository: f[3], label: f[4], suite: f[5], codename: f[6], description: f[7]})
		return nil
	})
	return list, err
}

// choice is what apt-cache policy says about a package.
type choice struct {
	name      string
	candidate string // what apt would install, "(none)"
	offers    []offer
}

// offer is a version of a package and where it comes from.
type offer struct {
	version string
	phased  bool     // for some hosts only, for now
	from    []string // descriptions of package lists
}

// parsePolicy reads what apt-cache policy prints about packages, of which it calls
// fn with each. It looks like
//
//	libfoo:
//	  Installed: 1.0-1
//	  Candidate: 1.0-1+deb12u1
//	  Version table:
//	     1.0-1+deb12u1 500
//	        500 http://security.example.org stable-security/main amd64 Packages
//	 *** 1.0-1 100
//	        100 /var/lib/dpkg/status
func parsePolicy(r io.Reader, fn func(choice)) error {
	var c *choice
	table := false
	done := func() {
		if c != nil {
			fn(*c)
		}
	}
	err := eachLine(r, "apt-cache policy", func(line string) error {
		if name, ok := strings.CutSuffix(line, ":"); ok && !strings.HasPrefix(line, " ") {
			done()
			if c, table = nil, false; !validName(name, false) {
				return fmt.Errorf("%q is not the name of a package", clip(name, MaxName))
			}
			c = &choice{name: name}
			return nil
		}
		switch {
		case strings.TrimSpace(line) == "":
			return nil
		case c == nil:
			return fmt.Errorf("it stands before any package")
		case strings.HasPrefix(line, "  Candidate: "):
			c.candidate = strings.TrimSpace(line[len("  Candidate: "):])
			return nil
		case strings.HasPrefix(line, "  Version table:"):
			table = true
			return nil
		case !table:
			return nil // "Installed:", "Package pin:" and what else there is before the table
		}
		return c.tableLine(line)
	})
	if err == nil {
		done()
	}
	return err
}

// tableLine reads a line of the version table: a version begins in column 5, a
// place that it comes from further on.
func (c *choice) tableLine(line string) error {
	if len(line) > 5 && (line[:5] == "     " || line[:5] == " *** ") && line[5] != ' ' {
		f := strings.Fields(line[5:])
		if !validName(f[0], false) {
			return fmt.Errorf("%q is no version", clip(f[0], MaxName))
		}
		if len(c.offers) == maxOffers {
			return fmt.Errorf("%s has more than %d versions", c.name, maxOffers)
		}
		c.offers = append(c.offers, offer{version: f[0], phased: strings.Contains(line, "(phased ")})
		return nil
	}
	if !strings.HasPrefix(line, "       ") || len(c.offers) == 0 {
		return fmt.Errorf("neither a version nor where one comes from: %q", clip(line, MaxName))
	}
	priority, from, ok := strings.Cut(strings.TrimLeft(line, " "), " ")
	if _, err := strconv.Atoi(priority); err != nil || !ok {
		return fmt.Errorf("no priority and place: %q", clip(line, MaxName))
	}
	o := &c.offers[len(c.offers)-1]
	if len(o.from) == maxFrom {
		return fmt.Errorf("%s %s comes from more than %d places", c.name, o.version, maxFrom)
	}
	o.from = append(o.from, from)
	return nil
}

// release is what a Release file says about its age; see apt-secure(8).
type release struct {
	date       time.Time
	validUntil time.Time // zero: for ever
}

// parseRelease reads the fields of a Release or InRelease file. The signature was
// checked by apt when it fetched the file.
func parseRelease(b []byte) (r release, err error) {
	field := func(line, name string) (t time.Time, ok bool, err error) {
		value, ok := strings.CutPrefix(line, name+":")
		if !ok {
			return t, false, nil
		}
		value = strings.TrimSpace(value)
		for _, layout := range []string{time.RFC1123, time.RFC1123Z, "Mon, _2 Jan 2006 15:04:05 MST", "Mon, _2 Jan 2006 15:04:05 -0700"} {
			if t, err = time.Parse(layout, value); err == nil {
				return storable(t), true, nil
			}
		}
		return t, true, fmt.Errorf("%s %q is no date", name, clip(value, MaxName))
	}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\r\n")
		if t, ok, err := field(line, "Date"); err != nil {
			return r, err
		} else if ok && r.date.IsZero() {
			r.date = t
		}
		if t, ok, err := field(line, "Valid-Until"); err != nil {
			return r, err
		} else if ok && r.validUntil.IsZero() {
			r.validUntil = t
		}
	}
	if r.date.IsZero() {
		return r, fmt.Errorf("it has no Date")
	}
	return r, nil
}
