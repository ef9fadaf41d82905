package block

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/addresses"
)

// Format is how a feed is written.
type Format string

// The formats of feeds. Auto tells them apart by how a feed begins.
const (
	Auto  Format = "auto"
	Plain Format = "plain" // an address, network or range a line; # and ; begin comments
	CSV   Format = "csv"   // the first field of a line that is one of these counts
	JSON  Format = "json"  // a document, or one a line: see json.go
)

// Formats returns all formats.
func Formats() []Format { return []Format{Auto, Plain, CSV, JSON} }

// Limits of feeds.
const (
	MaxFeedBytes = 256 << 20 // unpacked
	MaxLine      = 64 << 10
	// A feed of which more lines than that cannot be read is none: of every
	// hundred lines, and of all beyond a handful.
	maxBadShare = 10
	someBad     = 3
	// keptBad and keptLeftOut are how many are named.
	keptBad     = 10
	keptLeftOut = 20
)

// ErrNoFeed says that something cannot be read as a list of addresses.
var ErrNoFeed = failure.New(failure.Failed, "that is no list of addresses")

// BadLine is a line that could not be read.
type BadLine struct {
	Line int    `json:"line"`
	Text string `json:"text"` // the first 80 bytes
	Why  string `json:"why"`
}

// parsed is what was read of a feed.
type parsed struct {
	list    list
	entries int // lines, or values, that were addresses
	bad     int
	first   []BadLine // of them
	wide    []LeftOut // networks that are too wide for a feed
}

func (p *parsed) refuse(line int, text, why string) {
	if p.bad++; len(p.first) < keptBad {
		p.first = append(p.first, BadLine{line, text[:min(len(text), 80)], why})
	}
}

// Networks wider than that are a mistake in a feed, or an attack by it.
const widest4, widest6 = 6, 12

func (p *parsed) take(r addresses.Range) {
	p.entries++
	if r.First.Is4() && uint64(number4(r.Last))-uint64(number4(r.First)) >= 1<<(32-widest4) || r.First.Is6() && wide6(r) {
		if len(p.wide) < keptLeftOut {
			p.wide = append(p.wide, LeftOut{r.String(), "too much of all addresses for a feed"})
		}
		return
	}
	p.list.add(r)
}

func wide6(r addresses.Range) bool {
	first, last := r.First.As16(), r.Last.As16()
	return binary.BigEndian.Uint32(last[:])-binary.BigEndian.Uint32(first[:]) >= 1<<(32-widest6)
}

// parseFeed reads a feed, which may be packed by gzip.
func parseFeed(r io.Reader, format Format) (*parsed, error) {
	in := bufio.NewReaderSize(r, 256<<10)
	if head, _ := in.Peek(2); len(head) == 2 && head[0] == 0x1f && head[1] == 0x8b {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("%w: unpack: %w", ErrNoFeed, err)
		}
		in = bufio.NewReaderSize(z, 256<<10)
	}
	limited := &counted{r: in}
	in = bufio.NewReaderSize(limited, MaxLine)
	// A mark of the byte order is what Windows puts in front of UTF-8.
	if bom, _ := in.Peek(3); string(bom) == "\xef\xbb\xbf" {
		in.Discard(3)
	}
	p := &parsed{}
	if format == Auto || format == "" {
		format = detect(in)
	}
	var err error
	switch format {
	case JSON:
		err = p.json(in)
	case Plain, CSV:
		err = p.lines(in, format == CSV)
	default:
		return nil, failure.Errorf(failure.Usage, "there is no format %q (there are %v)", format, Formats())
	}
	if err != nil {
		return nil, err
	}
	switch {
	case p.entries == 0:
		err = fmt.Errorf("%w: nothing in it is an address", ErrNoFeed)
	case p.bad > someBad && p.bad*100 > (p.bad+p.entries)*maxBadShare:
		b := p.first[0]
		err = fmt.Errorf("%w: %d of %d lines cannot be read, such as line %d, %q: %s", ErrNoFeed, p.bad, p.bad+p.entries, b.Line, b.Text, b.Why)
	}
	if err != nil {
		return nil, err
	}
	p.list.settle()
	return p, nil
}

// counted ends a feed that is too long.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if c.n += int64(n); c.n > MaxFeedBytes {
		return 0, fmt.Errorf("%w: it is longer than %d MiB", ErrNoFeed, MaxFeedBytes>>20)
	}
	return n, err
}

// detect tells the format by the first line that is no comment.
func detect(in *bufio.Reader) Format {
	head, _ := in.Peek(MaxLine)
	for line := range bytes.Lines(head) {
		line = bytes.TrimSpace(line)
		switch {
		case len(line) == 0 || line[0] == ';' || line[0] == '#':
			continue
		case line[0] == '{' || line[0] == '[':
			return JSON
		case bytes.ContainsAny(line, "\",\t"):
			return CSV
		}
		return Plain
	}
	return Plain
}

func (p *parsed) lines(in *bufio.Reader, csv bool) error {
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			p.refuse(n, string(line[:80]), fmt.Sprintf("longer than %d bytes", MaxLine))
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = in.ReadSlice('\n')
			}
			line = nil
		}
		if err != nil && err != io.EOF {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if len(line) > 0 {
			if csv {
				p.csvLine(n, line)
			} else {
				p.plainLine(n, line)
			}
		}
		if p.entries > MaxEntries || n > 2*MaxEntries {
			return fmt.Errorf("%w: it has more than %d entries, or twice as many lines", ErrNoFeed, MaxEntries)
		}
		if err == io.EOF {
			return nil
		}
	}
}

// plainLine takes the first word of a line, or three of "FIRST - LAST".
func (p *parsed) plainLine(n int, line []byte) {
	for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == '\r') {
		line = line[:len(line)-1]
	}
	if a, ok := quick4(line); ok { // most lines of most feeds
		p.entries++
		p.list.v4 = append(p.list.v4, makeSpan4(a, a))
		return
	}
	if i := bytes.IndexAny(line, "#;"); i >= 0 {
		line = line[:i]
	}
	line = bytes.TrimSpace(line)
	if len(line) == 0 || bytes.HasPrefix(line, []byte("//")) {
		return
	}
	word := line
	if i := bytes.IndexAny(line, " \t,"); i >= 0 {
		word = line[:i]
		if rest := bytes.TrimSpace(line[i:]); len(rest) > 0 && rest[0] == '-' {
			if f := bytes.Fields(rest[1:]); len(f) > 0 {
				word = slices.Concat(word, []byte("-"), f[0])
			}
		}
	}
	if a, ok := quick4(word); ok {
		p.entries++
		p.list.v4 = append(p.list.v4, makeSpan4(a, a))
		return
	}
	r, err := parseRange(string(word))
	if err != nil {
		p.refuse(n, string(line), err.Error())
		return
	}
	p.take(r)
}

// csvLine takes the first field that is an address, with or without a port. A
// line of titles has none.
func (p *parsed) csvLine(n int, line []byte) {
	line = bytes.TrimSpace(line)
	if len(line) == 0 || line[0] == '#' || line[0] == ';' {
		return
	}
	for field := range bytes.FieldsFuncSeq(line, func(r rune) bool { return r == ',' || r == ';' || r == '\t' || r == '|' }) {
		field = bytes.Trim(field, " \"'")
		if r, err := parseRange(string(field)); err == nil {
			p.take(r)
			return
		}
		if a, err := netip.ParseAddrPort(string(field)); err == nil {
			p.take(addresses.Range{First: a.Addr().Unmap(), Last: a.Addr().Unmap()})
			return
		}
	}
	if p.entries == 0 && p.bad == 0 && n < 50 {
		return // titles
	}
	p.refuse(n, string(line), "no field of it is an address")
}

// quick4 reads an IPv4 address: a feed has a hundred thousand of them.
func quick4(b []byte) (addr uint32, ok bool) {
	octet, digits, dots := uint32(0), 0, 0
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			if digits > 0 && octet == 0 {
				return 0, false // 010 is eight to some
			}
			octet = octet*10 + uint32(c-'0')
			if digits++; octet > 255 {
				return 0, false
			}
		case c == '.' && digits > 0 && dots < 3:
			addr, octet, digits = addr<<8|octet, 0, 0
			dots++
		default:
			return 0, false
		}
	}
	return addr<<8 | octet, dots == 3 && digits > 0
}

// parseRange reads an address, a network (with bits or a mask) or FIRST-LAST.
// IPv4 within IPv6 is IPv4.
func parseRange(s string) (r addresses.Range, err error) {
	bad := fmt.Errorf("no address, network or range")
	if len(s) > 100 {
		return r, bad
	}
	if first, last, ok := strings.Cut(s, "-"); ok {
		a, err := netip.ParseAddr(first)
		b, err2 := netip.ParseAddr(last)
		a, b = a.Unmap(), b.Unmap()
		if err != nil || err2 != nil || a.BitLen() != b.BitLen() || a.Zone() != "" || b.Zone() != "" {
			return r, bad
		}
		if b.Less(a) {
			return r, errors.New("a range that ends before it begins")
		}
		return addresses.Range{First: a, Last: b}, nil
	}
	if addr, mask, ok := strings.Cut(s, "/"); ok {
		if m, isMask := quick4([]byte(mask)); isMask {
			ones := 0
			for m&(1<<31) != 0 {
				m <<= 1
				ones++
			}
			if m != 0 {
				return r, errors.New("a mask with holes")
			}
			s = fmt.Sprintf("%s/%d", addr, ones)
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return r, bad
		}
		if p.Addr().Is4In6() {
			if p.Bits() < 96 {
				return r, bad
			}
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		return addresses.Of(p), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return r, bad
	}
	return addresses.Range{First: a.Unmap(), Last: a.Unmap()}, nil
}

// reserved are addresses that no feed blocks: those of this and other hosts'
// own networks, and what is no host at all (RFC 6890).
func reserved() []protected {
	var out []protected
	for _, p := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3",
		"::/127", "fc00::/7", "fe80::/10", "ff00::/8",
	} {
		out = append(out, protected{addresses.Of(netip.MustParsePrefix(p)), "private or reserved addresses"})
	}
	return out
}

// spare takes out of a feed what must not be blocked by one, and says what.
func (p *parsed) spare(never []protected) []LeftOut {
	left := p.wide
	for _, list := range [][]protected{reserved(), never} {
		for _, hit := range p.list.without(rangesOf(list)) {
			if len(left) < keptLeftOut {
				left = append(left, LeftOut{hit.String(), whyProtected(list, hit)})
			}
		}
	}
	return left
}
