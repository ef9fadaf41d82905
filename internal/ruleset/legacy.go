package ruleset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// legacyFamily is one of the two that iptables-legacy has tables of.
type legacyFamily struct {
	name     string // "iptables"
	names    string // file in /proc/net with the tables in use
	family   int
	level    int
	address  int // bytes of struct ipt_ip or ip6t_ip6
	counters int // offset of struct xt_counters in an entry
	head     int // bytes of an entry before its matches
}

// Options of getsockopt(2) for both families, from linux/netfilter_ipv4/ip_tables.h.
const (
	legacyInfo    = 64
	legacyEntries = 65
	legacyName    = 32 // XT_TABLE_MAXNAMELEN
	legacyMax     = 256 << 20
)

// LegacyTable is a table of iptables-legacy, of which nft(8) shows nothing.
type LegacyTable struct {
	Program string // "iptables" or "ip6tables"
	Table   string // "filter"
	Rules   int    // the policies of its chains and the entry at its end counted, too
	Digest  string // without counters
}

// Legacy reads the tables of iptables-legacy and ip6tables-legacy that are in
// use; proc is "/proc". Asking for another one would load its module. Of
// ebtables-legacy nothing is known, as the kernel does not say whether it is in
// use, and arptables-legacy is not read.
func Legacy(proc string) ([]LegacyTable, error) {
	var list []LegacyTable
	var errs error
	for _, f := range []legacyFamily{
		{"iptables", "ip_tables_names", unix.AF_INET, unix.SOL_IP, 84, 96, 112},
		{"ip6tables", "ip6_tables_names", unix.AF_INET6, unix.SOL_IPV6, 136, 152, 168},
	} {
		tables, err := f.tables(proc)
		if err != nil {
			errs = err
		}
		list = append(list, tables...)
	}
	if errs != nil {
		return nil, errs
	}
	return list, nil
}

func (f *legacyFamily) tables(proc string) ([]LegacyTable, error) {
	// The namespace of a thread can be another than that of its process.
	b, err := os.ReadFile(filepath.Join(proc, "thread-self/net", f.names))
	if errors.Is(err, fs.ErrNotExist) {
		b, err = os.ReadFile(filepath.Join(proc, "net", f.names))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil || len(strings.TrimSpace(string(b))) == 0 {
		return nil, err
	}
	fd, err := unix.Socket(f.family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	var list []LegacyTable
	for table := range strings.FieldsSeq(string(b)) {
		if len(table) >= legacyName {
			return nil, fmt.Errorf("%s: table %q", f.name, table)
		}
		var hooks []byte
		var entries [][]byte
		for try := range attempts {
			hooks, entries, err = f.table(fd, table)
			if err != unix.EAGAIN || try == attempts-1 { // it changed between the two questions
				break
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s table %s: %w", f.name, table, err)
		}
		canonical := put(nil, 0, hooks)
		for _, e := range entries {
			canonical = put(canonical, 1, e)
		}
		list = append(list, LegacyTable{Program: f.name, Table: table, Rules: len(entries), Digest: digest(canonical)})
	}
	return list, nil
}

// table reads struct ipt_getinfo and then struct ipt_get_entries.
func (f *legacyFamily) table(fd int, table string) (hooks []byte, entries [][]byte, err error) {
	info := make([]byte, 84)
	copy(info, table)
	if err := getsockopt(fd, f.level, legacyInfo, info); err != nil {
		return nil, nil, err
	}
	size := binary.NativeEndian.Uint32(info[80:])
	if size > legacyMax {
		return nil, nil, fmt.Errorf("it has %d bytes", size)
	}
	b := make([]byte, 40+int(size))
	copy(b, table)
	binary.NativeEndian.PutUint32(b[legacyName:], size)
	if err := getsockopt(fd, f.level, legacyEntries, b); err != nil {
		return nil, nil, err
	}
	entries, err = f.parse(b[40:])
	return info[legacyName:76], entries, err // valid hooks, entries of hooks, underflows
}

// parse takes entries apart and clears what the kernel writes into them while
// packets pass: the mark of its check for loops and the counters.
func (f *legacyFamily) parse(b []byte) (entries [][]byte, err error) {
	for off := 0; off < len(b); {
		rest := b[off:]
		if len(rest) < f.head {
			return nil, fmt.Errorf("byte %d: %d bytes where a rule should begin", off, len(rest))
		}
		next := int(binary.NativeEndian.Uint16(rest[f.address+6:]))
		if next < f.head || next > len(rest) {
			return nil, fmt.Errorf("byte %d: a rule of %d bytes in %d", off, next, len(rest))
		}
		e := rest[:next:next]
		clear(e[f.address+8 : f.address+12]) // comefrom
		clear(e[f.counters : f.counters+16])
		entries = append(entries, e)
		off += next
	}
	return entries, nil
}

// getsockopt reads an option that is a structure and also says what is asked.
func getsockopt(fd, level, name int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
