package addresses

import (
	"bufio"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// ResolvConf are the files that say whom this host asks for names: behind a
// resolver on loopback, the second says whom systemd-resolved asks.
func ResolvConf() []string {
	return []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}
}

// maxResolvLines is how many lines of a file are looked at.
const maxResolvLines = 1000

// NameServers returns the name servers in files as resolv.conf(5) describes, each
// once and without those on loopback. Files that cannot be read have none.
func NameServers(paths []string) (out []netip.Addr) {
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(f)
		for n := 0; lines.Scan() && n < maxResolvLines; n++ {
			words := strings.Fields(lines.Text())
			if len(words) < 2 || words[0] != "nameserver" {
				continue
			}
			a, err := netip.ParseAddr(words[1])
			if a = a.Unmap().WithZone(""); err == nil && !a.IsLoopback() && !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
		f.Close()
	}
	return out
}
