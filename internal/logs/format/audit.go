package format

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strconv"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// auditMark is what comes before the time and the serial number of a record.
const auditMark = "msg=audit("

// auditHeader finds time and serial number of a record of the Linux audit
// system, and where the text after them begins.
func auditHeader(line []byte) (kind, serial []byte, at int64, body int, ok bool) {
	i := 0
	if bytes.HasPrefix(line, []byte("node=")) {
		if i = bytes.IndexByte(line, ' ') + 1; i == 0 {
			return
		}
	}
	if !bytes.HasPrefix(line[i:], []byte("type=")) {
		return
	}
	i += len("type=")
	n := bytes.IndexByte(line[i:], ' ')
	if n <= 0 {
		return
	}
	kind = line[i : i+n]
	i += n + 1
	if !bytes.HasPrefix(line[i:], []byte(auditMark)) {
		return
	}
	i += len(auditMark)
	n = bytes.IndexByte(line[i:], ')')
	if n < 0 {
		return
	}
	seconds, serial, found := bytes.Cut(line[i:i+n], []byte{':'})
	seconds, _, _ = bytes.Cut(seconds, []byte{'.'})
	at, fits := number(seconds)
	if !found || !fits || len(serial) == 0 {
		return
	}
	body = min(i+n+1, len(line))
	for body < len(line) && (line[body] == ':' || line[body] == ' ') {
		body++
	}
	return kind, serial, at, body, true
}

// auditMember says to which event a record belongs. The kernel ends an event
// of several records with PROCTITLE or EOE; a record of a program (USER_…,
// CRED_…) is an event of its own. Both can have a neighbour yet: EOE after
// PROCTITLE, SYSCALL after LOGIN.
func auditMember(line []byte) member {
	kind, serial, at, _, ok := auditHeader(line)
	if !ok {
		return member{complete: true}
	}
	m := member{key: string(serial), at: at}
	switch k := string(kind); k {
	case "EOE":
		m.complete = true
	case "SYSCALL", "PATH", "CWD", "EXECVE", "SOCKADDR", "SOCKETCALL", "IPC", "IPC_SET_PERM", "MQ_OPEN", "MQ_SENDRECV",
		"MQ_NOTIFY", "MQ_GETSETATTR", "FD_PAIR", "OBJ_PID", "CAPSET", "MMAP", "BPRM_FCAPS", "NETFILTER_CFG", "NETFILTER_PKT",
		"KERN_MODULE", "FANOTIFY", "TIME_INJOFFSET", "TIME_ADJNTPVAL", "BPF", "OPENAT2", "URINGOP", "DM_CTRL", "DM_EVENT",
		"AVC", "SELINUX_ERR", "AVC_PATH", "SECCOMP", "INTEGRITY_DATA", "TTY", "MAC_TASK_CONTEXTS", "MAC_OBJ_CONTEXTS":
		// More is to come.
	default:
		m.complete, m.waits = true, true
	}
	return m
}

// auditEncoded are the fields that the kernel and libaudit write as hexadecimal
// digits when the text has blanks, quotes or control characters.
func auditEncoded(kind, name []byte) bool {
	switch string(name) {
	case "proctitle", "comm", "ocomm", "exe", "name", "cmd", "cwd", "acct", "path", "dir", "key", "data", "file", "vm", "grp", "new_group":
		return true
	}
	return string(kind) == "EXECVE" && len(name) > 1 && name[0] == 'a' && digit(name[1])
}

// fillAudit sets the fields of an audit event from all its records.
func fillAudit(e *event.Event) {
	host := e.Host
	e.Fields = e.Fields[:0]
	e.Message = e.Raw
	var a auditEvent
	for raw := e.Raw; len(raw) > 0; {
		n := lineEnd(raw)
		line := bytes.TrimSuffix(raw[:n], []byte{'\r'})
		raw = raw[min(n+1, len(raw)):]
		kind, serial, _, body, ok := auditHeader(line)
		if !ok {
			continue
		}
		a.kind = kind
		if len(e.Fields) == 0 {
			e.Fields = append(e.Fields, event.Field{Name: "serial", Value: serial})
		}
		e.Fields = append(e.Fields, event.Field{Name: "type", Value: kind})
		a.body(e, line[body:])
	}
	e.Host = host
	switch {
	case a.acct != nil:
		e.User = known.get(a.acct)
	case a.login != nil:
		e.User = known.get(a.login)
	case a.auid != nil:
		e.User = known.get(a.auid)
	case a.uid != nil:
		e.User = known.get(a.uid)
	}
	if a.exe != nil {
		e.Program = known.get(a.exe[bytes.LastIndexByte(a.exe, '/')+1:])
	} else if a.comm != nil {
		e.Program = known.get(a.comm)
	}
}

// auditEvent collects who did it.
type auditEvent struct {
	kind                              []byte
	acct, login, auid, uid, exe, comm []byte
}

// body reads the pairs of one record. A program's own are between single
// quotes: msg='op=login acct="root" …'.
func (a *auditEvent) body(e *event.Event, b []byte) {
	before, added := b, []byte(nil)
	if i := bytes.IndexByte(b, enriched); i >= 0 {
		before, added = b[:i], b[i+1:]
	}
	if i := bytes.Index(before, []byte("msg='")); i >= 0 {
		a.pairs(e, before[:i])
		inner := before[i+len("msg='"):]
		if j := bytes.LastIndexByte(inner, '\''); j >= 0 {
			a.pairs(e, inner[:j])
			a.pairs(e, inner[j+1:])
		} else {
			a.pairs(e, inner)
		}
	} else {
		a.pairs(e, before)
	}
	a.pairs(e, added)
}

func (a *auditEvent) pairs(e *event.Event, b []byte) {
	p := pairs{b: b}
	for len(e.Fields) < maxFields {
		name, val, quoted, ok := p.next()
		if !ok {
			return
		}
		if len(val) == 1 && (val[0] == '?' || val[0] == '{') { // "{" begins an address in words
			continue
		}
		if !quoted && auditEncoded(a.kind, name) {
			val = decodeHex(val)
		}
		switch string(name) {
		case "saddr":
			val = sockaddr(e, val)
		case "acct":
			a.acct = val
		case "AUID":
			if string(val) != "unset" {
				a.login = val
			}
		case "auid":
			if string(val) != "4294967295" && string(val) != "-1" && string(val) != "unset" {
				a.auid = val
			}
		case "uid":
			a.uid = val
		case "unit":
			e.Unit = known.get(val)
		case "exe":
			a.exe = val
		case "comm":
			a.comm = val
		case "pid":
			if pid, ok := number(val); ok && e.PID == 0 {
				e.PID = pid
			}
		}
		e.Fields = append(e.Fields, event.Field{Name: known.get(name), Value: val})
	}
}

// decodeHex decodes an encoded value; zero bytes between the arguments of a
// command become blanks. What is not hexadecimal, such as (null), stays.
func decodeHex(v []byte) []byte {
	if len(v) == 0 || len(v)%2 != 0 {
		return v
	}
	out := make([]byte, len(v)/2)
	if _, err := hex.Decode(out, v); err != nil {
		return v
	}
	for len(out) > 0 && out[len(out)-1] == 0 {
		out = out[:len(out)-1]
	}
	for i, c := range out {
		if c == 0 {
			out[i] = ' '
		}
	}
	return out
}

// sockaddr decodes a socket address (sockaddr_in, sockaddr_in6, sockaddr_un)
// and adds its network address to those of e.
func sockaddr(e *event.Event, v []byte) []byte {
	b := make([]byte, len(v)/2)
	if _, err := hex.Decode(b, v); err != nil || len(b) < 2 {
		return v
	}
	const inet, inet6, unix = 2, 10, 1
	switch family := binary.LittleEndian.Uint16(b); {
	case family == inet && len(b) >= 8:
		return withPort(e, netip.AddrFrom4([4]byte(b[4:8])), b)
	case family == inet6 && len(b) >= 24:
		return withPort(e, netip.AddrFrom16([16]byte(b[8:24])), b)
	case family == unix && len(b) > 2:
		path, _, _ := bytes.Cut(b[2:], []byte{0})
		if len(path) > 0 {
			return path
		}
	}
	return v
}

func withPort(e *event.Event, a netip.Addr, b []byte) []byte {
	e.Addrs = appendAddr(e.Addrs, a.Unmap())
	port := binary.BigEndian.Uint16(b[2:])
	return netip.AddrPortFrom(a, port).AppendTo(make([]byte, 0, 24+len(strconv.Itoa(int(port)))))
}
