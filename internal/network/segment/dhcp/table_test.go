package dhcp

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestAPortHasAShareOfEachPool takes addresses of IPv4 through one port beside a
// pool of IPv6 that is much larger: others get theirs all the same.
func TestAPortHasAShareOfEachPool(t *testing.T) {
	c := config(t)
	c.Pool = Range{netip.MustParseAddr("10.70.0.100"), netip.MustParseAddr("10.70.0.199")}
	c.Gateway = netip.MustParsePrefix("10.70.0.1/24")
	c.Pool6 = Range{netip.MustParseAddr("fd00:70::1000"), netip.MustParseAddr("fd00:70::1fff")}
	c.PerPort = 0
	c.defaults()
	now := time.Now()
	for _, pool := range []struct {
		*table
		share int
	}{{newTable(&c, c.Pool, true), 25}, {newTable(&c, c.Pool6, false), 1024}} {
		take := func(n int, port string) error {
			r := &request{client: fmt.Sprint(port, n), mac: mac(n), port: port}
			a, _, err := pool.choose(r, now)
			if err == nil {
				pool.hold(a, r, Offered, now, now.Add(offerTime))
			}
			return err
		}
		for n := range pool.share {
			if err := take(n, "tap0"); err != nil {
				t.Fatalf("address %d of a port's %d: %v", n, pool.share, err)
			}
		}
		if err := take(pool.share, "tap0"); !errors.Is(err, errLimit) {
			t.Errorf("one more than %d for a port: %v", pool.share, err)
		}
		if err := take(5000, "tap1"); err != nil {
			t.Errorf("another port: %v", err)
		}
	}
}
