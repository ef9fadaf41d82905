package serve

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/network/segment"
	"github.com/mobileops/mobileops/internal/network/segment/dhcp"
	"github.com/mobileops/mobileops/internal/network/segment/dns"
)

// LeaseFile is where the leases of a zone are, in a directory for those of all
// zones.
func LeaseFile(dir, zone string) string { return filepath.Join(dir, zone+".leases") }

// Zones returns what the zones of a layout ask for; nil: nothing was applied.
// Dir is the directory of leases.
func Zones(l *segment.Layout, dir string) []Zone {
	if l == nil {
		return nil
	}
	var list []Zone
	for i := range l.Zones {
		z := &l.Zones[i]
		if z.DHCP == nil && z.DNS == nil {
			continue
		}
		out := Zone{Name: z.Name, Interface: z.Bridge}
		if z.DHCP != nil {
			out.DHCP = dhcpConfig(l, z, dir)
		}
		if z.DNS != nil {
			out.DNS = dnsConfig(l, z)
			if len(out.DNS.Listen) == 0 {
				out.DNS = nil
			}
		}
		list = append(list, out)
	}
	return list
}

// dhcpConfig is what the DHCP server of a zone needs.
func dhcpConfig(l *segment.Layout, z *segment.ZoneLayout, dir string) *dhcp.Config {
	d := z.DHCP
	c := &dhcp.Config{
		Interface: z.Bridge, Advertise: d.RA, Lease: d.Lease, File: LeaseFile(dir, z.Name),
		Pool: dhcp.Range(d.Range4), Pool6: dhcp.Range(d.Range6),
		Options: dhcp.Options{Router: true, MTU: z.LinkMTU, NTP: d.Options.NTP, Search: d.Options.Search, NextServer: d.Options.NextServer, Bootfile: d.Options.Bootfile},
		Names:   []string{"gateway", "localhost", "wpad", "isatap"},
	}
	for _, s := range z.Subnets {
		switch {
		case !s.Gateway.IsValid():
		case s.Gateway.Is6():
			c.Gateway6 = append(c.Gateway6, netip.PrefixFrom(s.Gateway, s.Prefix.Bits()))
		case !c.Gateway.IsValid() || s.Prefix.Contains(d.Range4.First):
			c.Gateway = netip.PrefixFrom(s.Gateway, s.Prefix.Bits())
		}
	}
	if z.DNS != nil {
		c.DNS, c.Domain = gateways(z), z.DNS.Domain
		for _, r := range z.DNS.Records {
			if label := labelIn(r.Name, z.DNS.Domain); label != "" {
				c.Names = append(c.Names, label)
			}
		}
	}
	for _, r := range d.Options.Routes {
		c.Routes = append(c.Routes, dhcp.Route(r))
	}
	if len(d.Options.Raw) > 0 {
		c.Raw = map[uint8][]byte{}
		for code, value := range d.Options.Raw {
			c.Raw[code] = value
		}
	}
	for _, r := range d.Reservations {
		// A subnet of another gateway cannot be served by this one.
		addrs := slices.DeleteFunc(slices.Clone(r.Addresses), func(a netip.Addr) bool { return a.Is4() && !c.Gateway.Masked().Contains(a) })
		c.Reservations = append(c.Reservations, dhcp.Reservation{MAC: dhcp.MAC(r.MAC), Addresses: addrs, Name: label(r.Hostname)})
	}
	for _, p := range l.Ports {
		if p.Zone != z.Name {
			continue
		}
		if n := label(p.Name); n != "" && !slices.ContainsFunc(c.Reservations, func(r dhcp.Reservation) bool { return r.Name == n }) {
			c.Names = append(c.Names, n)
		}
		for _, a := range p.Addr {
			if !slices.ContainsFunc(c.Reservations, func(r dhcp.Reservation) bool { return slices.Contains(r.Addresses, a) }) {
				c.Exclude = append(c.Exclude, a)
			}
		}
	}
	return c
}

// dnsConfig is what the resolver of a zone needs.
func dnsConfig(l *segment.Layout, z *segment.ZoneLayout) *dns.Config {
	c := &dns.Config{
		Interface: z.Bridge, Listen: gateways(z), Domain: z.DNS.Domain, Upstream: z.DNS.Upstream,
		Records: map[string][]netip.Addr{"gateway": gateways(z)}, Aliases: map[string]string{},
		Clients: []netip.Prefix{netip.MustParsePrefix("fe80::/10")},
	}
	for _, s := range z.Subnets {
		c.Clients = append(c.Clients, s.Prefix)
	}
	for i := range l.Zones {
		if other := &l.Zones[i]; other != z && other.DNS != nil && other.DNS.Domain != z.DNS.Domain {
			c.Foreign = append(c.Foreign, other.DNS.Domain)
		}
	}
	if z.DHCP != nil {
		for _, r := range z.DHCP.Reservations {
			if n := label(r.Hostname); n != "" {
				c.Records[n] = r.Addresses
			}
		}
	}
	for _, p := range l.Ports {
		if n := label(p.Name); p.Zone == z.Name && n != "" && len(p.Addr) > 0 {
			c.Records[n] = p.Addr
		}
	}
	for _, r := range z.DNS.Records {
		if r.Alias != "" {
			c.Aliases[r.Name] = r.Alias
		} else {
			c.Records[r.Name] = r.Addresses
		}
	}
	return c
}

// gateways are the addresses of this host in a zone.
func gateways(z *segment.ZoneLayout) (list []netip.Addr) {
	for _, s := range z.Subnets {
		if s.Gateway.IsValid() {
			list = append(list, s.Gateway)
		}
	}
	return list
}

// label returns a name as one label of DNS, "" when it is none.
func label(name string) string {
	name = strings.ToLower(name)
	if len(name) > 63 || name == "" || name[0] == '-' || name[len(name)-1] == '-' {
		return ""
	}
	for _, ch := range name {
		if (ch < 'a' || ch > 'z') && (ch < '0' || ch > '9') && ch != '-' {
			return ""
		}
	}
	return name
}

// labelIn returns the first label of a name when it is directly in a domain.
func labelIn(name, domain string) string {
	if n, ok := strings.CutSuffix(name, "."+domain); ok {
		name = n
	}
	if strings.Contains(name, ".") {
		return ""
	}
	return name
}
