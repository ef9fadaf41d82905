package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/segment/dhcp"
	"github.com/mobileops/mobileops/internal/network/segment/dns"
)

// State is how a service is.
type State string

// The states of a service.
const (
	Starting State = "starting"
	Serving  State = "serving"
	Failed   State = "failed" // it will be tried again
)

// Status is the content of the file that a running process keeps.
type Status struct {
	Schema string       `json:"schema"` // "mobileops.network.serve/v1"
	PID    int          `json:"pid"`
	Since  time.Time    `json:"since"`
	Zones  []ZoneStatus `json:"zones"`
}

// ZoneStatus is how the services of a zone are; those that it did not ask for
// are nil.
type ZoneStatus struct {
	Zone      string         `json:"zone"`
	Interface string         `json:"interface"`
	DHCP      *ServiceStatus `json:"dhcp,omitempty"`
	DNS       *ServiceStatus `json:"dns,omitempty"`

	DHCPCounters *dhcp.Counters `json:"dhcp_counters,omitempty"`
	DNSCounters  *dns.Counters  `json:"dns_counters,omitempty"`
}

// ServiceStatus is how one service is.
type ServiceStatus struct {
	State    State     `json:"state"`
	Since    time.Time `json:"since,omitzero"`
	Error    string    `json:"error,omitempty"`
	Failures int       `json:"failures"` // since the process began
}

func (r *run) status() *Status {
	st := &Status{Schema: "mobileops.network.serve/v1", PID: os.Getpid(), Since: r.began.UTC().Truncate(time.Second), Zones: []ZoneStatus{}}
	for _, z := range r.running {
		zs := ZoneStatus{Zone: z.zone.Name, Interface: z.zone.Interface}
		if z.dhcp != nil {
			s := z.dhcp.status()
			zs.DHCP = &s
			if l := z.leases.Load(); l != nil {
				c := l.Counters()
				zs.DHCPCounters = &c
			}
		}
		if z.dns != nil {
			s := z.dns.status()
			zs.DNS = &s
			if n := z.names.Load(); n != nil {
				c := n.Counters()
				zs.DNSCounters = &c
			}
		}
		st.Zones = append(st.Zones, zs)
	}
	slices.SortFunc(st.Zones, func(a, b ZoneStatus) int { return strings.Compare(a.Zone, b.Zone) })
	return st
}

// maxStatus bounds the file, bytes.
const maxStatus = 4 << 20

// ReadStatus reads what a running process wrote; nil when there is none.
func ReadStatus(name string) (*Status, error) {
	fi, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if fi.Size() > maxStatus || !fi.Mode().IsRegular() {
		return nil, failure.Errorf(failure.Untrustworthy, "%s was not written by mobileops network serve", name)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	st := new(Status)
	if err := json.Unmarshal(data, st); err != nil || !strings.HasPrefix(st.Schema, "mobileops.network.serve/") {
		return nil, failure.Wrap(failure.Untrustworthy, fmt.Errorf("%s was not written by mobileops network serve: %w", name, errors.Join(err, errors.New(st.Schema))))
	}
	return st, nil
}
