package block

import (
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/netlink"
	"github.com/mobileops/mobileops/internal/osthread"
	"github.com/mobileops/mobileops/internal/threat"
	"golang.org/x/sys/unix"
)

// Where container engines keep what runs; * stands for users and namespaces. See
// the layouts of containers/storage, dockerd and containerd.
var (
	dockerConfigs = []string{"/var/lib/docker/containers/*/config.v2.json", "/home/*/.local/share/docker/containers/*/config.v2.json"}
	podmanNames   = []string{
		"/var/lib/containers/storage/*-containers/containers.json",
		"/home/*/.local/share/containers/storage/*-containers/containers.json",
		"/root/.local/share/containers/storage/*-containers/containers.json",
	}
	podmanPIDs     = []string{"/run/containers/storage/*-containers/ID/userdata/pidfile", "/var/run/containers/storage/*-containers/ID/userdata/pidfile", "/run/user/*/containers/*-containers/ID/userdata/pidfile", "/tmp/storage-run-*/containers/*-containers/ID/userdata/pidfile"}
	containerdPIDs = []string{"/run/containerd/io.containerd.runtime.v2.task/*/ID/init.pid"}
)

// maxContainerFile bounds what is read of another program's files.
const maxContainerFile = 32 << 20

func readSmall(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxContainerFile))
	if err != nil {
		return nil
	}
	return b
}

func glob(patterns []string, id string) (paths []string) {
	for _, p := range patterns {
		found, _ := filepath.Glob(strings.ReplaceAll(p, "ID", id))
		paths = append(paths, found...)
	}
	return paths
}

// containerProcess finds the first process of a running container by its name,
// its ID or the beginning of that.
func containerProcess(name string) (pid int, err error) {
	isID := func(id string) bool { return id == name || len(name) >= 8 && strings.HasPrefix(id, name) }
	found := map[string]int{} // by ID; 0: not running, or not known yet
	for _, path := range glob(dockerConfigs, "") {
		var c struct {
			ID, Name string
			State    struct{ Pid int }
		}
		if json.Unmarshal(readSmall(path), &c) == nil && (isID(c.ID) || strings.TrimPrefix(c.Name, "/") == name) {
			found[c.ID] = c.State.Pid
		}
	}
	for _, path := range glob(podmanNames, "") {
		var list []struct {
			ID    string   `json:"id"`
			Names []string `json:"names"`
		}
		if json.Unmarshal(readSmall(path), &list) != nil {
			continue
		}
		for _, c := range list {
			if isID(c.ID) || slices.Contains(c.Names, name) {
				found[c.ID] = pidIn(glob(podmanPIDs, c.ID))
			}
		}
	}
	if !strings.ContainsAny(name, "*?[\\") {
		if p := pidIn(glob(containerdPIDs, name)); p != 0 {
			found[name] = p
		}
	}
	if len(found) == 0 { // of an engine that is not known: engines name control groups after IDs
		if p := processInCgroup(isID); p != 0 {
			return p, nil
		}
		return 0, failure.Hint(failure.Errorf(failure.Usage, "there is no container %q", name), "see them: mobileops network monitor")
	}
	if len(found) > 1 {
		return 0, failure.Errorf(failure.Usage, "several containers are called %q: %s", name, strings.Join(sortedKeys(found), " "))
	}
	for id, p := range found {
		if p == 0 {
			p = processInCgroup(func(s string) bool { return s == id })
		}
		if _, ok := parentOf(p); ok && p != 0 {
			return p, nil
		}
	}
	return 0, failure.Errorf(failure.NotReady, "the container %q is not running", name)
}

func pidIn(paths []string) int {
	for _, path := range paths {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(readSmall(path)))); err == nil {
			if _, running := parentOf(pid); running {
				return pid
			}
		}
	}
	return 0
}

// processInCgroup finds the first process whose control group carries an ID:
// docker-ID.scope, libpod-ID.scope, or the ID alone.
func processInCgroup(isID func(string) bool) int {
	for _, pid := range processes() {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
		if err != nil {
			continue
		}
		for part := range strings.FieldsFuncSeq(string(b), func(r rune) bool { return strings.ContainsRune("/\n:", r) }) {
			part = strings.TrimSuffix(part, ".scope")
			if i := strings.LastIndexByte(part, '-'); i >= 0 {
				part = part[i+1:]
			}
			if len(part) == 64 && isID(part) {
				return pid
			}
		}
	}
	return 0
}

// partsOfContainer says by what rules know a container.
func partsOfContainer(target threat.Indicator) (Parts, error) {
	pid, err := containerProcess(target.Value)
	if err != nil {
		return Parts{}, err
	}
	same, err := inOurNetwork(pid)
	if err != nil {
		return Parts{}, err
	}
	if !same {
		return partsOfNamespace(target, pid)
	}
	// It has the network of the host: its control group tells it apart.
	path, err := cgroupOf(pid)
	if err != nil {
		return Parts{}, err
	}
	if path == "/" {
		list, err := confine(target, pid)
		return Parts{Cgroups: list}, err
	}
	c, err := cgroupAt(path)
	return Parts{Cgroups: []Cgroup{c}}, err
}

func networkOf(pid int) (uint64, error) {
	dir, err := living(pid)
	if err != nil {
		return 0, failure.Errorf(failure.Usage, "process %d is not running", pid)
	}
	return networkAt(dir)
}

func networkAt(dir string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir+"/ns/net", &st); err != nil {
		return 0, failure.Errorf(failure.Failed, "the network of %s: %w", dir, err)
	}
	return st.Ino, nil
}

func inOurNetwork(pid int) (bool, error) {
	theirs, err := networkOf(pid)
	if err != nil {
		return false, err
	}
	ours, err := networkAt("/proc/thread-self")
	return ours == theirs, err
}

// link is an interface.
type link struct {
	index, peer uint32 // peer: the other end, or what it is on, in whatever namespace that is; 0: none
	elsewhere   bool   // peer is of another namespace
	name        string
	ethernet    bool
	bridge      bool
}

// links are the interfaces of the namespace of the thread.
func links() (list []link) {
	for _, m := range routeDump(unix.RTM_GETLINK, unix.SizeofIfInfomsg) {
		head, attrs, err := netlink.After(m, unix.SizeofIfInfomsg)
		if err != nil {
			continue
		}
		typ := uint16(head[2]) | uint16(head[3])<<8
		index := netlink.Attr{Value: head[4:8]}
		l := link{index: index.Uint32(), ethernet: typ == unix.ARPHRD_ETHER || typ == unix.ARPHRD_ETHER<<8}
		for _, a := range attrs {
			switch a.Type {
			case unix.IFLA_IFNAME:
				l.name = a.Text()
			case unix.IFLA_LINK:
				l.peer = a.Uint32()
			case unix.IFLA_LINK_NETNSID:
				l.elsewhere = true
			case unix.IFLA_LINKINFO:
				info, _ := netlink.Attributes(a.Value)
				for _, i := range info {
					if i.Type == unix.IFLA_INFO_KIND {
						l.bridge = i.Text() == "bridge"
					}
				}
			}
		}
		list = append(list, l)
	}
	return list
}

// partsOfNamespace says by what rules know a network namespace: the addresses in
// it, and the ends of its cables in this one. One without a cable is connected by
// a program, which is confined.
func partsOfNamespace(target threat.Indicator, pid int) (Parts, error) {
	var inside []link
	var own []netip.Addr
	err := within(pid, func() { inside, own = links(), ownAddresses() })
	if err != nil {
		return Parts{}, err
	}
	var p Parts
	for _, outer := range links() {
		for _, l := range inside {
			if l.peer == outer.index && outer.peer == l.index && l.peer != 0 && !slices.Contains(p.Interfaces, outer.name) {
				p.Interfaces = append(p.Interfaces, outer.name)
			}
		}
	}
	if len(p.Interfaces) > 0 {
		for _, a := range own {
			if !a.IsLinkLocalUnicast() {
				p.Addresses = append(p.Addresses, a)
			}
		}
		return p, nil
	}
	for _, helper := range connectors(pid) {
		list, err := confine(threat.Indicator{Type: threat.PID, Value: strconv.Itoa(helper)}, helper)
		if err != nil {
			return p, err
		}
		for _, c := range list {
			if !slices.Contains(p.Cgroups, c) {
				p.Cgroups = append(p.Cgroups, c)
			}
		}
	}
	if len(p.Cgroups) > 0 {
		return p, nil
	}
	if len(own) == 0 {
		p.Uncovered = []string{target.String() + " has no network"}
		return p, nil
	}
	// macvlan and the like: rules of this host do not see its packets but as
	// those of the interface below.
	return p, failure.Errorf(failure.NotReady, "%s is connected neither by a veth pair nor by pasta or slirp4netns: no rule of this host sees its packets", target)
}

// within runs f on a thread in the network namespace of a process.
func within(pid int, f func()) error {
	dir, err := living(pid)
	if err != nil {
		return err
	}
	ns, err := os.Open(dir + "/ns/net")
	if err != nil {
		return err
	}
	defer ns.Close()
	return osthread.Run(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns", err)
		}
		f()
		return nil
	})
}

// connectors are the programs that connect the namespace of a process in user
// space, as rootless containers are.
func connectors(pid int) (list []int) {
	wanted, err := networkOf(pid)
	if err != nil {
		return nil
	}
	for _, p := range processes() {
		proc := "/proc/" + strconv.Itoa(p)
		comm := strings.TrimSpace(string(readSmall(proc + "/comm")))
		if !strings.HasPrefix(comm, "pasta") && !strings.HasPrefix(comm, "passt") && comm != "slirp4netns" {
			continue
		}
		for arg := range strings.SplitSeq(string(readSmall(proc+"/cmdline")), "\x00") {
			var st unix.Stat_t
			if strings.HasPrefix(arg, "/") && unix.Stat(proc+"/root"+arg, &st) == nil && st.Ino == wanted {
				list = append(list, p)
				break
			}
			if of, err := strconv.Atoi(arg); err == nil {
				if ino, err := networkOf(of); err == nil && ino == wanted {
					list = append(list, p)
					break
				}
			}
		}
	}
	return list
}

// Interfaces returns the names of the interfaces of the host, but for loopback.
func Interfaces() (names []string) {
	for _, l := range links() {
		if l.name != "lo" {
			names = append(names, l.name)
		}
	}
	return names
}
