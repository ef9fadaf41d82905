// Package repo is an update repository: the publisher's side and the host's.
//
// A repository is a directory in the format of The Update Framework (TUF),
// served by any web server or carried on a USB stick:
//
//	metadata/N.root.json      who may sign for which role; each is signed by the one before
//	metadata/N.targets.json   the packages: length, digests, and what mobileops says of them
//	metadata/N.snapshot.json  which targets.json belongs to this publication
//	metadata/timestamp.json   which snapshot is the newest; signed anew every few days
//	targets/DIGEST.NAME       the packages and their signatures
//
// A host pins one root.json. From there on it accepts what keys of the chain
// of roots signed, in time, and of no lower version than it accepted before.
// So somebody who holds the server, the line or the stick can keep updates
// away, which is noticed when the timestamp expires, and nothing else: no old
// publication, no mixture of two, no other package, no endless file.
//
// # What a host keeps
//
// Metadata that was verified lies in a directory and is verified again at each
// use; what is torn there is fetched again. The versions that were accepted
// are in state.db, apart from it, so that healing never opens the way back.
//
// Refresh asks the source. Available lists packages; when Refresh was not
// called or failed it goes by what is here, which may have expired: that is
// good for looking. Download is only for what is fresh.
//
// The format of what lies here and there is in docs/formats/repository.md.
// Delegations are not followed: packages are listed by targets.json itself.
// Sources: the TUF specification 1.0.31, whose client workflow (5.3 to 5.6)
// refresh.go follows with the verification of go-tuf; RFC 9110 (ranges).
package repo

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"time"

	"github.com/mobileops/mobileops/internal/state"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Limits bound what a repository can cost a host. Zero fields become those of
// DefaultLimits.
type Limits struct {
	Root, Timestamp, Snapshot, Targets int64 // bytes of one file of metadata

	Rotations  int           // roots that may follow on the pinned one
	Request    time.Duration // for one file of metadata, with everything
	Stall      time.Duration // a transfer that brings less than StallBytes within it is given up
	StallBytes int64
}

// DefaultLimits returns the limits that hold unless others are given. Some
// 6,000 packages fit into that much targets.json.
func DefaultLimits() Limits {
	return Limits{
		Root: 512 << 10, Timestamp: 64 << 10, Snapshot: 1 << 20, Targets: 4 << 20,
		Rotations: 1024, Request: time.Minute, Stall: 30 * time.Second, StallBytes: 1 << 10,
	}
}

// Options say which repository, and what this host knows of it.
type Options struct {
	// Source is an http or https URL, a directory, or the file URL of one.
	Source string
	Root   []byte       // the root.json that is trusted at first
	Dir    string       // for metadata that was verified; made when it is needed
	State  *state.Store // remembers which versions were accepted

	Now    func() time.Time // nil: time.Now
	HTTP   *http.Client     // nil: one with the usual proxies; its CheckRedirect is replaced
	Limits Limits
}

// Client is a host's view of a repository. It is not for concurrent use; many
// processes may have one of the same directory.
type Client struct {
	opts  Options
	src   source
	local local
	now   *verified // nil: neither refreshed nor loaded
}

// Open returns the client of a repository. It reads and asks nothing.
func Open(o Options) (*Client, error) {
	if o.Dir == "" || o.State == nil {
		return nil, errors.New("a client of a repository needs a directory and the state")
	}
	if len(o.Root) == 0 {
		return nil, errors.New("a client of a repository needs its root metadata")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Limits = o.Limits.orDefaults()
	src, err := openSource(o)
	if err != nil {
		return nil, err
	}
	return &Client{opts: o, src: src, local: local{filepath.Join(o.Dir, "metadata")}}, nil
}

func (l Limits) orDefaults() Limits {
	d := DefaultLimits()
	for _, f := range []struct{ have, want *int64 }{
		{&l.Root, &d.Root}, {&l.Timestamp, &d.Timestamp}, {&l.Snapshot, &d.Snapshot}, {&l.Targets, &d.Targets}, {&l.StallBytes, &d.StallBytes},
	} {
		if *f.have == 0 {
			*f.have = *f.want
		}
	}
	if l.Rotations == 0 {
		l.Rotations = d.Rotations
	}
	if l.Request == 0 {
		l.Request = d.Request
	}
	if l.Stall == 0 {
		l.Stall = d.Stall
	}
	return l
}

// Source returns where the repository is, without a password.
func (c *Client) Source() string { return c.src.String() }

// Role is one of the four roles of a repository.
type Role struct {
	Name    string // root, timestamp, snapshot or targets
	Version int64
	Expires time.Time
}

// Freshness says how much what a client knows can be relied on.
type Freshness struct {
	Roles   []Role    // root, timestamp, snapshot, targets
	Checked time.Time // when the source was last seen to offer this
	Offline bool      // this is from the last time, and the source was not asked
	// Expired is the error that applying would meet: the first role that has
	// expired; nil while none has.
	Expired *Error
	// Unusable are packages that this mobileops cannot understand.
	Unusable []Unusable
}

// Freshness returns how fresh is what Refresh or Available found; ok is false
// before either did.
func (c *Client) Freshness() (f Freshness, ok bool) {
	if c.now == nil {
		return Freshness{}, false
	}
	return c.now.freshness(c.opts.Now()), true
}

// Refresh asks the source for what is newest, verifies it, and keeps it and the
// versions that it has. What is wrong with it is an *Error, and then nothing has
// changed here.
func (c *Client) Refresh(ctx context.Context) (Freshness, error) {
	s, err := c.refresh(ctx)
	if err != nil {
		return Freshness{}, err
	}
	c.now = s
	return s.freshness(c.opts.Now()), nil
}

// Available lists the packages of the repository by name and sequence: of every
// channel, and those of a staged rollout too. Without a successful Refresh
// before, it goes by what was verified last; see Freshness. When there is
// nothing, the error is an *Error with CodeNever.
func (c *Client) Available(ctx context.Context) ([]Target, error) {
	if c.now == nil {
		s, err := c.load(ctx)
		if err != nil {
			return nil, err
		}
		c.now = s
	}
	list, _ := packagesOf(c.now.targets())
	return list, nil
}

// verified is a whole publication that was verified.
type verified struct {
	set     trusted
	bytes   map[string][]byte // of each file, by its name here
	digests map[int64]string  // SHA-256 of the roots of the chain
	checked time.Time
	offline bool
}

type file struct {
	name string
	data []byte
}

// files are the files of the publication in the order in which they are to be
// written: nothing leads to one that is not there yet.
func (s *verified) files() []file {
	var list []file
	for v := s.set.Root.Signed.Version; v > 0; v-- {
		if data := s.bytes[rootName(v)]; data != nil {
			list = append(list, file{rootName(v), data})
		}
	}
	versions := s.versions()
	for _, name := range []string{targetsName(versions[metadata.TARGETS]), snapshotName(versions[metadata.SNAPSHOT]), timestampName} {
		list = append(list, file{name, s.bytes[name]})
	}
	return list
}

func (s *verified) roles() []Role {
	t := s.set.Targets[metadata.TARGETS].Signed
	return []Role{
		{metadata.ROOT, s.set.Root.Signed.Version, s.set.Root.Signed.Expires},
		{metadata.TIMESTAMP, s.set.Timestamp.Signed.Version, s.set.Timestamp.Signed.Expires},
		{metadata.SNAPSHOT, s.set.Snapshot.Signed.Version, s.set.Snapshot.Signed.Expires},
		{metadata.TARGETS, t.Version, t.Expires},
	}
}

func (s *verified) versions() map[string]int64 {
	m := map[string]int64{}
	for _, r := range s.roles() {
		m[r.Name] = r.Version
	}
	return m
}

func (s *verified) targets() map[string]*metadata.TargetFiles {
	return s.set.Targets[metadata.TARGETS].Signed.Targets
}

func (s *verified) freshness(now time.Time) Freshness {
	f := Freshness{Roles: s.roles(), Checked: s.checked, Offline: s.offline}
	for _, r := range f.Roles {
		if now.After(r.Expires) {
			f.Expired = expired(r.Name, r.Expires, now)
			break
		}
	}
	_, f.Unusable = packagesOf(s.targets())
	return f
}
