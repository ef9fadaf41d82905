package segment

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"golang.org/x/sys/unix"
)

// The bucket of state.db, and the one key in it.
var (
	bucket     = []byte("network/segment")
	appliedKey = []byte("applied")
)

// saved is what state.db remembers.
type saved struct {
	Seed      []byte      `json:"seed"`             // see Given
	Documents []*Document `json:"documents"`        // in force, in the order in which they came
	Layout    *Layout     `json:"layout,omitempty"` // what they came to
	Since     time.Time   `json:"since,omitzero"`   // the last apply
	By        string      `json:"by,omitempty"`     // who that was
	Record    record      `json:"record"`

	// Pending is set while an apply runs. One that is found later was killed:
	// Documents are what was in force before it.
	Pending *pending `json:"pending,omitempty"`
}

type pending struct {
	Documents []string  `json:"documents"` // names of those that were to be in force
	Since     time.Time `json:"since"`
	By        string    `json:"by,omitempty"`
}

// record is everything that was made or changed, in one network namespace
// since one boot. It is written before anything is done, so something in it
// may not exist; each entry says how to tell whether what is there is ours.
type record struct {
	Boot      string        `json:"boot,omitempty"`  // the kernel's id of the boot
	NetNS     uint64        `json:"netns,omitempty"` // inode of the network namespace
	Links     []madeLink    `json:"links,omitempty"`
	Joined    []joined      `json:"joined,omitempty"`
	Addresses []madeAddress `json:"addresses,omitempty"`
	Sysctls   []madeSysctl  `json:"sysctls,omitempty"`
}

// madeLink is an interface that mobileops made, or is about to make.
type madeLink struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	MAC   MAC    `json:"mac,omitzero"`    // which it gets as it is made
	Index int    `json:"index,omitempty"` // 0: not known to exist yet
}

// joined is an interface of somebody else's that became a port.
type joined struct {
	Name   string `json:"name"`
	Index  int    `json:"index"`
	Bridge string `json:"bridge"`
	Up     bool   `json:"up"` // before
}

// madeAddress is an address on a bridge.
type madeAddress struct {
	Device string       `json:"device"`
	Prefix netip.Prefix `json:"prefix"`
}

// madeSysctl is a switch outside of our own interfaces.
type madeSysctl struct {
	Path   string `json:"path"`
	Before string `json:"before"`
	Set    string `json:"set"`
	Router bool   `json:"router,omitempty"` // this host was a router for IPv4 then (ip_forward)
}

// owns reports whether an interface is one that the record speaks of.
func (r *record) owns(l *link) bool {
	return slices.ContainsFunc(r.Links, func(m madeLink) bool { return m.is(l) })
}

// is reports whether an interface is the one that was made, also when somebody has
// given it another name or alias since. It is told by the address that it is made
// with, which nobody else knows, and by its number once that is known; it may have
// got another address or another alias then, but not both.
func (m *madeLink) is(l *link) bool {
	ours, same := strings.HasPrefix(l.alias, aliasPrefix), m.MAC == l.mac
	switch {
	case m.Kind != l.kind:
		return false
	case m.Index != 0:
		return m.Index == l.index && (ours || same)
	}
	return same
}

// aliasPrefix begins the alias of every interface that mobileops made.
const aliasPrefix = "mobileops "

func (r *record) joinedAs(l *link) *joined {
	for i := range r.Joined {
		if j := &r.Joined[i]; j.Name == l.name && j.Index == l.index {
			return j
		}
	}
	return nil
}

func (r *record) sysctl(path string) *madeSysctl {
	for i := range r.Sysctls {
		if r.Sysctls[i].Path == path {
			return &r.Sysctls[i]
		}
	}
	return nil
}

func (r *record) empty() bool {
	return len(r.Links)+len(r.Joined)+len(r.Addresses)+len(r.Sysctls) == 0
}

// with returns both records in one: what was there before, and what is about
// to be made.
func (r *record) with(next *record) record {
	both := record{Boot: next.Boot, NetNS: next.NetNS}
	both.Links = union(r.Links, next.Links)
	both.Joined = slices.Clone(r.Joined)
	for _, j := range next.Joined {
		if !slices.ContainsFunc(r.Joined, func(o joined) bool { return o.Name == j.Name && o.Index == j.Index }) {
			both.Joined = append(both.Joined, j)
		}
	}
	both.Addresses = union(r.Addresses, next.Addresses)
	both.Sysctls = slices.Clone(r.Sysctls)
	for _, s := range next.Sysctls {
		if r.sysctl(s.Path) == nil {
			both.Sysctls = append(both.Sysctls, s)
		}
	}
	return both
}

func union[T comparable](a, b []T) []T {
	out := slices.Clone(a)
	for _, v := range b {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// ErrElsewhere says that what is in force was applied in another network
// namespace of this host.
var ErrElsewhere = failure.New(failure.Busy, "segments are in force in another network namespace of this host")

// here fills in where and since when a record holds. What was made before the
// last boot is gone, and switches are as the boot has set them.
func (r *record) here() error {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return os.NewSyscallError("stat", err)
	}
	id := strings.TrimSpace(string(boot))
	if r.Boot != id {
		*r = record{}
	}
	if !r.empty() && r.NetNS != uint64(st.Ino) {
		return failure.Hint(ErrElsewhere, "run it there, or give that up: mobileops network reset --forget")
	}
	r.Boot, r.NetNS = id, uint64(st.Ino)
	return nil
}

// load reads what is remembered. A host that has applied nothing yet gets a
// seed, which is kept with the first apply.
func load(ctx context.Context, store *state.Store) (*saved, error) {
	s := new(saved)
	err := store.View(ctx, func(tx *state.Tx) error {
		b := tx.Bucket(bucket)
		if b == nil {
			return nil
		}
		v := b.Get(appliedKey)
		if v == nil {
			return nil
		}
		dec := json.NewDecoder(bytes.NewReader(v))
		if err := dec.Decode(s); err != nil {
			return failure.Errorf(failure.Untrustworthy, "what state.db says about segments cannot be read: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(s.Seed) == 0 {
		s.Seed = make([]byte, 16)
		rand.Read(s.Seed) // never fails
	}
	return s, nil
}

// save replaces what is remembered.
func (s *saved) save(ctx context.Context, store *state.Store) error {
	v, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("remember segments: %w", err)
	}
	return store.Update(ctx, func(tx *state.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucket)
		if err != nil {
			return err
		}
		return b.Put(appliedKey, v)
	})
}
