package network

import (
	"context"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/segment"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type bridgeOptions struct {
	presetOptions
	ports   []string
	drop    bool
	isolate bool
}

func newBridge(a *app.App) *cobra.Command {
	var opts bridgeOptions
	cmd := a.Command(app.Spec{
		Use:   "bridge [NAME [--port INTERFACE]... [--subnet CIDR]... [--isolate] [--delete]]",
		Short: "Make bridges, and list those that are there",
		Long: `Make bridges, and list those that are there.

The bridge is called mo-NAME and is a zone of its own: without --subnet it
carries frames between its ports and this host has no address on it. Its ports
talk to each other; with --isolate they do not. A second call adds ports to it,
and changes what its flags name.`,
		Example: `
mobileops network bridge                                             # list
mobileops network bridge lab --port eth2 --port eth3
mobileops network bridge lab --subnet 10.60.0.1/24 --subnet fd00:60::1/64
mobileops network bridge lab --remove eth3                           # take a port out
mobileops network bridge lab --delete
`,
		Args:     cobra.MaximumNArgs(1),
		Statuses: segmentStatuses("it is there, or it is gone; without a name: there are bridges"),
		Files:    []string{segmentLinks, segmentTables, segmentsFile},
		Audited:  true,
		Complete: func(ctx context.Context, args []string, _ string) (list []string) {
			for _, n := range documentNames(ctx, a) {
				if name, ok := strings.CutPrefix(n, bridgeDocument); ok && len(args) == 0 {
					list = append(list, name)
				}
			}
			return list
		},
		Run: func(ctx context.Context, args []string) error { return runBridge(ctx, a, &opts, args) },
	})
	fs := cmd.Flags()
	fs.StringArrayVar(&opts.ports, "port", nil, "connect `[WORKLOAD=]INTERFACE`, which exists; may be repeated")
	fs.StringArrayVar(&opts.subnets, "subnet", nil, "give this host an address on it: `CIDR`, 10.60.0.0/24 or 10.60.0.1/24; may be repeated, once for IPv6")
	fs.StringArrayVar(&opts.remove, "remove", nil, "take out the port `NAME`; may be repeated")
	fs.BoolVar(&opts.isolate, "isolate", false, "keep its ports from each other")
	fs.BoolVar(&opts.drop, "delete", false, "remove the bridge; interfaces that were its ports stay")
	opts.addCommon(cmd)
	completePort(a, cmd)
	completeRemove(a, cmd, func(args []string) string { return bridgeDocument + strings.Join(args, "") })
	for _, f := range []string{"port", "subnet", "remove", "isolate", "print"} {
		cmd.MarkFlagsMutuallyExclusive("delete", f)
	}
	return cmd
}

// bridgeDocument begins the name of the document of a bridge.
const bridgeDocument = "bridge-"

func runBridge(ctx context.Context, a *app.App, o *bridgeOptions, args []string) error {
	if len(args) == 0 {
		a.OnlyLooked()
		for _, f := range []string{"port", "subnet", "remove", "isolate", "print", "delete", "dry-run"} {
			if o.changed(f) {
				return app.UsageError("--%s needs the name of a bridge: mobileops network bridge NAME", f)
			}
		}
		return listBridges(ctx, a)
	}
	name := args[0]
	if err := segment.CheckZoneName(name); err != nil {
		return app.UsageError("%v", err)
	}
	if o.drop {
		return applyDocuments(ctx, a, segment.Request{Drop: []string{bridgeDocument + name}}, o.dryRun, bridgeDocument+name)
	}
	d, z, err := o.current(ctx, a, bridgeDocument+name, segment.Zone{Name: name}, "")
	if err != nil {
		return err
	}
	if err := o.zone(z); err != nil {
		return err
	}
	if o.changed("isolate") {
		z.IsolatePorts = o.isolate
	}
	// Ports of a bridge talk to each other, for that is what it is for, unless
	// they are isolated. What else a file has said is kept.
	whole := segment.Endpoint{Zone: name}
	d.Flows = slices.DeleteFunc(d.Flows, func(f segment.Flow) bool {
		return f.From.Whole() && f.To.Whole() && f.From.Zone == name && f.To.Zone == name
	})
	if !z.IsolatePorts {
		d.Flows = append(d.Flows, segment.Flow{From: whole, To: whole})
	}
	if err := o.put(d, joining(name, o.ports)); err != nil {
		return err
	}
	return o.finish(ctx, a, d)
}

func listBridges(ctx context.Context, a *app.App) error {
	e, err := newSegments(a)
	if err != nil {
		return err
	}
	sayWhose(a)
	st, err := e.Status(ctx)
	if err != nil {
		return err
	}
	l := st.Layout
	if l == nil {
		l = &segment.Layout{}
	}
	switch a.Streams.Format {
	case ui.JSONL:
		lines := a.Streams.Lines()
		for _, z := range zoneRecords(l) {
			lines.Print(z)
		}
		return lines.Flush()
	case ui.JSON:
		return a.Streams.Document(struct {
			Schema  string       `json:"schema"`
			Bridges []zoneRecord `json:"bridges"`
		}{"mobileops.network.bridge/v1", zoneRecords(l)})
	}
	sayAttention(a.Streams, st)
	if len(st.Drift) > 0 {
		a.Streams.Notice("mobileops: network bridge: not everything is as it was applied (see: mobileops network segments)")
	}
	if len(l.Zones) == 0 {
		if !a.Streams.Quiet {
			a.Streams.Notice("mobileops: network bridge: there are none (make one: mobileops network bridge NAME)")
		}
		return failure.Silent(failure.No)
	}
	if a.Streams.Quiet {
		return nil
	}
	table := a.Streams.NewTable(ui.Column{Title: "BRIDGE"}, ui.Column{Title: "ADDRESSES", Min: 14}, ui.Column{Title: "PORTS", Min: 14}, ui.Column{Title: "FILE", Drop: 1})
	for i := range l.Zones {
		z := &l.Zones[i]
		var addresses, ports []string
		for _, s := range z.Subnets {
			if s.Gateway.IsValid() {
				addresses = append(addresses, s.Gateway.String())
			}
		}
		if z.Uplink != "" {
			ports = append(ports, z.Uplink)
		}
		for j := range l.Ports {
			if l.Ports[j].Bridge == z.Bridge {
				ports = append(ports, l.Ports[j].Device)
			}
		}
		table.Row(z.Bridge, dash(strings.Join(addresses, " ")), dash(strings.Join(ports, " ")), z.Document)
	}
	return table.Print()
}
