package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Network configures isolation, blocks and segments.
type Network struct {
	// Management are who may talk with an isolated host, each
	// ADDRESS[/BITS][:PORT[-PORT]/PROTO].
	Management []string
	// Controller is HOST:PORT, which must be reachable after isolation; "": none.
	Controller string
	// NeverBlock are networks that neither a feed nor a threat blocks.
	NeverBlock []netip.Prefix
	Confirm    time.Duration // how long isolation lasts unless it is confirmed; 0: for ever
}

// networkKeys are the keys of mobileops network.
func networkKeys() []Key {
	return []Key{
		{
			Name: "network.management", Optional: true, Example: "10.20.0.0/24 2001:db8:20::/64 10.20.1.5:443/tcp",
			Doc: "Who may talk with this host while it is isolated: addresses or networks, each with :PORT/PROTO when only that service, of theirs or of this host, is allowed; several are separated by spaces.",
			set: func(c *Config, v string) (err error) { c.Network.Management, err = parsePeers(v); return err },
			get: func(c *Config) any { return strings.Join(c.Network.Management, " ") },
		},
		{
			Name: "network.controller", Optional: true, Example: "10.20.1.5:443",
			Doc: "HOST:PORT of what manages this host: it stays reachable, isolation is undone when it cannot be reached by TCP afterwards.",
			set: func(c *Config, v string) error {
				if _, port, err := net.SplitHostPort(v); err != nil {
					return fmt.Errorf("is not HOST:PORT")
				} else if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
					return fmt.Errorf("has no port from 1 to 65535")
				}
				c.Network.Controller = v
				return nil
			},
			get: func(c *Config) any { return c.Network.Controller },
		},
		{
			Name: "network.never_block", Optional: true, Example: "198.51.100.0/24 2001:db8:40::1",
			Doc: "Addresses and networks that no feed blocks, and isolate-threat only with --force, beside network.management and the addresses, gateways and name servers of this host; several are separated by spaces.",
			set: func(c *Config, v string) (err error) { c.Network.NeverBlock, err = parseNetworks(v); return err },
			get: func(c *Config) any {
				words := make([]string, len(c.Network.NeverBlock))
				for i, p := range c.Network.NeverBlock {
					words[i] = p.String()
				}
				return strings.Join(words, " ")
			},
		},
		{
			Name: "network.confirm", Example: "60s", Default: "0s",
			Doc: "How long isolation lasts unless mobileops network confirm is run; 0s isolates for good.",
			set: func(c *Config, v string) (err error) {
				if c.Network.Confirm, err = ParseDuration(v); err == nil && c.Network.Confirm > 24*time.Hour {
					err = fmt.Errorf("is more than a day")
				}
				return err
			},
			get: func(c *Config) any { return c.Network.Confirm.String() },
		},
	}
}

// parsePeers checks addresses of peers as far as their form goes.
func parsePeers(s string) ([]string, error) {
	list := strings.Fields(s)
	for _, w := range list {
		addr := w
		if at := strings.LastIndex(w, "/"); at > 0 && strings.ContainsAny(w[at:], "tuTU") { // :PORT/PROTO
			colon := strings.LastIndex(w[:at], ":")
			if colon < 0 {
				return nil, fmt.Errorf("%q is not ADDRESS[/BITS][:PORT/PROTO]", w)
			}
			addr = strings.Trim(w[:colon], "[]")
		}
		_, err := netip.ParseAddr(addr)
		if err != nil {
			if _, err = netip.ParsePrefix(addr); err != nil {
				return nil, fmt.Errorf("%q is not ADDRESS[/BITS][:PORT/PROTO]", w)
			}
		}
	}
	return list, nil
}

// parseNetworks reads networks and single addresses.
func parseNetworks(s string) (list []netip.Prefix, err error) {
	for _, w := range strings.Fields(s) {
		p, err := netip.ParsePrefix(w)
		if a, bad := netip.ParseAddr(w); bad == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil || p.Addr().Is4In6() {
			return nil, fmt.Errorf("%q is neither an address nor a network", w)
		}
		list = append(list, p.Masked())
	}
	return list, nil
}
