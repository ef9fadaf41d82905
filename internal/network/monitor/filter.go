package monitor

import (
	"net/netip"
	"strconv"
	"strings"
)

// Filter chooses listeners and flows. Its zero value chooses all; what is given
// must all hold.
type Filter struct {
	Process string       // name, number, program, systemd unit, container (12 digits of its id are enough), or namespace of a forwarded flow
	Port    uint16       // of either end; 0: any
	Address netip.Prefix // one end is in it, or would be taken by a listener; not valid: any
	State   string       // "established"; of listeners "listening"
}

func (f *Filter) listeners(list []Listener) []Listener {
	kept := list[:0]
	for i := range list {
		if f.listener(&list[i]) {
			kept = append(kept, list[i])
		}
	}
	return kept
}

func (f *Filter) listener(n *Listener) bool {
	return (f.Process == "" || f.process(n.Processes, nil)) &&
		(f.Port == 0 || n.Local.Port() == f.Port && n.Protocol != "raw") &&
		(!f.Address.IsValid() || f.Address.Contains(n.Local.Addr()) || n.takes(f.Address)) &&
		(f.State == "" || f.State == "listening")
}

// takes tells whether a listener on every address has one of a network's family.
func (n *Listener) takes(p netip.Prefix) bool {
	if !n.Any {
		return false
	}
	return p.Addr().Is4() == n.Local.Addr().Is4() || n.Local.Addr().Is6() && !n.V6Only
}

func (f *Filter) flows(list []Flow) []Flow {
	kept := list[:0]
	for i := range list {
		if f.flow(&list[i]) {
			kept = append(kept, list[i])
		}
	}
	return kept
}

func (f *Filter) flow(n *Flow) bool {
	at := func(p netip.AddrPort) bool { return p.IsValid() && f.Address.Contains(p.Addr()) }
	return (f.Process == "" || f.process(n.Processes, n.Behind)) &&
		(f.Port == 0 || n.Local.Port() == f.Port || n.Remote.Port() == f.Port || n.Translated.Port() == f.Port) &&
		(!f.Address.IsValid() || at(n.Local) || at(n.Remote) || at(n.Translated)) &&
		(f.State == "" || f.State == n.State)
}

// shortID is how many digits of the id of a container tell it apart.
const shortID = 12

func (f *Filter) process(list []Process, behind *Peer) bool {
	named := func(id string) bool {
		return id != "" && (id == f.Process || len(f.Process) >= shortID && strings.HasPrefix(id, f.Process))
	}
	if b := behind; b != nil && (named(b.Container) || b.Namespace == f.Process || b.Process == f.Process || b.PID != 0 && strconv.Itoa(b.PID) == f.Process) {
		return true
	}
	for i := range list {
		p := &list[i]
		if p.Name == f.Process || pathBase(p.Exe) == f.Process || p.Exe == f.Process || strconv.Itoa(p.PID) == f.Process ||
			p.Unit == f.Process || strings.TrimSuffix(p.Unit, ".service") == f.Process && p.Unit != "" || named(p.Container) {
			return true
		}
	}
	return false
}
