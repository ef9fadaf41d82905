package binaries

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"

	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/integrity/packages"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// sums are the digests of a program's content.
type sums struct {
	own      string // BLAKE3, as this program compares it
	recorded []byte // by the algorithm of its package, where that has one
}

// contents reads a program once. It never follows a link and never opens what
// is no regular file.
func contents(path string, file *packages.File) (s sums, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return s, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return s, errors.Join(err, fmt.Errorf("%s is no longer a regular file", path))
	}
	own := blake3.New()
	var theirs hash.Hash
	to := io.Writer(own)
	if file != nil && !file.Digest.IsZero() {
		theirs = file.Digest.New()
		to = io.MultiWriter(own, theirs)
	}
	if _, err := io.Copy(to, f); err != nil {
		return s, err
	}
	s.own = hex.EncodeToString(own.Sum(nil))
	if theirs != nil {
		s.recorded = theirs.Sum(nil)
	}
	return s, nil
}

// capabilities returns those that a file gives to whoever executes it, as
// getcap(8) writes them, or nothing.
func capabilities(path string) (string, error) {
	var b [64]byte
	n, err := unix.Lgetxattr(path, "security.capability", b[:])
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP):
		return "", nil
	case err != nil:
		return "", err
	}
	return parseCapabilities(b[:n]), nil
}

// parseCapabilities reads struct vfs_cap_data of linux/capability.h.
func parseCapabilities(b []byte) string {
	if len(b) < 12 {
		return "malformed " + hex.EncodeToString(b)
	}
	magic := binary.LittleEndian.Uint32(b)
	permitted, inheritable := uint64(binary.LittleEndian.Uint32(b[4:])), uint64(binary.LittleEndian.Uint32(b[8:]))
	if len(b) >= 20 {
		permitted |= uint64(binary.LittleEndian.Uint32(b[12:])) << 32
		inheritable |= uint64(binary.LittleEndian.Uint32(b[16:])) << 32
	}
	var words []string
	for n := range 64 {
		how := ""
		if magic&1 != 0 && (permitted|inheritable)>>n&1 != 0 {
			how += "e"
		}
		if inheritable>>n&1 != 0 {
			how += "i"
		}
		if permitted>>n&1 != 0 {
			how += "p"
		}
		if strings.ContainsAny(how, "ip") {
			words = append(words, capabilityName(n)+"="+how)
		}
	}
	if len(b) >= 24 && binary.LittleEndian.Uint32(b[20:]) != 0 {
		words = append(words, fmt.Sprintf("rootid=%d", binary.LittleEndian.Uint32(b[20:])))
	}
	return facts.Join(words)
}

// capabilityName is the name of a capability by its number.
func capabilityName(n int) string {
	const names = "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service net_broadcast " +
		"net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource " +
		"sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm block_suspend " +
		"audit_read perfmon bpf checkpoint_restore"
	if list := strings.Fields(names); n < len(list) {
		return "cap_" + list[n]
	}
	return fmt.Sprintf("cap_%d", n)
}
