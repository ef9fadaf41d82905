package integrity

import (
	"context"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/integrity/history/anchor"
	"github.com/spf13/cobra"
)

func newAnchorSyslog(a *app.App) *cobra.Command {
	var address string
	cmd := a.Command(app.Spec{
		Use:   "syslog [--address ADDRESS]",
		Short: "Send the end of the history to a syslog",
		Long: `Send the end of the history to a syslog, and with that to wherever logs are
collected. It is one message of RFC 5424 with facility authpriv and severity
notice, whose text is the line of mobileops integrity anchor print.

A syslog cannot be asked: to compare later, look the line up there and give it
to mobileops integrity anchor check. Over UDP nobody knows whether it arrived.`,
		Example: `
mobileops integrity anchor syslog                    # to the local one
mobileops integrity anchor syslog --address tcp://logs.example.org:601
7 * * * * root mobileops integrity anchor syslog --quiet  # from cron, for a collector that forgets
`,
		Statuses: anchorStatuses(),
		Files:    []string{stateFile, historyFile, "/dev/log: the local syslog"},
		Audited:  true,
		Run:      func(ctx context.Context, _ []string) error { return runAnchorSyslog(ctx, a, address) },
	})
	cmd.Flags().StringVar(&address, "address", "", "send it to `ADDRESS`: tcp://HOST:PORT, udp://HOST:PORT or the path of a socket (default /dev/log)")
	app.CompleteValues(cmd, "address", "/dev/log", "tcp://", "udp://")
	return cmd
}

// syslogTimeout bounds sending one message.
const syslogTimeout = 10 * time.Second

func runAnchorSyslog(ctx context.Context, a *app.App, address string) error {
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	p, err := anchor.ParseSyslog(address, syslogTimeout)
	if err != nil {
		return err
	}
	return keepAnchor(ctx, a, e, "syslog", false, p)
}
