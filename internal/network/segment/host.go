package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

// host is what the kernel says about the network namespace of this thread.
type host struct {
	links     []*link
	byName    map[string]*link
	addresses []address
	routes    []route
	fdb       []forwarding
}

// link is an interface, with as much of it as a plan compares.
type link struct {
	index, master, mtu int
	name, alias, kind  string // kind is "" for a NIC
	up                 bool
	mac                MAC
	bridge             bridgeOptions // of kind bridge
	vxlan              vxlanOptions  // of kind vxlan
	vlan               uint16        // of kind vlan
	parent             int           // index of the interface below; 0: none
	port               *portOptions  // of a port of a bridge
	group              uint32        // of interfaces; 0 unless somebody has set it
	owner              int64         // of kind tun: the number of the user who may open it
}

type bridgeOptions struct {
	stp       uint32 // 0 off, 1 the kernel, 2 a program
	filtering bool   // by VLAN
	snooping  bool   // of multicast
	groupFwd  uint16 // which link-local groups are forwarded
	groupMACs bool   // learns addresses from frames to link-local groups, which no rule sees
}

type vxlanOptions struct {
	id           uint32
	port         uint16
	group, local netip.Addr
	learning     bool
}

type portOptions struct{ isolated, hairpin, learning, guard bool }

type address struct {
	index  int
	prefix netip.Prefix // the address with its length
}

type route struct {
	to      netip.Prefix
	via     netip.Addr
	index   int
	metric  uint32
	unicast bool
}

// forwarding is an entry of the forwarding database of a tunnel.
type forwarding struct {
	index int
	mac   MAC
	to    netip.Addr
}

// readHost asks the kernel for everything at once.
func readHost() (*host, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("ask the kernel for its interfaces: %w", err)
	}
	defer c.Close()
	h := &host{byName: map[string]*link{}}
	for _, part := range []struct {
		typ  uint16
		head int // bytes of the fixed head
		read func(head []byte, list []netlink.Attr) error
		body []byte
	}{
		{unix.RTM_GETLINK, unix.SizeofIfInfomsg, h.link, nil},
		{unix.RTM_GETADDR, unix.SizeofIfAddrmsg, h.address, nil},
		{unix.RTM_GETROUTE, unix.SizeofRtMsg, h.route, nil},
		{unix.RTM_GETNEIGH, unix.SizeofNdMsg, h.forwarding, []byte{unix.AF_BRIDGE}},
	} {
		body := make([]byte, part.head)
		copy(body, part.body)
		answers, err := c.Dump(part.typ, body)
		if err != nil {
			if part.typ == unix.RTM_GETNEIGH && errors.Is(err, unix.EOPNOTSUPP) {
				continue // a kernel without bridges
			}
			return nil, fmt.Errorf("ask the kernel for its interfaces, addresses and routes: %w", err)
		}
		for _, b := range answers {
			head, list, err := netlink.After(b, part.head)
			if err == nil {
				err = part.read(head, list)
			}
			if err != nil {
				return nil, fmt.Errorf("an answer of the kernel: %w", err)
			}
		}
	}
	return h, nil
}

// Attributes that x/sys does not name, from linux/if_link.h.
const (
	ifaLinkIfAlias = 20
	infoKind       = 1
	infoData       = 2
	infoSlaveKind  = 4
	infoSlaveData  = 5
	brSTP          = 5
	brFiltering    = 7
	brGroupFwd     = 9
	brSnooping     = 23
	brOptions      = 46 // struct br_boolopt_multi: bits, and which of them are meant
	brNoGroupMACs  = 1  // of it: BR_BOOLOPT_NO_LL_LEARN
	portGuard      = 5
	portHairpin    = 4
	portLearning   = 8
	portIsolated   = 33
	vxID           = 1
	vxGroup        = 2
	vxLink         = 3
	vxLocal        = 4
	vxLearning     = 7
	vxPort         = 15
	vxGroup6       = 16
	vxLocal6       = 17
	vlanID         = 1
	tunOwner       = 1
)

func (h *host) link(head []byte, list []netlink.Attr) error {
	l := &link{
		index: int(int32(binary.NativeEndian.Uint32(head[4:]))),
		up:    binary.NativeEndian.Uint32(head[8:])&unix.IFF_UP != 0,
	}
	for i := range list {
		a := &list[i]
		switch a.Type {
		case unix.IFLA_IFNAME:
			l.name = a.Text()
		case ifaLinkIfAlias:
			l.alias = a.Text()
		case unix.IFLA_MTU:
			l.mtu = int(a.Uint32())
		case unix.IFLA_MASTER:
			l.master = int(a.Uint32())
		case unix.IFLA_GROUP:
			l.group = a.Uint32()
		case unix.IFLA_LINK:
			l.parent = int(a.Uint32())
		case unix.IFLA_ADDRESS:
			if len(a.Value) == 6 {
				l.mac = MAC(a.Value)
			}
		case unix.IFLA_LINKINFO:
			if err := l.info(a.Value); err != nil {
				return err
			}
		}
	}
	h.links = append(h.links, l)
	h.byName[l.name] = l
	return nil
}

func (l *link) info(b []byte) error {
	list, err := netlink.Attributes(b)
	if err != nil {
		return err
	}
	var data, slaveData []byte
	slave := ""
	for i := range list {
		a := &list[i]
		switch a.Type {
		case infoKind:
			l.kind = a.Text()
		case infoData:
			data = a.Value
		case infoSlaveKind:
			slave = a.Text()
		case infoSlaveData:
			slaveData = a.Value
		}
	}
	switch l.kind {
	case "bridge", "vxlan", "vlan", "tun":
		if list, err = netlink.Attributes(data); err != nil {
			return err
		}
		for i := range list {
			l.data(&list[i])
		}
	}
	if slave != "bridge" {
		return nil
	}
	if list, err = netlink.Attributes(slaveData); err != nil {
		return err
	}
	l.port = &portOptions{}
	for i := range list {
		on := len(list[i].Value) == 1 && list[i].Value[0] != 0
		switch list[i].Type {
		case portGuard:
			l.port.guard = on
		case portHairpin:
			l.port.hairpin = on
		case portLearning:
			l.port.learning = on
		case portIsolated:
			l.port.isolated = on
		}
	}
	return nil
}

// data is one attribute of what is special about a kind of interface.
func (l *link) data(a *netlink.Attr) {
	on := len(a.Value) == 1 && a.Value[0] != 0
	addr, _ := netip.AddrFromSlice(a.Value)
	if addr.IsUnspecified() {
		addr = netip.Addr{}
	}
	switch l.kind {
	case "bridge":
		switch a.Type {
		case brSTP:
			l.bridge.stp = a.Uint32()
		case brFiltering:
			l.bridge.filtering = on
		case brGroupFwd:
			if len(a.Value) >= 2 {
				l.bridge.groupFwd = binary.NativeEndian.Uint16(a.Value)
			}
		case brSnooping:
			l.bridge.snooping = on
		case brOptions:
			if len(a.Value) >= 4 {
				l.bridge.groupMACs = binary.NativeEndian.Uint32(a.Value)&brNoGroupMACs == 0
			}
		}
	case "vxlan":
		switch a.Type {
		case vxID:
			l.vxlan.id = a.Uint32()
		case vxGroup, vxGroup6:
			l.vxlan.group = addr
		case vxLocal, vxLocal6:
			l.vxlan.local = addr
		case vxLink:
			l.parent = int(a.Uint32())
		case vxLearning:
			l.vxlan.learning = on
		case vxPort:
			if len(a.Value) >= 2 {
				l.vxlan.port = binary.BigEndian.Uint16(a.Value)
			}
		}
	case "vlan":
		if a.Type == vlanID && len(a.Value) >= 2 {
			l.vlan = binary.NativeEndian.Uint16(a.Value)
		}
	case "tun":
		if a.Type == tunOwner {
			l.owner = int64(a.Uint32())
		}
	}
}

func (h *host) address(head []byte, list []netlink.Attr) error {
	var local, addr netip.Addr
	for i := range list {
		switch list[i].Type {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(list[i].Value)
		case unix.IFA_ADDRESS:
			addr, _ = netip.AddrFromSlice(list[i].Value)
		}
	}
	if local.IsValid() {
		addr = local // of a point-to-point link the other is the peer's
	}
	if addr.IsValid() {
		h.addresses = append(h.addresses, address{int(binary.NativeEndian.Uint32(head[4:])), netip.PrefixFrom(addr, int(head[1]))})
	}
	return nil
}

func (h *host) route(head []byte, list []netlink.Attr) error {
	r := route{unicast: head[7] == unix.RTN_UNICAST}
	family, table := head[0], uint32(head[4])
	to := netip.IPv4Unspecified()
	if family == unix.AF_INET6 {
		to = netip.IPv6Unspecified()
	} else if family != unix.AF_INET {
		return nil
	}
	for i := range list {
		a := &list[i]
		switch a.Type {
		case unix.RTA_DST:
			if d, ok := netip.AddrFromSlice(a.Value); ok {
				to = d
			}
		case unix.RTA_GATEWAY:
			r.via, _ = netip.AddrFromSlice(a.Value)
		case unix.RTA_OIF:
			r.index = int(a.Uint32())
		case unix.RTA_PRIORITY:
			r.metric = a.Uint32()
		case unix.RTA_TABLE:
			table = a.Uint32()
		case unix.RTA_MULTIPATH:
			if len(a.Value) >= 8 { // the first of them stands for all
				r.index = int(int32(binary.NativeEndian.Uint32(a.Value[4:])))
			}
		}
	}
	if table != unix.RT_TABLE_MAIN {
		return nil
	}
	r.to = netip.PrefixFrom(to, int(head[1]))
	h.routes = append(h.routes, r)
	return nil
}

func (h *host) forwarding(head []byte, list []netlink.Attr) error {
	f := forwarding{index: int(int32(binary.NativeEndian.Uint32(head[4:])))}
	for i := range list {
		switch list[i].Type {
		case unix.NDA_LLADDR:
			if len(list[i].Value) == 6 {
				f.mac = MAC(list[i].Value)
			}
		case unix.NDA_DST:
			f.to, _ = netip.AddrFromSlice(list[i].Value)
		}
	}
	if f.to.IsValid() {
		h.fdb = append(h.fdb, f)
	}
	return nil
}

// indexed returns the link with an index, nil when there is none.
func (h *host) indexed(index int) *link {
	for _, l := range h.links {
		if l.index == index {
			return l
		}
	}
	return nil
}

// has reports whether an interface has an address.
func (h *host) has(index int, p netip.Prefix) bool {
	for _, a := range h.addresses {
		if a.index == index && a.prefix == p {
			return true
		}
	}
	return false
}

// sysctl is the state of a switch of the kernel below /proc/sys/net.
type sysctl struct {
	path  string // "ipv4/conf/mo-dev/forwarding"
	value string
}

// sysctls are those of the network namespace of the thread that asks.
const sysctlRoot = "/proc/sys/net"

// readSysctl returns "" for a switch that the kernel does not have.
func readSysctl(path string) (string, error) {
	b, err := os.ReadFile(filepath.Join(sysctlRoot, path))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(bytes.TrimRight(b, "\x00"))), nil
}

func writeSysctl(path, value string) error {
	f, err := os.OpenFile(filepath.Join(sysctlRoot, path), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}
