package network

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/isolation"
	"github.com/mobileops/mobileops/internal/network/monitor"
	"github.com/mobileops/mobileops/internal/network/nft"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newStatus(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "status",
		Short: "Show what is in force on the network of this host",
		Long: `Show what is in force on the network of this host.

What it says was read from the kernel; what is remembered is compared with that.`,
		Example: `
mobileops network status
mobileops network status --output json | jq .isolation.left_seconds
*/5 * * * * root mobileops network status --quiet  # cron: mails when isolation has gaps
`,
		Statuses: []app.Status{
			notRoot,
			{Code: 0, Text: "what is to be in force is, wholly"},
			{Code: 5, Text: "something is in force in part, or not at all: others have changed it"},
		},
		Files: []string{tablesFile, stateFile, lockFiles},
		Run:   func(ctx context.Context, _ []string) error { return runStatus(ctx, a) },
	})
}

// statusReport is the document of mobileops network status.
type statusReport struct {
	Schema    string          `json:"schema"`
	Isolation isolationStatus `json:"isolation"`
	Guard     *guardRecord    `json:"guard,omitempty"`
	Others    []monitor.Force `json:"others"` // blocks and segments
	Problems  []string        `json:"problems"`
}

type isolationStatus struct {
	InForce  bool          `json:"in_force"`
	Pending  bool          `json:"pending"` // lapses unless it is confirmed
	Left     float64       `json:"left_seconds,omitempty"`
	Since    time.Time     `json:"since,omitzero"`
	By       string        `json:"by,omitempty"`
	Reason   string        `json:"reason,omitempty"`
	Allowed  []peerRecord  `json:"allowed"`
	Sealed   []string      `json:"sealed"`
	Cut      []nft.Counted `json:"cut"` // packets and bytes that were dropped, by rule
	LastHow  string        `json:"last_ended_how,omitempty"`
	LastTime time.Time     `json:"last_ended,omitzero"`
}

func runStatus(ctx context.Context, a *app.App) error {
	c, err := a.Config()
	if err != nil {
		return err
	}
	e, err := newEngine(a, c, false)
	if err != nil {
		return err
	}
	now, err := isolation.ReadAll()
	if err != nil {
		return err
	}
	report := &statusReport{Schema: "mobileops.network.status/v1", Problems: append(append([]string{}, now.Gaps...), now.Bypass...)}
	record, err := isolation.Load(ctx, e.Store)
	if err != nil {
		report.Problems = append(report.Problems, err.Error())
	}
	report.Isolation = isolationOf(&now, record)
	if h, ok := e.GuardHolder(); ok {
		report.Guard = &guardRecord{h.PID, h.Since}
	}
	switch {
	case record.Lasts() && !now.InForce:
		report.Problems = append(report.Problems, "this host is to be isolated since "+record.Since.Local().Format(time.DateTime)+" and is not: put it in force again: mobileops network reconcile")
	case now.InForce && !record.Open():
		report.Problems = append(report.Problems, "isolation is in force and nothing is remembered of it: it ends with a reboot")
	case now.InForce && !now.Pending && !record.Lasts():
		report.Problems = append(report.Problems, "isolation lasts, and that is not remembered: it ends with a reboot: have it remembered: mobileops network confirm")
	}
	others, problems, err := inForce(ctx, a)
	if err != nil {
		problems = append(problems, "blocks and segments: "+err.Error())
	}
	report.Others, report.Problems = append([]monitor.Force{}, others...), append(report.Problems, problems...)
	if err := printStatus(a.Streams, report); err != nil {
		return err
	}
	if len(report.Problems) > 0 {
		return failure.Silent(failure.Untrustworthy)
	}
	return nil
}

func isolationOf(now *isolation.Status, record *isolation.Record) isolationStatus {
	s := isolationStatus{InForce: now.InForce, Pending: now.Pending, Left: now.Left.Round(time.Millisecond).Seconds(), Allowed: []peerRecord{}, Sealed: append([]string{}, now.Sealed...), Cut: append([]nft.Counted{}, now.Counters...)}
	switch {
	case record == nil:
	case now.InForce && record.Open():
		s.Since, s.By, s.Reason, s.Allowed = record.Since.UTC(), record.By, record.Reason, peerRecords(record.Allow)
	case !now.InForce && record.Open() && !record.Lasts(): // nobody was there to note it
		s.LastHow, s.LastTime = "lapsed", record.Deadline.UTC()
	case !record.Open():
		s.LastHow, s.LastTime = record.How, record.Ended.UTC()
	}
	return s
}

func printStatus(s *ui.Streams, r *statusReport) error {
	if s.Format != ui.Text {
		return s.Document(r)
	}
	theme := s.Theme()
	i := &r.Isolation
	if !s.Quiet {
		switch {
		case !i.InForce:
			fmt.Fprintln(s.Out, theme.Good("This host is not isolated"))
			if !i.LastTime.IsZero() {
				line(s, "before", fmt.Sprintf("it was; %s at %s", i.LastHow, i.LastTime.Local().Format(time.DateTime)))
			}
		case i.Pending:
			fmt.Fprintf(s.Out, "%s for %s unless it is confirmed: mobileops network confirm\n", theme.Warn("This host is isolated"), (time.Duration(i.Left * float64(time.Second))).Round(time.Second))
		default:
			fmt.Fprintln(s.Out, theme.Warn("This host is isolated"))
		}
	}
	if i.InForce && !s.Quiet {
		if !i.Since.IsZero() {
			line(s, "since", fmt.Sprintf("%s, by %s", i.Since.Local().Format(time.DateTime), i.By))
		}
		if i.Reason != "" {
			line(s, "reason", i.Reason)
		}
		words := []string{}
		for _, p := range i.Allowed {
			words = append(words, peerText(p.Peer, p.Why))
		}
		switch {
		case len(words) > 0:
		case i.Since.IsZero():
			words = []string{"not remembered (see: nft list table inet mobileops_isolation)"}
		default:
			words = []string{"nobody"}
		}
		line(s, "allowed", strings.Join(words, ", "))
		line(s, "sealed", orNothing(i.Sealed))
		if r.Guard != nil {
			line(s, "guard", fmt.Sprintf("pid %d", r.Guard.PID))
		} else {
			line(s, "guard", "none (start one: mobileops network reconcile)")
		}
		for _, c := range i.Cut {
			if c.Packets > 0 {
				line(s, "cut", fmt.Sprintf("%s, %s: %s", ui.Plural(int64(c.Packets), "packet", "packets"), ui.Bytes(int64(c.Bytes)), c.Comment))
			}
		}
	}
	for _, f := range r.Others {
		if !s.Quiet {
			text := f.Detail
			if f.Dropped > 0 {
				text += "; " + ui.Plural(int64(f.Dropped), "packet", "packets") + " dropped"
			}
			line(s, f.Name, text)
		}
	}
	for _, p := range r.Problems {
		fmt.Fprintf(s.Out, "%s: %s\n", theme.Bad("problem"), ui.Escape(p))
	}
	return s.WriteError()
}
