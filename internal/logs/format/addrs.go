package format

import (
	"bytes"
	"net/netip"
	"slices"
)

// maxAddrs is how many addresses of a record are found.
const maxAddrs = 16

// AppendAddrs appends the network addresses in text to dst, each once and no
// more than 16 in all: IPv4 in dotted form and IPv6, alone, in brackets, with a
// port or the length of a prefix. IPv4 addresses within IPv6 ones are given as
// IPv4. Versions (v1.2.3.4), numbers of five parts, times and hardware
// addresses are none.
func AppendAddrs(dst []netip.Addr, text []byte) []netip.Addr {
	for i := 1; i < len(text) && len(dst) < maxAddrs; {
		n := bytes.IndexByte(text[i:], '.')
		if n < 0 {
			break
		}
		i += n
		if !digit(text[i-1]) || i+1 == len(text) || !digit(text[i+1]) {
			i++
			continue
		}
		start := i - 1
		for start > 0 && digit(text[start-1]) && i-start < 4 {
			start--
		}
		end := i
		if start == 0 || !wordByte(text[start-1]) && text[start-1] != '.' {
			var a [4]byte
			if e := dotted(text, start, &a); e > 0 {
				dst = appendAddr(dst, netip.AddrFrom4(a))
				end = e
			}
		}
		// The rest of what is no address is none either.
		for end < len(text) && (digit(text[end]) || text[end] == '.') {
			end++
		}
		i = end + 1
	}
	for i := 0; i < len(text) && len(dst) < maxAddrs; {
		n := bytes.IndexByte(text[i:], ':')
		if n < 0 || i+n+1 >= len(text) {
			break
		}
		i += n
		if c := text[i+1]; c != ':' && !hexByte(c) {
			i += 2
			continue
		}
		start := i
		for start > 0 && hexByte(text[start-1]) && i-start < 5 {
			start--
		}
		end := i + 1
		for end < len(text) && (hexByte(text[end]) || text[end] == ':') {
			end++
		}
		if i-start <= 4 && (start == 0 || !wordByte(text[start-1]) && text[start-1] != '.') {
			if a, ok := sixteen(text, start, end); ok {
				dst = appendAddr(dst, a.Unmap())
			}
		}
		i = end
	}
	return dst
}

func appendAddr(dst []netip.Addr, a netip.Addr) []netip.Addr {
	if len(dst) >= maxAddrs || slices.Contains(dst, a) {
		return dst
	}
	return append(dst, a)
}

func wordByte(c byte) bool { return digit(c) || letter(c) || c == '_' }

func hexByte(c byte) bool { return digit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }

// dotted reads an IPv4 address at start and returns its end, or 0.
func dotted(b []byte, i int, a *[4]byte) int {
	for part := range 4 {
		v, from := 0, i
		for i < len(b) && digit(b[i]) && i-from < 4 {
			v = v*10 + int(b[i]-'0')
			i++
		}
		if i == from || v > 255 || i-from > 1 && b[from] == '0' || i-from > 3 {
			return 0
		}
		a[part] = byte(v)
		if part < 3 {
			if i >= len(b) || b[i] != '.' {
				return 0
			}
			i++
		}
	}
	if i < len(b) && (wordByte(b[i]) || b[i] == '.' && i+1 < len(b) && wordByte(b[i+1])) {
		return 0 // 1.2.3.4.5, 1.2.3.4.example.org
	}
	return i
}

// sixteen reads an IPv6 address: text[start:end] are all its hexadecimal digits
// and colons; the dotted form of its last 32 bits may follow.
func sixteen(text []byte, start, end int) (netip.Addr, bool) {
	var a [16]byte
	n, gap, pairs := 0, -1, 0 // bytes read, where :: is, groups of two digits
	i := start
	if text[i] == ':' {
		if end-i < 2 || text[i+1] != ':' {
			return netip.Addr{}, false
		}
		gap = 0
		i += 2
	}
	for i < end {
		from := i
		v := 0
		for i < end && text[i] != ':' && i-from < 5 {
			v = v<<4 | int(hexValue(text[i]))
			i++
		}
		if i == from || i-from > 4 {
			return netip.Addr{}, false
		}
		if i == end && i < len(text) && text[i] == '.' && n <= 12 {
			var four [4]byte
			e := dotted(text, from, &four)
			if e > 0 {
				copy(a[n:], four[:])
				n += 4
				end = e
				i = e
				break
			}
		}
		if n == 16 {
			return netip.Addr{}, false
		}
		if i-from == 2 {
			pairs++
		}
		a[n], a[n+1] = byte(v>>8), byte(v)
		n += 2
		if i == end {
			break
		}
		i++ // the colon
		if i == end {
			if gap == n {
				break
			}
			// A colon at the end belongs to the sentence: "fe80::1:".
			end--
			i = end
			break
		}
		if text[i] == ':' {
			if gap >= 0 {
				return netip.Addr{}, false
			}
			gap = n
			i++
		}
	}
	if end < len(text) && wordByte(text[end]) {
		return netip.Addr{}, false
	}
	switch {
	case gap < 0 && (n != 16 || pairs == 8): // eight pairs: an EUI-64
		return netip.Addr{}, false
	case gap >= 0 && n >= 16:
		return netip.Addr{}, false
	case gap >= 0 && n == 0 && !(start > 0 && text[start-1] == '[' && end < len(text) && text[end] == ']'):
		return netip.Addr{}, false // "::" alone is mostly something else
	case gap >= 0:
		tail := n - gap
		copy(a[16-tail:], a[gap:n])
		clear(a[gap : 16-tail])
	}
	return netip.AddrFrom16(a), true
}

func hexValue(c byte) byte {
	if digit(c) {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
