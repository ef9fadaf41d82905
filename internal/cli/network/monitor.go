package network

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/monitor"
	"github.com/mobileops/mobileops/internal/network/sockets"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type monitorOptions struct {
	once     bool
	interval string
	count    int
	parts    monitor.Parts
	process  string
	port     uint16
	address  string
	state    string

	every   time.Duration
	endless bool // --interval was given
}

func newMonitor(a *app.App) *cobra.Command {
	var opts monitorOptions
	var cmd *cobra.Command
	cmd = a.Command(app.Spec{
		Use:   "monitor [flags]",
		Short: "Show interfaces, routes, listeners and live flows with their processes",
		Long: `Show interfaces, routes, listeners and live flows with their processes.

On a terminal it is a table that is drawn anew every 2 seconds, with what passed
per second since, the busiest flows first; the last one stays when it ends.
Elsewhere, and with --once, everything is printed once; with --count or
--interval again and again. --interfaces (with bridges), --routes, --listeners and
--flows choose parts, and can be combined; --process, --port, --address and
--state choose among listeners and flows, which are then all that is shown, and
what is given must all hold.

The kernel is asked, not ss, ip or conntrack, and nothing is changed. A flow is a
connection of a program of this host, or one that only passes it, as those of
containers do: these the kernel knows where rules make it keep track of
connections. Bytes of TCP are known of sockets; of everything else they are
counted when net.netfilter.nf_conntrack_acct is 1, for connections that begin
after it was set, and then with the heads of packets. What listens within a
container that has a network of its own is not seen.

Without root, processes of other users and connections that pass are not seen:
that is said, and the status is 6.`,
		Example: `
mobileops network monitor
mobileops network monitor --listeners --once           # runbook: what can be reached here, and whose is it?
mobileops network monitor --flows --process nginx
mobileops network monitor --flows --address 203.0.113.0/24 --output json | jq '.flows | length'
mobileops network monitor --interval 10s --output jsonl >> flows.jsonl  # for another tool
*/5 * * * * root mobileops network monitor --once --output jsonl >> /var/log/mobileops/network.jsonl  # cron
`,
		Statuses: []app.Status{
			{Code: 0, Text: "everything asked for was shown; or ended by SIGTERM or SIGHUP"},
			{Code: 6, Text: "something could not be seen, and is named"},
			{Code: 7, Text: "the kernel cannot list sockets (CONFIG_INET_DIAG)"},
			{Code: 130, Text: "ended by Ctrl-C"},
		},
		Run: func(ctx context.Context, _ []string) error {
			opts.endless = cmd.Flags().Changed("interval")
			return runMonitor(ctx, a, &opts)
		},
	})
	opts.addFlags(cmd)
	a.CompleteFlag(cmd, "process", func(context.Context, []string, string) []string { return monitorProcesses() })
	return cmd
}

// monitorProcesses are the names of processes that have sockets open, but for
// those that a shell or a terminal would not take for a word.
func monitorProcesses() (names []string) {
	odd := func(r rune) bool { return r <= ' ' || r >= 0x7f }
	for _, list := range sockets.Owners() {
		for i := range list {
			if name := list[i].Name; !strings.ContainsFunc(name, odd) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (o *monitorOptions) addFlags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.BoolVar(&o.once, "once", false, "show everything once, also on a terminal")
	fs.StringVar(&o.interval, "interval", "2s", "show it again every `DURATION`")
	fs.IntVar(&o.count, "count", 0, "end after `N` times")
	fs.BoolVar(&o.parts.Interfaces, "interfaces", false, "show interfaces and bridges")
	fs.BoolVar(&o.parts.Routes, "routes", false, "show routes, those of every table")
	fs.BoolVar(&o.parts.Listeners, "listeners", false, "show what listens")
	fs.BoolVar(&o.parts.Flows, "flows", false, "show live flows")
	fs.StringVar(&o.process, "process", "", "only of processes `NAME`: a name, number, program, systemd unit or container")
	fs.Uint16Var(&o.port, "port", 0, "only with port `N` at either end")
	fs.StringVar(&o.address, "address", "", "only with an address in `CIDR` at either end")
	app.Choice(cmd, fs, &o.state, "state", "", monitorStates, "only in `STATE`")
	app.CompleteValues(cmd, "interval", "1s", "2s", "10s", "1m")
}

// monitorStates are those of sockets, and of UDP that was not answered.
var monitorStates = []string{"established", "listening", "syn-sent", "syn-recv", "fin-wait-1", "fin-wait-2", "time-wait", "close-wait", "last-ack", "closing", "unreplied"}

// check refuses flags that do not fit together, and reads those that are text.
func (o *monitorOptions) check(a *app.App) (f monitor.Filter, err error) {
	span, ok := moment.Span(o.interval)
	switch {
	case !ok || span < time.Second:
		return f, app.UsageError("bad value %q for --interval: a time such as 2s or 1m", o.interval)
	case o.count < 0:
		return f, app.UsageError("bad value %d for --count: it is at least 1", o.count)
	case o.once && (o.count > 0 || o.endless):
		return f, app.UsageError("--once shows it once: leave --count and --interval away")
	case a.Streams.Format == ui.JSON && (o.count > 1 || o.endless):
		return f, app.UsageError("--output json is one document: use --output jsonl, which has one a line")
	}
	o.every = span
	if !o.parts.Interfaces && !o.parts.Routes && !o.parts.Listeners && !o.parts.Flows {
		o.parts = monitor.AllParts
		if o.process != "" || o.port != 0 || o.address != "" || o.state != "" {
			o.parts.Interfaces, o.parts.Routes = false, false // nothing there is chosen by these
		}
	}
	f = monitor.Filter{Process: o.process, Port: o.port, State: o.state}
	if o.address != "" {
		if f.Address, err = netip.ParsePrefix(o.address); err != nil {
			addr, err := netip.ParseAddr(o.address)
			if err != nil || addr.Zone() != "" {
				return f, app.UsageError("bad value %q for --address: an address such as 192.0.2.1 or a network such as 2001:db8::/32", o.address)
			}
			f.Address = netip.PrefixFrom(addr, addr.BitLen())
		}
		f.Address = f.Address.Masked()
	}
	return f, nil
}

// times is how often it is shown; 0: until it is ended.
func (o *monitorOptions) times(screen bool) int {
	switch {
	case o.count > 0:
		return o.count
	case !o.once && (o.endless || screen):
		return 0
	}
	return 1
}

// monitorReport is the document of mobileops network monitor.
type monitorReport struct {
	Schema string `json:"schema"`
	*monitor.Snapshot
}

func runMonitor(ctx context.Context, a *app.App, o *monitorOptions) error {
	filter, err := o.check(a)
	if err != nil {
		return err
	}
	var screen *ui.Screen
	if a.Streams.Format == ui.Text && !o.once && !a.Streams.Quiet {
		screen = a.Streams.Screen()
	}
	signals, stop := app.EndSignals()
	defer stop()
	sampler := monitor.New(monitor.Options{Parts: o.parts, Filter: filter, Force: monitorForce(a)})
	tick := time.NewTicker(o.every)
	defer tick.Stop()
	incomplete, times := false, o.times(screen != nil)
	for n := 1; ; n++ {
		snap, err := sampler.Take(ctx)
		if err == nil {
			incomplete = incomplete || !snap.Complete()
			err = o.print(a.Streams, screen, snap, n)
		}
		if ctx.Err() == nil && err != nil {
			return err
		}
		if ctx.Err() == nil && n == times {
			break
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		if err := app.EndedBy(signals); err != nil {
			return err
		}
		break
	}
	if incomplete {
		return failure.Silent(failure.Incomplete)
	}
	return nil
}

func (o *monitorOptions) print(s *ui.Streams, screen *ui.Screen, snap *monitor.Snapshot, n int) error {
	if s.Format != ui.Text {
		return s.Document(monitorReport{"mobileops.network.monitor/v1", snap})
	}
	p := &monitorPrinter{snap: snap, parts: o.parts, named: o.parts != monitor.AllParts, filtered: o.process+o.address+o.state != "" || o.port != 0}
	if screen != nil {
		p.live = true
		return screen.Draw(p.print)
	}
	if n == 1 {
		for _, m := range snap.Missing {
			s.Notice("mobileops: network monitor: %s: %s", m.What, m.Why)
		}
	}
	if s.Quiet {
		return s.WriteError()
	}
	if n > 1 {
		if _, err := s.Out.Write([]byte("\n")); err != nil {
			return err
		}
	}
	return p.print(s, 0)
}
