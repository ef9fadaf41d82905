package containers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/integrity/facts"
)

// containerd asks containerd for its namespaces, and each of these for its
// containers and images. The numbers of fields are those of its .proto files.
func (e *Endpoint) containerd(ctx context.Context, docker bool) (list []facts.Fact, version string, err error) {
	c := e.client()
	defer c.tr.CloseIdleConnections()
	err = c.call(ctx, "/containerd.services.version.v1.Version/Version", nil, func(m []byte) error {
		return message(m, func(number int, v []byte) error {
			if number == 1 {
				version = string(v)
			}
			return nil
		})
	})
	if err != nil {
		return nil, "", err
	}
	var namespaces []string
	err = c.call(ctx, "/containerd.services.namespaces.v1.Namespaces/List", nil, func(m []byte) error {
		return message(m, func(_ int, v []byte) error {
			return message(v, func(number int, name []byte) error {
				if number == 1 {
					namespaces = append(namespaces, string(name))
				}
				return nil
			})
		})
	})
	if err != nil {
		return nil, "", err
	}
	for _, ns := range namespaces {
		if docker && ns == "moby" {
			continue
		}
		if strings.ContainsFunc(ns, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, "", fmt.Errorf("the namespace %q", ns)
		}
		c.namespace = ns
		more, err := c.containers(ctx, e.Name, ns)
		if err != nil {
			return nil, "", err
		}
		images, err := c.images(ctx, e.Name+"/"+ns)
		if err != nil {
			return nil, "", err
		}
		list = append(append(list, more...), images...)
	}
	return list, version, nil
}

func (c *client) containers(ctx context.Context, runtime, namespace string) (list []facts.Fact, err error) {
	take := func(m []byte) error {
		one, err := parseContainer(m, runtime, namespace)
		if err != nil {
			return err
		}
		if f, worth := one.fact(); worth {
			list = append(list, f)
		}
		if len(list) > maxContainers {
			return fmt.Errorf("more than %d containers", maxContainers)
		}
		return nil
	}
	inside := func(m []byte) error { return message(m, func(_ int, v []byte) error { return take(v) }) }
	// As a stream, no list is too long for one message; the oldest cannot.
	err = c.call(ctx, "/containerd.services.containers.v1.Containers/ListStream", nil, inside)
	var status *statusError
	if errors.As(err, &status) && status.unimplemented() {
		list = nil
		err = c.call(ctx, "/containerd.services.containers.v1.Containers/List", nil, inside)
	}
	return list, err
}

func (c *client) images(ctx context.Context, where string) (list []facts.Fact, err error) {
	err = c.call(ctx, "/containerd.services.images.v1.Images/List", nil, func(m []byte) error {
		return message(m, func(_ int, v []byte) error {
			name, digest, err := parseImage(v)
			if err == nil && !strings.HasPrefix(name, "sha256:") { // which Kubernetes adds to each
				list = append(list, image(where, name, digest, digest))
			}
			if len(list) > maxImages {
				err = fmt.Errorf("more than %d images", maxImages)
			}
			return err
		})
	})
	return list, err
}

// parseImage reads an Image: 1 name, 3 target, of which 2 is the digest.
func parseImage(b []byte) (name, digest string, err error) {
	err = message(b, func(number int, v []byte) error {
		switch number {
		case 1:
			name = string(v)
		case 3:
			return message(v, func(number int, v []byte) error {
				if number == 2 {
					digest = string(v)
				}
				return nil
			})
		}
		return nil
	})
	return name, digest, err
}

// parseContainer reads a Container: 1 id, 2 labels, 3 image, 5 the OCI
// specification as an Any, of which 2 is its JSON.
func parseContainer(b []byte, runtime, namespace string) (*container, error) {
	out := &container{}
	labels := map[string]string{}
	var spec []byte
	err := message(b, func(number int, v []byte) error {
		switch number {
		case 1:
			out.id = string(v)
		case 2:
			k, value, err := entry(v)
			labels[k] = value
			return err
		case 3:
			out.image = string(v)
		case 5:
			return message(v, func(number int, v []byte) error {
				if number == 2 {
					spec = v
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out.imageID = labels["io.cri-containerd.image"]
	out.key = runtime + "/" + namespace + "/" + containerName(out.id, labels)
	if len(spec) > 0 {
		var s ociSpec
		if err := json.Unmarshal(spec, &s); err != nil {
			return nil, fmt.Errorf("container %q: its specification: %w", out.id, err)
		}
		s.describe(out)
	}
	return out, nil
}

// containerName is the name of a container: that which a pod or nerdctl gave
// it, for their ids are drawn anew with each. Replicas of a pod are one.
func containerName(id string, labels map[string]string) string {
	if pod := labels["io.kubernetes.pod.name"]; pod != "" {
		name := labels["io.kubernetes.container.name"]
		if name == "" {
			name = "sandbox"
		}
		return labels["io.kubernetes.pod.namespace"] + "/" + podName(pod) + "/" + name
	}
	if name := labels["nerdctl/name"]; name != "" {
		return name
	}
	return id
}

// podName takes off what Kubernetes adds to the name of a deployment or a set:
// five letters and digits, and before them a hash.
func podName(pod string) string {
	drawn := func(s string, low, high int) bool {
		const letters = "bcdfghjklmnpqrstvwxz2456789"
		return len(s) >= low && len(s) <= high && !strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune(letters, r) })
	}
	parts := strings.Split(pod, "-")
	if n := len(parts); n > 1 && drawn(parts[n-1], 5, 5) {
		parts = parts[:n-1]
		if n := len(parts); n > 1 && drawn(parts[n-1], 8, 10) {
			parts = parts[:n-1]
		}
	}
	return strings.Join(parts, "-")
}

// ociSpec is what is read of the config.json of the OCI runtime specification.
type ociSpec struct {
	Process struct {
		User struct {
			UID uint32 `json:"uid"`
			GID uint32 `json:"gid"`
		} `json:"user"`
		Args            []string `json:"args"`
		ApparmorProfile string   `json:"apparmorProfile"`
		Capabilities    struct {
			Bounding []string `json:"bounding"`
		} `json:"capabilities"`
	} `json:"process"`
	Root struct {
		Readonly bool `json:"readonly"`
	} `json:"root"`
	Mounts []struct {
		Destination string   `json:"destination"`
		Type        string   `json:"type"`
		Source      string   `json:"source"`
		Options     []string `json:"options"`
	} `json:"mounts"`
	Linux struct {
		Namespaces []struct {
			Type string `json:"type"`
			Path string `json:"path"`
		} `json:"namespaces"`
		Devices []struct {
			Path string `json:"path"`
		} `json:"devices"`
		Seccomp     *struct{} `json:"seccomp"`
		MaskedPaths []string  `json:"maskedPaths"`
	} `json:"linux"`
}

func (s *ociSpec) describe(c *container) {
	c.command = s.Process.Args
	c.readOnly = s.Root.Readonly
	c.user = strconv.FormatUint(uint64(s.Process.User.UID), 10) + ":" + strconv.FormatUint(uint64(s.Process.User.GID), 10)
	own := func(kind string) string {
		for _, n := range s.Linux.Namespaces {
			if n.Type == kind {
				return "own"
			}
		}
		return "host"
	}
	c.network, c.pid, c.ipc = own("network"), own("pid"), own("ipc")
	if c.userns = own("user"); c.userns == "host" {
		c.userns = "" // as nearly all have it
	}
	for _, name := range s.Process.Capabilities.Bounding {
		if name = strings.TrimPrefix(name, "CAP_"); !slices.Contains(usual[:], name) {
			c.caps = append(c.caps, name)
		}
	}
	for _, m := range s.Mounts {
		if m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			c.mounts = append(c.mounts, mount{m.Source, m.Destination, !slices.Contains(m.Options, "ro")})
		}
	}
	for _, d := range s.Linux.Devices {
		c.devices = append(c.devices, d.Path)
	}
	if s.Linux.Seccomp == nil {
		c.security = append(c.security, "no seccomp")
	}
	if s.Process.ApparmorProfile != "" {
		c.security = append(c.security, "apparmor="+s.Process.ApparmorProfile)
	}
	// A specification has no word for it: all capabilities and nothing hidden.
	c.privileged = slices.Contains(c.caps, "SYS_ADMIN") && slices.Contains(c.caps, "SYS_MODULE") && s.Linux.Seccomp == nil && len(s.Linux.MaskedPaths) == 0
	if c.privileged {
		c.devices = nil // all of them
	}
}
