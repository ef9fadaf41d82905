// Package containers tells which containers and images the runtimes of a host
// have, and which rights the containers were given.
//
// Docker and podman are asked through the HTTP interface of the Docker Engine,
// containerd through gRPC, each at its UNIX socket and with requests that
// change nothing. A socket that systemd listens at starts its service. What is
// told is how a container was made, not how it is doing: containers stop and
// start all day, by themselves and by schedules, and a stopped one that is
// privileged is as bad as one that runs. Containers that were made to be
// removed when they end are told only when they have rights worth a look.
//
// Docker runs its containers through containerd, in the namespace "moby": what
// is there is told by docker alone.
//
// Which runtimes were found is told too. One that does not answer, or may not
// be asked, is never taken for one without containers. CRI-O, LXC and
// systemd-nspawn are not asked.
//
// Sources: Docker Engine API 1.24 to 1.50, containerd's api/services, the OCI
// runtime specification 1.2.
package containers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/facts"
)

// Endpoint is a socket at which a runtime answers.
type Endpoint struct {
	Name   string // "docker", "podman", "containerd", or with a colon and whose it is: "podman:1000"
	Socket string
}

// protocol is what the name says before the colon.
func (e *Endpoint) protocol() string {
	p, _, _ := strings.Cut(e.Name, ":")
	return p
}

// Collector collects the facts of containers. The zero value asks the sockets
// at which runtimes usually answer, those of users included.
type Collector struct {
	Endpoints []Endpoint
}

// Bounds of what a runtime may answer and how long it may take: whoever owns
// the socket of a user's runtime can answer anything.
const (
	runtimeTime   = 30 * time.Second
	maxContainers = 20_000
	maxImages     = 50_000
	maxList       = 32 << 20 // bytes of a list
	maxOne        = 4 << 20  // bytes about one container
	maxTold       = 16 << 20 // bytes of facts of all runtimes
	maxUser       = 1 << 20  // bytes of facts of the runtime of a user
)

// weight is about how many bytes facts are when they are kept.
func weight(list []facts.Fact) (n int) {
	for i := range list {
		n += 256 + len(list[i].Key)
		for name, v := range list[i].Attributes {
			n += len(name) + len(v)
		}
	}
	return n
}

// Default returns the endpoints of this host: those of the system whether or
// not they are there, and those of users that are.
func Default() []Endpoint { return endpoints("/run") }

func endpoints(run string) []Endpoint {
	list := []Endpoint{
		{"docker", filepath.Join(run, "docker.sock")},
		{"podman", filepath.Join(run, "podman/podman.sock")},
		{"containerd", filepath.Join(run, "containerd/containerd.sock")},
	}
	for _, more := range []Endpoint{{"containerd:k3s", "k3s/containerd/containerd.sock"}, {"containerd:docker", "docker/containerd/containerd.sock"}} {
		more.Socket = filepath.Join(run, more.Socket)
		if _, err := os.Lstat(more.Socket); err == nil {
			list = append(list, more)
		}
	}
	users, _ := os.ReadDir(filepath.Join(run, "user"))
	for _, u := range users {
		for name, socket := range map[string]string{"podman": "podman/podman.sock", "docker": "docker.sock"} {
			path := filepath.Join(run, "user", u.Name(), socket)
			// The directory belongs to the user: a link could lead anywhere.
			if st, err := os.Lstat(path); err == nil && st.Mode().Type() == fs.ModeSocket {
				list = append(list, Endpoint{name + ":" + facts.Text(u.Name()), path})
			}
		}
	}
	slices.SortFunc(list, func(a, b Endpoint) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Collect asks every runtime. It fails only when ctx is done: what a runtime
// did not tell is in its state.
func (c Collector) Collect(ctx context.Context) ([]facts.Source, []facts.Fact, error) {
	list := c.Endpoints
	if list == nil {
		list = Default()
	}
	sources := []facts.Source{{Aspect: facts.Containers, Name: "runtimes", State: facts.OK}}
	var all []facts.Fact
	// What users answer must not crowd out what the system's runtimes answer.
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b Endpoint) int { return cmp.Compare(strings.Count(a.Name, ":"), strings.Count(b.Name, ":")) })
	left := maxTold
	docker := slices.ContainsFunc(list, func(e Endpoint) bool { return e.protocol() == "docker" })
	for _, e := range list {
		src := facts.Source{Aspect: facts.Containers, Name: e.Name, State: facts.OK, Detail: facts.Text(e.Socket)}
		told, version, err := e.collectWithin(ctx, docker, runtimeTime)
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		if n := weight(told); err == nil && (n > left || strings.Contains(e.Name, ":") && n > maxUser) {
			err = fmt.Errorf("it tells of too many containers and images: %d bytes", n)
		} else if err == nil {
			left -= n
		}
		switch {
		case err == nil:
			all = append(append(all, told...), e.runtime(version))
		case errors.Is(err, fs.ErrNotExist):
			src.State, src.Detail = facts.Absent, "no socket at "+facts.Text(e.Socket)
		case errors.Is(err, syscall.ECONNREFUSED):
			src.State, src.Detail = facts.Absent, "nothing answers at "+facts.Text(e.Socket)
		case errors.Is(err, fs.ErrPermission):
			src.State, src.Detail = facts.Denied, "the socket "+facts.Text(e.Socket)+" is for others to open"
		default:
			src.State, src.Detail = facts.Failed, facts.Text(err.Error())
		}
		sources = append(sources, src)
	}
	for i := range all {
		all[i].Aspect = facts.Containers
	}
	return sources, all, nil
}

func (e *Endpoint) collectWithin(ctx context.Context, docker bool, most time.Duration) (list []facts.Fact, version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	if e.protocol() == "containerd" {
		list, version, err = e.containerd(ctx, docker)
	} else {
		list, version, err = e.engine(ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %v", most)
	}
	for i := range list {
		list[i].Source = e.Name
	}
	return list, version, err
}

// runtime is the fact that a runtime answers, and who may command it: whoever
// may write to its socket is root.
func (e *Endpoint) runtime(version string) facts.Fact {
	f := facts.Fact{Kind: "runtime", Key: e.Name, Source: "runtimes", Severity: finding.Medium,
		Attributes: map[string]string{"socket": facts.Text(e.Socket), "version": bounded(version)}}
	if st, err := os.Stat(e.Socket); err == nil {
		f.Attributes["mode"] = fmt.Sprintf("%04o", st.Mode().Perm())
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			f.Attributes["owner"] = fmt.Sprintf("%d:%d", sys.Uid, sys.Gid)
		}
	}
	return f
}

// dial connects to the socket, whatever the address.
func (e *Endpoint) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", e.Socket)
}

// bounded makes text of a runtime fit to be an attribute.
func bounded(s string) string {
	if len(s) > 4096 {
		s = s[:4096] + "..."
	}
	return facts.Text(s)
}
