package segment

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/mobileops/mobileops/internal/document"
)

var (
	zoneKeys        = []string{"vxlan", "vlan", "subnets", "gateways", "mtu", "nat", "egress", "isolate_ports", "stp", "dhcp", "dns"}
	vxlanKeys       = []string{"id", "port", "device", "local", "remotes", "group"}
	vlanKeys        = []string{"id", "parent"}
	dhcpKeys        = []string{"range", "lease", "router_advertisements", "reservations", "options"}
	reservationKeys = []string{"mac", "addresses", "hostname"}
	optionKeys      = []string{"ntp", "search", "routes", "next_server", "bootfile", "raw"}
	routeKeys       = []string{"to", "via"}
	dnsKeys         = []string{"domain", "upstream", "records"}
)

func (r *reader) zone(key, n *yaml.Node) {
	z := Zone{Name: key.Value, Egress: Egress{Mode: EgressNone}}
	if err := CheckZoneName(z.Name); err != nil {
		r.problem(key, "%v", err)
	}
	where := "zone " + z.Name
	r.mark(key, where)
	var gateways *yaml.Node
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		n = &yaml.Node{Kind: yaml.MappingNode, Line: n.Line, Column: n.Column} // "lab:" alone is a bridge and nothing else
	}
	r.fields(n, "a zone", zoneKeys, func(key string, v *yaml.Node) {
		r.mark(v, where+" "+key)
		switch key {
		case "vxlan":
			z.VXLAN = r.vxlan(v)
		case "vlan":
			z.VLAN = new(VLAN)
			r.fields(v, "vlan", vlanKeys, func(key string, v *yaml.Node) {
				switch key {
				case "id":
					z.VLAN.ID = uint16(r.number(v, "the id of a VLAN", 1, 4094))
				case "parent":
					z.VLAN.Parent = r.device(v, "parent")
				}
			})
		case "subnets":
			r.list(v, "subnets", maxSubnets, func(n *yaml.Node, s string) {
				if p := take(r, n, "subnets", s, ParseNetwork); p.IsValid() {
					z.Subnets = append(z.Subnets, Subnet{Prefix: p})
				}
			})
		case "gateways":
			gateways = v // after the subnets, wherever those stand
		case "mtu":
			z.MTU = r.number(v, "mtu", 576, 65535)
		case "nat":
			z.NAT = r.nat(v)
		case "egress":
			z.Egress = r.egress(v)
		case "isolate_ports":
			z.IsolatePorts = r.bool(v, "isolate_ports")
		case "stp":
			z.STP = r.bool(v, "stp")
		case "dhcp":
			z.DHCP = r.dhcp(v, where)
		case "dns":
			z.DNS = r.dns(v, where)
		}
	})
	r.gateways(gateways, &z)
	r.doc.Zones = append(r.doc.Zones, z)
}

// gateways gives each subnet its address of this host: the first one, unless
// the document says something else.
func (r *reader) gateways(n *yaml.Node, z *Zone) {
	if n == nil {
		for i := range z.Subnets {
			z.Subnets[i].Gateway = firstUsable(z.Subnets[i].Prefix)
		}
		return
	}
	if n.Kind == yaml.ScalarNode && n.Value == "none" {
		return
	}
	for _, a := range r.addrs(n, "gateways", maxSubnets) {
		i := slices.IndexFunc(z.Subnets, func(s Subnet) bool { return s.Prefix.Contains(a) })
		switch {
		case i < 0:
			r.problem(n, "the gateway %s is in no subnet of the zone", a)
		case !usable(z.Subnets[i].Prefix, a):
			r.problem(n, "the gateway %s is the address of the network %s itself, or its broadcast address", a, z.Subnets[i].Prefix)
		case z.Subnets[i].Gateway.IsValid():
			r.problem(n, "%s has two gateways: %s and %s", z.Subnets[i].Prefix, z.Subnets[i].Gateway, a)
		default:
			z.Subnets[i].Gateway = a
		}
	}
}

func (r *reader) vxlan(n *yaml.Node) *VXLAN {
	x := &VXLAN{Port: 4789}
	r.fields(n, "vxlan", vxlanKeys, func(key string, v *yaml.Node) {
		switch key {
		case "id":
			x.ID = uint32(r.number(v, "the id of a VXLAN", 1, 1<<24-1))
		case "port":
			x.Port = uint16(r.number(v, "the port of a VXLAN", 1, 65535))
		case "device":
			x.Device = r.device(v, "device")
		case "local":
			x.Local = r.addr(v, "local")
		case "remotes":
			x.Remotes = r.addrs(v, "remotes", maxRemotes)
		case "group":
			if x.Group = r.addr(v, "group"); x.Group.IsValid() && !x.Group.IsMulticast() {
				r.problem(v, "the group %s is no multicast address; other hosts stand under remotes", x.Group)
			}
		}
	})
	return x
}

func (r *reader) nat(n *yaml.Node) *NAT {
	s, ok := r.scalar(n, "nat")
	switch {
	case !ok || s == "false":
		return nil
	case s == "true":
		return &NAT{}
	}
	if err := checkInterface(s); err != nil {
		r.problem(n, "nat is true, false or the interface that leads out: %v", err)
	}
	return &NAT{Out: s}
}

func (r *reader) egress(n *yaml.Node) Egress {
	if n.Kind == yaml.ScalarNode {
		switch mode := EgressMode(n.Value); mode {
		case EgressNone, EgressInternet:
			return Egress{Mode: mode}
		}
		if word(n.Value, "", 63) && strings.Trim(n.Value, "0123456789") != "" {
			r.problem(n, "egress is none, internet or a list of networks, not %q%s", n.Value, document.DidYouMean(n.Value, []string{"none", "internet"}))
			return Egress{}
		}
	}
	e := Egress{Mode: EgressList}
	r.list(n, "egress", maxTargets, func(n *yaml.Node, s string) {
		e.Allow = append(e.Allow, take(r, n, "egress", s, ParseTarget))
	})
	if len(e.Allow) == 0 {
		e.Mode = EgressNone
	}
	return e
}

// span reads a duration: a number with s, m, h or d.
func (r *reader) span(n *yaml.Node, what string, least, most time.Duration) time.Duration {
	s, ok := r.scalar(n, what)
	if !ok {
		return 0
	}
	text, days := strings.CutSuffix(s, "d")
	if days {
		text += "h"
	}
	d, err := time.ParseDuration(text)
	if days && d < 1<<40*time.Microsecond {
		d *= 24
	}
	if err != nil || d < least || d > most || d%time.Second != 0 {
		r.problem(n, "%s is a span from %s to %s such as 30m, 12h or 7d, not %q", what, least, most, s)
		return 0
	}
	return d
}

// defaultLease is how long leases last when a document does not say it.
const defaultLease = time.Hour

func (r *reader) dhcp(n *yaml.Node, where string) *DHCP {
	d := &DHCP{Lease: defaultLease, RA: true}
	if n.Kind == yaml.ScalarNode && (n.Value == "true" || n.Value == "false") {
		if n.Value == "false" {
			return nil
		}
		return d
	}
	r.fields(n, "dhcp", dhcpKeys, func(key string, v *yaml.Node) {
		switch key {
		case "range":
			r.list(v, "range", 2, func(n *yaml.Node, s string) {
				span := take(r, n, "range", s, parseRange)
				if !span.IsValid() {
					return
				}
				to := &d.Range4
				if span.First.Is6() {
					to = &d.Range6
				}
				if to.IsValid() {
					r.problem(n, "range: one of each family")
				}
				*to = span
			})
		case "lease":
			d.Lease = r.span(v, "lease", 2*time.Minute, 30*24*time.Hour)
		case "router_advertisements":
			d.RA = r.bool(v, "router_advertisements")
		case "reservations":
			r.mark(v, where+" reservations")
			r.items(v, "reservations", maxReservations, func(_ int, n *yaml.Node) { d.Reservations = append(d.Reservations, r.reservation(n)) })
		case "options":
			r.options(v, &d.Options)
		}
	})
	return d
}

func (r *reader) reservation(n *yaml.Node) (v Reservation) {
	r.fields(n, "a reservation", reservationKeys, func(key string, n *yaml.Node) {
		switch key {
		case "mac":
			if s, ok := r.scalar(n, "mac"); ok {
				v.MAC = take(r, n, "mac", s, ParseMAC)
			}
		case "addresses":
			v.Addresses = r.addrs(n, "addresses", 2)
		case "hostname":
			s, ok := r.scalar(n, "hostname")
			if ok && !word(s, "-", 63) {
				r.problem(n, "hostname: lower-case letters, digits and - make it, not %q", s)
			}
			v.Hostname = s
		}
	})
	if n.Kind == yaml.MappingNode && (v.MAC.IsZero() || len(v.Addresses) == 0) {
		r.problem(n, "a reservation needs mac and addresses")
	}
	return v
}

func (r *reader) options(n *yaml.Node, o *DHCPOptions) {
	r.fields(n, "options", optionKeys, func(key string, v *yaml.Node) {
		switch key {
		case "ntp":
			o.NTP = r.addrs(v, "ntp", 16)
		case "search":
			r.list(v, "search", 16, func(n *yaml.Node, s string) {
				if err := checkDomain(s); err != nil {
					r.problem(n, "search: %v", err)
				}
				o.Search = append(o.Search, s)
			})
		case "routes":
			r.items(v, "routes", 64, func(_ int, n *yaml.Node) {
				var route StaticRoute
				r.fields(n, "a route", routeKeys, func(key string, v *yaml.Node) {
					switch key {
					case "to":
						if s, ok := r.scalar(v, "to"); ok {
							route.To = take(r, v, "to", s, ParseNetwork)
						}
					case "via":
						route.Via = r.addr(v, "via")
					}
				})
				if !route.To.IsValid() || !route.Via.IsValid() || route.To.Addr().Is6() || route.Via.Is6() {
					r.problem(n, "a route needs to and via, both of IPv4")
				}
				o.Routes = append(o.Routes, route)
			})
		case "next_server":
			if o.NextServer = r.addr(v, "next_server"); o.NextServer.Is6() {
				r.problem(v, "next_server is of IPv4")
			}
		case "bootfile":
			if o.Bootfile, _ = r.scalar(v, "bootfile"); len(o.Bootfile) > 255 {
				r.problem(v, "bootfile: more than 255 bytes")
			}
		case "raw":
			r.rawOptions(v, o)
		}
	})
}

// managed are options of DHCPv4 that the service answers for itself.
var managed = []uint8{0, 1, 3, 6, 12, 15, 26, 42, 50, 51, 52, 53, 54, 55, 57, 58, 59, 61, 67, 82, 119, 121, 255}

func (r *reader) rawOptions(n *yaml.Node, o *DHCPOptions) {
	o.Raw = map[uint8]HexData{}
	r.entries(n, "raw", 64, func(key, v *yaml.Node) {
		code := uint8(r.number(key, "the number of an option", 1, 254))
		if slices.Contains(managed, code) {
			r.problem(key, "option %d is made by the service itself", code)
		}
		var data HexData
		if s, ok := r.scalar(v, "an option"); ok {
			if err := data.UnmarshalText([]byte(s)); err != nil || len(data) == 0 || len(data) > 255 {
				r.problem(v, "option %d: 1 to 255 bytes as hexadecimal digits, not %q", code, s)
			}
		}
		o.Raw[code] = data
	})
}

func (r *reader) dns(n *yaml.Node, where string) *DNS {
	d := new(DNS)
	r.fields(n, "dns", dnsKeys, func(key string, v *yaml.Node) {
		switch key {
		case "domain":
			if s, ok := r.scalar(v, "domain"); ok {
				if err := checkDomain(s); err != nil {
					r.problem(v, "domain: %v", err)
				}
				d.Domain = s
			}
		case "upstream":
			r.list(v, "upstream", 16, func(n *yaml.Node, s string) {
				if to, err := netip.ParseAddrPort(s); err == nil && to.Port() != 0 && to.Addr().Zone() == "" && !to.Addr().Is4In6() {
					d.Upstream = append(d.Upstream, to)
				} else if a := take(r, n, "upstream", s, parseAddr); a.IsValid() {
					d.Upstream = append(d.Upstream, netip.AddrPortFrom(a, 53))
				}
			})
		case "records":
			r.entries(v, "records", maxRecords, func(key, v *yaml.Node) { r.record(key, v, d) })
		}
	})
	if n.Kind == yaml.MappingNode && d.Domain == "" {
		r.problem(n, "dns needs a domain, such as %s.internal", strings.TrimPrefix(where, "zone "))
	}
	return d
}

func (r *reader) record(key, v *yaml.Node, d *DNS) {
	rec := Record{Name: key.Value}
	if err := checkDomain(strings.TrimPrefix(rec.Name, "*.")); err != nil {
		r.problem(key, "records: %v", err)
	}
	if v.Kind == yaml.ScalarNode && v.Tag == "!!str" {
		if _, err := netip.ParseAddr(v.Value); err != nil {
			rec.Alias = strings.TrimSuffix(v.Value, ".")
			if err := checkDomain(rec.Alias); err != nil {
				r.problem(v, "records: %q is no address and no domain name in lower case", v.Value)
			}
			d.Records = append(d.Records, rec)
			return
		}
	}
	if rec.Addresses = r.addrs(v, "records", 64); len(rec.Addresses) == 0 && v.Kind == yaml.SequenceNode {
		r.problem(v, "records: %q has no address", rec.Name)
	}
	d.Records = append(d.Records, rec)
}
