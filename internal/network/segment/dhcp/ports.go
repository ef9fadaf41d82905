package dhcp

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

const (
	portMemory  = 2 * time.Second // a machine that moves is seen at its new port after that
	maxPorts    = 4096
	unknownPort = "?" // of a bridge that does not know the address any more
)

// ports tells through which port of a bridge a station is reached.
type ports struct {
	ifindex int

	mu    sync.Mutex
	conn  *netlink.Conn
	known map[MAC]portEntry
	names map[int]string
}

type portEntry struct {
	name string
	at   time.Time
}

// newPorts returns nil for an interface that is no bridge.
func newPorts(ifindex int) *ports {
	p := &ports{ifindex: ifindex, known: map[MAC]portEntry{}, names: map[int]string{}}
	if !p.isBridge() {
		p.close()
		return nil
	}
	return p
}

// isBridge reports whether the interface has ports.
func (p *ports) isBridge() bool {
	for _, a := range p.link(p.ifindex) {
		if a.Type != unix.IFLA_LINKINFO {
			continue
		}
		info, err := netlink.Attributes(a.Value)
		if err != nil {
			return false
		}
		for _, i := range info {
			if i.Type == unix.IFLA_INFO_KIND {
				return i.Text() == "bridge"
			}
		}
	}
	return false
}

// link returns what is known about an interface.
func (p *ports) link(index int) []netlink.Attr {
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[4:], uint32(index))
	b, err := p.ask(unix.RTM_GETLINK, body)
	if err != nil {
		return nil
	}
	_, list, err := netlink.After(b, unix.SizeofIfInfomsg)
	if err != nil {
		return nil
	}
	return list
}

func (p *ports) ask(typ uint16, body []byte) ([]byte, error) {
	if p.conn == nil {
		c, err := netlink.Dial(unix.NETLINK_ROUTE)
		if err != nil {
			return nil, err
		}
		p.conn = c
	}
	return p.conn.Get(typ, body)
}

// of returns the name of the port, "" when the interface is no bridge.
func (p *ports) of(mac MAC, now time.Time) string {
	if p == nil {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.known[mac]; ok && now.Sub(e.at).Abs() < portMemory {
		return e.name
	}
	name := p.lookup(mac)
	if len(p.known) >= maxPorts {
		clear(p.known)
		clear(p.names)
	}
	p.known[mac] = portEntry{name, now}
	return name
}

// lookup asks the forwarding database (bridge-fdb(8)).
func (p *ports) lookup(mac MAC) string {
	body := make([]byte, 12) // struct ndmsg
	body[0] = unix.AF_BRIDGE
	body = netlink.Put(body, unix.NDA_LLADDR, mac[:])
	body = netlink.Put(body, unix.NDA_MASTER, binary.NativeEndian.AppendUint32(nil, uint32(p.ifindex)))
	b, err := p.ask(unix.RTM_GETNEIGH, body)
	if err != nil || len(b) < 12 {
		return unknownPort
	}
	index := int(binary.NativeEndian.Uint32(b[4:]))
	if name, ok := p.names[index]; ok {
		return name
	}
	for _, a := range p.link(index) {
		if a.Type == unix.IFLA_IFNAME {
			p.names[index] = a.Text()
			return a.Text()
		}
	}
	return unknownPort
}

func (p *ports) close() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
}
