// Package netstate tells how a host is connected: what listens and which
// program that is, what the firewall says, where packets go, who answers for
// names, and which switches of the kernel decide about it.
//
// Everything is asked of the kernel itself, over netlink(7), never of programs
// such as ss or nft, which an attacker replaces first; a rootkit in the kernel
// can lie to this too. What is told is that of the network namespace of the
// process: containers with networks of their own are looked at by nobody here.
//
// Left out, since it comes and goes by itself: packet and byte counters,
// handles and generations, elements of dynamic sets and those that expire,
// neighbours, cached routes, routes that a routing daemon learned (only that
// there are some is a fact), routes that follow from addresses, lifetimes, both
// the addresses that are leased and those of privacy extensions (their prefix is
// kept), the host's ends of the cables of containers, and UDP ports that
// programs take for asking (that they do is kept). UNIX sockets are not listed:
// thousands of them come and go on a desktop, and who may connect is a matter
// of files.
package netstate

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/integrity/facts"
	"golang.org/x/sys/unix"
)

// Collector collects the facts of the network. The zero value looks at this
// host; the fields are for tests.
type Collector struct {
	Proc string // "/proc"
	Etc  string // "/etc"
}

// Collect asks every source. It fails only when ctx is done: what a source did
// not tell is in its state.
func (c Collector) Collect(ctx context.Context) ([]facts.Source, []facts.Fact, error) {
	if c.Proc == "" {
		c.Proc = "/proc"
	}
	if c.Etc == "" {
		c.Etc = "/etc"
	}
	g := &gathering{Collector: c, names: readNames()}
	for _, part := range []func(*gathering){sockets, nftables, legacyTables, links, routes, rules, resolvers, switches} {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		part(g)
	}
	return g.sources, g.list, nil
}

// gathering is what has been told so far.
type gathering struct {
	Collector
	sources []facts.Source
	list    []facts.Fact
	names   interfaceNames
}

// interfaceNames are the names of interfaces by index.
type interfaceNames map[uint32]string

func readNames() interfaceNames {
	names := interfaceNames{}
	list, _ := net.Interfaces()
	for _, i := range list {
		names[uint32(i.Index)] = facts.Text(i.Name)
	}
	return names
}

func (n interfaceNames) of(index uint32) string {
	if name := n[index]; name != "" {
		return name
	}
	return "interface " + strconv.FormatUint(uint64(index), 10)
}

// told notes how a source did. Without an error it told everything.
func (g *gathering) told(name string, err error, detail string) {
	s := facts.Source{Aspect: facts.Network, Name: name, State: facts.OK, Detail: detail}
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		s.State, s.Detail = facts.Denied, "only root may read it"
	case errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, fs.ErrNotExist):
		s.State, s.Detail = facts.Absent, "this kernel has none"
	default:
		s.State, s.Detail = facts.Failed, facts.Text(err.Error())
	}
	g.sources = append(g.sources, s)
}

func (g *gathering) add(source, kind, key string, f facts.Fact) {
	f.Aspect, f.Source, f.Kind, f.Key = facts.Network, source, kind, key
	g.list = append(g.list, f)
}

// drop takes the facts of a source back, which failed half way.
func (g *gathering) drop(source string) {
	kept := g.list[:0]
	for _, f := range g.list {
		if f.Source != source {
			kept = append(kept, f)
		}
	}
	g.list = kept
}

// users maps user ids to names, as far as /etc/passwd has them.
func (g *gathering) users() func(uid uint32) string {
	names := map[uint32]string{}
	b, _ := os.ReadFile(filepath.Join(g.Etc, "passwd"))
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(line, ":", 4)
		if len(f) < 4 {
			continue
		}
		if uid, err := strconv.ParseUint(f[2], 10, 32); err == nil && f[0] != "" && names[uint32(uid)] == "" {
			names[uint32(uid)] = facts.Text(f[0])
		}
	}
	return func(uid uint32) string {
		if n := names[uid]; n != "" {
			return n
		}
		return "uid " + strconv.FormatUint(uint64(uid), 10)
	}
}
