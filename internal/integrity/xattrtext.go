package integrity

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/pkg/filehash"
	"github.com/zeebo/blake3"
)

// xattrText shows an extended attribute in the words of the tool that sets it:
// an access control list as setfacl(1) takes it, capabilities as setcap(8)
// does, others as getfattr(1) prints them; "none" when there is none. Whoever
// owns a file can give it 64 KiB in each: of a long one the text has the
// beginning and the digest, so that reports and findings stay small.
func xattrText(x *filehash.Xattr) string {
	if x == nil {
		return "none"
	}
	text := wholeXattrText(x)
	if len(text) <= maxXattrText {
		return text
	}
	sum := blake3.Sum256(x.Value)
	return fmt.Sprintf("%s... (%d bytes, BLAKE3 %x)", strings.ToValidUTF8(text[:maxXattrText], ""), len(x.Value), sum)
}

const maxXattrText = 1024

func wholeXattrText(x *filehash.Xattr) string {
	text, ok := "", false
	switch x.Name {
	case "system.posix_acl_access":
		text, ok = aclText(x.Value)
	case "system.posix_acl_default":
		if text, ok = aclText(x.Value); ok {
			text = "default:" + strings.ReplaceAll(text, ",", ",default:")
		}
	case "security.capability":
		text, ok = capsText(x.Value)
	}
	if ok {
		return text
	}
	v := bytes.TrimSuffix(x.Value, []byte{0})
	for _, c := range v {
		if c < ' ' || c > '~' {
			return x.Name + "=0x" + hex.EncodeToString(x.Value)
		}
	}
	return x.Name + "=" + strconv.Quote(string(v))
}

// aclText decodes a POSIX access control list (linux/posix_acl_xattr.h,
// version 2): a version, then tag, permissions and id of each entry.
func aclText(b []byte) (string, bool) {
	if len(b) < 4 || (len(b)-4)%8 != 0 || binary.LittleEndian.Uint32(b) != 2 {
		return "", false
	}
	var out []string
	for b = b[4:]; len(b) > 0; b = b[8:] {
		tag, perm, id := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])
		who := ""
		switch tag {
		case 0x01:
			who = "user:"
		case 0x02:
			who = fmt.Sprintf("user:%d", id)
		case 0x04:
			who = "group:"
		case 0x08:
			who = fmt.Sprintf("group:%d", id)
		case 0x10:
			who = "mask:"
		case 0x20:
			who = "other:"
		default:
			return "", false
		}
		rwx := []byte("rwx")
		for i := range rwx {
			if perm&(4>>i) == 0 {
				rwx[i] = '-'
			}
		}
		out = append(out, who+":"+string(rwx))
	}
	return strings.Join(out, ","), true
}

// capabilities are the names of the bits, from linux/capability.h.
const capabilities = "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap " +
	"linux_immutable net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module " +
	"sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time " +
	"sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin syslog " +
	"wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore"

// capsText decodes file capabilities (struct vfs_cap_data and vfs_ns_cap_data
// in linux/capability.h, revisions 2 and 3).
func capsText(b []byte) (string, bool) {
	if len(b) < 20 {
		return "", false
	}
	magic := binary.LittleEndian.Uint32(b)
	revision := magic >> 24
	if revision != 2 && revision != 3 || revision == 2 && len(b) != 20 || revision == 3 && len(b) != 24 {
		return "", false
	}
	word := func(i int) uint64 { return uint64(binary.LittleEndian.Uint32(b[4+4*i:])) }
	permitted, inheritable := word(0)|word(2)<<32, word(1)|word(3)<<32
	names := strings.Fields(capabilities)
	byFlags := map[string][]string{}
	for i := range 64 {
		flags := ""
		if magic&1 != 0 && (permitted|inheritable)>>i&1 != 0 {
			flags += "e"
		}
		if inheritable>>i&1 != 0 {
			flags += "i"
		}
		if permitted>>i&1 != 0 {
			flags += "p"
		}
		if strings.Trim(flags, "e") == "" {
			continue
		}
		name := strconv.Itoa(i)
		if i < len(names) {
			name = "cap_" + names[i]
		}
		byFlags[flags] = append(byFlags[flags], name)
	}
	var out []string
	for _, flags := range []string{"p", "i", "ip", "ep", "ei", "eip"} {
		if list := byFlags[flags]; list != nil {
			out = append(out, strings.Join(list, ",")+"="+flags)
		}
	}
	text := strings.Join(out, " ")
	if revision == 3 {
		text += fmt.Sprintf(" [rootid=%d]", binary.LittleEndian.Uint32(b[20:]))
	}
	return text, true
}
