package sockets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// listed reads the list in /proc/net of a protocol for which the kernel has no
// module that answers sock_diag, see proc(5). Raw sockets are often such; they
// have no cookie there.
func listed(all []Socket, protocol, family uint8) ([]Socket, error) {
	file := map[uint8]string{unix.IPPROTO_RAW: "raw", unix.IPPROTO_UDPLITE: "udplite"}[protocol]
	if file == "" {
		return all, nil
	}
	if family == unix.AF_INET6 {
		file += "6"
	}
	b, err := os.ReadFile("/proc/thread-self/net/" + file)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil // not in this kernel
	}
	if err != nil {
		return nil, err
	}
	more, err := parseProcNet(string(b), protocol, family)
	if err != nil {
		return nil, fmt.Errorf("/proc/net/%s: %w", file, err)
	}
	return append(all, more...), nil
}

// parseProcNet reads the lines of /proc/net/raw and its likes.
func parseProcNet(text string, protocol, family uint8) ([]Socket, error) {
	var list []Socket
	n := 0
	for line := range strings.Lines(text) {
		n++
		f := strings.Fields(line)
		if len(f) < 10 || f[0] == "sl" {
			continue
		}
		s := Socket{Proto: protocol, Family: family}
		local, err1 := parseHex(f[1])
		remote, err2 := parseHex(f[2])
		state, err3 := strconv.ParseUint(f[3], 16, 8)
		uid, err4 := strconv.ParseUint(f[7], 10, 32)
		inode, err5 := strconv.ParseUint(f[9], 10, 64)
		if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		s.Local, s.Remote, s.State, s.UID, s.Inode = local, remote, State(state), uint32(uid), inode
		list = append(list, s)
	}
	return list, nil
}

// parseHex reads "0100007F:0016": words of this machine's byte order.
func parseHex(s string) (netip.AddrPort, error) {
	host, p, _ := strings.Cut(s, ":")
	port, err := strconv.ParseUint(p, 16, 16)
	if err != nil || len(host) != 8 && len(host) != 32 {
		return netip.AddrPort{}, fmt.Errorf("address %q", s)
	}
	var b []byte
	for ; host != ""; host = host[8:] {
		w, err := strconv.ParseUint(host[:8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("address %q", s)
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(w))
	}
	addr, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), nil
}
