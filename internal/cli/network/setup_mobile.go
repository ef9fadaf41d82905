package network

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/spf13/cobra"
)

type setupMobileOptions struct {
	presetOptions
	ports, upstream []string
}

func newSetupMobile(a *app.App) *cobra.Command {
	var opts setupMobileOptions
	cmd := a.Command(app.Spec{
		Use:   "setup-mobile [--port INTERFACE]... [flags]",
		Short: "Make a network for mobile devices that reaches the internet alone",
		Long: `Make a network for mobile devices that reaches the internet alone.

Behind the interfaces that are named, those of access points, devices under
management get an address by DHCP and names by DNS in the zone mobile
(10.203.0.0/24 and fd6d:6f62:696c:3::/64). They reach the internet with this
host's address. They never reach private networks (RFC 1918, shared and
link-local ones, ULA), nor this host beside DHCP and DNS, nor each other by
different ports: the bridge keeps these apart. Devices behind one access point
are kept apart by that one (client isolation). The services are given by
mobileops network serve.

An interface must have no address, since it would lose its connections.`,
		Example: `
mobileops network setup-mobile --port wlan0 --port eth1
mobileops network setup-mobile --egress 198.51.100.7:443/tcp  # the management server alone
mobileops network setup-mobile --print
`,
		Statuses: segmentStatuses("the network is there"),
		Files:    []string{segmentLinks, segmentTables, segmentsFile},
		Audited:  true,
		Run:      func(ctx context.Context, _ []string) error { return runSetupMobile(ctx, a, &opts) },
	})
	fs := cmd.Flags()
	fs.StringArrayVar(&opts.ports, "port", nil, "connect `[WORKLOAD=]INTERFACE`, which exists; may be repeated")
	fs.StringArrayVar(&opts.upstream, "upstream", nil, "ask the name server `ADDRESS` for other names; may be repeated (default those of this host)")
	completePort(a, cmd)
	opts.addFlags(a, cmd, "mobile")
	return cmd
}

func runSetupMobile(ctx context.Context, a *app.App, o *setupMobileOptions) error {
	const name = "mobile"
	zone := served(name, "10.203.0.0/24", "fd6d:6f62:696c:3::/64")
	zone.IsolatePorts = true
	d, z, err := o.current(ctx, a, name, zone, "Mobile devices under management: the internet, and nothing else")
	if err != nil {
		return err
	}
	if err := o.zone(z); err != nil {
		return err
	}
	if err := askUpstream(z, o.upstream); err != nil {
		return err
	}
	if err := o.put(d, joining(name, o.ports)); err != nil {
		return err
	}
	return o.finish(ctx, a, d)
}
