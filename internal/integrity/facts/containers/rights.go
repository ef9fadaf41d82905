package containers

import (
	"encoding/hex"
	"path"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/zeebo/blake3"
)

// container is how a container was made, whichever runtime told.
type container struct {
	key        string // "docker/web"
	id         string
	image      string
	imageID    string
	command    []string
	privileged bool
	caps       []string // beyond what a container usually has, without "CAP_"
	mounts     []mount
	network    string
	pid        string
	ipc        string
	userns     string
	user       string
	devices    []string
	security   []string // "apparmor=unconfined"
	restart    string
	ports      []string
	readOnly   bool
	transient  bool // to be removed when it ends
}

type mount struct {
	source string // a path of the host, or "volume NAME"
	target string
	write  bool
}

func (m *mount) String() string {
	mode := "ro"
	if m.write {
		mode = "rw"
	}
	return steady(m.source) + ":" + steady(m.target) + ":" + mode
}

// steady puts a star for the parts of a path that are drawn anew each time a
// container is made: digests, and ids of pods.
func steady(p string) string {
	parts := strings.Split(p, "/")
	for i, s := range parts {
		if len(s) == 36 && strings.Count(s, "-") == 4 && isHex(strings.ReplaceAll(s, "-", "")) || len(s) == 64 && isHex(s) {
			parts[i] = "*"
		}
	}
	return strings.Join(parts, "/")
}

func isHex(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil
}

// powerful are capabilities with which a container can take over its host or
// look into other processes, see capabilities(7).
func powerful(name string) bool {
	switch name {
	case "ALL", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO", "SYS_BOOT", "DAC_READ_SEARCH", "BPF", "PERFMON",
		"NET_ADMIN", "MAC_ADMIN", "MAC_OVERRIDE", "SYSLOG", "SYS_TIME", "CHECKPOINT_RESTORE", "LINUX_IMMUTABLE":
		return true
	}
	return false
}

// usual are the capabilities that a container gets without asking.
var usual = [...]string{"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
	"NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}

// risks names what about the container gives it, or whoever is in it, rights
// over the host.
func (c *container) risks() []string {
	var list []string
	if c.privileged {
		list = append(list, "privileged")
	}
	for _, m := range c.mounts {
		src := path.Clean(m.source)
		switch {
		case !strings.HasPrefix(m.source, "/"):
		case src == "/":
			list = append(list, "mounts /")
		case slices.Contains([]string{"docker.sock", "podman.sock", "containerd.sock", "crio.sock"}, path.Base(src)) ||
			slices.Contains([]string{"/run", "/var/run"}, src):
			list = append(list, "mounts the socket of a runtime")
		case m.write && sensitive(src):
			list = append(list, "writes "+src)
		}
	}
	for name, mode := range map[string]string{"network": c.network, "pid": c.pid, "ipc": c.ipc} {
		if mode == "host" {
			list = append(list, name+" of the host")
		}
	}
	if c.userns == "host" {
		list = append(list, "users of the host")
	}
	for _, name := range c.caps {
		if powerful(name) {
			list = append(list, "capability "+name)
		}
	}
	for _, d := range c.devices {
		list = append(list, "device "+d)
	}
	for _, s := range c.security {
		if s = strings.ReplaceAll(s, ":", "="); strings.HasSuffix(s, "=unconfined") || s == "label=disable" && !c.privileged {
			list = append(list, s)
		}
	}
	return list
}

// sensitive tells whether writing below a directory of the host gives power
// over it.
func sensitive(p string) bool {
	for _, dir := range []string{"/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/opt", "/proc", "/root", "/sbin", "/sys", "/usr",
		"/var/lib/containerd", "/var/lib/containers", "/var/lib/docker", "/var/lib/kubelet", "/var/spool/cron", "/home", "/var"} {
		if p == dir || strings.HasPrefix(p, dir+"/") && dir != "/home" && dir != "/opt" && dir != "/var" && dir != "/var/lib/kubelet" {
			return true
		}
	}
	return false
}

// fact tells of a container. Its id is new whenever it is made anew, as every
// update of its image does, so that alone is of low severity.
func (c *container) fact() (f facts.Fact, worth bool) {
	risks := c.risks()
	f = facts.Fact{Kind: "container", Key: bounded(c.key), Severity: finding.Medium, Attributes: map[string]string{
		"id": short(c.id), "image": bounded(c.image), "image_id": short(c.imageID), "runs": runs(c.command),
		"privileged": facts.YesNo(c.privileged), "capabilities": join(c.caps), "mounts": join(texts(c.mounts)),
		"network": text(c.network), "pid": text(c.pid), "ipc": text(c.ipc), "userns": text(c.userns), "user": text(c.user),
		"devices": join(c.devices), "security": join(c.security), "restart": text(c.restart), "ports": join(c.ports),
		"read_only": facts.YesNo(c.readOnly), facts.Risks: join(risks),
	}}
	if len(risks) > 0 {
		f.Severity = finding.High
	}
	return f, !c.transient || len(risks) > 0
}

func texts(list []mount) (out []string) {
	for i := range list {
		out = append(out, list[i].String())
	}
	return out
}

// text is a value that may be empty.
func text(s string) string {
	if s == "" {
		return facts.None
	}
	return bounded(s)
}

// join bounds what a runtime may make an attribute of.
func join(list []string) string {
	out := make([]string, 0, len(list))
	size := 0
	for _, s := range list {
		s = bounded(s)
		if size += len(s); size > 32<<10 {
			sum := blake3.Sum256([]byte(strings.Join(list, "\x00")))
			return "too many to list, digest " + hex.EncodeToString(sum[:16])
		}
		out = append(out, s)
	}
	return facts.Join(out)
}

// runs is the command of a container without secrets.
func runs(argv []string) string {
	return text(strings.Join(audit.Redact(argv, nil), " "))
}

// short is an id as people write it.
func short(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	if len(id) > 12 && isHex(id[:12]) {
		id = id[:12]
	}
	return text(id)
}

// image tells of one name of an image.
func image(runtime, name, id, digest string) facts.Fact {
	return facts.Fact{Kind: "image", Key: bounded(runtime + "/" + name), Severity: finding.Low,
		Attributes: map[string]string{"image_id": text(id), "digest": text(digest)}}
}
