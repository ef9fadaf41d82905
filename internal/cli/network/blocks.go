package network

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/block"
	"github.com/mobileops/mobileops/internal/network/isolation"
	"github.com/mobileops/mobileops/internal/ui"
)

// Files that the commands about blocks touch, as their help says it.
const (
	blockTables = "tables mobileops_blocks of nftables: inet, bridge and netdev"
	blockState  = "/var/lib/mobileops/state.db: what is blocked, also after a reboot"
	feedFiles   = "/var/lib/mobileops/network/feeds/: the addresses of each feed"
)

// notRoot is the status of whoever may not see or change the rules of this host.
var notRoot = app.Status{Code: 4, Text: "not root, or the state or the configuration belongs to another user"}

// newBlocks returns the engine of blocks.
func newBlocks(a *app.App) (*block.Engine, error) {
	c, err := a.Config()
	if err != nil {
		return nil, err
	}
	if err := ofThisHost(c); err != nil {
		return nil, err
	}
	store, err := a.State()
	if err != nil {
		return nil, err
	}
	opts := block.Options{Store: store, Never: c.Network.NeverBlock, LockTimeout: c.LockTimeout}
	words := c.Network.Management
	if c.Network.Controller != "" {
		// One that is a name is not looked up: what blocks must not wait for DNS.
		if p, err := netip.ParseAddrPort(c.Network.Controller); err == nil {
			words = append(words[:len(words):len(words)], p.Addr().String())
		}
	}
	for _, w := range words {
		p, err := isolation.ParsePeer(w, "management")
		if err != nil {
			return nil, app.UsageError("network.management: %v", err)
		}
		opts.Management = append(opts.Management, p.Prefix)
	}
	if s := isolation.FindSession(a.Getenv("SSH_CONNECTION")); s != nil {
		opts.Session = block.Session{Peer: s.Peer, Port: s.Port}
	}
	return block.New(opts), nil
}

// parseTTL reads --ttl; "" is for ever.
func parseTTL(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, ok := moment.Span(s)
	if !ok || d < time.Second || d > 10*365*24*time.Hour {
		return 0, app.UsageError("bad value %q for --ttl: a span from 1s to ten years, such as 30m, 4h or 7d", s)
	}
	return d, nil
}

// blockRecord is a block in JSON.
type blockRecord struct {
	Target     string    `json:"target"`
	Type       string    `json:"type"`
	Value      string    `json:"value"`
	Threat     string    `json:"threat,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	By         string    `json:"by,omitempty"`
	Since      time.Time `json:"since"`
	Until      time.Time `json:"until,omitzero"`
	Left       float64   `json:"left_seconds,omitempty"`
	Lapsed     bool      `json:"lapsed,omitempty"`
	Forced     bool      `json:"forced,omitempty"`
	Addresses  []string  `json:"addresses,omitempty"`
	Interfaces []string  `json:"interfaces,omitempty"`
	Cgroups    []string  `json:"cgroups,omitempty"`
	Uncovered  []string  `json:"uncovered,omitempty"`
}

func blockRecordOf(b *block.Block, left time.Duration) blockRecord {
	r := blockRecord{
		Target: b.Target.String(), Type: string(b.Target.Type), Value: b.Target.Value, Threat: b.Threat, Reason: b.Reason, By: b.By,
		Since: b.Since.UTC(), Until: b.Until, Left: left.Round(time.Second).Seconds(), Forced: b.Forced, Interfaces: b.Parts.Interfaces, Uncovered: b.Parts.Uncovered,
	}
	for _, a := range b.Parts.Addresses {
		r.Addresses = append(r.Addresses, a.String())
	}
	for _, c := range b.Parts.Cgroups {
		r.Cgroups = append(r.Cgroups, c.Path)
	}
	return r
}

// feedRecord is a feed in JSON.
type feedRecord struct {
	Name       string          `json:"name"`
	Source     string          `json:"source"`
	Reason     string          `json:"reason,omitempty"`
	By         string          `json:"by,omitempty"`
	Since      time.Time       `json:"since"`
	Imported   time.Time       `json:"imported"`
	Checked    time.Time       `json:"checked"`
	Until      time.Time       `json:"until,omitzero"`
	Left       float64         `json:"left_seconds,omitempty"`
	Lapsed     bool            `json:"lapsed,omitempty"`
	Entries    int             `json:"entries"`
	Addresses4 int             `json:"ipv4_addresses"`
	Networks4  int             `json:"ipv4_networks"`
	Addresses6 int             `json:"ipv6_addresses"`
	Networks6  int             `json:"ipv6_networks"`
	BadLines   int             `json:"bad_lines"`
	LeftOut    []block.LeftOut `json:"left_out"`
	Packets    uint64          `json:"dropped_packets"`
	Bytes      uint64          `json:"dropped_bytes"`
}

func feedRecordOf(f *block.FeedStatus) feedRecord {
	return feedRecord{
		Name: f.Name, Source: redacted(f.Source), Reason: f.Reason, By: f.By, Since: f.Since, Imported: f.Imported, Checked: f.Checked, Until: f.Until,
		Left: f.Left.Round(time.Second).Seconds(), Lapsed: f.Lapsed, Entries: f.Total(),
		Addresses4: f.Singles4, Networks4: f.Ranges4, Addresses6: f.Singles6, Networks6: f.Ranges6,
		BadLines: f.Bad, LeftOut: append([]block.LeftOut{}, f.LeftOut...), Packets: f.Packets, Bytes: f.Bytes,
	}
}

// leftText says how long a block lasts.
func leftText(left time.Duration, until time.Time, lapsed bool) string {
	switch {
	case lapsed:
		return "lapsed"
	case until.IsZero():
		return "for ever"
	}
	return ui.Duration(left.Round(time.Second))
}

// sayLeftOut says on standard error what is not blocked.
func sayLeftOut(a *app.App, where string, list []block.LeftOut) {
	for _, l := range list {
		a.Streams.Notice("mobileops: %s: left out: %s (%s)", where, ui.Escape(l.What), ui.Escape(l.Why))
	}
}

// cutText says which connections were ended.
func cutText(sockets, tracked int) string {
	var words []string
	if sockets > 0 {
		words = append(words, ui.Plural(int64(sockets), "connection", "connections")+" of this host ended")
	}
	if tracked > 0 {
		words = append(words, ui.Plural(int64(tracked), "tracked connection", "tracked connections")+" forgotten")
	}
	return strings.Join(words, ", ")
}

// incomplete is the outcome of what is in force but for something that was said.
func incomplete(a *app.App, where string, list []string, err error) error {
	for _, u := range list {
		a.Streams.Notice("mobileops: %s: not covered: %s", where, ui.Escape(u))
	}
	if err != nil {
		return failure.Wrap(failure.Incomplete, err)
	}
	if len(list) > 0 {
		return failure.Silent(failure.Incomplete)
	}
	return nil
}

// say prints a line of a result, unless --quiet.
func say(a *app.App, format string, args ...any) {
	if !a.Streams.Quiet {
		fmt.Fprintf(a.Streams.Out, format+"\n", args...)
	}
}

// detail prints a name and a value.
func detail(a *app.App, name, value string) {
	fmt.Fprintf(a.Streams.Out, "  %-12s %s\n", name, ui.Escape(value))
}
