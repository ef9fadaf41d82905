package source

import (
	"encoding/json"
	"io"
	"path"
	"strings"
)

// containers knows the names of containers whose logs are named by numbers.
// Docker's container ID has its name in ID/config.v2.json; the kubelet's logs
// are /var/log/pods/NAMESPACE_POD_UID/CONTAINER/N.log (KEP-1113, and
// k8s.io/kubernetes/pkg/kubelet/kuberuntime).
type containers struct {
	tree *tree
}

// maxConfig is how large in bytes the configuration of a container may be.
const maxConfig = 4 << 20

// sourceName is what records of a file name as their source: the path of the
// log, without marks of rotation, or the container that wrote it.
func (c *Collector) sourceName(cand *candidate) string {
	if cand.spec.Kind == Files {
		if name := c.names.name(cand.stem); name != "" {
			return name
		}
	}
	if cand.rotated {
		return cand.stem
	}
	return cand.path
}

// name returns docker:NAME or pod:NAMESPACE/POD/CONTAINER for the log of a
// container, and "" for every other file.
func (n *containers) name(log string) string {
	dir, base := path.Split(log)
	dir = strings.TrimSuffix(dir, "/")
	if id, ok := strings.CutSuffix(base, "-json.log"); ok && len(id) == 64 && path.Base(dir) == id {
		if name := n.docker(dir + "/config.v2.json"); name != "" {
			return "docker:" + name
		}
		return ""
	}
	container := path.Base(dir)
	pod := path.Dir(dir)
	if path.Base(path.Dir(pod)) == "pods" && strings.HasSuffix(base, ".log") {
		if parts := strings.Split(path.Base(pod), "_"); len(parts) == 3 {
			return "pod:" + parts[0] + "/" + parts[1] + "/" + container
		}
	}
	return ""
}

func (n *containers) docker(config string) string {
	f, _, err := n.tree.openRegular(config)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil || len(b) > maxConfig {
		return ""
	}
	var c struct{ Name string }
	if json.Unmarshal(b, &c) != nil || len(c.Name) > 255 {
		return ""
	}
	return strings.TrimPrefix(c.Name, "/")
}
