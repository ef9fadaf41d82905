package network

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/sdnotify"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/segment"
	"github.com/mobileops/mobileops/internal/network/segment/serve"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// Files of the services of zones, as help says it.
const (
	leaseFiles = "/var/lib/mobileops/network/leases/ZONE.leases: who has which address"
	serveFile  = "/run/mobileops/network-serve.json: how the services are, while they run"
)

// serveLock is the lock of the one process that serves.
const serveLock = "network-serve"

func leaseDir(c *config.Config) string { return filepath.Join(c.StateDir, "network", "leases") }

func serveStatus(c *config.Config) string { return filepath.Join(c.RunDir, "network-serve.json") }

func newServe(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "serve",
		Short: "Give addresses and names to the zones that ask for it",
		Long: `Give addresses and names to the zones that ask for it.

Zones that mobileops network apply has put in force are served on their bridges:
DHCP, router advertisements and DHCPv6 where they have "dhcp", a resolver on the
addresses of the gateway where they have "dns". It runs until it is stopped, best
as the systemd unit mobileops-network.service, and follows what is applied
meanwhile. A service that cannot begin, since its bridge is missing or a port is
taken, is tried again, and does not stop others.

Leases survive a crash and a reboot. A guest is known by the source address of its
frames and by the port of the bridge where that is: it gets no address in the name
of another, and one port gets a quarter of the pool at most. An address that
somebody uses without a lease is found by ARP, and passed over.

Names of workloads, reservations and leases are answered here; all others are asked
of the servers that the zone names ("upstream"), never those of a local network.
Addresses of private networks in their answers are left out (DNS rebinding).`,
		Example: `
mobileops network serve
systemctl enable --now mobileops-network  # runbook: mobileops network serve as a service, also after a reboot
mobileops network leases                  # who has which address
`,
		Statuses: []app.Status{
			{Code: 0, Text: "ended by SIGTERM or SIGHUP"},
			{Code: 4, Text: "not root, and without CAP_NET_RAW and CAP_NET_BIND_SERVICE"},
			{Code: 8, Text: "it runs already; its process is named"},
			{Code: 130, Text: "ended by Ctrl-C; leases are kept"},
		},
		Files: []string{leaseFiles, serveFile, segmentsFile},
		Run:   func(ctx context.Context, _ []string) error { return runServe(ctx, a) },
	})
}

func runServe(ctx context.Context, a *app.App) error {
	// What the unit gives, and no more: ports 53 and 67, and frames.
	if !segment.Capable(unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_RAW) {
		return failure.Hint(failure.Errorf(failure.NotAllowed, "needs root, or CAP_NET_BIND_SERVICE and CAP_NET_RAW"), "run it as root")
	}
	c, err := a.Config()
	if err != nil {
		return err
	}
	store, err := a.State()
	if err != nil {
		return err
	}
	lock, err := store.Lock(serveLock, "network serve")
	if err != nil {
		return err
	}
	defer lock.Release()
	if err := durable.MkdirAll(leaseDir(c), 0o700); err != nil {
		return err
	}
	if err := os.MkdirAll(c.RunDir, 0o700); err != nil {
		return err
	}
	if err := durable.Clean(serveStatus(c)); err != nil {
		return err
	}
	signals, unhook := app.EndSignals()
	defer unhook()
	manager := sdnotify.New(a.Getenv)
	err = serve.Run(ctx, serve.Options{
		Zones: func(ctx context.Context) ([]serve.Zone, error) {
			l, err := segment.Applied(ctx, store)
			return serve.Zones(l, leaseDir(c)), err
		},
		Changed:    func() string { return fingerprint(store.Path()) },
		StatusFile: serveStatus(c),
		Ready: func() {
			manager.Ready()
			if !a.Streams.Quiet {
				a.Streams.Notice("mobileops: network serve: ready (see: mobileops network leases)")
			}
		},
		Alive: manager.Alive,
		Notice: func(format string, args ...any) {
			a.Streams.Notice("mobileops: network serve: %s", ui.Escape(fmt.Sprintf(format, args...)))
		},
	})
	manager.Stopping()
	if err == nil && ctx.Err() != nil {
		return app.EndedBy(signals)
	}
	return failure.Hint(err, "see what is applied: mobileops network segments")
}

// fingerprint changes whenever a file is written or replaced.
func fingerprint(path string) string {
	fi, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprint(fi.ModTime().UnixNano(), fi.Size())
}
