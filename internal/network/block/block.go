// Package block keeps what is blocked on this host, and has the kernel drop it:
// addresses and networks, MAC addresses, ports, users, control groups,
// processes, containers and interfaces that a person or a threat names, and
// feeds of hundreds of thousands of addresses.
//
// What is blocked is a catalogue in state.db (Block, Feed) with one file for the
// addresses of each feed beside it; docs/formats/network-blocks.md has both.
// What is in force are tables of nf_tables called mobileops_blocks, which follow
// from the catalogue alone (see wanted): Reconcile puts them in force again
// after a reboot, or after somebody flushed them.
//
//	inet    prerouting, output and forward, before and after DNAT: see rules.go
//	bridge  what VMs send through a bridge without this host's routing
//	netdev  interfaces, and MAC addresses below IP: see frames.go
//
// Every change is one transaction of the kernel, then one of state.db, under one
// lock. So whenever the process dies, the old or the new is in force, and
// Reconcile makes both agree.
//
// A time to live is the kernel's business: elements of sets time out there with
// no process alive. It runs by the clock that no one can set as long as the host
// is up, and by the wall clock from one boot to the next: see Lapse.
//
// Addresses that must never be blocked (see never.go) are looked at only when
// something would be dropped, so no feed can override them and they cost
// nothing. Loopback is never dropped, but for users, control groups and processes.
//
// Sources: nft(8), linux/netfilter/nf_tables.h, cgroups(7), the kernel's
// Documentation/admin-guide/cgroup-v2.rst.
package block

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/addresses"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/threat"
)

// Errors that callers tell apart.
var (
	ErrNotFound  = failure.New(failure.No, "nothing of that name is blocked")
	ErrProtected = failure.New(failure.Usage, "that would cut off what this host needs")
	ErrAlready   = failure.New(failure.Busy, "all of it is blocked already")
	ErrDamaged   = failure.New(failure.Untrustworthy, "the catalogue of blocks is damaged")
)

// Limits of the catalogue.
const (
	MaxBlocks = 10_000
	MaxFeeds  = 64
)

// Session is the connection over which the caller works; its zero value is none.
type Session struct {
	Peer netip.Addr
	Port uint16 // TCP, of this host
}

// Options say what an Engine works with.
type Options struct {
	Store *state.Store
	// Never are addresses that are never blocked, beside those that follow from
	// the host itself; Management are those of who administers it.
	Never, Management []netip.Prefix
	Session           Session
	// ResolvConf are files that name name servers; nil: where they usually are.
	ResolvConf  []string
	LockTimeout time.Duration // how long to wait for another process; 0: 10 s
}

// Engine blocks. Making one opens nothing.
type Engine struct {
	opts  Options
	clock func() (Clock, error)
}

// New returns an Engine.
func New(opts Options) *Engine {
	if opts.LockTimeout == 0 {
		opts.LockTimeout = 10 * time.Second
	}
	if opts.ResolvConf == nil {
		opts.ResolvConf = addresses.ResolvConf()
	}
	return &Engine{opts: opts, clock: ReadClock}
}

// Block is something that a person or a threat named.
type Block struct {
	Target threat.Indicator `json:"target"` // of every type but domain
	Threat string           `json:"threat,omitempty"`
	Reason string           `json:"reason,omitempty"`
	By     string           `json:"by,omitempty"`
	Since  time.Time        `json:"since"`
	Lapse
	// Forced blocks what would never be blocked otherwise.
	Forced bool `json:"forced,omitempty"`
	// Parts are what rules look at, where that isn't the target itself.
	Parts Parts `json:"parts,omitzero"`
}

// Parts are what a process, a container or a control group is for rules.
type Parts struct {
	Addresses  []netip.Addr `json:"addresses,omitempty"`
	Interfaces []string     `json:"interfaces,omitempty"` // of this host
	Cgroups    []Cgroup     `json:"cgroups,omitempty"`
	// Uncovered says what could not be covered.
	Uncovered []string `json:"uncovered,omitempty"`
}

// Feed is a list of addresses that was imported.
type Feed struct {
	Name   string `json:"name"`
	Source string `json:"source"` // an absolute path or a URL
	Format Format `json:"format"` // as asked for
	Reason string `json:"reason,omitempty"`
	By     string `json:"by,omitempty"`
	// ETag and Modified are what the server said of the version at hand.
	ETag     string    `json:"etag,omitempty"`
	Modified string    `json:"modified,omitempty"`
	Since    time.Time `json:"since"`
	Imported time.Time `json:"imported"` // this version
	Checked  time.Time `json:"checked"`  // when it was last asked for
	Lapse
	Generation uint64 `json:"generation"` // part of the name of its file
	Sum        string `json:"sum"`        // BLAKE3 of the file, 64 hexadecimal digits
	Counts
	Bad     int       `json:"bad_lines"`
	LeftOut []LeftOut `json:"left_out,omitempty"` // the first of them
}

// Counts are how many entries a feed has of each sort.
type Counts struct {
	Singles4 int `json:"ipv4_addresses"`
	Ranges4  int `json:"ipv4_networks"`
	Singles6 int `json:"ipv6_addresses"`
	Ranges6  int `json:"ipv6_networks"`
}

// Total is the number of all entries.
func (c Counts) Total() int { return c.Singles4 + c.Ranges4 + c.Singles6 + c.Ranges6 }

// LeftOut is something that was not blocked, and why.
type LeftOut struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// Change is what came of a change of what is blocked.
type Change struct {
	Blocks  []Block   // as they are now
	Feeds   []Feed    // as they are now
	Removed []string  // what is no longer blocked
	LeftOut []LeftOut // what is not blocked, and why
	// Uncovered is what of the blocks could not be covered.
	Uncovered []string
	Sockets   int // connections of this host that were destroyed
	Tracked   int // connections of which the kernel forgot
	// Text is what would be in force, as nft(8) reads it, after a dry run.
	Text string
}

// lock waits for the lock of all changes.
func (e *Engine) lock(ctx context.Context, doing string) (*state.Lock, error) {
	give := time.Now().Add(e.opts.LockTimeout)
	for {
		l, err := e.opts.Store.Lock("network-blocks", doing)
		if err == nil || !errors.Is(err, state.ErrBusy) || time.Now().After(give) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// dir is where the files of feeds are.
func (e *Engine) dir() string { return filepath.Join(e.opts.Store.Dir(), "network", "feeds") }

func (e *Engine) feedPath(f *Feed) string {
	return filepath.Join(e.dir(), fmt.Sprintf("%s-%d.feed", f.Name, f.Generation))
}

func (e *Engine) makeDir() error { return durable.MkdirAll(e.dir(), 0o700) }
