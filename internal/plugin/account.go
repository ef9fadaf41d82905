package plugin

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/plugin/sandbox"
	"github.com/mobileops/mobileops/internal/state"
)

// Accounts of plugins: a range that systemd leaves alone (see "Users, Groups,
// UIDs and GIDs on systemd Systems") and that no distribution gives out.
const (
	firstAccount = 60700
	lastAccount  = 60999
)

// assign returns the account number of a plugin: 0 when its manifest names a
// user, or when who runs this cannot become another. One that it had once it
// keeps, as long as there is data which belongs to that.
func (e *Engine) assign(tx *state.Tx, name string, m *manifest.Manifest) (uint32, error) {
	if os.Geteuid() != 0 || m.Permissions.RunAs != "" {
		return 0, nil
	}
	known, err := recall(tx, name)
	if err != nil || known.Account != 0 {
		return known.Account, err
	}
	taken, err := takenAccounts("/etc/passwd", "/etc/group")
	if err != nil {
		return 0, err
	}
	if b := tx.Bucket([]byte(bucketMemory)); b != nil {
		err := b.ForEach(func(other, _ []byte) error {
			m, err := recall(tx, string(other))
			taken[m.Account] = true
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	// Data that no memory knows of is there after an older state was restored.
	// It must not become that of another plugin.
	owners, err := e.dataOwners()
	if err != nil {
		return 0, err
	}
	if n := owners[name]; n >= firstAccount && n <= lastAccount && !taken[n] {
		return n, nil
	}
	for _, n := range owners {
		taken[n] = true
	}
	for n := max(firstAccount, e.opts.from); n <= lastAccount; n++ {
		if !taken[n] {
			return n, nil
		}
	}
	return 0, failure.Errorf(failure.Failed, "all accounts from %d to %d are taken (uninstall a plugin with its data: mobileops plugin uninstall NAME --data)", firstAccount, lastAccount)
}

// takenAccounts are the numbers that files like passwd(5) and group(5) give to
// somebody, as a user or as a group: an account has the same number as both.
func takenAccounts(passwd, group string) (map[uint32]bool, error) {
	taken := map[uint32]bool{}
	for path, fields := range map[string][]int{passwd: {2, 3}, group: {2}} {
		data, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for line := range strings.Lines(string(data)) {
			f := strings.Split(strings.TrimSpace(line), ":")
			for _, i := range fields {
				if i >= len(f) {
					continue
				}
				if n, err := strconv.ParseUint(f[i], 10, 32); err == nil {
					taken[uint32(n)] = true
				}
			}
		}
	}
	return taken, nil
}

// dataOwners says whose the directories of data are.
func (e *Engine) dataOwners() (map[string]uint32, error) {
	entries, err := os.ReadDir(filepath.Join(e.opts.Dir, "data"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	owners := map[string]uint32{}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			return nil, err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			owners[entry.Name()] = st.Uid
		}
	}
	return owners, nil
}

// account returns who a plugin runs as; nil: who runs this.
func (e *Engine) account(r *Record) (*sandbox.Account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	if r.Account != 0 {
		return &sandbox.Account{UID: r.Account, GID: r.Account}, nil
	}
	m, err := e.manifestOf(r)
	if err != nil {
		return nil, err
	}
	switch m.Permissions.RunAs {
	case manifest.RunAsRoot:
		return nil, nil
	case "":
		// Who is not root installed it, and root must not be what it gets then.
		return nil, failure.Errorf(failure.Untrustworthy, "plugin %s has no account of its own, since it was not installed by root (uninstall it, and install it as root)", r.Name)
	}
	u, err := user.Lookup(m.Permissions.RunAs)
	if err != nil {
		return nil, failure.Errorf(failure.NotReady, "plugin %s runs as %s: %w (make that user)", r.Name, m.Permissions.RunAs, err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	gid, errGid := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err, errGid); err != nil {
		return nil, err
	}
	if uid == 0 {
		return nil, failure.Errorf(failure.Untrustworthy, "plugin %s runs as %s, which is root by another name on this host", r.Name, m.Permissions.RunAs)
	}
	return &sandbox.Account{UID: uint32(uid), GID: uint32(gid)}, nil
}

// makeData makes the directory of a plugin, and gives it to its account.
func (e *Engine) makeData(r *Record) error {
	account, err := e.account(r)
	if err != nil {
		return err
	}
	dir, err := ownDir(unix.AT_FDCWD, e.DataDir(r.Name), account)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return failure.Hint(failure.Errorf(failure.Failed, "what plugin %s keeps has no place: %s is not a directory", r.Name, e.DataDir(r.Name)),
			"move it away; a directory elsewhere is mounted there, not linked")
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	// What is in there the plugin could have replaced by anything: a link to a
	// file of root would become its own.
	tmp, err := ownDir(int(dir.Fd()), "tmp", account)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		if err = unix.Unlinkat(int(dir.Fd()), "tmp", 0); err == nil {
			tmp, err = ownDir(int(dir.Fd()), "tmp", account)
		}
	}
	if err != nil {
		return err
	}
	return tmp.Close()
}

// ownDir makes a directory that is not there yet, and gives it to an account. It
// follows no link to it.
func ownDir(at int, path string, account *sandbox.Account) (*os.File, error) {
	if err := unix.Mkdirat(at, path, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &fs.PathError{Op: "mkdir", Path: path, Err: err}
	}
	fd, err := unix.Openat(at, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	dir := os.NewFile(uintptr(fd), path)
	info, err := dir.Stat()
	if err == nil && info.Mode().Perm() != 0o700 {
		err = dir.Chmod(0o700)
	}
	if err == nil && os.Geteuid() == 0 {
		if account == nil { // root without capabilities, which may not use what is another's
			account = &sandbox.Account{}
		}
		// Not on every start: what plugins lie on may be mounted read-only.
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != account.UID || st.Gid != account.GID {
			err = dir.Chown(int(account.UID), int(account.GID))
		}
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}
