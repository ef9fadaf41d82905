package packages

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"slices"
	"sort"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// OwnersSchema is the name and version of what Owners.Encode writes.
// docs/formats/packages.md describes it.
const OwnersSchema = "mobileops.integrity.owners/v1"

// Limits on a snapshot, which may come from elsewhere.
const (
	maxOwned       = 1 << 25  // paths
	maxOwnersTexts = 64 << 20 // bytes of packages and indices, unpacked
	maxText        = 4096     // of one name or version
	maxAliases     = 64
)

// Owners is a snapshot of which package owned which path. Paths are kept as
// 64-bit hashes under a random key, so of a path that no package owned it says
// otherwise once in 10^14 times. Of several owners of a path it knows the
// first.
type Owners struct {
	k0, k1   uint64
	aliases  *aliases
	packages []Package
	hashes   []uint64 // ascending
	owner    []uint32 // of each hash: index into packages
}

// Owners takes a snapshot of the databases.
func (s *Set) Owners(ctx context.Context) (*Owners, error) {
	var key [16]byte
	rand.Read(key[:])
	return s.owners(ctx, binary.LittleEndian.Uint64(key[:]), binary.LittleEndian.Uint64(key[8:]))
}

// owners takes a snapshot under a given key.
func (s *Set) owners(ctx context.Context, k0, k1 uint64) (*Owners, error) {
	o := &Owners{aliases: s.aliases, k0: k0, k1: k1}
	var err error
	if o.packages, err = s.Packages(ctx); err != nil {
		return nil, err
	}
	index := make(map[Package]uint32, len(o.packages))
	for i, p := range o.packages {
		index[p] = uint32(i)
	}
	var list []owned
	last, of := Package{}, uint32(0)
	err = s.each(ctx, false, func(path []byte, f *File) error {
		if f.Package != last {
			last, of = f.Package, index[f.Package]
		}
		list = append(list, owned{sipHash(o.k0, o.k1, path), of})
		return nil
	})
	if err != nil {
		return nil, err
	}
	o.set(list)
	if list, err = s.ownedLinks(o); err != nil {
		return nil, err
	}
	if len(list) > 0 {
		for i, h := range o.hashes {
			list = append(list, owned{h, o.owner[i]})
		}
		o.set(list)
	}
	return o, nil
}

// owned is a path of a package.
type owned struct {
	hash uint64
	of   uint32
}

// set keeps the list in order, of each path the first package.
func (o *Owners) set(list []owned) {
	slices.SortFunc(list, func(a, b owned) int { return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.of, b.of)) })
	list = slices.CompactFunc(list, func(a, b owned) bool { return a.hash == b.hash })
	o.hashes, o.owner = make([]uint64, len(list)), make([]uint32, len(list))
	for i, l := range list {
		o.hashes[i], o.owner[i] = l.hash, l.of
	}
}

// ownedLinks are the links of update-alternatives: they belong to the package
// of the file that they lead to, and go with it.
func (s *Set) ownedLinks(o *Owners) ([]owned, error) {
	var list []owned
	for _, db := range s.list {
		d, ok := db.(*dpkgDB)
		if !ok {
			continue
		}
		alts, err := d.alternatives()
		if err != nil {
			return nil, err
		}
		for path, a := range alts {
			if i, ok := o.find([]byte(a.chosen)); ok {
				list = append(list, owned{sipHash(o.k0, o.k1, []byte(path)), o.owner[i]})
			}
		}
	}
	return list, nil
}

func (o *Owners) find(path []byte) (int, bool) {
	path, _ = o.aliases.canonical(path, nil)
	return slices.BinarySearch(o.hashes, sipHash(o.k0, o.k1, path))
}

// Lookup returns the package that owned an absolute path.
func (o *Owners) Lookup(path []byte) (Package, bool) {
	i, ok := o.find(path)
	if !ok {
		return Package{}, false
	}
	return o.packages[o.owner[i]], true
}

// Packages returns the packages that were installed.
func (o *Owners) Packages() []Package { return o.packages }

// Paths returns how many paths had an owner.
func (o *Owners) Paths() int { return len(o.hashes) }

// Encode returns the snapshot as bytes, about nine for each path. It has no
// checksum: whoever keeps it adds one.
func (o *Owners) Encode() []byte {
	b := append([]byte(OwnersSchema), '\n')
	b = binary.LittleEndian.AppendUint64(b, o.k0)
	b = binary.LittleEndian.AppendUint64(b, o.k1)
	var texts []byte
	text := func(list ...string) {
		for _, s := range list {
			texts = binary.AppendUvarint(texts, uint64(len(s)))
			texts = append(texts, s...)
		}
	}
	texts = binary.AppendUvarint(texts, uint64(len(o.aliases.list)))
	for _, a := range o.aliases.list {
		text(a.from, a.to)
	}
	texts = binary.AppendUvarint(texts, uint64(len(o.packages)))
	for _, p := range o.packages {
		text(string(p.Manager), p.Name, p.Version, p.Arch)
	}
	for _, i := range o.owner {
		texts = binary.AppendUvarint(texts, uint64(i))
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	if err != nil {
		panic(err) // the options are constant
	}
	packed := z.EncodeAll(texts, nil)
	z.Close()
	b = binary.AppendUvarint(b, uint64(len(o.hashes)))
	b = binary.AppendUvarint(b, uint64(len(packed)))
	b = append(b, packed...)
	last := uint64(0)
	for _, h := range o.hashes {
		b = binary.AppendUvarint(b, h-last)
		last = h
	}
	return b
}

// DecodeOwners reads what Encode wrote. The error is a *CorruptError.
func DecodeOwners(b []byte) (*Owners, error) {
	bad := func(reason string) (*Owners, error) {
		return nil, &CorruptError{File: "owners", Offset: -1, Reason: reason}
	}
	rest, ok := strings.CutPrefix(string(b[:min(len(b), len(OwnersSchema)+1)]), OwnersSchema+"\n")
	if !ok || rest != "" || len(b) < len(OwnersSchema)+17 {
		return bad("not a snapshot of format " + OwnersSchema)
	}
	b = b[len(OwnersSchema)+1:]
	o := &Owners{k0: binary.LittleEndian.Uint64(b), k1: binary.LittleEndian.Uint64(b[8:])}
	in := ownersReader{b: b[16:]}
	n, size := in.uvarint(), in.uvarint()
	if in.failed || n > maxOwned || size > uint64(len(in.b)) || n > uint64(len(in.b)) {
		return bad("it claims to be larger than it is")
	}
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxOwnersTexts))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	texts, err := z.DecodeAll(in.b[:size], nil)
	if err != nil || len(texts) > maxOwnersTexts {
		return bad("its packages cannot be unpacked")
	}
	in.b = in.b[size:]
	t := ownersReader{b: texts}
	if !o.readTexts(&t, int(n)) {
		return bad("its packages are malformed")
	}
	o.hashes = make([]uint64, 0, n)
	last := uint64(0)
	for i := range n {
		d := in.uvarint()
		if in.failed || i > 0 && d == 0 || last+d < last {
			return bad("its paths are malformed")
		}
		last += d
		o.hashes = append(o.hashes, last)
	}
	if len(in.b) > 0 {
		return bad("there is something behind its end")
	}
	return o, nil
}

// readTexts reads the part that is packed: aliases, packages, owners.
func (o *Owners) readTexts(t *ownersReader, paths int) bool {
	n := t.uvarint()
	if n > maxAliases {
		return false
	}
	var list []alias
	for range n {
		a := alias{t.text(), t.text()}
		if len(a.from) < 2 || a.from[0] != '/' || !strings.HasSuffix(a.from, "/") || !strings.HasPrefix(a.to, "/") {
			return false
		}
		list = append(list, a)
	}
	o.aliases = newAliases(list)
	n = t.uvarint()
	if n > maxPackages {
		return false
	}
	for range n {
		p := Package{Manager(t.text()), t.text(), t.text(), t.text()}
		if t.failed {
			return false
		}
		o.packages = append(o.packages, p)
	}
	o.owner = make([]uint32, 0, paths)
	for range paths {
		i := t.uvarint()
		if t.failed || i >= uint64(len(o.packages)) {
			return false
		}
		o.owner = append(o.owner, uint32(i))
	}
	return !t.failed && len(t.b) == 0
}

// ownersReader reads numbers and texts.
type ownersReader struct {
	b      []byte
	failed bool
}

func (r *ownersReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.failed = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *ownersReader) text() string {
	n := r.uvarint()
	if r.failed || n > maxText || n > uint64(len(r.b)) {
		r.failed = true
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

// Changed returns the packages of now that o does not have in that version,
// and those of o that are gone, both sorted: what was installed, upgraded,
// downgraded or removed since o was taken.
func (o *Owners) Changed(now []Package) (came, went []Package) {
	had, has := make(map[Package]bool, len(o.packages)), make(map[Package]bool, len(now))
	for _, p := range o.packages {
		had[p] = true
	}
	for _, p := range now {
		has[p] = true
		if !had[p] {
			came = append(came, p)
		}
	}
	for _, p := range o.packages {
		if !has[p] {
			went = append(went, p)
		}
	}
	for _, list := range [][]Package{came, went} {
		sort.Slice(list, func(i, j int) bool {
			a, b := list[i], list[j]
			return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Arch, b.Arch), strings.Compare(a.Version, b.Version)) < 0
		})
	}
	return came, went
}
