package source

import (
	"cmp"
	"slices"
)

// Status tells how it stands with every instance of the sources, sorted by
// source and path. It can be called while collecting, and waits for nothing.
func (c *Collector) Status() []Status {
	c.mu.Lock()
	var list []Status
	for _, t := range c.files {
		if s, ok := t.snapshot(); ok {
			list = append(list, s)
		}
	}
	for _, o := range c.others {
		if s, ok := o.snapshot(); ok {
			list = append(list, s)
		}
	}
	out := c.out
	c.mu.Unlock()
	if out != nil && out.isFull() {
		for i := range list {
			if list[i].Error == "" {
				list[i].Error = "reading waits: " + ErrFull.Error()
			}
		}
	}
	slices.SortFunc(list, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Path, b.Path))
	})
	return list
}

// Problems tells what was to be read and is not.
func (c *Collector) Problems() []Problem {
	c.mu.Lock()
	list := slices.Concat(c.problems, c.reported)
	c.mu.Unlock()
	for _, s := range c.Status() {
		if s.Error != "" {
			list = append(list, problem(s.Source, s.Path, s.Error, false))
		}
	}
	return list
}

// Gaps tells what was lost since collecting began.
func (c *Collector) Gaps() []Gap {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.gaps)
}

// summary is the report of what Once did.
func (c *Collector) summary() Report {
	r := Report{Sources: c.Status(), Problems: c.Problems(), Gaps: c.Gaps()}
	for _, s := range r.Sources {
		r.Records += s.Records
		r.Bytes += s.Bytes
	}
	return r
}
