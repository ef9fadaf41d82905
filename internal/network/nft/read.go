package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

// Reader reads what is in force, in the network namespace of the thread that
// opened it.
type Reader struct {
	conn *netlink.Conn
}

// OpenReader opens a Reader.
func OpenReader() (*Reader, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	return &Reader{c}, nil
}

// Close closes the Reader.
func (r *Reader) Close() error { return r.conn.Close() }

// TableInfo is what is known of a table in force.
type TableInfo struct {
	Table   Table
	Flags   TableFlags
	Owner   uint32 // the netlink port of the owner; 0: none
	Comment string
}

func request(t Table) []byte { return []byte{byte(t.Family), 0, 0, 0} }

func messageType(op int) uint16 { return uint16(unix.NFNL_SUBSYS_NFTABLES<<8 | op) }

func withName(body []byte, typ uint16, name string) []byte {
	return netlink.Put(body, typ, append([]byte(name), 0))
}

// Table returns what is known of a table, and whether it is there.
func (r *Reader) Table(t Table) (info TableInfo, ok bool, err error) {
	m, err := r.conn.Get(messageType(unix.NFT_MSG_GETTABLE), withName(request(t), unix.NFTA_TABLE_NAME, t.Name))
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EAFNOSUPPORT):
		return info, false, nil
	case err != nil:
		return info, false, fmt.Errorf("table %s: %w", t, err)
	}
	_, attrs, err := netlink.After(m, 4)
	info.Table = t
	for _, a := range attrs {
		switch a.Type {
		case unix.NFTA_TABLE_FLAGS:
			info.Flags = TableFlags(a.Big32())
		case attrTableUserdata:
			info.Comment = commentIn(a.Value, 0)
		case 7: // NFTA_TABLE_OWNER
			info.Owner = a.Big32()
		}
	}
	return info, true, err
}

// commentIn finds the comment in user data, which is a list of type, length,
// value.
func commentIn(data []byte, typ byte) string {
	for len(data) >= 2 {
		n := int(data[1])
		if n > len(data)-2 {
			return ""
		}
		if data[0] == typ && n > 0 {
			return string(data[2 : 2+n-1])
		}
		data = data[2+n:]
	}
	return ""
}

// Held is an element of a set in force.
type Held struct {
	Key, End []byte        // as the kernel has it; End is nil but for ranges of several fields
	Last     bool          // the end of a range of a single field, which it doesn't belong to
	Timeout  time.Duration // 0: for ever
	Expires  time.Duration // from now; meaningful when Timeout is not 0
}

// Elements returns the elements of a set; unix.ENOENT when there is no such set.
func (r *Reader) Elements(s Set) ([]Held, error) {
	body := withName(withName(request(s.Table), unix.NFTA_SET_ELEM_LIST_TABLE, s.Table.Name), unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	list, err := r.conn.Dump(messageType(unix.NFT_MSG_GETSETELEM), body)
	if err != nil {
		return nil, fmt.Errorf("elements of set %s: %w", s.String(), err)
	}
	var out []Held
	for _, m := range list {
		_, attrs, err := netlink.After(m, 4)
		if err != nil {
			return nil, err
		}
		for _, a := range attrs {
			if a.Type != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				continue
			}
			elems, err := netlink.Attributes(a.Value)
			if err != nil {
				return nil, err
			}
			for _, e := range elems {
				h, err := held(e.Value)
				if err != nil {
					return nil, err
				}
				out = append(out, h)
			}
		}
	}
	return out, nil
}

func held(b []byte) (h Held, err error) {
	attrs, err := netlink.Attributes(b)
	for _, a := range attrs {
		switch a.Type {
		case unix.NFTA_SET_ELEM_KEY:
			h.Key = dataValue(a.Value)
		case 10: // NFTA_SET_ELEM_KEY_END
			h.End = dataValue(a.Value)
		case unix.NFTA_SET_ELEM_FLAGS:
			h.Last = a.Big32()&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_TIMEOUT:
			h.Timeout = milliseconds(a.Value)
		case unix.NFTA_SET_ELEM_EXPIRATION:
			h.Expires = milliseconds(a.Value)
		}
	}
	return h, err
}

func dataValue(b []byte) []byte {
	attrs, err := netlink.Attributes(b)
	if err != nil || len(attrs) == 0 {
		return nil
	}
	return attrs[0].Value
}

func milliseconds(b []byte) time.Duration {
	if len(b) < 8 {
		return 0
	}
	ms := binary.BigEndian.Uint64(b)
	return time.Duration(min(ms, 1<<43)) * time.Millisecond
}

// Counted is what a rule with a counter has counted.
type Counted struct {
	Family  string `json:"family"`
	Chain   string `json:"chain"`
	Comment string `json:"rule"` // of the rule
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Counters returns what the rules of a table that count have counted, in the
// order of the rules.
func (r *Reader) Counters(t Table) ([]Counted, error) {
	list, err := r.conn.Dump(messageType(unix.NFT_MSG_GETRULE), withName(request(t), unix.NFTA_RULE_TABLE, t.Name))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("rules of table %s: %w", t, err)
	}
	var out []Counted
	for _, m := range list {
		_, attrs, err := netlink.After(m, 4)
		if err != nil {
			return nil, err
		}
		c := Counted{Family: t.Family.String()}
		counts, ours := false, false
		for _, a := range attrs {
			switch a.Type {
			case unix.NFTA_RULE_TABLE:
				ours = a.Text() == t.Name
			case unix.NFTA_RULE_CHAIN:
				c.Chain = a.Text()
			case unix.NFTA_RULE_USERDATA:
				c.Comment = commentIn(a.Value, 0)
			case unix.NFTA_RULE_EXPRESSIONS:
				c.Packets, c.Bytes, counts = counter(a.Value)
			}
		}
		if counts && ours {
			out = append(out, c)
		}
	}
	return out, nil
}

// Rules returns how many rules each chain of a table has; chains without any are
// left out.
func (r *Reader) Rules(t Table) (map[string]int, error) {
	list, err := r.conn.Dump(messageType(unix.NFT_MSG_GETRULE), withName(request(t), unix.NFTA_RULE_TABLE, t.Name))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("rules of table %s: %w", t, err)
	}
	out := map[string]int{}
	for _, m := range list {
		_, attrs, err := netlink.After(m, 4)
		if err != nil {
			return nil, err
		}
		chain, ours := "", false
		for _, a := range attrs {
			switch a.Type {
			case unix.NFTA_RULE_TABLE:
				ours = a.Text() == t.Name
			case unix.NFTA_RULE_CHAIN:
				chain = a.Text()
			}
		}
		if ours {
			out[chain]++
		}
	}
	return out, nil
}

// counter finds the counter in a list of expressions.
func counter(list []byte) (packets, size uint64, ok bool) {
	elems, _ := netlink.Attributes(list)
	for _, e := range elems {
		attrs, _ := netlink.Attributes(e.Value)
		name, data := "", []byte(nil)
		for _, a := range attrs {
			switch a.Type {
			case unix.NFTA_EXPR_NAME:
				name = a.Text()
			case unix.NFTA_EXPR_DATA:
				data = a.Value
			}
		}
		if name != "counter" {
			continue
		}
		values, _ := netlink.Attributes(data)
		for _, v := range values {
			if len(v.Value) < 8 {
				continue
			}
			switch v.Type {
			case unix.NFTA_COUNTER_PACKETS:
				packets = binary.BigEndian.Uint64(v.Value)
			case unix.NFTA_COUNTER_BYTES:
				size = binary.BigEndian.Uint64(v.Value)
			}
		}
		return packets, size, true
	}
	return 0, 0, false
}

// Chains returns the names of the chains of a table and, for base chains of
// netdev tables, the interfaces that they look at.
func (r *Reader) Chains(t Table) (map[string][]string, error) {
	list, err := r.conn.Dump(messageType(unix.NFT_MSG_GETCHAIN), request(t))
	if err != nil {
		return nil, fmt.Errorf("chains of table %s: %w", t, err)
	}
	out := map[string][]string{}
	for _, m := range list {
		_, attrs, err := netlink.After(m, 4)
		if err != nil {
			return nil, err
		}
		table, name, devices := "", "", []string(nil)
		for _, a := range attrs {
			switch a.Type {
			case unix.NFTA_CHAIN_TABLE:
				table = a.Text()
			case unix.NFTA_CHAIN_NAME:
				name = a.Text()
			case unix.NFTA_CHAIN_HOOK:
				devices = hookDevices(a.Value)
			}
		}
		if table == t.Name {
			out[name] = devices
		}
	}
	return out, nil
}

func hookDevices(b []byte) (names []string) {
	attrs, _ := netlink.Attributes(b)
	for _, a := range attrs {
		switch a.Type {
		case unix.NFTA_HOOK_DEV:
			names = append(names, a.Text())
		case attrHookDevs:
			devs, _ := netlink.Attributes(a.Value)
			names = names[:0]
			for _, d := range devs {
				names = append(names, d.Text())
			}
		}
	}
	return names
}
