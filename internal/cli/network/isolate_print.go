package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/isolation"
	"github.com/mobileops/mobileops/internal/ui"
)

// peerList names peers and why they are allowed.
func peerList(list []isolation.Peer) string {
	if len(list) == 0 {
		return "nobody"
	}
	words := make([]string, len(list))
	for i, p := range list {
		words[i] = peerText(p.String(), p.Why)
	}
	return strings.Join(words, ", ")
}

// peerText says who is allowed, and why. The port of a session is one of this
// host, which the form of all others does not tell.
func peerText(peer, why string) string {
	if at := strings.LastIndex(peer, ":"); why == "session" && at > 0 {
		return fmt.Sprintf("%s to %s here (session)", strings.Trim(peer[:at], "[]"), peer[at+1:])
	}
	return peer + " (" + why + ")"
}

// isolationReport is the document of mobileops network isolate.
type isolationReport struct {
	Schema     string                `json:"schema"`
	Since      time.Time             `json:"since"`
	Took       float64               `json:"took_ms"` // from the beginning of the work until the rules were in force
	Deadline   time.Time             `json:"deadline,omitzero"`
	Reason     string                `json:"reason,omitempty"`
	By         string                `json:"by"`
	Allowed    []peerRecord          `json:"allowed"`
	Session    *isolation.Session    `json:"session,omitempty"`
	Kept       int                   `json:"kept"` // connections that may go on
	Severed    isolation.Severed     `json:"severed"`
	Interfaces []isolation.Interface `json:"interfaces"`
	Gateways   []netip.Addr          `json:"gateways"`
	Guard      *guardRecord          `json:"guard,omitempty"`
	Problems   []string              `json:"problems"`
}

type peerRecord struct {
	Peer string `json:"peer"`
	Why  string `json:"why"`
}

type guardRecord struct {
	PID   int       `json:"pid"`
	Since time.Time `json:"since,omitzero"` // not known when the state directory could not hold it
}

func peerRecords(list []isolation.Peer) []peerRecord {
	out := []peerRecord{}
	for _, p := range list {
		out = append(out, peerRecord{p.String(), p.Why})
	}
	return out
}

// problems are what could not be done though the host is isolated.
func problems(r *isolation.Result) (list []string) {
	list = append([]string{}, r.Bypass...)
	if r.SeverError != nil {
		list = append(list, "connections of before were not all ended, and hear nothing any more: "+r.SeverError.Error())
	}
	if r.ProbeError != nil {
		list = append(list, r.ProbeError.Error())
	}
	if r.RecordError != nil {
		list = append(list, fmt.Sprintf("it will not be isolated after a reboot: %v; see to that, then: mobileops network isolate --replace", cause(r.RecordError)))
	}
	if r.GuardError != nil {
		list = append(list, "interfaces that appear later are not sealed: "+r.GuardError.Error())
	}
	return list
}

// cause is what an error of a file came from, without the advice that goes with
// it: "run it again" is wrong for what is in force.
func cause(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at
	}
	return err
}

// trouble is the outcome when the host is isolated and something else failed.
func trouble(r *isolation.Result) error {
	if list := problems(r); len(list) > 0 {
		return failure.Errorf(failure.Incomplete, "this host is isolated, but: %s", strings.Join(list, "; "))
	}
	return nil
}

func printIsolated(s *ui.Streams, r *isolation.Result) error {
	if s.Format != ui.Text {
		report := isolationReport{
			Schema: "mobileops.network.isolate/v1", Since: r.Record.Since.UTC(), Took: float64(r.Took.Microseconds()) / 1000,
			Deadline: r.Record.Deadline.UTC(), Reason: r.Record.Reason, By: r.Record.By, Allowed: peerRecords(r.Prepared.Allowed()),
			Session: r.Prepared.Session(), Kept: len(r.Prepared.Kept()), Severed: r.Severed, Interfaces: append([]isolation.Interface{}, r.Prepared.Interfaces()...),
			Gateways: append([]netip.Addr{}, r.Prepared.Gateways()...), Problems: problems(r),
		}
		if r.Record.Deadline.IsZero() {
			report.Deadline = time.Time{}
		}
		if r.Guard.PID != 0 {
			report.Guard = &guardRecord{r.Guard.PID, r.Guard.Since}
		}
		return s.Document(report)
	}
	if s.Quiet {
		return nil
	}
	theme := s.Theme()
	fmt.Fprintf(s.Out, "%s (%.1f ms)\n", theme.Warn("This host is isolated"), float64(r.Took.Microseconds())/1000)
	line(s, "allowed", peerList(r.Prepared.Allowed()))
	line(s, "ended", fmt.Sprintf("%s of programs, %s tracked", count(r.Severed.Sockets, "connection"), count(r.Severed.Tracked, "connection")))
	if n := len(r.Prepared.Kept()); n > 0 {
		line(s, "kept", count(n, "connection"))
	}
	var names []string
	for _, i := range r.Prepared.Interfaces() {
		names = append(names, i.Name)
	}
	line(s, "sealed", orNothing(names))
	if r.Guard.PID != 0 {
		line(s, "guard", fmt.Sprintf("pid %d", r.Guard.PID))
	} else {
		line(s, "guard", "none: interfaces that appear later are not sealed against raw frames")
	}
	if !r.Record.Deadline.IsZero() {
		_, err := fmt.Fprintf(s.Out, "It lapses at %s unless you run: mobileops network confirm\n", r.Record.Deadline.Local().Format("15:04:05"))
		return err
	}
	_, err := fmt.Fprintln(s.Out, "Take it back: mobileops network restore")
	return err
}

// family is what an operator calls the family of an address.
func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// line writes a name and a value, aligned, and folded where a terminal is narrow.
func line(s *ui.Streams, name, value string) {
	value = ui.Escape(value)
	if indent := strings.Repeat(" ", 13); s.OutTTY && s.Width > 2*len(indent) {
		value = strings.TrimSpace(ui.Fold(value, s.Width, indent))
	}
	fmt.Fprintf(s.Out, "  %-10s %s\n", name, value)
}

// orNothing lists names of interfaces.
func orNothing(names []string) string {
	if len(names) == 0 {
		return "no interface"
	}
	return strings.Join(names, " ")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// printDryRun shows what would be in force; the answer is then "not yet".
func printDryRun(s *ui.Streams, q *isolation.Request) error {
	for _, t := range q.Probe {
		q.Allow = append(q.Allow, t.Peers()...)
	}
	p, err := isolation.Prepare(q.Options, q.By)
	if err != nil {
		return err
	}
	text, err := p.Text()
	if err != nil {
		return err
	}
	if s.Format != ui.Text {
		err = s.Document(struct {
			Schema  string       `json:"schema"`
			Allowed []peerRecord `json:"allowed"`
			Ruleset string       `json:"ruleset"` // for nft -f
		}{"mobileops.network.isolate.plan/v1", peerRecords(p.Allowed()), text})
	} else {
		_, err = fmt.Fprintf(s.Out, "# allowed: %s\n%s", peerList(p.Allowed()), text)
	}
	if err != nil {
		return err
	}
	return failure.Silent(failure.No)
}
