package monitor

import (
	"encoding/binary"
	"testing"

	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

// FuzzMessages: whatever is in an answer of the kernel, reading it ends.
func FuzzMessages(f *testing.F) {
	head := func(b ...byte) []byte { return append(b, make([]byte, 60)...) }
	f.Add(head(unix.AF_INET, 8, 0, 0, 254, 3, 0, 1), netlink.Put(netlink.Put(nil, unix.RTA_DST, []byte{10, 0, 0, 0}), unix.RTA_MULTIPATH, binary.NativeEndian.AppendUint16(nil, 8)))
	f.Add(head(unix.AF_INET6, 200), netlink.Put(nil, unix.RTA_VIA, []byte{1, 2, 3}))
	f.Add(head(), netlink.Put(nil, unix.IFLA_LINKINFO, netlink.Put(netlink.Put(nil, unix.IFLA_INFO_KIND, []byte("bridge\x00")), unix.IFLA_INFO_DATA, netlink.Put(nil, 5, []byte{1, 0, 0, 0}))))
	f.Add(head(), netlink.Put(nil, unix.IFA_LOCAL, []byte{10, 0, 0, 1}))
	f.Fuzz(func(t *testing.T, h, b []byte) {
		attrs, err := netlink.Attributes(b)
		if err != nil || len(h) < unix.SizeofIfInfomsg {
			return
		}
		l := &links{names: map[uint32]string{}}
		if r, ok := parseRoute(h, attrs, l); ok && !r.Destination.IsValid() {
			t.Errorf("a route to nowhere: %+v", r)
		}
		if a, ok := parseAddress(h, attrs); ok && !a.Prefix.IsValid() {
			t.Errorf("no address: %+v", a)
		}
		parseLink(h, attrs)
		parsePort(b)
		parseCounters(b)
		parseHops(b, l)
	})
}
