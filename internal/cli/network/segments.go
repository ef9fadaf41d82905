package network

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/segment"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newSegmentsShow(a *app.App) *cobra.Command {
	var print bool
	cmd := a.Command(app.Spec{
		Use:   "segments [NAME] [--print]",
		Short: "Show zones and workloads that are in force, and whether they still are",
		Long: `Show zones and workloads that are in force, and whether they still are.

What was applied is compared with what is there: an address that somebody has
deleted, a port that was taken out of its bridge, rules that were flushed.
mobileops network reconcile puts it right.`,
		Example: `
mobileops network segments
mobileops network segments office --print > segments.yaml  # as a file, to change and apply
*/5 * * * * root mobileops network segments --quiet        # cron: mails when something is not as it was applied
`,
		Args: cobra.MaximumNArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "everything that was applied is in force"},
			{Code: 1, Text: "something is not as it was applied, or no file of that name is in force"},
			{Code: 6, Text: "workloads are not there; they are named"},
		},
		Files: []string{segmentLinks, segmentTables, segmentsFile},
		Complete: func(ctx context.Context, args []string, _ string) []string {
			if len(args) > 0 {
				return nil
			}
			return documentNames(ctx, a)
		},
		Run: func(ctx context.Context, args []string) error { return runSegments(ctx, a, args, print) },
	})
	cmd.Flags().BoolVar(&print, "print", false, "print the file that is in force, and look at nothing")
	return cmd
}

// segmentsReport is the document of mobileops network segments.
type segmentsReport struct {
	Schema    string           `json:"schema"`
	Documents []string         `json:"documents"`
	Since     time.Time        `json:"since,omitzero"` // the last apply
	By        string           `json:"by,omitempty"`
	Killed    time.Time        `json:"killed,omitzero"` // an apply that began then did not end
	Zones     []zoneRecord     `json:"zones"`
	Workloads []workloadRecord `json:"workloads"`
	Drift     []changeRecord   `json:"drift"` // what reconcile would do
	Missing   []string         `json:"missing"`
	Notes     []string         `json:"notes"`
}

type zoneRecord struct {
	Name     string           `json:"name"`
	Document string           `json:"document"`
	Bridge   string           `json:"bridge"`
	Uplink   string           `json:"uplink,omitempty"`
	MTU      int              `json:"mtu"`
	Subnets  []segment.Subnet `json:"subnets"`
	Egress   segment.Egress   `json:"egress"`
	NAT      bool             `json:"nat"`
	Isolated bool             `json:"isolate_ports"`
	DHCP     bool             `json:"dhcp"`
	DNS      string           `json:"dns,omitempty"` // the domain
}

type workloadRecord struct {
	Name        string       `json:"name"`
	Document    string       `json:"document"`
	Zone        string       `json:"zone"`
	Port        string       `json:"port"`
	Inside      string       `json:"inside,omitempty"`
	MAC         segment.MAC  `json:"mac,omitzero"`
	Addresses   []netip.Addr `json:"addresses"`
	Nameservers []netip.Addr `json:"nameservers"`
	Labels      []string     `json:"labels"`
}

func zoneRecords(l *segment.Layout) []zoneRecord {
	out := []zoneRecord{}
	for i := range l.Zones {
		z := &l.Zones[i]
		r := zoneRecord{Name: z.Name, Document: z.Document, Bridge: z.Bridge, Uplink: z.Uplink, MTU: z.LinkMTU, Subnets: append([]segment.Subnet{}, z.Subnets...),
			Egress: z.Egress, NAT: z.NAT != nil, Isolated: z.IsolatePorts, DHCP: z.DHCP != nil}
		if z.DNS != nil {
			r.DNS = z.DNS.Domain
		}
		out = append(out, r)
	}
	return out
}

func workloadRecords(l *segment.Layout) []workloadRecord {
	out := []workloadRecord{}
	for i := range l.Ports {
		p := &l.Ports[i]
		out = append(out, workloadRecord{p.Name, p.Document, p.Zone, p.Device, p.Inside, p.MAC, append([]netip.Addr{}, p.Addr...),
			append([]netip.Addr{}, p.Nameservers...), append([]string{}, words(p.Labels)...)})
	}
	return out
}

func runSegments(ctx context.Context, a *app.App, args []string, print bool) error {
	e, err := newSegments(a)
	if err != nil {
		return err
	}
	sayWhose(a)
	docs, err := e.Documents(ctx)
	if err != nil {
		return err
	}
	if len(args) == 1 && !slices.ContainsFunc(docs, func(d *segment.Document) bool { return d.Name == args[0] }) {
		return failure.Hint(fmt.Errorf("%w: %q", segment.ErrNoDocument, args[0]), "see them: mobileops network segments")
	}
	if print {
		for i, d := range docs {
			if len(args) == 1 && d.Name != args[0] {
				continue
			}
			if i > 0 && len(args) == 0 {
				fmt.Fprintln(a.Streams.Out, "---")
			}
			if _, err := a.Streams.Out.Write(d.YAML()); err != nil {
				return err
			}
		}
		return nil
	}
	st, err := e.Status(ctx)
	if err != nil {
		return err
	}
	l := &segment.Layout{}
	if st.Layout != nil {
		l = st.Layout.Of(args...)
	}
	switch a.Streams.Format {
	case ui.JSONL:
		err = printSegmentLines(a.Streams, st, l)
	case ui.JSON:
		r := segmentsReport{Schema: "mobileops.network.segments/v1", Documents: []string{}, Since: st.Since, By: st.By, Killed: st.Pending,
			Zones: zoneRecords(l), Workloads: workloadRecords(l), Drift: changeRecords(st.Drift),
			Missing: append([]string{}, words(st.Missing)...), Notes: append([]string{}, st.Notes...)}
		for _, d := range st.Documents {
			r.Documents = append(r.Documents, d.Name)
		}
		err = a.Streams.Document(r)
	default:
		err = printSegments(a.Streams, st, l)
	}
	if err != nil {
		return err
	}
	kind := failure.None
	if len(st.Drift) > 0 || !st.Pending.IsZero() {
		kind = failure.No
	}
	if len(st.Missing) > 0 {
		kind = failure.Incomplete
	}
	return failure.Silent(kind)
}

// printSegmentLines prints each zone, workload and drift as a line of JSON that
// says which of them it is; what is not there is said beside them.
func printSegmentLines(s *ui.Streams, st *segment.Status, l *segment.Layout) error {
	lines := s.Lines()
	for _, z := range zoneRecords(l) {
		lines.Print(struct {
			Record string `json:"record"`
			zoneRecord
		}{"zone", z})
	}
	for _, w := range workloadRecords(l) {
		lines.Print(struct {
			Record string `json:"record"`
			workloadRecord
		}{"workload", w})
	}
	for _, c := range changeRecords(st.Drift) {
		lines.Print(struct {
			Record string `json:"record"`
			changeRecord
		}{"drift", c})
	}
	sayAttention(s, st)
	return lines.Flush()
}

func printSegments(s *ui.Streams, st *segment.Status, l *segment.Layout) error {
	if !s.Quiet {
		if err := printZones(s, l); err != nil {
			return err
		}
		if err := printWorkloads(s, l); err != nil {
			return err
		}
	}
	for _, n := range st.Notes {
		if !s.Quiet {
			s.Notice("mobileops: note: %s", ui.Escape(n))
		}
	}
	sayAttention(s, st)
	if len(st.Drift) > 0 {
		theme := s.Theme()
		if _, err := fmt.Fprintln(s.Out, theme.Warn("Not as it was applied; mobileops network reconcile would do this:")); err != nil {
			return err
		}
		for _, c := range st.Drift {
			if _, err := fmt.Fprintln(s.Out, string(c.Sign)+" "+ui.Escape(c.Text)); err != nil {
				return err
			}
		}
		return nil
	}
	if s.Quiet {
		return nil
	}
	text := "Nothing has been applied (begin: mobileops network apply FILE)."
	if len(st.Documents) > 0 {
		text = fmt.Sprintf("In force since %s, by %s: %s.", st.Since.Local().Format(time.DateTime), ui.Escape(st.By), strings.Join(names(st.Documents), ", "))
	}
	_, err := fmt.Fprintln(s.Out, folded(s, text))
	return err
}

// sayWhose tells whoever is not root that networks are set up by root, whose
// state is another one: what this user sees here is no answer about the host.
func sayWhose(a *app.App) {
	c, err := a.Config()
	if err != nil || a.Streams.Quiet || os.Geteuid() == 0 {
		return
	}
	a.Streams.Notice("mobileops: note: this is the state of this user, %s, not that of root (see that: run it as root)", ui.Escape(c.StateDir))
}

// sayAttention says what has not been finished, and what is not there.
func sayAttention(s *ui.Streams, st *segment.Status) {
	if !st.Pending.IsZero() {
		s.Notice("mobileops: an apply that began at %s was killed (put it right: mobileops network reconcile)", st.Pending.Local().Format(time.DateTime))
	}
	for _, m := range st.Missing {
		s.Notice("mobileops: not attached: %s (once it is: mobileops network reconcile)", ui.Escape(m.Text))
	}
}

func printZones(s *ui.Streams, l *segment.Layout) error {
	table := s.NewTable(ui.Column{Title: "ZONE"}, ui.Column{Title: "BRIDGE"}, ui.Column{Title: "CARRIED BY", Drop: 2}, ui.Column{Title: "SUBNETS", Min: 14},
		ui.Column{Title: "EGRESS", Min: 8}, ui.Column{Title: "SERVICES", Drop: 3}, ui.Column{Title: "FILE", Drop: 1})
	for i := range l.Zones {
		z := &l.Zones[i]
		var subnets, services []string
		for _, n := range z.Subnets {
			subnets = append(subnets, n.Prefix.String())
		}
		if z.NAT != nil {
			services = append(services, "nat")
		}
		if z.DHCP != nil {
			services = append(services, "dhcp")
		}
		if z.DNS != nil {
			services = append(services, "dns")
		}
		egress := string(z.Egress.Mode)
		if z.Egress.Mode == segment.EgressList {
			egress = strings.Join(words(z.Egress.Allow), " ")
		}
		table.Row(z.Name, z.Bridge, dash(z.Uplink), dash(strings.Join(subnets, " ")), dash(egress), dash(strings.Join(services, " ")), z.Document)
	}
	if table.Len() == 0 {
		return nil
	}
	return blankAfter(s, table.Print())
}

func printWorkloads(s *ui.Streams, l *segment.Layout) error {
	table := s.NewTable(ui.Column{Title: "WORKLOAD"}, ui.Column{Title: "ZONE"}, ui.Column{Title: "PORT"}, ui.Column{Title: "ADDRESSES", Min: 12},
		ui.Column{Title: "LABELS", Min: 8, Drop: 1}, ui.Column{Title: "FILE", Drop: 2})
	for i := range l.Ports {
		p := &l.Ports[i]
		table.Row(p.Name, p.Zone, p.Device, dash(strings.Join(words(p.Addr), " ")), dash(strings.Join(words(p.Labels), " ")), p.Document)
	}
	if table.Len() == 0 {
		return nil
	}
	return blankAfter(s, table.Print())
}

func blankAfter(s *ui.Streams, err error) error {
	if err == nil {
		_, err = fmt.Fprintln(s.Out)
	}
	return err
}

func words[T fmt.Stringer](list []T) (out []string) {
	for _, v := range list {
		out = append(out, v.String())
	}
	return out
}

func names(docs []*segment.Document) (out []string) {
	for _, d := range docs {
		out = append(out, d.Name)
	}
	return out
}

// folded folds a sentence between its words where a terminal would break it.
func folded(s *ui.Streams, text string) string {
	if s.OutTTY && s.Width > 0 {
		return strings.TrimRight(ui.Fold(text, s.Width, ""), "\n")
	}
	return text
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
