package segment

import (
	"errors"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/osthread"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// features are kinds of interfaces, and what of the kernel makes them.
var features = map[string]string{
	"bridge": "bridge (CONFIG_BRIDGE)",
	"vxlan":  "vxlan (CONFIG_VXLAN)",
	"vlan":   "8021q (CONFIG_VLAN_8021Q)",
	"veth":   "veth (CONFIG_VETH)",
	"tun":    "tun (CONFIG_TUN)",
}

// missingKind returns an error of kind failure.NotReady that names the features
// which the kernel lacks for making interfaces of these kinds, nil when it has
// all of them.
//
// The kernel looks for the kind, and loads its module, before it looks at what
// is asked for. So a request that says nothing else is refused with one error
// when the kind exists and with another when it does not. A kind that needs
// nothing else would be made by it: that happens in a namespace that ends here.
func missingKind(kinds []string) error {
	if len(kinds) == 0 {
		return nil
	}
	kinds = slices.Compact(slices.Sorted(slices.Values(kinds)))
	var missing []string
	err := osthread.Run(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		for _, kind := range kinds {
			if !hasKind(kind) {
				missing = append(missing, features[kind])
			}
		}
		return nil
	})
	switch {
	case errors.Is(err, unix.EPERM):
		return failure.Errorf(failure.NotAllowed, "only root sets up networks: %w", err)
	case err != nil:
		return failure.Errorf(failure.NotReady, "the kernel makes no network namespaces (CONFIG_NET_NS): %w", err)
	case len(missing) > 0:
		return failure.Errorf(failure.NotReady, "missing kernel feature %s; nothing was changed", strings.Join(missing, ", "))
	}
	return nil
}

// hasKind asks in the namespace of this thread.
func hasKind(kind string) bool {
	if kind == "tun" {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err == nil
	}
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated("mo-probe-"+kind[:min(4, len(kind))])))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return !errors.Is(err, unix.EOPNOTSUPP)
}
