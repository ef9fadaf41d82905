package isolation

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/conntrack"
	"github.com/mobileops/mobileops/internal/network/nft"
	"github.com/mobileops/mobileops/internal/network/sockets"
	"golang.org/x/sys/unix"
)

// ErrNotInForce says that the host is not isolated.
var ErrNotInForce = failure.New(failure.No, "this host is not isolated")

// ErrLapsed says that a confirmation came too late: connectivity is back.
var ErrLapsed = failure.New(failure.No, "isolation has lapsed: the time to confirm it was over")

var errConfirmed = failure.New(failure.Busy, "isolation is confirmed already")

// Prepared is isolation that is ready to be put in force.
type Prepared struct {
	plan    plan
	session *Session
}

// Prepare looks at the surroundings and works out the rules. by says who asks.
func Prepare(opts Options, by string) (*Prepared, error) {
	around, err := look()
	if err != nil {
		return nil, err
	}
	around.add(opts.Remembered)
	p := &Prepared{plan: plan{Options: opts, around: around, note: comment(by, time.Now())}}
	if opts.Session != nil {
		p.session = opts.Session()
	}
	if s := p.session; s != nil {
		p.plan.Allow = append(slices.Clone(p.plan.Allow), Peer{
			Prefix: netip.PrefixFrom(s.Peer, s.Peer.BitLen()), First: s.Port, Last: s.Port, Proto: unix.IPPROTO_TCP, Why: "session",
		})
		if s.Mosh != 0 {
			p.plan.Allow = append(p.plan.Allow, Peer{
				Prefix: netip.PrefixFrom(s.Peer, s.Peer.BitLen()), First: s.Mosh, Last: s.Mosh, Proto: unix.IPPROTO_UDP, Why: "session",
			})
		}
	}
	for _, a := range opts.Names {
		for _, proto := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			p.plan.Allow = append(p.plan.Allow, Peer{Prefix: netip.PrefixFrom(a, a.BitLen()), First: 53, Last: 53, Proto: proto, Why: "name server"})
		}
	}
	if opts.KeepEstablished {
		if err := p.keep(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// keep notes the connections of now.
func (p *Prepared) keep() error {
	list, err := sockets.List(unix.IPPROTO_TCP, unix.IPPROTO_UDP)
	if err != nil {
		return fmt.Errorf("established connections: %w", err)
	}
	seen := map[Flow]bool{}
	for i := range list {
		s := &list[i]
		remote := s.Remote.Addr().WithZone("")
		if s.Listens() || s.State == sockets.TimeWait || !remote.IsValid() || remote.IsLoopback() || remote.IsUnspecified() {
			continue
		}
		f := Flow{s.Proto, s.Local, netip.AddrPortFrom(remote, s.Remote.Port())}
		f.Local = netip.AddrPortFrom(f.Local.Addr().WithZone(""), f.Local.Port())
		if !seen[f] && !p.allows(f.Proto, f.Local, f.Remote) {
			seen[f] = true
			p.plan.kept = append(p.plan.kept, f)
		}
	}
	p.plan.kept = slices.CompactFunc(p.plan.kept, func(a, b Flow) bool { return a == b })
	return nil
}

// Text is the ruleset as commands for nft -f.
func (p *Prepared) Text() (string, error) {
	b := nft.NewTextBatch()
	p.plan.batch(b)
	return b.Text(), b.Err()
}

// Allowed are all who may talk with this host.
func (p *Prepared) Allowed() []Peer { return p.plan.Allow }

// Session is the connection of whoever isolates; nil: none was found.
func (p *Prepared) Session() *Session { return p.session }

// Kept are the connections that may go on though their peers are not allowed.
func (p *Prepared) Kept() []Flow { return p.plan.kept }

// Interfaces are those that get chains of their own.
func (p *Prepared) Interfaces() []Interface { return p.plan.around.sealed() }

// Gateways are the gateways that stay reachable for what is allowed.
func (p *Prepared) Gateways() []netip.Addr { return p.plan.around.Gateways }

// PutInForce gives the rules to the kernel. When a guard owns the tables, it
// must have let go of them. It reports whether a guard can own the new ones,
// which it cannot before Linux 6.9. It is failure.Busy when isolation is in
// force and is not to be replaced.
func (p *Prepared) PutInForce() (ownable bool, err error) {
	c, err := nft.Dial()
	if err != nil {
		return false, err
	}
	defer c.Close()
	commit := func() error { return p.give(c.Commit) }
	err = commit()
	if p.plan.Owned && errors.Is(err, unix.EOPNOTSUPP) && strings.Contains(err.Error(), " table") {
		p.plan.Owned = false
		err = commit()
	}
	if (errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EPERM)) && !p.plan.Replace {
		// Tables are there, or a guard owns them: they may cut nothing any more.
		now, err := Read()
		if err != nil {
			return false, err
		}
		if now.InForce {
			return false, inForce(now)
		}
		p.plan.Replace = true
		return p.plan.Owned, explain(commit())
	}
	return p.plan.Owned, explain(err)
}

// give commits the rules. Before Linux 6.16, those for an interface that went since
// it was seen are refused, and with them all others: on a host where containers
// come and go, it has to be looked at again.
func (p *Prepared) give(commit func(*nft.Batch) error) (err error) {
	const attempts = 10
	for range attempts {
		b := nft.NewBatch()
		p.plan.batch(b)
		err = commit(b)
		var refused *nft.Error
		if !errors.As(err, &refused) || refused.Errno != unix.ENOENT && refused.Errno != unix.ENODEV || !strings.HasPrefix(refused.What, "add chain netdev ") {
			return err
		}
		around, failed := look()
		if failed != nil {
			return errors.Join(err, failed)
		}
		around.add(p.plan.Remembered)
		p.plan.around = around
	}
	return err
}

func inForce(now Status) error {
	if now.Pending {
		return failure.Hint(failure.Errorf(failure.Busy, "this host is isolated, and that waits for confirmation (%s left)", now.Left.Round(time.Second)),
			"confirm it: mobileops network confirm; or give --replace")
	}
	return failure.Hint(failure.Errorf(failure.Busy, "this host is isolated already (%s)", localTime(now.Comment)), "change how: --replace; end it: mobileops network restore")
}

// explain names what the kernel lacks, and who stands in the way.
func explain(err error) error {
	var refused *nft.Error
	if !errors.As(err, &refused) {
		return err
	}
	missing := ""
	switch what := refused.What; {
	case refused.Errno == unix.EPERM:
		if _, err := Read(); err != nil { // who may not change rules may not read them
			return notAllowed("changed")
		}
		return failure.Hint(failure.Wrap(failure.Busy, err), "a guard owns the tables: see mobileops network status")
	case refused.Errno != unix.EOPNOTSUPP && refused.Errno != unix.EAFNOSUPPORT && refused.Errno != unix.ENOENT && refused.Errno != unix.EPROTONOSUPPORT:
	case strings.Contains(what, "fib "):
		missing = "CONFIG_NFT_FIB_NETDEV and CONFIG_NFT_FIB_INET"
	case strings.Contains(what, " egress"):
		missing = "CONFIG_NETFILTER_EGRESS, which came with Linux 5.16"
	case strings.Contains(what, "netdev"):
		missing = "CONFIG_NF_TABLES_NETDEV"
	case strings.Contains(what, "bridge"):
		missing = "CONFIG_NF_TABLES_BRIDGE"
	case strings.Contains(what, "ct state"):
		missing = "CONFIG_NFT_CT"
	case refused.Errno != unix.ENOENT:
		missing = "CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET"
	}
	if missing == "" {
		return err
	}
	return failure.Errorf(failure.NotReady, "the kernel lacks %s: %w", missing, err)
}

// allows reports whether a connection is with a peer.
func (p *Prepared) allows(proto uint8, local, remote netip.AddrPort) bool {
	return slices.ContainsFunc(p.plan.Allow, func(peer Peer) bool { return peer.allows(proto, local, remote) })
}

// Severed is what was cut.
type Severed struct {
	Sockets int `json:"sockets"` // connections of programs of this host
	Tracked int `json:"tracked"` // entries of connection tracking
}

// Sever ends the connections that are not allowed any more: programs read an
// error at once instead of waiting for answers that do not come. Rules must be
// in force before, or programs would connect again.
func (p *Prepared) Sever() (done Severed, err error) {
	kept := map[Flow]bool{}
	for _, f := range p.plan.kept {
		kept[f] = true
	}
	own := map[netip.Addr]bool{}
	for _, a := range p.plan.around.Own {
		own[a] = true
	}
	stays := func(proto uint8, local, remote netip.AddrPort) bool {
		l, r := netip.AddrPortFrom(local.Addr().WithZone(""), local.Port()), netip.AddrPortFrom(remote.Addr().WithZone(""), remote.Port())
		return r.Addr().IsLoopback() || own[r.Addr()] || kept[Flow{proto, l, r}] || p.allows(proto, l, r)
	}
	var problems []error
	done.Sockets, err = sockets.Destroy(func(s *sockets.Socket) bool { return !stays(s.Proto, s.Local, s.Remote) })
	if err != nil {
		problems = append(problems, fmt.Errorf("connections of programs: %w", err))
	}
	done.Tracked, err = conntrack.Delete(func(c *conntrack.Connection) bool {
		a, b := c.Orig.Src, c.Orig.Dst
		return !stays(c.Orig.Proto, a, b) && !stays(c.Orig.Proto, b, a)
	})
	if err != nil && !errors.Is(err, conntrack.ErrUnavailable) {
		problems = append(problems, fmt.Errorf("connection tracking: %w", err))
	}
	return done, errors.Join(problems...)
}

// Confirm makes isolation that waits for it last. It is ErrLapsed when the time
// is over, ErrNotInForce when there is none, and failure.Busy when it lasts
// already. A guard must have let go of the tables.
func Confirm() error {
	c, err := nft.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	b := nft.NewBatch()
	for _, t := range tables() {
		b.DeleteElements(armedSet(t), 1, func(int) nft.Element { return wholeRange(0) })
		b.AddElements(armedSet(t), 1, func(int) nft.Element { return wholeRange(0) })
	}
	now, err := Read()
	switch {
	case err != nil:
		return err
	case !now.Present:
		return ErrNotInForce
	case now.InForce && !now.Pending:
		return fmt.Errorf("%w (%s)", errConfirmed, localTime(now.Comment))
	}
	err = c.Commit(b)
	if errors.Is(err, unix.ENOENT) {
		return ErrLapsed
	}
	return explain(err)
}

// Restore takes all of isolation back; ErrNotInForce when nothing of it was
// there. A guard must have let go of the tables.
func Restore() error {
	now, err := Read()
	if err != nil {
		return err
	}
	if !now.Present {
		return ErrNotInForce
	}
	c, err := nft.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	b := nft.NewBatch()
	for _, t := range now.found {
		b.DestroyTable(t)
	}
	if err := explain(c.Commit(b)); err != nil {
		return err
	}
	if !now.InForce {
		return ErrNotInForce
	}
	return nil
}
