package packages

import (
	"context"
)

// OwnersSince returns the snapshot then with those packages brought up to date
// that take names: they are in it as they are now, or no longer. All others
// stay as they were, even those that are gone or were not there.
func (s *Set) OwnersSince(ctx context.Context, then *Owners, take func(Package) bool) (*Owners, error) {
	now, err := s.owners(ctx, then.k0, then.k1)
	if err != nil {
		return nil, err
	}
	o := &Owners{aliases: then.aliases, k0: then.k0, k1: then.k1}
	var list []owned
	keep := func(from *Owners, wanted func(Package) bool) {
		index := make([]int, len(from.packages))
		for i, p := range from.packages {
			if index[i] = -1; wanted(p) {
				index[i] = len(o.packages)
				o.packages = append(o.packages, p)
			}
		}
		for i, h := range from.hashes {
			if at := index[from.owner[i]]; at >= 0 {
				list = append(list, owned{h, uint32(at)})
			}
		}
	}
	keep(now, take)
	keep(then, func(p Package) bool { return !take(p) })
	o.set(list)
	return o, nil
}
