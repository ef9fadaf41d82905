package change

import (
	"bytes"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/cli/app"
)

// Who returns all that can be told about who runs this, for every command by
// which one person asks and another approves.
func Who(a *app.App) change.Identity {
	i := change.Identity{Actor: a.Actor()}
	owners := []int64{int64(i.UID)}
	if i.LoginUID >= 0 {
		owners = append(owners, i.LoginUID)
		if u, err := user.LookupId(strconv.FormatInt(i.LoginUID, 10)); err == nil {
			i.LoginUser = u.Username
		}
	}
	for _, path := range authFiles(a.Getenv("SSH_USER_AUTH")) {
		// A key can only show that two are the same person, so what cannot be read
		// makes nobody an approver who was none.
		keys, err := change.SSHKeys(path, owners...)
		if err != nil {
			continue
		}
		for _, k := range keys {
			if !slices.Contains(i.Keys, k) && len(i.Keys) < change.MaxKeys {
				i.Keys = append(i.Keys, k)
			}
		}
	}
	return i
}

// maxAncestors and maxEnviron bound how far SSH_USER_AUTH is looked for.
const (
	maxAncestors = 64
	maxEnviron   = 1 << 20 // bytes
)

// authFiles returns what SSH_USER_AUTH is in the environment, and was when the
// processes that led here were started: sudo and su drop it.
func authFiles(own string) (paths []string) {
	add := func(path string) {
		if path != "" && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	add(own)
	pid := os.Getppid()
	for n := 0; pid > 1 && n < maxAncestors; n++ {
		dir := "/proc/" + strconv.Itoa(pid)
		if env, err := os.ReadFile(dir + "/environ"); err == nil && len(env) <= maxEnviron {
			for v := range bytes.SplitSeq(env, []byte{0}) {
				if path, ok := bytes.CutPrefix(v, []byte("SSH_USER_AUTH=")); ok {
					add(string(path))
				}
			}
		}
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			break
		}
		// The name of the program, in parentheses, can hold anything.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) < 2 {
			break
		}
		if pid, err = strconv.Atoi(fields[1]); err != nil {
			break
		}
	}
	return paths
}

// People reads the file of people, where the configuration names one. What the
// configuration file says about changes counts, not what somebody would like it
// to say this time.
func People(a *app.App) (*change.People, error) {
	if err := a.Govern("change.people", "change.approvals"); err != nil {
		return nil, err
	}
	c, err := a.Config()
	if err != nil || c.Change.People == "" {
		return nil, err
	}
	return change.ReadPeople(c.Change.People, os.Geteuid(), func(name string) (string, bool) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", false
		}
		return u.Uid, true
	})
}
