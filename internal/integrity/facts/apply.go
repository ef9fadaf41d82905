package facts

import "maps"

// Apply returns old with the changes taken over, each with exactly the fact
// that it reported; all other facts stay as they were, and old itself is not
// touched. Attributes that a changed fact does not know now, because whoever
// compared may not read them, keep their old values.
func Apply(old *Snapshot, changes []Change) *Snapshot {
	replaced := map[string]bool{}
	var list []Fact
	for _, c := range changes {
		if c.Old != nil {
			replaced[c.Old.ID()] = true
		}
		if c.New == nil {
			continue
		}
		replaced[c.New.ID()] = true
		f := *c.New
		f.Attributes = maps.Clone(f.Attributes)
		if c.Old != nil {
			for name, v := range c.Old.Attributes {
				if _, known := f.Attributes[name]; !known {
					if f.Attributes == nil {
						f.Attributes = map[string]string{}
					}
					f.Attributes[name] = v
				}
			}
		}
		list = append(list, f)
	}
	for _, f := range old.Facts {
		if !replaced[f.ID()] {
			list = append(list, f)
		}
	}
	next := *old
	next.Facts = sorted(list)
	// A runtime that was not there when the baseline was taken, and whose
	// containers are accepted, was there.
	for i, src := range next.Sources {
		for _, f := range list {
			if src.State == Absent && f.Aspect == src.Aspect && f.Source == src.Name {
				if &next.Sources[0] == &old.Sources[0] {
					next.Sources = append([]Source(nil), old.Sources...)
				}
				next.Sources[i].State = OK
			}
		}
	}
	return &next
}
