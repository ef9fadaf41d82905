package network

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/segment"
	"github.com/mobileops/mobileops/internal/network/segment/dhcp"
	"github.com/mobileops/mobileops/internal/network/segment/serve"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

const leaseSuffix = ".leases"

func newLeases(a *app.App) *cobra.Command {
	var all bool
	cmd := a.Command(app.Spec{
		Use:   "leases [ZONE...] [--all]",
		Short: "List the addresses that DHCP has given out, and how the services are",
		Long: `List the addresses that DHCP has given out, and how the services are.

Leases are read from their files, also while nobody serves. A service that does not
run as it should is told on the standard error.`,
		Example: `
mobileops network leases
mobileops network leases dev --output json | jq -r '.leases[] | .address + " " + .name'
mobileops network leases --all                           # runbook: who had that address before?
*/5 * * * * root mobileops network leases --quiet        # cron: mails when a service of a zone fails
`,
		Args: cobra.ArbitraryArgs,
		Statuses: []app.Status{
			{Code: 0, Text: "listed; every service runs"},
			{Code: 1, Text: "a service of a zone has failed, and is tried again"},
			{Code: 5, Text: "a file of leases is damaged; it is named"},
			{Code: 7, Text: "zones ask for services, and nobody serves (start it: mobileops network serve)"},
		},
		Files:    []string{leaseFiles, serveFile},
		Run:      func(ctx context.Context, args []string) error { return runLeases(ctx, a, args, all) },
		Complete: func(_ context.Context, args []string, _ string) []string { return leaseZones(a) },
	})
	cmd.Flags().BoolVar(&all, "all", false, "also leases that have ended, and addresses that were found to be taken")
	return cmd
}

// leaseZones are the zones that have leases.
func leaseZones(a *app.App) []string {
	c, err := a.Config()
	if err != nil {
		return nil
	}
	list, err := leaseFilesOf(c)
	if err != nil {
		return nil
	}
	return list
}

func leaseFilesOf(c *config.Config) ([]string, error) {
	entries, err := os.ReadDir(leaseDir(c))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		if zone, ok := strings.CutSuffix(e.Name(), leaseSuffix); ok && !strings.HasPrefix(zone, ".") {
			list = append(list, zone)
		}
	}
	return list, nil
}

// leaseRecord is a lease in JSON.
type leaseRecord struct {
	Zone    string     `json:"zone"`
	Address netip.Addr `json:"address"`
	State   dhcp.State `json:"state"`
	MAC     dhcp.MAC   `json:"mac"`
	Name    string     `json:"name,omitempty"`
	Port    string     `json:"port,omitempty"`
	Client  string     `json:"client,omitempty"`
	Since   time.Time  `json:"since"`
	Until   time.Time  `json:"until"`
}

// leasesReport is the document of mobileops network leases.
type leasesReport struct {
	Schema   string        `json:"schema"`
	Serving  *serve.Status `json:"serving"` // null: nobody serves
	Leases   []leaseRecord `json:"leases"`
	Problems []string      `json:"problems"`
}

func runLeases(ctx context.Context, a *app.App, zones []string, all bool) error {
	c, err := a.Config()
	if err != nil {
		return err
	}
	known, err := leaseFilesOf(c)
	if err != nil {
		return err
	}
	report := leasesReport{Schema: "mobileops.network.leases/v1", Leases: []leaseRecord{}, Problems: []string{}}
	kind, err := report.services(ctx, a, c)
	if err != nil {
		return err
	}
	for _, z := range zones {
		served := report.Serving != nil && slices.ContainsFunc(report.Serving.Zones, func(s serve.ZoneStatus) bool { return s.Zone == z })
		if !slices.Contains(known, z) && !served {
			if len(known) == 0 {
				return failure.Errorf(failure.Usage, "no zone %q has leases, nor has any other (see the zones: mobileops network segments)", z)
			}
			return failure.Errorf(failure.Usage, "no zone %q has leases (those that have: %s)", z, strings.Join(known, " "))
		}
	}
	now := time.Now()
	for _, z := range known {
		if len(zones) > 0 && !slices.Contains(zones, z) {
			continue
		}
		list, err := dhcp.ReadLeases(serve.LeaseFile(leaseDir(c), z), now)
		if err != nil {
			kind = failure.Worse(kind, failure.KindOf(err))
			report.Problems = append(report.Problems, "zone "+z+": "+err.Error())
			continue
		}
		for _, l := range list {
			if all || l.State == dhcp.Bound {
				report.Leases = append(report.Leases, leaseRecord{z, l.Address, l.State, l.MAC, l.Name, l.Port, l.Client, l.Since.UTC(), l.Until.UTC()})
			}
		}
	}
	for _, p := range report.Problems {
		a.Streams.Notice("mobileops: network leases: %s", ui.Escape(p))
	}
	if err := report.print(a.Streams); err != nil {
		return err
	}
	if kind != failure.None {
		return failure.Silent(kind)
	}
	return nil
}

// sayNobodyServes tells whoever made a zone with DHCP or DNS that there is neither
// as long as nobody serves: its machines would wait for an address.
func sayNobodyServes(ctx context.Context, a *app.App) {
	c, err := a.Config()
	if err != nil {
		return
	}
	var r leasesReport
	if kind, err := r.services(ctx, a, c); err == nil && kind == failure.NotReady {
		a.Streams.Notice("mobileops: note: zones ask for DHCP or DNS, and %s", strings.Join(r.Problems, "; "))
	}
}

// services reads how the services are, and returns the kind of what is wrong.
func (r *leasesReport) services(ctx context.Context, a *app.App, c *config.Config) (failure.Kind, error) {
	store, err := a.State()
	if err != nil {
		return failure.None, err
	}
	if _, held := store.Holder(serveLock); !held {
		if l, err := segment.Applied(ctx, store); err != nil || len(serve.Zones(l, leaseDir(c))) == 0 {
			return failure.None, err // nobody has to
		}
		r.Problems = append(r.Problems, "nobody serves (start it: mobileops network serve)")
		return failure.NotReady, nil
	}
	if r.Serving, err = serve.ReadStatus(serveStatus(c)); err != nil {
		return failure.None, err
	}
	kind := failure.None
	if r.Serving == nil {
		return kind, nil // it is about to begin
	}
	for _, z := range r.Serving.Zones {
		for what, s := range map[string]*serve.ServiceStatus{"DHCP": z.DHCP, "DNS": z.DNS} {
			if s != nil && s.State == serve.Failed {
				kind = failure.No
				r.Problems = append(r.Problems, "zone "+z.Zone+": "+what+": "+s.Error)
			}
		}
	}
	slices.Sort(r.Problems)
	return kind, nil
}

func (r *leasesReport) print(s *ui.Streams) error {
	switch {
	case s.Format == ui.JSON:
		return s.Document(r)
	case s.Format == ui.JSONL:
		lines := s.Lines()
		for _, l := range r.Leases {
			if err := lines.Print(l); err != nil {
				return err
			}
		}
		return lines.Flush()
	case s.Quiet:
		return nil
	}
	table := s.NewTable(ui.Column{Title: "ZONE"}, ui.Column{Title: "ADDRESS"}, ui.Column{Title: "NAME"}, ui.Column{Title: "MAC"},
		ui.Column{Title: "PORT", Drop: 2}, ui.Column{Title: "STATE", Drop: 3}, ui.Column{Title: "SINCE", Drop: 1}, ui.Column{Title: "UNTIL"})
	at := func(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
	for _, l := range r.Leases {
		table.Row(l.Zone, l.Address.String(), l.Name, l.MAC.String(), l.Port, string(l.State), at(l.Since), at(l.Until))
	}
	if table.Len() == 0 {
		if len(r.Problems) == 0 {
			s.Notice("no leases")
		}
		return nil
	}
	return table.Print()
}
