package isolation_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/lab"
)

// TestPathMTUWithEverybody allows a service of everybody, or very many peers: that
// a way is narrow is heard nonetheless.
func TestPathMTUWithEverybody(t *testing.T) {
	t.Parallel()
	service := fmt.Sprintf(":%d/tcp", lab.EchoPort)
	for name, flags := range map[string]func(mgmt *lab.Host) []string{
		"everybody": func(*lab.Host) []string {
			return []string{"--allow", "0.0.0.0/0" + service, "--allow", "[::/0]" + service}
		},
		"very many": func(mgmt *lab.Host) []string {
			var many strings.Builder
			many.WriteString("allow:\n")
			for i := range 300 {
				fmt.Fprintf(&many, "  - 10.%d.%d.7\n  - fd77:%x::7\n", 100+i/200, i%200, i)
			}
			profile := filepath.Join(t.TempDir(), "many.yaml")
			if err := os.WriteFile(profile, []byte(many.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			return append(allow(mgmt), "--profile", profile)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stage(t)
			far := s.Switch()
			router := s.Router("router", s.lan, far)
			mgmt := far.Host("far-mgmt")
			s.host.Via(router)
			mgmt.Via(router)
			lab.Open(t, lab.Talk(s.host, mgmt)...)
			router.IP("link set eth1 mtu 1300")
			s.isolate(t, flags(mgmt)...)
			if n := strings.Count(ruleset(t, s.host), "frag-needed"); n != 2 {
				t.Errorf("%d rules for errors of IPv4, want one of each table", n)
			}
			for _, a := range []netip.Addr{mgmt.IPv4(), mgmt.IPv6()} {
				// The server does not wait for packets that come again.
				eventually(t, "what the router says about packets to "+a.String()+" is heard", func() bool {
					if conn, err := s.host.Dial(t.Context(), "tcp", netip.AddrPortFrom(a, lab.EchoPort).String()); err == nil {
						conn.SetDeadline(time.Now().Add(time.Second))
						conn.Write(make([]byte, 5000))
						conn.Read(make([]byte, 1))
						conn.Close()
					}
					return strings.Contains(s.host.Run("ip", "route", "get", a.String()).Is(t, 0).Stdout, "mtu 1300")
				})
			}
			s.restore(t)
		})
	}
}
