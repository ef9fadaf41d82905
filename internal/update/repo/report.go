package repo

import (
	"encoding/hex"
	"maps"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// RoleReport is a role as its publisher sees it.
type RoleReport struct {
	Role
	Threshold int
	Keys      []KeyReport
	Lifetime  time.Duration
}

// KeyReport is a key of a role.
type KeyReport struct {
	ID     string // of TUF: 64 hexadecimal digits
	Public string // 64 hexadecimal digits of ed25519
}

// The states of a package at its publisher.
const (
	StatePublished = "published"
	StateAdded     = "added"   // staged, not published yet
	StateChanged   = "changed" // published, with a change staged
	StateRemoved   = "removed" // published, and its removal is staged
)

// Offer is a package, published or staged.
type Offer struct {
	Target
	State string
}

// Report is a repository as its publisher sees it.
type Report struct {
	Dir      string
	RootPath string // of the first root.json
	RootSum  string // its SHA-256, for those who compare it by telephone
	Roles    []RoleReport
	Specs    map[string][]string // of the keys of each role, as they were named
	Offers   []Offer             // by name and sequence
	Unusable []Unusable
	Expired  *Error // the first role that has expired
}

// Report returns what is published and what is staged.
func (p *Publisher) Report() (*Report, error) {
	set, err := p.settings()
	if err != nil {
		return nil, err
	}
	now, err := p.published()
	if err != nil {
		return nil, err
	}
	plan, err := p.staged()
	if err != nil {
		return nil, err
	}
	first, err := p.readMetadata(rootName(1), DefaultLimits().Root)
	if err != nil {
		return nil, err
	}
	v := &verified{set: now}
	f := v.freshness(p.now())
	r := &Report{Dir: p.dir, RootPath: p.RootPath(), RootSum: digestOf(first), Specs: set.Keys, Unusable: f.Unusable, Expired: f.Expired}
	for _, role := range f.Roles {
		rr := RoleReport{Role: role, Lifetime: p.lifetime(set, role.Name)}
		if signs := now.Root.Signed.Roles[role.Name]; signs != nil {
			rr.Threshold = signs.Threshold
			for _, id := range signs.KeyIDs {
				rr.Keys = append(rr.Keys, KeyReport{ID: id, Public: publicOf(now.Root.Signed.Keys[id])})
			}
		}
		r.Roles = append(r.Roles, rr)
	}
	r.Offers = offers(now, plan)
	return r, nil
}

func publicOf(k *metadata.Key) string {
	if k == nil {
		return ""
	}
	return k.Value.PublicKey
}

func offers(now trusted, plan *staged) []Offer {
	live := now.Targets[metadata.TARGETS].Signed.Targets
	all := maps.Clone(live)
	if all == nil {
		all = map[string]*metadata.TargetFiles{}
	}
	for name, f := range merged(now, plan) {
		all[name] = f
	}
	list, _ := packagesOf(all)
	var out []Offer
	for _, t := range list {
		o := Offer{Target: t, State: StatePublished}
		if ch, touched := plan.Changes[t.Path]; touched {
			switch {
			case ch.Target == nil:
				o.State = StateRemoved
			case live[t.Path] == nil:
				o.State = StateAdded
			default:
				o.State = StateChanged
			}
		}
		out = append(out, o)
	}
	return slices.Clip(out)
}

// SHA256 returns the digest of a package, in hexadecimal digits; "" when only
// another one is known.
func (t Target) SHA256() string { return hex.EncodeToString(t.Hashes["sha256"]) }
