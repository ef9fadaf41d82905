package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/osthread"
	"golang.org/x/sys/unix"
)

// errAbsent says that a workload is not there yet.
var errAbsent = errors.New("it is not there yet")

// openNamespace opens the network namespace of a workload. The error wraps
// errAbsent when there is none yet.
func openNamespace(a *Attach) (*os.File, error) {
	path, what := a.Namespace, "the network namespace "+a.Namespace
	switch {
	case a.PID != 0:
		path, what = fmt.Sprintf("/proc/%d/ns/net", a.PID), fmt.Sprintf("the process %d", a.PID)
	case a.Container != "":
		what = "the container " + a.Container
		pid, err := processOf(a.Container)
		if err != nil {
			return nil, err
		}
		if pid == 0 {
			return nil, fmt.Errorf("%s: %w", what, errAbsent)
		}
		path = fmt.Sprintf("/proc/%d/ns/net", pid)
	case !strings.HasPrefix(path, "/"):
		path = filepath.Join("/run/netns", path)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("%s: %w", what, errAbsent)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, failure.Errorf(failure.NotAllowed, "open %s: %w", what, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", what, err)
	}
	if err := isForeignNamespace(f, what); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// isForeignNamespace refuses what is no network namespace, and the one that
// this host itself lives in: a workload that shares it has no network of its
// own. An entry below /run/netns on which nothing is mounted is none yet.
func isForeignNamespace(f *os.File, what string) error {
	var stat unix.Stat_t
	var fsStat unix.Statfs_t
	var own unix.Stat_t
	if err := errors.Join(unix.Fstat(int(f.Fd()), &stat), unix.Fstatfs(int(f.Fd()), &fsStat), unix.Stat("/proc/thread-self/ns/net", &own)); err != nil {
		return fmt.Errorf("look at %s: %w", what, err)
	}
	if fsStat.Type != unix.NSFS_MAGIC {
		if fsStat.Type == unix.TMPFS_MAGIC && stat.Size == 0 {
			return fmt.Errorf("%s: %w", what, errAbsent)
		}
		return failure.Errorf(failure.Usage, "%s is no network namespace", what)
	}
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err == nil && kind != unix.CLONE_NEWNET {
		return failure.Errorf(failure.Usage, "%s is no network namespace", what)
	}
	if stat.Dev == own.Dev && stat.Ino == own.Ino {
		return failure.Errorf(failure.Usage, "%s has the network of this host, and none of its own", what)
	}
	return nil
}

// processOf finds a process of a container by its id, which runtimes put into
// the name of its control group; 0: there is none.
func processOf(id string) (int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err == nil && inGroup(string(b), id) {
			return pid, nil
		}
	}
	return 0, nil
}

// inGroup reports whether one part of the path of a control group is a
// container's: "/docker/ID", "/system.slice/docker-ID.scope",
// "…/cri-containerd-ID.scope", "/machine.slice/libpod-ID.scope/container".
func inGroup(text, id string) bool {
	for line := range strings.Lines(text) {
		for part := range strings.SplitSeq(strings.TrimSpace(line), "/") {
			part = strings.TrimSuffix(part, ".scope")
			part = part[strings.LastIndexAny(part, "-:")+1:]
			if len(part) == 64 && strings.HasPrefix(part, id) {
				return true
			}
		}
	}
	return false
}

// within runs f in a network namespace.
func within(ns *os.File, f func() error) error {
	return osthread.Run(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			if errors.Is(err, unix.EPERM) {
				return failure.Errorf(failure.NotAllowed, "enter %s: %w", ns.Name(), err)
			}
			return fmt.Errorf("enter %s: %w", ns.Name(), err)
		}
		return f()
	})
}
