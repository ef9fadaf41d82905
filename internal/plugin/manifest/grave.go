package manifest

import (
	"net"
	"net/netip"
	"slices"
	"strings"
)

// takeover are places whose files the host runs or obeys, most of them as root:
// who can change them needs no other permission.
var takeover = []string{
	"/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/proc", "/root", "/sbin", "/sys", "/usr",
	"/run/systemd", "/run/udev", "/var/run/systemd", "/var/spool/cron", "/var/lib/dpkg", "/var/lib/rpm", "/var/lib/systemd",
}

// secret are places where a host keeps what nobody else is to know.
var secret = []string{
	"/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/ssh", "/etc/ssl/private", "/etc/pki/tls/private",
	"/etc/mobileops", "/var/lib/mobileops", "/root", "/home", "/proc", "/dev", "/run/secrets", "/run/credentials",
}

// masters are sockets of services that do as root whatever they are told.
var masters = []string{
	"/run/systemd", "/run/dbus", "/run/docker.sock", "/run/containerd", "/run/podman", "/run/crio", "/run/libvirt", "/run/snapd.socket", "/run/lxd.socket",
}

// grave says what else a place gives to a plugin, for whoever is to agree; ""
// where it is no more than what it is called.
func grave(kind, place string) string {
	switch kind {
	case "network":
		return graveAddress(place)
	case "unix":
		if slices.ContainsFunc(masters, func(m string) bool { return beneath(inRun(place), m) }) {
			return ", through which the whole host is controlled"
		}
	case "read":
		if slices.ContainsFunc(secret, func(s string) bool { return beneath(place, s) || beneath(s, place) }) {
			return ", where the host keeps secrets"
		}
	case "write":
		if slices.ContainsFunc(takeover, func(t string) bool { return beneath(place, t) || beneath(t, place) }) {
			return ", which the host runs or obeys: it could take over the host"
		}
		if beneath("/home", place) || beneath(place, "/home") {
			return ", where it could let itself in as those users"
		}
	}
	return ""
}

// inRun is a path with the older name of /run replaced.
func inRun(path string) string {
	if rest, ok := strings.CutPrefix(path, "/var/run/"); ok {
		return "/run/" + rest
	}
	return path
}

// beneath tells whether a path is a directory or lies in it. Both are clean.
func beneath(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// graveAddress is grave of host:port.
func graveAddress(address string) string {
	const itself = ", which is this host itself: what listens there may trust whoever is on it"
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	addr, err := netip.ParseAddr(host)
	switch addr = addr.Unmap(); {
	case err != nil:
		if host == "localhost" || strings.HasSuffix(host, ".localhost") {
			return itself
		}
	case addr.IsLoopback() || addr.IsUnspecified():
		return itself
	case addr.IsLinkLocalUnicast() || IsMetadata(addr):
		return ", where clouds hand out the credentials of the host"
	}
	return ""
}

// metadata are the addresses of clouds that hand out credentials, and are not
// link-local: EC2, Alibaba Cloud, Azure, Oracle Cloud.
var metadata = []string{"fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"}

// IsMetadata tells whether an address is one at which a cloud hands out
// credentials, and is not known by being link-local.
func IsMetadata(a netip.Addr) bool { return slices.Contains(metadata, a.Unmap().String()) }
