package scan

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"

	"github.com/mobileops/mobileops/internal/scan/ledger"
)

// hostKeyRule is the rule that finds private keys, hostKeys where sshd keeps those of
// the host, sshd_config(5).
const (
	hostKeyRule = "private-key"
	hostKeys    = "etc/ssh/ssh_host_*_key"

	readByOthers = "Give it to root alone; where others may have read it, replace it: remove it, ssh-keygen -A, and restart sshd."
)

// expect says of private keys in the tree of a host which are where they belong: the
// host keys of sshd, which it has to have, in the file in which it looks for them, and
// which owner alone can read. It says of others at these places what is wrong.
//
// This is of hosts alone. What is in an image, or in a tree that becomes the disks of
// many, is the key of none of them, and whoever has the image has it.
func expect(tree string, owner uint32, list []ledger.Sighting) error {
	hostKey := func(s *ledger.Sighting) bool {
		if s.Class != ledger.Secret || s.ID != hostKeyRule || len(s.Paths) != 1 {
			return false
		}
		ok, err := path.Match(hostKeys, s.Paths[0])
		return err == nil && ok
	}
	if !slices.ContainsFunc(list, func(s ledger.Sighting) bool { return hostKey(&s) }) {
		return nil
	}
	root, err := os.OpenRoot(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	for n := range list {
		s := &list[n]
		if !hostKey(s) {
			continue
		}
		info, err := root.Lstat(s.Paths[0])
		if err != nil { // it went away, or changed: then it is what the scan saw
			continue
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		switch {
		case !ok:
		case info.Mode()&^fs.FileMode(0o600) != 0:
			s.Message = fmt.Sprintf("a host key of sshd that is %s: root alone should be able to read it (chmod 600)", info.Mode())
			s.Resolution = readByOthers
		case st.Uid != owner:
			s.Message = fmt.Sprintf("a host key of sshd that belongs to the user %d: it should be root's (chown root)", st.Uid)
			s.Resolution = readByOthers
		default:
			s.Expected, s.Resolution = "a host key of sshd where it belongs, and root alone can read it", ""
		}
	}
	return nil
}
