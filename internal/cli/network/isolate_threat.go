package network

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/network/block"
	"github.com/mobileops/mobileops/internal/network/isolation"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/threat"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type isolateThreatOptions struct {
	targets       map[threat.Type]*[]string
	ttl, reason   string
	force, dryRun bool
}

func newIsolateThreat(a *app.App) *cobra.Command {
	opts := isolateThreatOptions{targets: map[threat.Type]*[]string{}}
	cmd := a.Command(app.Spec{
		Use:   "isolate-threat [ID] [flags]",
		Short: "Cut off what a threat comes from, or reaches out to",
		Long: `Cut off what a threat comes from, or reaches out to.

ID is that of a stored threat (mobileops threat list) or of a finding
(mobileops finding list) that names an address; flags name more, or what to cut
off without one. Packets from and to it are dropped, also those of containers and
virtual machines, and connections with it are ended at once.

A port is where connections go to. A user, control group or process can send
nothing any more, not even to this host; a process is moved into a control group
of its own, in which what it starts remains. A container is cut off by its
interface and its addresses; of a process that has threads or children in network
namespaces of their own, those are not reached: name the container.

The addresses of this host, its gateways and name servers, network.management,
network.never_block and where you come from are refused without --force. It lasts
until --ttl is over, of which the kernel takes care, or mobileops network block
remove lifts it; also across reboots where mobileops network reconcile runs.`,
		Example: `
mobileops network isolate-threat T-7Q2FM3 --ttl 4h     # runbook: a stored threat
mobileops network isolate-threat --ip 203.0.113.7 --ip 2001:db8::7 --reason 'case 17'
mobileops network isolate-threat --cidr 203.0.113.0/24 --port 445 --ttl 7d
mobileops network isolate-threat --container shop --reason 'case 17'  # runbook: a container is taken over
mobileops network isolate-threat --pid 4711 --ttl 1h   # it and what it starts send nothing
`,
		Args: cobra.MaximumNArgs(1),
		Statuses: []app.Status{
			notRoot,
			{Code: 0, Text: "it is cut off; with --dry-run, it is already"},
			{Code: 1, Text: "there is no such threat or finding; --dry-run: something would change"},
			{Code: 2, Text: "it is protected, not running, or not to be blocked; nothing was done"},
			{Code: 6, Text: "it is cut off, but for what is said, such as sockets that a process had opened before"},
			{Code: 7, Text: "there is no means to cut it off on this host; nothing was done"},
			{Code: 8, Text: "all of it is cut off already, for at least as long, or another command holds the lock"},
		},
		Files:   []string{blockTables, blockState},
		Audited: true,
		Complete: func(ctx context.Context, _ []string, typed string) []string {
			return completeThreats(ctx, a, typed)
		},
		Run: func(ctx context.Context, args []string) error { return runIsolateThreat(ctx, a, &opts, args) },
	})
	opts.addFlags(a, cmd)
	return cmd
}

func (o *isolateThreatOptions) addFlags(a *app.App, cmd *cobra.Command) {
	fs := cmd.Flags()
	for _, f := range []struct {
		name  string
		typ   threat.Type
		usage string
	}{
		{"ip", threat.IP, "cut off `ADDRESS`; may be repeated, as all of these"},
		{"cidr", threat.CIDR, "cut off `NETWORK`: 203.0.113.0/24"},
		{"mac", threat.MAC, "cut off the Ethernet address `MAC`"},
		{"port", threat.Port, "cut off connections to `PORT`: 445, 53/udp"},
		{"uid", threat.UID, "cut off the programs of user `UID`, or of that name"},
		{"cgroup", threat.Cgroup, "cut off the programs in control group `PATH`: /system.slice/x.service"},
		{"pid", threat.PID, "cut off process `PID`, and what it starts"},
		{"container", threat.Container, "cut off container `NAME`, or its ID"},
		{"iface", threat.Interface, "cut off everything at interface `NAME`"},
	} {
		list := new([]string)
		o.targets[f.typ] = list
		fs.StringArrayVar(list, f.name, nil, f.usage)
		if f.name != "iface" {
			app.CompleteValues(cmd, f.name) // files are none of these
		}
	}
	fs.StringVar(&o.ttl, "ttl", "", "for `DURATION`, such as 4h or 7d (default for ever)")
	fs.StringVar(&o.reason, "reason", "", "why, in `WORDS`, or the number of a case")
	fs.BoolVar(&o.force, "force", false, "also what this host needs: you may lose it")
	fs.BoolVar(&o.dryRun, "dry-run", false, "only show what would be in force")
	app.CompleteValues(cmd, "ttl", "1h", "4h", "24h", "7d")
	a.CompleteFlag(cmd, "iface", func(context.Context, []string, string) []string { return block.Interfaces() })
}

// completeThreats offers the IDs of threats that can be cut off.
func completeThreats(ctx context.Context, a *app.App, typed string) (words []string) {
	store, err := a.State()
	if err != nil {
		return nil
	}
	_ = store.View(ctx, func(tx *state.Tx) error {
		list, err := threat.List(tx, threat.Filter{States: []threat.State{threat.Active}}, time.Now())
		for _, t := range list {
			if strings.HasPrefix(strings.ToLower(t.ID), strings.ToLower(typed)) && len(words) < 200 {
				words = append(words, t.ID+"\t"+t.Severity.String()+" "+t.Kind+": "+ui.Escape(t.Reason))
			}
		}
		return err
	})
	return words
}

// request brings flags and what is stored of a threat together.
func (o *isolateThreatOptions) request(ctx context.Context, a *app.App, args []string) (r block.Request, skipped []string, err error) {
	r = block.Request{Reason: o.reason, By: a.Actor().Name(), Force: o.force, DryRun: o.dryRun}
	if r.TTL, err = parseTTL(o.ttl); err != nil {
		return r, nil, err
	}
	if len(args) == 1 {
		var reason string
		if r.Threat, reason, r.Targets, skipped, err = namedThreat(ctx, a, args[0], time.Now()); err != nil {
			return r, nil, err
		}
		if r.Reason == "" {
			r.Reason = reason
		}
	}
	for _, typ := range threat.Types() {
		list := o.targets[typ]
		if list == nil {
			continue
		}
		for _, value := range *list {
			i, err := targetOf(typ, value)
			if err != nil {
				return r, nil, err
			}
			r.Targets = append(r.Targets, i)
		}
	}
	if len(r.Targets) == 0 && len(args) == 0 {
		return r, nil, app.UsageError("name a threat, or what to cut off: --ip, --cidr, --mac, --port, --uid, --cgroup, --pid, --container, --iface")
	}
	if len(r.Targets) == 0 {
		return r, nil, failure.Errorf(failure.Usage, "%s names nothing that packets are known by", r.Threat)
	}
	return r, skipped, nil
}

// targetOf reads the value of a flag: a user may be named, too, and a network is
// no address.
func targetOf(typ threat.Type, value string) (threat.Indicator, error) {
	i, err := threat.NewIndicator(typ, value)
	if err == nil {
		return i, nil
	}
	switch typ {
	case threat.IP:
		if n, bad := threat.NewIndicator(threat.CIDR, value); bad == nil {
			return i, app.UsageError("%q is a network, not an address (cut it off: mobileops network isolate-threat --cidr %s)", value, n.Value)
		}
	case threat.UID:
		if _, number := strconv.ParseInt(value, 10, 64); number == nil || errors.Is(number, strconv.ErrRange) {
			return i, err
		}
		u, bad := user.Lookup(value)
		if bad != nil {
			return i, app.UsageError("there is no user %q on this host (by number: --uid \"$(id -u NAME)\")", value)
		}
		return threat.NewIndicator(typ, u.Uid)
	}
	return i, err
}

// namedThreat finds what a stored threat, or a finding, is known by.
func namedThreat(ctx context.Context, a *app.App, id string, now time.Time) (name, reason string, targets []threat.Indicator, skipped []string, err error) {
	store, err := a.State()
	if err != nil {
		return "", "", nil, nil, err
	}
	err = store.View(ctx, func(tx *state.Tx) error {
		t, err := threat.Get(tx, id)
		if err == nil {
			name, reason = t.ID, t.Reason
			if s := t.At(now); s != threat.Active {
				return failure.Errorf(failure.Usage, "threat %s is %s", t.ID, s)
			}
			for _, i := range t.Indicators {
				if i.Type == threat.Domain {
					skipped = append(skipped, i.String()+": packets carry no domains")
					continue
				}
				targets = append(targets, i)
			}
			return nil
		}
		if i, bad := threat.ParseIndicator(id); bad == nil && i.Type != threat.Domain && (errors.Is(err, threat.ErrNotFound) || errors.Is(err, threat.ErrInvalid)) {
			return failure.Errorf(failure.Usage, "%q is no ID of a threat or finding (cut it off: mobileops network isolate-threat --%s %s)", id, flagOf(i.Type), ui.Escape(i.Value))
		}
		if !errors.Is(err, threat.ErrNotFound) {
			return err
		}
		f, failed := finding.Get(tx, id, now)
		if failed != nil {
			if errors.Is(failed, finding.ErrNotFound) || failure.KindOf(failed) == failure.Usage {
				return err
			}
			return failed
		}
		name, reason, targets = "finding:"+f.Fingerprint.String(), f.Title, indicatorsOf(f)
		return nil
	})
	return name, reason, targets, skipped, err
}

// flagOf is the flag that names targets of a type.
func flagOf(typ threat.Type) string {
	if typ == threat.Interface {
		return "iface"
	}
	return string(typ)
}

// evidenceTypes are the words by which evidence of findings names what packets
// are known by, as the last part of its key: "remote_ip", "src.mac".
var evidenceTypes = []struct {
	word string
	typ  threat.Type
}{{"ip", threat.IP}, {"address", threat.IP}, {"addr", threat.IP}, {"peer", threat.IP}, {"remote", threat.IP}, {"cidr", threat.CIDR}, {"network", threat.CIDR}, {"mac", threat.MAC}, {"container", threat.Container}}

// indicatorsOf finds addresses in the subject and the evidence of a finding.
func indicatorsOf(f *finding.Record) (out []threat.Indicator) {
	add := func(i threat.Indicator, err error) {
		if err == nil && !slices.Contains(out, i) {
			out = append(out, i)
		}
	}
	address := func(s string) string {
		if p, err := netip.ParseAddrPort(s); err == nil {
			return p.Addr().String()
		}
		return s
	}
	if i, err := threat.ParseIndicator(address(f.Subject)); err == nil {
		add(i, nil)
	}
	for _, key := range slices.Sorted(maps.Keys(f.Evidence)) {
		last := strings.ToLower(key[strings.LastIndexAny(key, "_.- ")+1:])
		for _, e := range evidenceTypes {
			if last == e.word {
				add(threat.NewIndicator(e.typ, address(f.Evidence[key])))
			}
		}
	}
	return out
}

// isolateThreatReport is the document of network isolate-threat.
type isolateThreatReport struct {
	Schema    string          `json:"schema"`
	Blocks    []blockRecord   `json:"blocks"`
	LeftOut   []block.LeftOut `json:"left_out"`
	Uncovered []string        `json:"uncovered"`
	Ended     int             `json:"connections_ended"`
	Forgotten int             `json:"tracked_connections_forgotten"`
}

// notThere names the interfaces that are blocked and not there: they may come, or
// somebody has mistyped one and believes that it is cut off.
func notThere(blocks []block.Block) (list []string) {
	for i := range blocks {
		if t := blocks[i].Target; t.Type == threat.Interface && !slices.Contains(block.Interfaces(), t.Value) {
			list = append(list, t.String()+": there is no such interface now (see them: mobileops network monitor --interfaces)")
		}
	}
	return list
}

func runIsolateThreat(ctx context.Context, a *app.App, o *isolateThreatOptions, args []string) error {
	const where = "network isolate-threat"
	if o.dryRun {
		a.OnlyLooked()
	} else if err := isolation.Allowed("changed"); err != nil {
		return err
	}
	r, skipped, err := o.request(ctx, a, args)
	if err != nil {
		return err
	}
	e, err := newBlocks(a)
	if err != nil {
		return err
	}
	change, cutErr := e.Block(ctx, r)
	if o.dryRun && errors.Is(cutErr, block.ErrAlready) {
		if !a.Streams.Quiet {
			a.Streams.Notice("nothing would change: all of it is cut off already")
		}
		return nil
	}
	if cutErr != nil && len(change.Blocks) == 0 {
		return cutErr
	}
	if o.dryRun {
		if _, err := a.Streams.Out.Write([]byte(change.Text)); err != nil {
			return err
		}
		return failure.Silent(failure.No)
	}
	uncovered := append(append(skipped, change.Uncovered...), notThere(change.Blocks)...)
	report := &isolateThreatReport{
		Schema: "mobileops.network.isolate-threat/v1", Blocks: []blockRecord{}, LeftOut: append([]block.LeftOut{}, change.LeftOut...),
		Uncovered: append([]string{}, uncovered...), Ended: change.Sockets, Forgotten: change.Tracked,
	}
	var words []string
	for i := range change.Blocks {
		b := &change.Blocks[i]
		report.Blocks = append(report.Blocks, blockRecordOf(b, b.TTL))
		words = append(words, b.Target.String())
	}
	a.SetResult("cut off %s", strings.Join(words, " "))
	if a.Streams.Format != ui.Text {
		if err := a.Streams.Document(report); err != nil {
			return err
		}
	} else {
		for i := range change.Blocks {
			b := &change.Blocks[i]
			how := leftText(b.TTL, b.Until, false)
			if !b.Until.IsZero() {
				how = "until " + b.Until.Local().Format(time.DateTime)
			}
			say(a, "cut off %s %s (lift it: mobileops network block remove %s)", ui.Escape(b.Target.String()), how, ui.Escape(b.Target.String()))
		}
		if t := cutText(change.Sockets, change.Tracked); t != "" {
			say(a, "%s", t)
		}
	}
	sayLeftOut(a, where, change.LeftOut)
	return incomplete(a, where, uncovered, cutErr)
}
