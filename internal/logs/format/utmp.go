package format

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strconv"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// Sizes in bytes of the records of wtmp and btmp (utmp(5)) and of lastlog
// (lastlog(8)) as glibc writes them on little-endian machines.
const (
	UtmpSize    = 384
	LastlogSize = 292
)

var utmpTypes = [...]string{"EMPTY", "RUN_LVL", "BOOT_TIME", "NEW_TIME", "OLD_TIME", "INIT_PROCESS", "LOGIN_PROCESS",
	"USER_PROCESS", "DEAD_PROCESS", "ACCOUNTING"}

// DecodeUtmp turns a record of wtmp or btmp into a line of name=value pairs:
// type, pid, line, id, user, host, addr, exit, session, time. Empty ones are
// left out. A record that is none, or is cut short, is the pair raw with its
// bytes in hexadecimal: nothing is lost.
func DecodeUtmp(rec []byte) []byte {
	if !plausibleUtmp(rec) {
		return hex.AppendEncode([]byte("type=UNKNOWN raw="), rec)
	}
	num := func(at int) int64 { return int64(int32(binary.LittleEndian.Uint32(rec[at:]))) }
	out := append([]byte("type="), utmpTypes[binary.LittleEndian.Uint16(rec)]...)
	if pid := num(4); pid != 0 {
		out = strconv.AppendInt(append(out, " pid="...), pid, 10)
	}
	out = appendPair(out, "line", rec[8:40])
	out = appendPair(out, "id", rec[40:44])
	out = appendPair(out, "user", rec[44:76])
	out = appendPair(out, "host", rec[76:332])
	var a [16]byte
	copy(a[:], rec[348:364])
	if [12]byte(a[4:]) == [12]byte{} {
		if [4]byte(a[:4]) != [4]byte{} {
			out = netip.AddrFrom4([4]byte(a[:4])).AppendTo(append(out, " addr="...))
		}
	} else {
		out = netip.AddrFrom16(a).AppendTo(append(out, " addr="...))
	}
	if exit := binary.LittleEndian.Uint32(rec[332:]); exit != 0 {
		out = strconv.AppendInt(append(out, " termination="...), int64(int16(exit)), 10)
		out = strconv.AppendInt(append(out, " exit="...), int64(int16(exit>>16)), 10)
	}
	if s := num(336); s != 0 {
		out = strconv.AppendInt(append(out, " session="...), s, 10)
	}
	// Seconds are unsigned since utmp outlives 2038.
	sec := int64(binary.LittleEndian.Uint32(rec[340:]))
	return appendTime(out, time.Unix(sec, num(344)*1000))
}

// DecodeLastlog turns the record of a user in lastlog into a line of
// name=value pairs. ok is false when the user has never logged in.
func DecodeLastlog(uid uint32, rec []byte) (line []byte, ok bool) {
	if len(rec) < LastlogSize {
		return nil, false
	}
	sec := int64(binary.LittleEndian.Uint32(rec))
	if sec == 0 {
		return nil, false
	}
	out := strconv.AppendUint([]byte("type=LASTLOG uid="), uint64(uid), 10)
	out = appendPair(out, "line", rec[4:36])
	out = appendPair(out, "host", rec[36:292])
	return appendTime(out, time.Unix(sec, 0)), true
}

func appendTime(out []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(append(out, " time="...), "2006-01-02T15:04:05.000000Z")
}

// appendPair appends " name=value" for a field that ends at its first zero
// byte, in quotes where blanks, quotes or controls are in it: failed logins put
// anything into btmp.
func appendPair(out []byte, name string, field []byte) []byte {
	if i := bytes.IndexByte(field, 0); i >= 0 {
		field = field[:i]
	}
	if len(field) == 0 {
		return out
	}
	out = append(append(append(out, ' '), name...), '=')
	if !bytes.ContainsFunc(field, func(r rune) bool { return r <= ' ' || r == '"' || r == '\\' || r == '=' || r == 0x7f }) {
		return append(out, field...)
	}
	out = append(out, '"')
	for _, c := range field {
		switch {
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		case c < ' ' || c == 0x7f:
			out = append(out, `\u00`...)
			out = hex.AppendEncode(out, []byte{c})
		default:
			out = append(out, c)
		}
	}
	return append(out, '"')
}

// plausibleUtmp reports whether rec can be a record of utmp(5): a type, padding,
// and a number of microseconds.
func plausibleUtmp(rec []byte) bool {
	return len(rec) == UtmpSize && binary.LittleEndian.Uint16(rec) < uint16(len(utmpTypes)) && rec[2] == 0 && rec[3] == 0 &&
		binary.LittleEndian.Uint32(rec[344:]) < 1e6
}

// IsUtmp reports whether a file that begins with sample is wtmp or btmp.
func IsUtmp(sample []byte) bool {
	if len(sample) < UtmpSize {
		return false
	}
	used := false
	for n := 0; n < 8 && len(sample) >= UtmpSize; n++ {
		if !plausibleUtmp(sample[:UtmpSize]) {
			return false
		}
		used = used || sample[0] != 0
		sample = sample[UtmpSize:]
	}
	return used
}

// binaryUtmp reports whether data continues with a binary record rather than
// with a line that was decoded elsewhere.
func binaryUtmp(data []byte) bool { return data[0] != 't' }

// utmp gives one binary record as a line.
func (r *Reader) utmp(dst []event.Record, data []byte, final bool) ([]event.Record, int) {
	n := UtmpSize
	if len(data) < n {
		if !final {
			return dst, 0
		}
		n = len(data)
	}
	return append(dst, r.record(DecodeUtmp(data[:n]))), n
}
