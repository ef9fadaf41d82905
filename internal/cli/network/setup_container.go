package network

import (
	"context"
	"os"
	"strconv"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/network/segment"
	"github.com/spf13/cobra"
)

type setupContainerOptions struct {
	presetOptions
	namespaces, containers, pids []string
}

func newSetupContainer(a *app.App) *cobra.Command {
	var opts setupContainerOptions
	cmd := a.Command(app.Spec{
		Use:   "setup-container [--namespace NAME]... [--container ID]... [--pid PID]... [flags]",
		Short: "Connect containers and network namespaces, each apart from the others",
		Long: `Connect containers and network namespaces, each apart from the others.

Each gets an interface eth0 with an address and default routes, in the zone
containers (10.201.0.0/24 and fd6d:6f62:696c:1::/64). They reach the internet
with this host's address, and neither each other, nor this host, nor private
networks. What is to be allowed beside that stands in a file: --print writes it,
mobileops network apply takes it.

A container must have no network of its own (docker run --network none).`,
		Example: `
mobileops network setup-container --namespace web --namespace db
mobileops network setup-container --container api=4f1d2c3b4a59 --label app=api
mobileops network setup-container --remove db
mobileops network setup-container --namespace web --print > containers.yaml  # to add flows
`,
		Statuses: segmentStatuses("they are connected"),
		Files:    []string{segmentLinks, segmentTables, segmentsFile},
		Audited:  true,
		Run:      func(ctx context.Context, _ []string) error { return runSetupContainer(ctx, a, &opts) },
	})
	fs := cmd.Flags()
	fs.StringArrayVar(&opts.namespaces, "namespace", nil, "a network namespace, `[WORKLOAD=]NAME` of ip netns or a path; may be repeated")
	fs.StringArrayVar(&opts.containers, "container", nil, "a container, `[WORKLOAD=]ID`, 12 digits or more; may be repeated")
	fs.StringArrayVar(&opts.pids, "pid", nil, "the network namespace of a process, `[WORKLOAD=]PID`; may be repeated")
	fs.StringArrayVar(&opts.labels, "label", nil, "`KEY=VALUE` by which flows speak of those that are named here; may be repeated")
	a.CompleteFlag(cmd, "namespace", func(context.Context, []string, string) (list []string) {
		entries, err := os.ReadDir("/run/netns")
		if err != nil {
			return nil
		}
		for _, e := range entries {
			list = append(list, e.Name())
		}
		return list
	})
	opts.addFlags(a, cmd, "containers")
	return cmd
}

func (o *setupContainerOptions) workloads(zone string) ([]segment.Workload, error) {
	var list []segment.Workload
	add := func(name string, at segment.Attach) {
		at.Inside = "eth0"
		list = append(list, segment.Workload{Name: name, Zone: zone, Attach: at})
	}
	for _, text := range o.namespaces {
		name, value := named(text, workloadName)
		add(name, segment.Attach{Namespace: value})
	}
	for _, text := range o.containers {
		name, value := named(text, func(v string) string { return "c-" + v[:min(12, len(v))] })
		add(name, segment.Attach{Container: value})
	}
	for _, text := range o.pids {
		name, value := named(text, func(v string) string { return "pid-" + v })
		pid, err := strconv.Atoi(value)
		if err != nil || pid < 1 {
			return nil, app.UsageError("bad value %q for --pid: the number of a process", text)
		}
		add(name, segment.Attach{PID: pid})
	}
	return list, nil
}

func runSetupContainer(ctx context.Context, a *app.App, o *setupContainerOptions) error {
	const name = "containers"
	list, err := o.workloads(name)
	if err != nil {
		return err
	}
	d, z, err := o.current(ctx, a, name, segment.Zone{Name: name, Subnets: subnets("10.201.0.0/24", "fd6d:6f62:696c:1::/64"),
		NAT: &segment.NAT{}, Egress: segment.Egress{Mode: segment.EgressInternet}}, "Containers, each apart from the others")
	if err != nil {
		return err
	}
	if err := o.zone(z); err != nil {
		return err
	}
	if err := o.put(d, list); err != nil {
		return err
	}
	return o.finish(ctx, a, d)
}
