package segment

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

var (
	workloadKeys = []string{"zone", "labels", "mac", "addresses", "interface", "tap", "namespace", "pid", "container", "owner", "inside"}
	flowKeys     = []string{"from", "to", "port", "log"}
)

func (r *reader) workload(key, n *yaml.Node) {
	w := Workload{Name: key.Value}
	if err := CheckWorkloadName(w.Name); err != nil {
		r.problem(key, "%v", err)
	}
	where := "workload " + w.Name
	r.mark(key, where)
	var ways []string
	a := &w.Attach
	r.fields(n, "a workload", workloadKeys, func(key string, v *yaml.Node) {
		r.mark(v, where+" "+key)
		switch key {
		case "zone":
			w.Zone, _ = r.scalar(v, "zone")
		case "labels":
			r.entries(v, "labels", maxLabels, func(key, v *yaml.Node) {
				s, _ := r.scalar(v, "the label "+key.Value)
				l := Label{key.Value, s}
				if err := l.check(); err != nil && s != "" {
					r.problem(key, "%v", err)
				}
				w.Labels = append(w.Labels, l)
			})
		case "mac":
			if s, ok := r.scalar(v, "mac"); ok {
				if w.MAC = take(r, v, "mac", s, ParseMAC); w.MAC[0]&1 != 0 {
					r.problem(v, "mac: %s is the address of a group", w.MAC)
				}
			}
		case "addresses":
			w.Addresses = r.addrs(v, "addresses", maxSubnets)
		case "owner":
			if a.Owner, _ = r.scalar(v, "owner"); len(a.Owner) > 64 || strings.ContainsAny(a.Owner, ":/ \n") {
				r.problem(v, "owner: %q is no user", a.Owner)
			}
		case "inside":
			a.Inside = r.device(v, "inside")
		case "tap":
			if a.Tap = r.bool(v, "tap"); a.Tap {
				ways = append(ways, key)
			}
		case "interface":
			a.Interface = r.device(v, key)
			ways = append(ways, key)
		case "namespace":
			a.Namespace = r.namespace(v)
			ways = append(ways, key)
		case "pid":
			a.PID = r.number(v, "pid", 1, 1<<22)
			ways = append(ways, key)
		case "container":
			a.Container = r.container(v)
			ways = append(ways, key)
		}
	})
	switch {
	case n.Kind != yaml.MappingNode:
	case len(ways) == 0:
		r.problem(n, "the workload %q does not say how it is attached: interface, tap, namespace, pid or container", w.Name)
	case len(ways) > 1:
		r.problem(n, "the workload %q is attached in two ways: %s", w.Name, strings.Join(ways, " and "))
	}
	if a.Namespaced() && a.Inside == "" {
		a.Inside = "eth0"
	}
	sortLabels(w.Labels)
	r.doc.Workloads = append(r.doc.Workloads, w)
}

// namespace reads the name of a namespace or a path to it.
func (r *reader) namespace(n *yaml.Node) string {
	s, ok := r.scalar(n, "namespace")
	switch {
	case !ok:
	case strings.HasPrefix(s, "/"):
		if len(s) > 4095 || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' }) || slices.Contains(strings.Split(s, "/"), "..") {
			r.problem(n, "namespace: %q is no path such as /run/netns/web", s)
		}
	case len(s) > 255 || strings.Contains(s, "/") || s == "." || s == ".." || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' }):
		r.problem(n, "namespace: %q is neither a name of ip netns nor a path that begins with /", s)
	}
	return s
}

// container reads the id of a container, or the beginning of it.
func (r *reader) container(n *yaml.Node) string {
	s, ok := r.scalar(n, "container")
	if ok && (len(s) < 12 || len(s) > 64 || strings.Trim(s, "0123456789abcdef") != "") {
		r.problem(n, "container: 12 to 64 hexadecimal digits of its id, not %q", s)
	}
	return s
}

func (r *reader) flow(i int, n *yaml.Node) {
	f := Flow{Line: n.Line}
	r.mark(n, flowPlace(i))
	ends := 0
	r.fields(n, "a flow", flowKeys, func(key string, v *yaml.Node) {
		switch key {
		case "from", "to":
			ends++
			s, ok := r.scalar(v, key)
			if !ok {
				return
			}
			e := take(r, v, key, s, ParseEndpoint)
			if key == "from" {
				f.From = e
			} else {
				f.To = e
			}
		case "port":
			r.list(v, "port", 64, func(n *yaml.Node, s string) {
				f.Traffic = append(f.Traffic, take(r, n, "port", s, ParseTraffic))
			})
		case "log":
			f.Log = r.bool(v, "log")
		}
	})
	if ends < 2 && n.Kind == yaml.MappingNode {
		r.problem(n, "a flow needs from and to")
	}
	if slices.ContainsFunc(f.Traffic, func(t Traffic) bool { return t.Protocol == ProtocolAny }) {
		f.Traffic = nil
	}
	r.doc.Flows = append(r.doc.Flows, f)
}
