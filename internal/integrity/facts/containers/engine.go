package containers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/integrity/facts"
)

// engine asks docker or podman through the HTTP interface of Docker Engine.
// Paths without a version mean that of the runtime, which every one of them
// knows, while any version that could be named is refused by some.
func (e *Endpoint) engine(ctx context.Context) (list []facts.Fact, version string, err error) {
	tr := &http.Transport{DialContext: e.dial, DisableCompression: true}
	defer tr.CloseIdleConnections()
	get := func(path string, limit int64, into any) error { return getJSON(ctx, tr, path, limit, into) }
	var about struct{ Version string }
	if err := get("/version", maxOne, &about); err != nil {
		return nil, "", err
	}
	var ids []struct {
		ID string `json:"Id"`
	}
	if err := get("/containers/json?all=true", maxList, &ids); err != nil {
		return nil, "", err
	}
	if len(ids) > maxContainers {
		return nil, "", fmt.Errorf("%d containers", len(ids))
	}
	for _, c := range ids {
		var one engineContainer
		err := get("/containers/"+url.PathEscape(c.ID)+"/json", maxOne, &one)
		if errors.Is(err, errNotFound) {
			continue // removed since the list was made
		}
		if err != nil {
			return nil, "", err
		}
		if f, worth := one.container(e.Name).fact(); worth {
			list = append(list, f)
		}
	}
	var images []engineImage
	if err := get("/images/json", maxList, &images); err != nil {
		return nil, "", err
	}
	if len(images) > maxImages {
		return nil, "", fmt.Errorf("%d images", len(images))
	}
	for i := range images {
		list = append(list, images[i].facts(e.Name)...)
	}
	return list, about.Version, nil
}

var errNotFound = errors.New("there is no such thing")

// getJSON reads one answer, and no more of it than limit.
func getJSON(ctx context.Context, tr *http.Transport, path string, limit int64, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://runtime"+path, nil)
	if err != nil {
		return err
	}
	res, err := tr.RoundTrip(req) // without a Client: nothing is followed
	if err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound {
		return fmt.Errorf("GET %s: %w", path, errNotFound)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, res.Status)
	}
	body := &io.LimitedReader{R: res.Body, N: limit + 1}
	err = json.NewDecoder(body).Decode(into)
	if body.N <= 0 {
		return fmt.Errorf("GET %s: more than %d bytes", path, limit)
	}
	if err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

// engineContainer is what is read of the answer to "inspect a container".
type engineContainer struct {
	ID     string `json:"Id"`
	Name   string
	Image  string // id of the image
	Path   string
	Args   []string
	Config struct {
		Image string
		User  string
	}
	HostConfig struct {
		Privileged     bool
		AutoRemove     bool
		ReadonlyRootfs bool
		NetworkMode    string
		PidMode        string
		IpcMode        string
		UsernsMode     string
		CapAdd         []string
		SecurityOpt    []string
		Devices        []struct{ PathOnHost string }
		DeviceRequests []struct{ Driver string }
		RestartPolicy  struct{ Name string }
		PortBindings   map[string][]struct{ HostIP, HostPort string }
	}
	Mounts []struct {
		Type        string
		Name        string
		Source      string
		Destination string
		RW          bool
	}
}

func (c *engineContainer) container(runtime string) *container {
	h := &c.HostConfig
	out := &container{
		key: runtime + "/" + strings.TrimPrefix(c.Name, "/"), id: c.ID, image: c.Config.Image, imageID: c.Image,
		command: append([]string{c.Path}, c.Args...), privileged: h.Privileged, network: h.NetworkMode, pid: h.PidMode, ipc: h.IpcMode,
		userns: h.UsernsMode, user: c.Config.User, restart: h.RestartPolicy.Name, readOnly: h.ReadonlyRootfs, transient: h.AutoRemove,
	}
	if out.restart == "" {
		out.restart = "no"
	}
	for _, name := range h.CapAdd {
		out.caps = append(out.caps, strings.TrimPrefix(strings.ToUpper(name), "CAP_"))
	}
	for _, m := range c.Mounts {
		source := m.Source
		if m.Type == "volume" { // its path is the runtime's own business
			source = "volume " + m.Name
			if len(m.Name) == 64 && isHex(m.Name) {
				source = "volume without a name"
			}
		}
		if m.Type == "tmpfs" {
			source = "tmpfs"
		}
		out.mounts = append(out.mounts, mount{source, m.Destination, m.RW})
	}
	for _, d := range h.Devices {
		out.devices = append(out.devices, d.PathOnHost)
	}
	for _, d := range h.DeviceRequests {
		out.devices = append(out.devices, "driver "+d.Driver)
	}
	for _, s := range h.SecurityOpt {
		if strings.HasPrefix(s, "seccomp") && strings.ContainsAny(s, "{") { // a whole profile
			s = "seccomp=own profile"
		}
		out.security = append(out.security, s)
	}
	for port, bound := range h.PortBindings {
		for _, b := range bound {
			ip := b.HostIP
			if ip == "" {
				ip = "any"
			}
			out.ports = append(out.ports, ip+":"+b.HostPort+" to "+port)
		}
	}
	slices.Sort(out.ports)
	return out
}

// engineImage is what is read of an entry of the list of images.
type engineImage struct {
	ID          string `json:"Id"`
	RepoTags    []string
	RepoDigests []string
}

// facts tells of each name of an image. One without any is what a newer one
// has taken the name of, and can only be used by its digest.
func (i *engineImage) facts(runtime string) []facts.Fact {
	var list []facts.Fact
	for _, tag := range i.RepoTags {
		if tag == "<none>:<none>" {
			continue
		}
		digest := facts.None
		repo := tag
		if at := strings.LastIndexByte(tag, ':'); at > strings.LastIndexByte(tag, '/') {
			repo = tag[:at]
		}
		for _, d := range i.RepoDigests {
			if name, sum, ok := strings.Cut(d, "@"); ok && name == repo {
				digest = sum
			}
		}
		list = append(list, image(runtime, tag, i.ID, digest))
	}
	if list == nil {
		for _, d := range i.RepoDigests {
			if _, sum, ok := strings.Cut(d, "@"); ok && !strings.HasPrefix(d, "<none>") {
				list = append(list, image(runtime, d, i.ID, sum))
			}
		}
	}
	return list
}
