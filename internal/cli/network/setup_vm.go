package network

import (
	"context"
	"net/netip"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/network/addresses"
	"github.com/mobileops/mobileops/internal/network/segment"
	"github.com/spf13/cobra"
)

type setupVMOptions struct {
	presetOptions
	taps, ports, upstream []string
	owner                 string
}

func newSetupVM(a *app.App) *cobra.Command {
	var opts setupVMOptions
	cmd := a.Command(app.Spec{
		Use:   "setup-vm [--tap NAME[=MAC]]... [--port INTERFACE]... [flags]",
		Short: "Make a network for virtual machines, with DHCP and DNS",
		Long: `Make a network for virtual machines, with DHCP and DNS.

The bridge mo-vm (10.202.0.0/24 and fd6d:6f62:696c:2::/64) is for machines that
get their address by DHCP and ask this host for names. They reach the internet
with this host's address, and neither each other, nor this host, nor private
networks. --tap makes a tap for a machine, called mo-p-NAME, which the hypervisor
is told (qemu: -netdev tap,ifname=mo-p-NAME,script=no,downscript=no); --port
takes an interface that it has made itself. The services are given by mobileops
network serve.`,
		Example: `
mobileops network setup-vm --tap build=52:54:00:00:00:09 --owner libvirt-qemu
mobileops network setup-vm --port vnet0
mobileops network setup-vm --egress 0.0.0.0/0:443/tcp --egress '[::/0]:443/tcp'
`,
		Statuses: segmentStatuses("the network is there"),
		Files:    []string{segmentLinks, segmentTables, segmentsFile},
		Audited:  true,
		Run:      func(ctx context.Context, _ []string) error { return runSetupVM(ctx, a, &opts) },
	})
	fs := cmd.Flags()
	fs.StringArrayVar(&opts.taps, "tap", nil, "make a tap for the machine `NAME[=MAC]`; may be repeated")
	fs.StringArrayVar(&opts.ports, "port", nil, "connect `[WORKLOAD=]INTERFACE`, which exists; may be repeated")
	fs.StringVar(&opts.owner, "owner", "", "the `USER` who may open the taps that are named here (default root)")
	fs.StringArrayVar(&opts.upstream, "upstream", nil, "ask the name server `ADDRESS` for other names; may be repeated (default those of this host)")
	fs.StringArrayVar(&opts.labels, "label", nil, "`KEY=VALUE` by which flows speak of those that are named here; may be repeated")
	completePort(a, cmd)
	opts.addFlags(a, cmd, "vm")
	return cmd
}

// served is a zone with DHCP and DNS.
func served(name, v4, v6 string) segment.Zone {
	return segment.Zone{Name: name, Subnets: subnets(v4, v6), NAT: &segment.NAT{}, Egress: segment.Egress{Mode: segment.EgressInternet},
		DHCP: &segment.DHCP{Lease: time.Hour, RA: true}, DNS: &segment.DNS{Domain: name + ".internal", Upstream: resolvers()}}
}

// resolvers are the name servers of this host.
func resolvers() (list []netip.AddrPort) {
	for _, addr := range addresses.NameServers(addresses.ResolvConf()) {
		if to := netip.AddrPortFrom(addr, 53); len(list) < 16 && addr.Zone() == "" {
			list = append(list, to)
		}
	}
	return list
}

// askUpstream changes who is asked for names of others.
func askUpstream(z *segment.Zone, list []string) error {
	if len(list) == 0 || z.DNS == nil {
		return nil
	}
	z.DNS.Upstream = nil
	for _, s := range list {
		to, err := netip.ParseAddrPort(s)
		if addr, aerr := netip.ParseAddr(s); aerr == nil {
			to, err = netip.AddrPortFrom(addr, 53), nil
		}
		if err != nil {
			return app.UsageError("bad value %q for --upstream: an address such as 192.0.2.53", s)
		}
		z.DNS.Upstream = append(z.DNS.Upstream, to)
	}
	return nil
}

func runSetupVM(ctx context.Context, a *app.App, o *setupVMOptions) error {
	const name = "vm"
	if o.owner != "" && len(o.taps) == 0 {
		return app.UsageError("--owner is for taps that are named: add --tap NAME")
	}
	var list []segment.Workload
	for _, text := range o.taps {
		w := segment.Workload{Zone: name, Attach: segment.Attach{Tap: true, Owner: o.owner}}
		var mac string
		if w.Name, mac = named(text, func(v string) string { return v }); mac != w.Name {
			m, err := segment.ParseMAC(mac)
			if err != nil {
				return app.UsageError("bad value %q for --tap: %v", text, err)
			}
			w.MAC = m
		}
		list = append(list, w)
	}
	list = append(list, joining(name, o.ports)...)
	d, z, err := o.current(ctx, a, name, served(name, "10.202.0.0/24", "fd6d:6f62:696c:2::/64"), "Virtual machines, each apart from the others")
	if err != nil {
		return err
	}
	if err := o.zone(z); err != nil {
		return err
	}
	if err := askUpstream(z, o.upstream); err != nil {
		return err
	}
	if err := o.put(d, list); err != nil {
		return err
	}
	return o.finish(ctx, a, d)
}

// joining are workloads behind interfaces that exist.
func joining(zone string, ports []string) (list []segment.Workload) {
	for _, text := range ports {
		name, device := named(text, workloadName)
		list = append(list, segment.Workload{Name: name, Zone: zone, Attach: segment.Attach{Interface: device}})
	}
	return list
}
