package monitor

import (
	"net/netip"
	"testing"

	"github.com/mobileops/mobileops/internal/network/conntrack"
	"github.com/mobileops/mobileops/internal/network/sockets"
	"golang.org/x/sys/unix"
)

// A connection that is older than its tracking, as one that isolation has let
// live, is tracked from whoever spoke first: a server that answers did not ask.
func TestWhoAskedOfAConnectionPickedUp(t *testing.T) {
	server, client := netip.MustParseAddrPort("192.0.2.1:22"), netip.MustParseAddrPort("192.0.2.2:45466")
	list := []sockets.Socket{
		{Proto: unix.IPPROTO_TCP, State: sockets.Listen, Local: netip.MustParseAddrPort("0.0.0.0:22")},
		{Proto: unix.IPPROTO_TCP, State: sockets.Established, Local: server, Remote: client},
	}
	tracked := make([]conntrack.Connection, 1)
	c := &tracked[0]
	c.Orig.Proto, c.Orig.Src, c.Orig.Dst = unix.IPPROTO_TCP, server, client
	c.Reply.Proto, c.Reply.Src, c.Reply.Dst = unix.IPPROTO_TCP, client, server
	got := flows(list, tracked, nil, &links{})
	if len(got) != 1 || got[0].Direction != "in" {
		t.Errorf("%+v", got)
	}
}
