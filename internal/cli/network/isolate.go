package network

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/addresses"
	"github.com/mobileops/mobileops/internal/network/isolation"
	"github.com/spf13/cobra"
)

// Files that several commands touch, as their help says it.
const (
	stateFile  = "/var/lib/mobileops/state.db: what is to be in force, also after a reboot"
	lockFiles  = "/var/lib/mobileops/locks/: who changes isolation, and who guards it"
	tablesFile = "tables mobileops_isolation of nftables: inet, netdev and bridge"
)

type isolateOptions struct {
	allow   []string
	confirm string
	profile string
	probe   []string
	reason  string
	keep    bool
	dns     bool
	strict  bool
	replace bool
	noGuard bool
	dryRun  bool
}

func newIsolate(a *app.App) *cobra.Command {
	var opts isolateOptions
	cmd := a.Command(app.Spec{
		Use:   "isolate [--allow ADDRESS[/BITS][:PORT/PROTO]]... [flags]",
		Short: "Cut this host off from every network, except for its administration",
		Long: `Cut this host off from every network, except for its administration.

In one transaction everything is cut on every interface, for IPv4, IPv6 and all
other protocols: what this host sends, receives and passes on, also raw frames,
and what its containers and virtual machines do. Connections that exist are
ended. Who may go on to talk with this host: the peers of network.management and
--allow, network.controller, and the SSH client that you come from. A port is
that of a service: of theirs, which this host may use, or of this host, which
they may.

With --confirm, the kernel itself gives connectivity back when the time is over,
whatever happens to this program, your connection or its processes: say that you
still have access with mobileops network confirm. Without, isolation lasts, also
across reboots where the unit mobileops-isolation.service is enabled, until
mobileops network restore.

Addresses that run out are renewed (DHCP), neighbours and gateways are still
resolved (ARP, neighbour discovery), and loopback works. A guard stays behind: it
seals interfaces that appear later, and while it runs, nobody can flush the rules.`,
		Example: `
mobileops network isolate --confirm 60s       # runbook: first line; then: mobileops network confirm
mobileops network isolate --reason 'case 17'  # runbook: for good, as you are on the console
mobileops network isolate --allow 10.20.0.0/24 --allow 10.20.1.5:443/tcp --probe 10.20.1.5:443
mobileops network isolate --dry-run > isolation.nft  # what would be in force, for nft -f
`,
		Statuses: []app.Status{
			notRoot,
			{Code: 0, Text: "this host is isolated"},
			{Code: 1, Text: "--dry-run: it would be"},
			{Code: 3, Text: "it is not isolated, or a probe failed and isolation was undone; the message says which"},
			{Code: 6, Text: "it is isolated, and something beside that could not be done; the message says what"},
			{Code: 7, Text: "the kernel lacks what isolation needs; it is named"},
			{Code: 8, Text: "it is isolated already, or another isolation is under way"},
		},
		Files:   []string{tablesFile, stateFile, lockFiles},
		Audited: true,
		Run:     func(ctx context.Context, _ []string) error { return runIsolate(ctx, a, &opts) },
	})
	opts.addFlags(a, cmd)
	return cmd
}

func (o *isolateOptions) addFlags(a *app.App, cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringArrayVar(&o.allow, "allow", nil, "let `PEER` talk with this host: 10.20.0.0/24, 10.20.1.5:443/tcp, [2001:db8::7]:53/udp; may be repeated")
	fs.StringVar(&o.confirm, "confirm", "", "lapse after `DURATION` unless it is confirmed; 0s: never (default network.confirm)")
	fs.StringVar(&o.profile, "profile", "", "take flags from the file `NAME`.yaml beside the configuration, in isolation/, or from a path; strict is built in")
	fs.StringArrayVar(&o.probe, "probe", nil, "undo isolation unless `HOST:PORT` answers afterwards; it stays reachable; may be repeated")
	fs.StringVar(&o.reason, "reason", "", "why, in `WORDS`, or the number of a case")
	fs.BoolVar(&o.keep, "keep-established", false, "let connections go on that exist now; new ones are cut")
	fs.BoolVar(&o.dns, "dns", false, "let this host ask its name servers")
	fs.BoolVar(&o.strict, "strict", false, "neither DHCP nor router advertisements: addresses may run out")
	fs.BoolVar(&o.replace, "replace", false, "replace isolation that is in force, without a gap")
	fs.BoolVar(&o.noGuard, "no-guard", false, "leave no guard behind: interfaces that appear later are not sealed against raw frames")
	fs.BoolVar(&o.dryRun, "dry-run", false, "only show what would be in force")
	app.CompleteValues(cmd, "confirm", "60s", "5m", "0s")
	a.CompleteFlag(cmd, "profile", func(context.Context, []string, string) []string {
		return append(app.Files(), isolation.Profiles(profileDir(a))...)
	})
	app.CompleteValues(cmd, "allow")
	app.CompleteValues(cmd, "probe")
	app.CompleteValues(cmd, "reason")
}

func runIsolate(ctx context.Context, a *app.App, o *isolateOptions) error {
	// Each moment counts until the host is cut off: what takes longest to find out
	// is looked for beside everything else.
	session := beside(func() *isolation.Session { return isolation.FindSession(a.Getenv("SSH_CONNECTION")) })
	by := beside(func() string { return a.Actor().Name() })
	c, err := a.Config()
	if err != nil {
		return err
	}
	if err := ofThisHost(c); err != nil {
		return err
	}
	q, err := o.request(ctx, a, c)
	if err != nil {
		return err
	}
	q.Session, q.By = session, by()
	if o.dryRun {
		a.OnlyLooked()
		return printDryRun(a.Streams, q)
	}
	e, err := newEngine(a, c, !o.noGuard)
	if err != nil {
		return err
	}
	r, err := e.Isolate(ctx, *q)
	if err != nil {
		return err
	}
	if len(r.Prepared.Allowed()) == 0 {
		a.Streams.Notice("mobileops: network isolate: nobody may talk with this host now: the console remains")
	}
	for _, p := range r.Prepared.Allowed() {
		if p.Prefix.Bits() == 0 && p.First == 0 {
			a.Streams.Notice("mobileops: network isolate: all of %s is allowed (%s), so nothing of it is cut", family(p.Prefix.Addr()), p.Why)
		}
	}
	if s := r.Prepared.Session(); s != nil && !s.Seen() {
		a.Streams.Notice("mobileops: network isolate: %s names %s, from where there is no connection now: it may come back", s.From, s.Peer)
	}
	a.SetResult("isolated, allowed: %s", peerList(r.Prepared.Allowed()))
	if err := printIsolated(a.Streams, r); err != nil {
		return err
	}
	return trouble(r)
}

// naming is where peers and probes were named.
type naming struct {
	by           string // "management", "controller", "profile", "--allow"
	allow, probe []string
}

// addTo reads what was named, and asks for the addresses of probes.
func (n naming) addTo(ctx context.Context, q *isolation.Request) error {
	at, probed := n.by, n.by // in messages
	switch n.by {
	case "management", "controller":
		at, probed = "network."+n.by, "network."+n.by
	case "profile":
		at, probed = "profile "+q.Profile+": allow", "profile "+q.Profile+": probe"
	case "--allow":
		probed = "--probe"
	}
	for _, w := range n.allow {
		p, err := isolation.ParsePeer(w, n.by)
		if err != nil {
			return app.UsageError("%s: %v", at, err)
		}
		q.Allow = append(q.Allow, p)
	}
	for _, hostport := range n.probe {
		t, err := isolation.Resolve(ctx, hostport)
		switch {
		case failure.KindOf(err) == failure.Usage:
			return app.UsageError("%s: %v", probed, err)
		case err != nil:
			return fmt.Errorf("nothing was changed: %w", err)
		}
		t.Why = "probe"
		if n.by == "controller" {
			t.Why = n.by
		}
		q.Probe = append(q.Probe, t)
	}
	return nil
}

// request brings flags, profile and configuration together.
func (o *isolateOptions) request(ctx context.Context, a *app.App, c *config.Config) (*isolation.Request, error) {
	q := &isolation.Request{Reason: o.reason, Profile: o.profile}
	q.KeepEstablished, q.Strict, q.Replace = o.keep, o.strict, o.replace
	dns, confirm := o.dns, c.Network.Confirm
	named := []naming{{"management", c.Network.Management, nil}, {"profile", nil, nil}, {"--allow", o.allow, o.probe}}
	if c.Network.Controller != "" {
		named = append(named, naming{"controller", nil, []string{c.Network.Controller}})
	}
	if o.profile != "" {
		p, err := isolation.LoadProfile(profileDir(a), o.profile)
		if err != nil {
			return nil, err
		}
		named[1].allow, named[1].probe, dns = p.Allow, p.Probe, dns || p.DNS
		q.KeepEstablished, q.Strict = q.KeepEstablished || p.KeepEstablished, q.Strict || p.Strict
		if p.Confirm != "" {
			if confirm, err = config.ParseDuration(p.Confirm); err != nil {
				return nil, app.UsageError("profile %s: confirm: %v", o.profile, err)
			}
		}
	}
	if o.confirm != "" {
		var err error
		if confirm, err = config.ParseDuration(o.confirm); err != nil {
			return nil, app.UsageError("bad value %q for --confirm: %v", o.confirm, err)
		}
	}
	if confirm > 24*time.Hour || confirm > 0 && confirm < time.Second {
		return nil, app.UsageError("%v to confirm isolation is out of range: from 1s to 24h, or 0s for isolation that lasts", confirm)
	}
	q.Confirm = confirm
	for _, n := range named {
		if err := n.addTo(ctx, q); err != nil {
			return nil, err
		}
	}
	if dns {
		q.Names = addresses.NameServers(addresses.ResolvConf())
		if len(q.Names) == 0 {
			return nil, failure.New(failure.NotReady, "--dns: /etc/resolv.conf names no name server")
		}
	}
	return q, nil
}

// profileDir is where profiles with a name are: beside the configuration file.
func profileDir(a *app.App) string {
	file := config.UsualPaths(os.Geteuid(), a.Getenv).Config
	if l, err := a.LoadedConfig(); err == nil && l.File != "" {
		file = l.File
	}
	return filepath.Join(filepath.Dir(file), "isolation")
}

// beside runs f on its own, and returns where its result can be waited for, once.
func beside[T any](f func() T) func() T {
	done := make(chan T, 1)
	go func() { done <- f() }()
	return func() T { return <-done }
}
