package network

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/network/monitor"
	"github.com/mobileops/mobileops/internal/ui"
)

// monitorPrinter prints one snapshot as tables.
type monitorPrinter struct {
	snap     *monitor.Snapshot
	parts    monitor.Parts
	named    bool // parts were asked for by name
	filtered bool
	live     bool // on a screen that has so many lines and no more
}

// section is a table, or what is said in place of one without rows.
type section struct {
	flag  string // what shows it whole
	none  string // what is said when there are no rows
	rows  int
	print func(s *ui.Streams, rows int) error
}

// print prints what was asked for in so many lines; 0: all of it.
func (p *monitorPrinter) print(s *ui.Streams, lines int) error {
	var head bytes.Buffer
	p.head(&head, s)
	used := bytes.Count(head.Bytes(), []byte("\n"))
	if _, err := head.WriteTo(s.Out); err != nil {
		return err
	}
	var list []section
	if p.parts.Interfaces {
		list = append(list, p.interfaces(), p.bridges())
	}
	if p.parts.Routes {
		list = append(list, p.routes())
	}
	if p.parts.Listeners {
		list = append(list, p.listeners())
	}
	if p.parts.Flows {
		list = append(list, p.flows())
	}
	list = slices.DeleteFunc(list, func(x section) bool { return x.rows == 0 && x.none == "" })
	room := make([]int, len(list))
	for i := range list {
		room[i] = list[i].rows
	}
	if lines > 0 {
		room = allot(room, lines-used-2*len(list)) // a blank line and the titles of each
	}
	for i := range list {
		x := &list[i]
		if i > 0 || used > 0 {
			fmt.Fprintln(s.Out)
		}
		if x.rows == 0 {
			fmt.Fprintln(s.Out, s.Theme().Faint(x.none))
			continue
		}
		shown := room[i]
		if shown < x.rows && shown > 0 {
			shown-- // for the line that says so
		}
		if shown > 0 {
			if err := x.print(s, shown); err != nil {
				return err
			}
		}
		if shown < x.rows {
			fmt.Fprintln(s.Out, s.Theme().Faint(fmt.Sprintf("… %s more (--%s)", ui.Count(int64(x.rows-shown)), x.flag)))
		}
	}
	return s.WriteError()
}

// allot divides lines among tables: each gets what it needs while there is
// enough, and the largest give first.
func allot(need []int, lines int) []int {
	got := slices.Clone(need)
	for total := 0; ; total = 0 {
		largest := 0
		for i, n := range got {
			total += n
			if n > got[largest] {
				largest = i
			}
		}
		if total <= max(lines, 0) || len(got) == 0 || got[largest] == 0 {
			return got
		}
		got[largest]--
	}
}

// head is what stands above the tables: of when it is, what is in force and, on
// a screen, what could not be seen.
func (p *monitorPrinter) head(w *bytes.Buffer, s *ui.Streams) {
	theme := s.Theme()
	if p.live || p.snap.Seconds > 0 {
		fmt.Fprintln(w, theme.Heading(p.snap.Time.Local().Format(time.DateTime)))
	}
	for _, f := range p.snap.Force {
		text := f.Name + ": " + f.Detail
		if !f.Until.IsZero() {
			text += ", which ends at " + f.Until.Local().Format(time.TimeOnly)
		}
		if f.Dropped > 0 {
			text += ", " + ui.Plural(int64(f.Dropped), "packet", "packets") + " dropped"
		}
		fmt.Fprintln(w, theme.Warn(ui.Escape(text)))
	}
	if p.live {
		for _, m := range p.snap.Missing {
			fmt.Fprintln(w, theme.Warn("not seen: "+ui.Escape(m.Why)))
		}
	}
	if slices.ContainsFunc(p.snap.Flows, func(f monitor.Flow) bool { return f.CountedBy == "" }) {
		text := "bytes are counted of some flows only, by sockets of TCP"
		if p.snap.Tracking.Connections && !p.snap.Tracking.Bytes {
			text += " (of all that begin from then on: sysctl -w net.netfilter.nf_conntrack_acct=1)"
		}
		if !p.live { // a screen cuts its lines, and counts them
			text = folded(s, text)
		}
		fmt.Fprintln(w, theme.Faint(text))
	}
}

// amounts are the columns of bytes: in both directions and what passes in a
// second, which the first snapshot has none of. On a screen, the sum has to do.
func (p *monitorPrinter) amounts() []ui.Column {
	list := []ui.Column{{Title: "RECEIVED", Right: true, Drop: 2}, {Title: "SENT", Right: true, Drop: 2}}
	if p.live {
		list = []ui.Column{{Title: "TOTAL", Right: true, Drop: 6}}
	}
	if p.snap.Seconds > 0 {
		list = append(list, ui.Column{Title: "IN", Right: true, Drop: 2}, ui.Column{Title: "OUT", Right: true, Drop: 2})
	}
	return list
}

// amount is a row of these columns; received is nil when nobody counts.
func (p *monitorPrinter) amount(received, sent *uint64, r *monitor.Rate) []any {
	size := func(n uint64) string { return ui.Bytes(int64(min(n, 1<<62))) }
	perSecond := func(n float64) string { return ui.Bytes(int64(n)) + "/s" }
	cells := []any{"", "", "", ""}
	if received != nil {
		cells[0], cells[1] = size(*received), size(*sent)
	}
	if r != nil {
		cells[2], cells[3] = perSecond(r.In), perSecond(r.Out)
	}
	if p.live {
		cells = cells[1:]
		if received != nil {
			cells[0] = size(*received + *sent)
		}
	}
	return cells
}

// peer names who is at the other end of a cable.
func peer(p *monitor.Peer) string {
	if p == nil {
		return ""
	}
	var words []string
	switch {
	case p.Container != "":
		words = append(words, "container "+p.Container[:min(12, len(p.Container))])
	case p.Namespace != "":
		words = append(words, p.Namespace)
	case p.PID != 0:
		words = append(words, p.Process+"/"+strconv.Itoa(p.PID))
	}
	if p.Name != "" {
		words = append(words, p.Name)
	}
	return strings.Join(words, " ")
}

// programs names the processes that have a socket open.
func programs(list []monitor.Process, inode uint64) string {
	if len(list) == 0 {
		if inode == 0 {
			return ""
		}
		return "?"
	}
	first := &list[0]
	text := first.Name + "/" + strconv.Itoa(first.PID)
	if first.Container != "" {
		text += " container " + first.Container[:min(12, len(first.Container))]
	} else if unit := strings.TrimSuffix(first.Unit, ".service"); unit != "" && unit != first.Name {
		text += " " + first.Unit
	}
	if len(list) > 1 {
		text += fmt.Sprintf(" +%d", len(list)-1)
	}
	return text
}

func (p *monitorPrinter) interfaces() section {
	list := p.snap.Interfaces
	return section{"interfaces", "no interfaces", len(list), func(s *ui.Streams, rows int) error {
		theme := s.Theme()
		t := s.NewTable(append([]ui.Column{{Title: "INTERFACE", Min: 8}, {Title: "STATE"}, {Title: "KIND", Drop: 4}, {Title: "ADDRESSES", Min: 11},
			{Title: "BEHIND", Min: 10, Drop: 3}, {Title: "LOST", Right: true, Drop: 5}}, p.amounts()...)...)
		for i := range list[:rows] {
			n := &list[i]
			state := ui.Cell{Text: n.State}
			switch {
			case !n.Up:
				state = ui.Cell{Text: "off", Style: theme.Faint}
			case n.State == "up":
				state.Style = theme.Good
			case n.State != "unknown":
				state.Style = theme.Warn
			}
			var addresses []string
			for _, a := range n.Addresses {
				if a.Scope == "global" || n.Kind == "loopback" {
					addresses = append(addresses, a.Prefix.String())
				}
			}
			behind := peer(n.Peer)
			if n.Master != "" {
				behind = strings.TrimSpace("port of " + n.Master + " " + behind)
			}
			c, lost := n.Counters, ""
			if bad := c.ReceivedErrors + c.ReceivedDropped + c.SentErrors + c.SentDropped; bad > 0 {
				lost = ui.Count(int64(bad))
			}
			t.Row(append([]any{n.Name, state, n.Kind, strings.Join(addresses, " "), behind, lost}, p.amount(&c.ReceivedBytes, &c.SentBytes, n.Rate)...)...)
		}
		return t.Print()
	}}
}

func (p *monitorPrinter) bridges() section {
	type row struct {
		bridge *monitor.Bridge
		port   *monitor.Port // nil: it has none
	}
	var list []row
	for i := range p.snap.Bridges {
		b := &p.snap.Bridges[i]
		for k := range b.Ports {
			list = append(list, row{b, &b.Ports[k]})
		}
		if len(b.Ports) == 0 {
			list = append(list, row{b, nil})
		}
	}
	return section{"interfaces", "", len(list), func(s *ui.Streams, rows int) error {
		theme := s.Theme()
		t := s.NewTable(ui.Column{Title: "BRIDGE", Min: 8}, ui.Column{Title: "STP", Drop: 5}, ui.Column{Title: "HOSTS", Right: true, Drop: 4}, ui.Column{Title: "PORT", Min: 8},
			ui.Column{Title: "STATE", Drop: 1}, ui.Column{Title: "ISOLATED"}, ui.Column{Title: "MACS", Right: true, Drop: 3}, ui.Column{Title: "BEHIND", Min: 10, Drop: 2})
		for _, r := range list[:rows] {
			if r.port == nil {
				t.Row(r.bridge.Name, r.bridge.STP, r.bridge.Neighbours, ui.Cell{Text: "no ports", Style: theme.Faint})
				continue
			}
			isolated := ui.Cell{Text: "no"}
			if r.port.Isolated {
				isolated = ui.Cell{Text: "yes", Style: theme.Good}
			}
			t.Row(r.bridge.Name, r.bridge.STP, r.bridge.Neighbours, r.port.Name, r.port.State, isolated, r.port.Learned, peer(r.port.Peer))
		}
		return t.Print()
	}}
}

func (p *monitorPrinter) routes() section {
	var list []*monitor.Route
	for i := range p.snap.Routes {
		// Those of the host's own addresses follow from the addresses.
		r := &p.snap.Routes[i]
		implied := r.TableName == "local" || r.Protocol == "kernel" && r.Destination.Addr().IsLinkLocalUnicast() || r.Type == "multicast" || r.Type == "anycast"
		if p.named || !implied {
			list = append(list, r)
		}
	}
	return section{"routes", "no routes", len(list), func(s *ui.Streams, rows int) error {
		t := s.NewTable(ui.Column{Title: "ROUTE", Min: 12}, ui.Column{Title: "VIA", Min: 10}, ui.Column{Title: "INTERFACE", Min: 9}, ui.Column{Title: "SOURCE", Drop: 2},
			ui.Column{Title: "METRIC", Right: true, Drop: 3}, ui.Column{Title: "TABLE", Min: 5, Drop: 1}, ui.Column{Title: "BY", Drop: 4})
		for _, r := range list[:rows] {
			to := r.Destination.String()
			if r.Default {
				to = "default " + map[bool]string{true: "IPv4", false: "IPv6"}[r.Destination.Addr().Is4()]
			}
			var via, device []string
			for _, h := range r.Hops {
				via, device = append(via, cmp.Or(h.Gateway, "-")), append(device, h.Interface)
			}
			hops := strings.Join(via, " ")
			if r.Type != "unicast" {
				hops = r.Type
			}
			metric := ""
			if r.Metric != 0 {
				metric = strconv.FormatUint(uint64(r.Metric), 10)
			}
			t.Row(to, hops, strings.Join(device, " "), r.Source, metric, r.TableName, r.Protocol)
		}
		return t.Print()
	}}
}

func (p *monitorPrinter) none(what string) string {
	if p.filtered {
		return "no such " + what
	}
	return "no " + what
}

func (p *monitorPrinter) listeners() section {
	list := p.snap.Listeners
	return section{"listeners", p.none("listeners"), len(list), func(s *ui.Streams, rows int) error {
		t := s.NewTable(ui.Column{Title: "LISTENS"}, ui.Column{Title: "ADDRESS", Min: 12}, ui.Column{Title: "PROCESS", Min: 12}, ui.Column{Title: "UID", Right: true, Drop: 1})
		for i := range list[:rows] {
			n := &list[i]
			who := programs(n.Processes, n.Inode)
			if n.Inode == 0 {
				who = "kernel"
			}
			t.Row(n.Protocol, listenAddress(n), who, n.UID)
		}
		return t.Print()
	}}
}

// listenAddress writes where a listener is: "*" stands for both families.
func listenAddress(n *monitor.Listener) string {
	text := n.Local.String()
	if n.Any && n.Local.Addr().Is6() && !n.V6Only {
		text = "*:" + strconv.Itoa(int(n.Local.Port()))
	}
	if n.Protocol == "raw" {
		text = fmt.Sprintf("%s protocol %d", n.Local.Addr(), n.Local.Port())
	}
	if n.Interface != "" {
		text += "%" + n.Interface
	}
	return text
}

func (p *monitorPrinter) flows() section {
	list := make([]*monitor.Flow, len(p.snap.Flows))
	for i := range list {
		list[i] = &p.snap.Flows[i]
	}
	if p.live {
		slices.SortStableFunc(list, monitor.ByTraffic)
	}
	return section{"flows", p.none("flows"), len(list), func(s *ui.Streams, rows int) error {
		theme := s.Theme()
		t := s.NewTable(append([]ui.Column{{Title: "FLOW"}, {Title: "STATE", Drop: 4}, {Title: "WAY", Drop: 1}, {Title: "LOCAL", Min: 15, Drop: 5}, {Title: "REMOTE", Min: 15},
			{Title: "PROCESS", Min: 10}}, p.amounts()...)...)
		for _, f := range list[:rows] {
			who := programs(f.Processes, f.Inode)
			if f.Direction == "forward" {
				who = peer(f.Behind)
			}
			local, remote := endpoint(f.Local), endpoint(f.Remote)
			if f.Translated.IsValid() {
				if f.Direction == "in" {
					local += " (" + f.Translated.String() + ")"
				} else {
					remote += " (" + f.Translated.String() + ")"
				}
			}
			state := ui.Cell{Text: f.State}
			if f.State != "established" && f.State != "" {
				state.Style = theme.Faint
			}
			t.Row(append([]any{f.Protocol, state, f.Direction, local, remote, who}, p.amount(f.ReceivedBytes, f.SentBytes, f.Rate)...)...)
		}
		return t.Print()
	}}
}

// endpoint writes an end; what has no ports has none.
func endpoint(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}
