package segment

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/mobileops/mobileops/internal/document"
)

// YAML returns the document as a file that Parse reads, with everything that
// is not as it would be anyway. It depends on the document alone.
func (d *Document) YAML() []byte {
	top := &mapping{}
	top.raw("version", "1")
	top.put("name", d.Name)
	top.put("description", d.Description)
	top.list("internal", strs(d.Internal))
	zones := &mapping{}
	for i := range d.Zones {
		z := d.Zones[i].encode()
		zones.node.Content = append(zones.node.Content, quoted(d.Zones[i].Name), z.done(false))
	}
	top.node.Content = append(top.node.Content, quoted("zones"), zones.done(false))
	if len(d.Workloads) > 0 {
		workloads := &mapping{}
		for i := range d.Workloads {
			w := d.Workloads[i].encode()
			workloads.node.Content = append(workloads.node.Content, quoted(d.Workloads[i].Name), w.done(true))
		}
		top.node.Content = append(top.node.Content, quoted("workloads"), workloads.done(false))
	}
	var flows []*yaml.Node
	for i := range d.Flows {
		f := &d.Flows[i]
		m := &mapping{}
		m.put("from", f.From.String())
		m.put("to", f.To.String())
		m.list("port", strs(f.Traffic))
		m.flag("log", f.Log, false)
		flows = append(flows, m.done(true))
	}
	top.nodes("flows", flows, false)

	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	// A tree of words that were made here is always written.
	if err := enc.Encode(top.done(false)); err != nil {
		panic(err)
	}
	enc.Close()
	return b.Bytes()
}

func (z *Zone) encode() *mapping {
	m := &mapping{}
	if x := z.VXLAN; x != nil {
		v := &mapping{}
		v.raw("id", strconv.Itoa(int(x.ID)))
		if x.Port != 4789 {
			v.raw("port", strconv.Itoa(int(x.Port)))
		}
		v.put("device", x.Device)
		if x.Local.IsValid() {
			v.put("local", x.Local.String())
		}
		v.list("remotes", strs(x.Remotes))
		if x.Group.IsValid() {
			v.put("group", x.Group.String())
		}
		m.under("vxlan", v)
	}
	if x := z.VLAN; x != nil {
		v := &mapping{}
		v.raw("id", strconv.Itoa(int(x.ID)))
		v.put("parent", x.Parent)
		m.under("vlan", v)
	}
	var subnets, gateways []string
	usual := true
	for _, s := range z.Subnets {
		subnets = append(subnets, s.Prefix.String())
		if s.Gateway.IsValid() {
			gateways = append(gateways, s.Gateway.String())
		}
		usual = usual && s.Gateway == firstUsable(s.Prefix)
	}
	m.list("subnets", subnets)
	switch {
	case usual:
	case len(gateways) == 0:
		m.put("gateways", "none")
	default:
		m.list("gateways", gateways)
	}
	if z.MTU != 0 {
		m.raw("mtu", strconv.Itoa(z.MTU))
	}
	if z.NAT != nil {
		if z.NAT.Out != "" {
			m.put("nat", z.NAT.Out)
		} else {
			m.raw("nat", "true")
		}
	}
	switch z.Egress.Mode {
	case EgressInternet:
		m.put("egress", string(EgressInternet))
	case EgressList:
		m.list("egress", strs(z.Egress.Allow))
	}
	m.flag("isolate_ports", z.IsolatePorts, false)
	m.flag("stp", z.STP, false)
	if z.DHCP != nil {
		if d := z.DHCP.encode(); len(d.node.Content) > 0 {
			m.under("dhcp", d)
		} else {
			m.raw("dhcp", "true")
		}
	}
	if z.DNS != nil {
		m.under("dns", z.DNS.encode())
	}
	return m
}

func (d *DHCP) encode() *mapping {
	m := &mapping{}
	var ranges []string
	for _, r := range []Range{d.Range4, d.Range6} {
		if r.IsValid() {
			ranges = append(ranges, r.String())
		}
	}
	m.list("range", ranges)
	switch {
	case d.Lease == defaultLease:
	case d.Lease%time.Hour == 0:
		m.put("lease", fmt.Sprintf("%dh", d.Lease/time.Hour))
	default:
		m.put("lease", fmt.Sprintf("%ds", d.Lease/time.Second))
	}
	m.flag("router_advertisements", d.RA, true)
	var reservations []*yaml.Node
	for _, r := range d.Reservations {
		v := &mapping{}
		v.put("mac", r.MAC.String())
		v.list("addresses", strs(r.Addresses))
		v.put("hostname", r.Hostname)
		reservations = append(reservations, v.done(true))
	}
	m.nodes("reservations", reservations, false)
	o, v := &d.Options, &mapping{}
	v.list("ntp", strs(o.NTP))
	v.list("search", o.Search)
	var routes []*yaml.Node
	for _, r := range o.Routes {
		route := &mapping{}
		route.put("to", r.To.String())
		route.put("via", r.Via.String())
		routes = append(routes, route.done(true))
	}
	v.nodes("routes", routes, true)
	if o.NextServer.IsValid() {
		v.put("next_server", o.NextServer.String())
	}
	v.put("bootfile", o.Bootfile)
	if len(o.Raw) > 0 {
		raw := &mapping{}
		var codes []int
		for code := range o.Raw {
			codes = append(codes, int(code))
		}
		slices.Sort(codes)
		for _, code := range codes {
			text, _ := o.Raw[uint8(code)].MarshalText()
			raw.put(strconv.Itoa(code), string(text))
		}
		v.under("raw", raw)
	}
	if len(v.node.Content) > 0 {
		m.under("options", v)
	}
	return m
}

func (d *DNS) encode() *mapping {
	m := &mapping{}
	m.put("domain", d.Domain)
	var upstream []string
	for _, u := range d.Upstream {
		if u.Port() == 53 {
			upstream = append(upstream, u.Addr().String())
		} else {
			upstream = append(upstream, u.String())
		}
	}
	m.list("upstream", upstream)
	if len(d.Records) > 0 {
		records := &mapping{}
		for _, r := range d.Records {
			if r.Alias != "" {
				records.put(r.Name, r.Alias)
			} else {
				records.list(r.Name, strs(r.Addresses))
			}
		}
		m.under("records", records)
	}
	return m
}

func (w *Workload) encode() *mapping {
	m := &mapping{}
	m.put("zone", w.Zone)
	if len(w.Labels) > 0 {
		labels := &mapping{}
		for _, l := range w.Labels {
			labels.put(l.Key, l.Value)
		}
		m.under("labels", labels)
	}
	m.put("mac", w.MAC.String())
	m.list("addresses", strs(w.Addresses))
	a := &w.Attach
	for _, way := range [][2]string{{"interface", a.Interface}, {"namespace", a.Namespace}, {"container", a.Container}} {
		m.put(way[0], way[1])
	}
	if a.PID != 0 {
		m.raw("pid", strconv.Itoa(a.PID))
	}
	m.flag("tap", a.Tap, false)
	m.put("owner", a.Owner)
	if a.Inside != "eth0" {
		m.put("inside", a.Inside)
	}
	return m
}

// mapping is a YAML mapping that is being made.
type mapping struct{ node yaml.Node }

func (m *mapping) done(inline bool) *yaml.Node {
	m.node.Kind = yaml.MappingNode
	if inline {
		m.node.Style = yaml.FlowStyle
	}
	return &m.node
}

func (m *mapping) set(key string, value *yaml.Node) {
	m.node.Content = append(m.node.Content, quoted(key), value)
}

// put adds a text, unless it is empty.
func (m *mapping) put(key, value string) {
	if value != "" {
		m.set(key, quoted(value))
	}
}

// raw adds a number, true or false.
func (m *mapping) raw(key, value string) {
	m.set(key, &yaml.Node{Kind: yaml.ScalarNode, Value: value})
}

// flag adds what is not as usual.
func (m *mapping) flag(key string, value, usual bool) {
	if value != usual {
		m.raw(key, strconv.FormatBool(value))
	}
}

func (m *mapping) under(key string, v *mapping) { m.set(key, v.done(true)) }

// list adds words in one line, unless there are none.
func (m *mapping) list(key string, values []string) {
	var nodes []*yaml.Node
	for _, v := range values {
		nodes = append(nodes, quoted(v))
	}
	m.nodes(key, nodes, true)
}

func (m *mapping) nodes(key string, nodes []*yaml.Node, inline bool) {
	if len(nodes) == 0 {
		return
	}
	n := &yaml.Node{Kind: yaml.SequenceNode, Content: nodes}
	if inline {
		n.Style = yaml.FlowStyle
	}
	m.set(key, n)
}

// quoted is a text, in quotes when YAML would take it for something else.
func quoted(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
}

func strs[T fmt.Stringer](list []T) (out []string) {
	for _, v := range list {
		out = append(out, v.String())
	}
	return out
}

// Check reads a document that a program has put together as if it had been
// written into a file, and returns it as it was read. The error is that of
// Parse, without places.
func (d *Document) Check() (*Document, error) {
	out, err := Parse(d.Name, d.YAML())
	var wrong *document.Error
	if errors.As(err, &wrong) {
		for _, p := range wrong.Problems {
			p.File, p.Line, p.Column = "document "+d.Name, 0, 0
		}
	}
	return out, err
}
