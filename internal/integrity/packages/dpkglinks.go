package packages

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

const (
	dpkgDiversions   = dpkgDir + "/diversions"
	dpkgStatoverride = dpkgDir + "/statoverride"
	dpkgAlternatives = dpkgDir + "/alternatives"
	etcAlternatives  = "/etc/alternatives"
	maxAlternatives  = 1 << 16
)

// diversion is one of dpkg-divert(1): the file that other packages than by
// have as from is really at to.
type diversion struct {
	from, to string
	by       string // ":" for a local one, which diverts the files of all packages
}

// readDiversions reads the diversions: three lines each, from, to, by.
func readDiversions(t *tree) ([]diversion, error) {
	data, err := t.read(dpkgDiversions, maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseDiversions(t.name(dpkgDiversions), data)
}

func parseDiversions(file string, data []byte) ([]diversion, error) {
	var list []diversion
	line := 0
	for len(data) > 0 {
		var part [3]string
		for i := range part {
			if len(data) == 0 {
				return nil, &CorruptError{File: file, Line: line, Reason: "the last diversion is cut off"}
			}
			var l []byte
			l, data = cutLine(data)
			part[i] = string(l)
			line++
			if i < 2 && !strings.HasPrefix(part[i], "/") || part[i] == "" {
				return nil, &CorruptError{File: file, Line: line, Reason: "not a part of a diversion"}
			}
		}
		list = append(list, diversion{part[0], part[1], part[2]})
	}
	return list, nil
}

// override is a line of dpkg-statoverride(1).
type override struct {
	owner, group string
	mode         uint32
}

func readOverrides(t *tree) (map[string]override, error) {
	data, err := t.read(dpkgStatoverride, maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseOverrides(t.name(dpkgStatoverride), data)
}

// parseOverrides reads lines "owner group mode path"; owner and group are
// names or "#" and a number, mode is octal.
func parseOverrides(file string, data []byte) (map[string]override, error) {
	m := map[string]override{}
	for line := 1; len(data) > 0; line++ {
		var l []byte
		l, data = cutLine(data)
		if len(l) == 0 {
			continue
		}
		part := bytes.SplitN(l, []byte(" "), 4)
		if len(part) != 4 || len(part[3]) == 0 || part[3][0] != '/' {
			return nil, &CorruptError{File: file, Line: line, Reason: "not owner, group, mode and path"}
		}
		mode, err := strconv.ParseUint(string(part[2]), 8, 12)
		if err != nil {
			return nil, &CorruptError{File: file, Line: line, Reason: fmt.Sprintf("%q is no mode", part[2])}
		}
		m[string(part[3])] = override{string(part[0]), string(part[1]), uint32(mode)}
	}
	return m, nil
}

// alternative is a link that update-alternatives(1) manages.
type alternative struct {
	target string // where it leads
	chosen string // the file that is meant in the end
}

// readAlternatives returns the links by their paths: the generic names, such
// as /usr/bin/editor, and the links in /etc/alternatives. What is malformed is
// given to problem.
func readAlternatives(t *tree, problem func(error)) (map[string]alternative, error) {
	d, names, err := t.listed(dpkgAlternatives)
	if err != nil || d == nil {
		return nil, err
	}
	defer d.close()
	m := make(map[string]alternative, 4*len(names))
	var buf []byte
	for _, name := range names {
		if buf, err = d.read(name, maxSmall, buf); err != nil {
			problem(err)
			continue
		}
		g, err := parseAlternatives(d.name+"/"+name, buf)
		if err != nil {
			problem(err)
			continue
		}
		g.addTo(m, name, func(p string) string { return readlink(t, p) })
		if len(m) > maxAlternatives {
			return nil, &CorruptError{File: d.name, Offset: -1, Reason: fmt.Sprintf("more than %d links", maxAlternatives)}
		}
	}
	return m, nil
}

// altGroup is a file of dpkgAlternatives.
type altGroup struct {
	manual  bool
	names   []string   // of the links in /etc/alternatives; [0] is the master, whose name is the file's
	links   []string   // the generic names, in the same order
	choices [][]string // for each choice the files, in the same order; "" is none
	best    int        // the choice of the highest priority, -1 without any
}

// parseAlternatives reads a file of update-alternatives: "auto" or "manual",
// the master's link, name and link of each slave, an empty line; then for each
// choice its file, its priority and the files of the slaves; an empty line.
func parseAlternatives(file string, data []byte) (*altGroup, error) {
	line := 0
	next := func() (string, bool) {
		if len(data) == 0 {
			return "", false
		}
		var l []byte
		l, data = cutLine(data)
		line++
		return string(l), true
	}
	bad := func(reason string) error { return &CorruptError{File: file, Line: max(line, 1), Reason: reason} }
	g := &altGroup{best: -1}
	mode, _ := next()
	if mode != "auto" && mode != "manual" {
		return nil, bad("neither auto nor manual")
	}
	g.manual = mode == "manual"
	link, _ := next()
	if !strings.HasPrefix(link, "/") {
		return nil, bad("not the path of a link")
	}
	g.names, g.links = []string{""}, []string{link}
	for {
		name, _ := next()
		if name == "" {
			break
		}
		link, _ := next()
		if !strings.HasPrefix(link, "/") || strings.Contains(name, "/") || len(g.names) > 1000 {
			return nil, bad("not the name and the path of a slave")
		}
		g.names, g.links = append(g.names, name), append(g.links, link)
	}
	highest := 0
	for {
		path, ok := next()
		if !ok || path == "" {
			return g, nil
		}
		text, _ := next()
		priority, err := strconv.Atoi(text)
		if err != nil || !strings.HasPrefix(path, "/") || len(g.choices) > 1000 {
			return nil, bad("not the path and the priority of a choice")
		}
		choice := []string{path}
		for range g.names[1:] {
			slave, ok := next()
			if !ok {
				return nil, bad("a choice is cut off")
			}
			choice = append(choice, slave)
		}
		if g.best < 0 || priority > highest {
			g.best, highest = len(g.choices), priority
		}
		g.choices = append(g.choices, choice)
	}
}

// addTo adds the links of g. In manual mode nothing but the link itself says
// what was chosen, so the link counts if it leads to one of the choices.
func (g *altGroup) addTo(m map[string]alternative, name string, readlink func(string) string) {
	if g.best < 0 {
		return
	}
	choice := g.choices[g.best]
	if g.manual {
		now := readlink(etcAlternatives + "/" + name)
		for _, c := range g.choices {
			if c[0] == now {
				choice = c
			}
		}
	}
	for i, file := range choice {
		if file == "" {
			continue // this choice has no such slave, so there is no link
		}
		n := g.names[i]
		if i == 0 {
			n = name
		}
		m[g.links[i]] = alternative{etcAlternatives + "/" + n, file}
		m[etcAlternatives+"/"+n] = alternative{file, file}
	}
}
