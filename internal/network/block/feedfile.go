package block

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/addresses"
	"github.com/zeebo/blake3"
)

// The file of a feed, as docs/formats/network-blocks.md has it: a head of 16
// bytes, ranges of IPv4 with 8 bytes each, ranges of IPv6 with 32, and the BLAKE3
// hash of all that. It is written once and never changed.

const (
	feedMagic = "mofeed1\n"
	feedHead  = 16
	feedTail  = 32
	// MaxEntries is how many entries a feed may have.
	MaxEntries = 4_000_000
)

// encode writes the list as a file, and says what its hash is.
func (l *list) encode() (data []byte, sum string) {
	data = make([]byte, 0, feedHead+len(l.v4)*8+len(l.v6)*32+feedTail)
	data = append(data, feedMagic...)
	data = binary.BigEndian.AppendUint32(data, uint32(len(l.v4)))
	data = binary.BigEndian.AppendUint32(data, uint32(len(l.v6)))
	for _, s := range l.v4 {
		data = binary.BigEndian.AppendUint64(data, uint64(s))
	}
	for _, r := range l.v6 {
		first, last := r.First.As16(), r.Last.As16()
		data = append(append(data, first[:]...), last[:]...)
	}
	h := blake3.Sum256(data)
	return append(data, h[:]...), hex.EncodeToString(h[:])
}

// decodeList reads the file of a feed. The lists in it are sorted and disjoint, or
// it is refused: rules are made from them.
func decodeList(data []byte) (*list, string, error) {
	bad := func(offset int, what string) (*list, string, error) {
		return nil, "", failure.Errorf(failure.Untrustworthy, "the file of a feed is damaged at byte %d: %s", offset, what)
	}
	if len(data) < feedHead+feedTail || string(data[:len(feedMagic)]) != feedMagic {
		return bad(0, "it is no such file")
	}
	n4, n6 := int64(binary.BigEndian.Uint32(data[8:])), int64(binary.BigEndian.Uint32(data[12:]))
	if n4 > MaxEntries || n6 > MaxEntries || int64(len(data)) != feedHead+n4*8+n6*32+feedTail {
		return bad(8, fmt.Sprintf("it does not hold %d and %d entries", n4, n6))
	}
	end := len(data) - feedTail
	h := blake3.Sum256(data[:end])
	if !bytes.Equal(h[:], data[end:]) {
		return bad(end, "its hash is another one")
	}
	l := &list{v4: make([]span4, n4), v6: make([]addresses.Range, n6)}
	at := feedHead
	for i := range l.v4 {
		s := span4(binary.BigEndian.Uint64(data[at:]))
		if s.first() > s.last() || i > 0 && s.first() <= l.v4[i-1].last() {
			return bad(at, "the addresses are not in order")
		}
		l.v4[i] = s
		at += 8
	}
	for i := range l.v6 {
		r := addresses.Range{First: netip.AddrFrom16([16]byte(data[at:])), Last: netip.AddrFrom16([16]byte(data[at+16:]))}
		if r.Last.Less(r.First) || r.First.Is4In6() || i > 0 && r.First.Compare(l.v6[i-1].Last) <= 0 {
			return bad(at, "the addresses are not in order")
		}
		l.v6[i] = r
		at += 32
	}
	return l, hex.EncodeToString(h[:]), nil
}

// readFeed reads the addresses of a feed that is in the catalogue.
func (e *Engine) readFeed(f *Feed) (*list, error) {
	path := e.feedPath(f)
	file, err := os.Open(path)
	if err != nil {
		return nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "feed %s: %w", f.Name, err), "import it again: mobileops network block refresh "+f.Name)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, feedHead+MaxEntries*40+feedTail+1))
	if err != nil {
		return nil, err
	}
	l, sum, err := decodeList(data)
	if err == nil && sum != f.Sum {
		err = failure.New(failure.Untrustworthy, "it is not the file that was imported")
	}
	if err != nil {
		return nil, failure.Hint(fmt.Errorf("feed %s: %s: %w", f.Name, path, err), "import it again: mobileops network block refresh "+f.Name)
	}
	return l, nil
}

// writeFeed makes the file of a feed durable, under a name that nothing has yet.
func (e *Engine) writeFeed(f *Feed, data []byte) error {
	if err := e.makeDir(); err != nil {
		return err
	}
	return durable.WriteFile(e.feedPath(f), data, 0o600)
}

// sweep removes files that no feed of the catalogue has: those of versions that
// were replaced, and of imports that were killed.
func (e *Engine) sweep(c *catalogue) {
	entries, err := os.ReadDir(e.dir())
	if err != nil {
		return
	}
	keep := map[string]bool{}
	for _, f := range c.feeds {
		keep[e.feedPath(f)] = true
	}
	for _, entry := range entries {
		if path := e.dir() + "/" + entry.Name(); !keep[path] {
			os.Remove(path)
		}
	}
}
