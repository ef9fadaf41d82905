package network

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/segment"
	"github.com/spf13/cobra"
)

// presetOptions are the flags of every verb that writes a document of one zone
// for the operator, and applies it. A second call changes what the first one
// has made: what it does not name stays.
type presetOptions struct {
	subnets, egress, remove, labels []string
	noNAT                           bool
	print, dryRun                   bool

	changed func(flag string) bool
}

func (o *presetOptions) addFlags(a *app.App, cmd *cobra.Command, document string) {
	fs := cmd.Flags()
	fs.StringArrayVar(&o.subnets, "subnet", nil, "use `CIDR`: 10.60.0.0/24, or with this host's address, 10.60.0.1/24; may be repeated, once for IPv6")
	fs.StringArrayVar(&o.egress, "egress", nil, "what may be reached outside: none, internet, or `TARGET` such as 192.0.2.0/24:443/tcp; may be repeated")
	fs.BoolVar(&o.noNAT, "no-nat", false, "what leaves keeps its own address: routers know the way back")
	fs.StringArrayVar(&o.remove, "remove", nil, "take out the workload `NAME`; may be repeated")
	o.addCommon(cmd)
	app.CompleteValues(cmd, "egress", "none", "internet")
	completeRemove(a, cmd, func([]string) string { return document })
}

// addCommon adds the flags that presets and bridges have.
func (o *presetOptions) addCommon(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.BoolVar(&o.print, "print", false, "print the file that would be applied, and do nothing")
	fs.BoolVar(&o.dryRun, "dry-run", false, "change nothing, and show what would be")
	cmd.MarkFlagsMutuallyExclusive("print", "dry-run")
	o.changed = fs.Changed
}

// completePort offers the interfaces of this host that could be a port.
func completePort(a *app.App, cmd *cobra.Command) {
	a.CompleteFlag(cmd, "port", func(context.Context, []string, string) (list []string) {
		all, err := net.Interfaces()
		if err != nil {
			return nil
		}
		for _, i := range all {
			if i.Flags&net.FlagLoopback == 0 && !strings.HasPrefix(i.Name, "mo-") {
				list = append(list, i.Name)
			}
		}
		return list
	})
}

// completeRemove offers the workloads of a document.
func completeRemove(a *app.App, cmd *cobra.Command, document func(args []string) string) {
	a.CompleteFlag(cmd, "remove", func(ctx context.Context, args []string, _ string) (list []string) {
		e, err := newSegments(a)
		if err != nil {
			return nil
		}
		docs, err := e.Documents(ctx)
		if err != nil {
			return nil
		}
		for _, d := range docs {
			if d.Name != document(args) {
				continue
			}
			for i := range d.Workloads {
				list = append(list, d.Workloads[i].Name)
			}
		}
		return list
	})
}

// zone changes a zone as the flags say.
func (o *presetOptions) zone(z *segment.Zone) error {
	if o.changed("subnet") {
		z.Subnets = nil
		for _, s := range o.subnets {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return app.UsageError("bad value %q for --subnet: a network such as 10.60.0.0/24", s)
			}
			sub := segment.Subnet{Prefix: p.Masked(), Gateway: p.Addr()}
			if p.Addr() == p.Masked().Addr() {
				sub.Gateway = p.Addr().Next()
			}
			z.Subnets = append(z.Subnets, sub)
		}
	}
	if o.changed("egress") {
		e, err := segment.ParseEgress(o.egress)
		if err != nil {
			return app.UsageError("bad value for --egress: %v", err)
		}
		z.Egress = e
	}
	if o.changed("no-nat") {
		z.NAT = nil
		if !o.noNAT {
			z.NAT = &segment.NAT{}
		}
	}
	return nil
}

// current returns the document of a name that is in force, and its zone that the
// verb is about; or a new one with that zone.
func (o *presetOptions) current(ctx context.Context, a *app.App, name string, fresh segment.Zone, description string) (*segment.Document, *segment.Zone, error) {
	if !o.print {
		if err := segment.MayChange(); err != nil {
			return nil, nil, err
		}
	}
	e, err := newSegments(a)
	if err != nil {
		return nil, nil, err
	}
	docs, err := e.Documents(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range docs { // read for this call alone
		if d.Name != name {
			continue
		}
		for i := range d.Zones {
			if d.Zones[i].Name == fresh.Name {
				return d, &d.Zones[i], nil
			}
		}
		return nil, nil, failure.Hint(failure.Errorf(failure.Busy, "a file called %s is in force that has no zone %s", name, fresh.Name), "change that file, or end it: mobileops network reset "+name)
	}
	d := &segment.Document{Name: name, Description: description, Zones: []segment.Zone{fresh}}
	return d, &d.Zones[0], nil
}

// put adds workloads to a document, each in the place of the one of its name,
// and takes out those that are to go.
func (o *presetOptions) put(d *segment.Document, list []segment.Workload) error {
	for _, name := range o.remove {
		i := slices.IndexFunc(d.Workloads, func(w segment.Workload) bool { return w.Name == name })
		if i < 0 {
			return app.UsageError("--remove: there is no workload %q (see them: mobileops network segments %s)", name, d.Name)
		}
		d.Workloads = slices.Delete(d.Workloads, i, i+1)
	}
	for _, w := range list {
		for _, text := range o.labels {
			key, value, ok := strings.Cut(text, "=")
			if !ok {
				return app.UsageError("bad value %q for --label: KEY=VALUE", text)
			}
			w.Labels = append(w.Labels, segment.Label{Key: key, Value: value})
		}
		if i := slices.IndexFunc(d.Workloads, func(o segment.Workload) bool { return o.Name == w.Name }); i >= 0 {
			d.Workloads[i] = w
		} else {
			d.Workloads = append(d.Workloads, w)
		}
	}
	return nil
}

// finish prints, shows or applies a document.
func (o *presetOptions) finish(ctx context.Context, a *app.App, d *segment.Document) error {
	if o.print || o.dryRun {
		a.OnlyLooked()
	}
	d, err := d.Check()
	if err != nil {
		return err
	}
	if o.print {
		_, err := a.Streams.Out.Write(d.YAML())
		return err
	}
	return applyDocuments(ctx, a, segment.Request{Put: []*segment.Document{d}}, o.dryRun, d.Name)
}

// subnets are those of a preset. The prefix of IPv6 is a unique local one
// (RFC 4193) that says "mobil".
func subnets(v4, v6 string) (list []segment.Subnet) {
	for _, s := range []string{v4, v6} {
		p := netip.MustParsePrefix(s)
		list = append(list, segment.Subnet{Prefix: p, Gateway: p.Addr().Next()})
	}
	return list
}

// named takes "NAME=VALUE" apart; without a name it is made from the value.
func named(text string, name func(value string) string) (string, string) {
	if n, value, ok := strings.Cut(text, "="); ok {
		return n, value
	}
	return name(text), text
}

// workloadName makes the name of a workload of that of an interface or a
// namespace.
func workloadName(value string) string {
	return strings.Trim(strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			return c
		case c >= 'A' && c <= 'Z':
			return c + 'a' - 'A'
		}
		return '-'
	}, filepath.Base(value)), "-")
}
