// Package host is our end of the plugin protocol mobileops.plugin/v1, and the
// way of events to plugins.
//
// Serve speaks with one plugin process over the socket pair that it inherited:
// JSON objects, one a line. It answers what the plugin asks for (configuration,
// secrets, findings, connections) as far as its permissions go, and delivers
// events to it. Pump delivers the same events to a function, for hooks, which
// are processes that live for one batch.
//
// Events are the changes of findings (internal/finding, bucket finding_log) and
// the records of the audit chain, merged by time into one order. A position in
// that order is a cursor, "f12.a7": behind change 12 and record 7. Delivery is
// at least once: a cursor is written down only after the plugin has said that
// it has everything before it, so that what was under way when either side died
// comes again, with the same ids.
//
// Buckets of state.db:
//
//	plugin_cursors  name → {"cursor": "f12.a7", "time": …}
//	plugin_dead     name → bucket of: sequence number (8 bytes) → what was put aside, JSON
//
// What a plugin sends is not trusted. Invariants:
//   - Whatever it sends or does not read, memory is bounded, and no goroutine
//     but those of its own session waits for it.
//   - A line that is too long or no JSON ends the session with a
//     *ProtocolError; everything else that is wrong is answered with an error.
//   - It reaches no address and no socket but those that its permissions list,
//     whatever names resolve to later and whoever swaps files.
//   - Its findings have the source "plugin/NAME", whatever it says.
//   - No lease of state.db is held while anything waits for the plugin.
//
// Secrets are in no error and no message but the answer to secret.get.
package host

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// Protocol is the name and version of the protocol.
const Protocol = "mobileops.plugin/v1"

// Roles in which a plugin process runs.
const (
	RoleCommand = "command"
	RoleService = "service"
	RoleHook    = "hook"
)

// Store is the state that findings, events and cursors are in. *state.Store is
// one.
type Store interface {
	View(ctx context.Context, fn func(*state.Tx) error) error
	Update(ctx context.Context, fn func(*state.Tx) error) error
	Path() string // of state.db, whose changes are looked for
}

// Config is the configuration of a plugin.
type Config interface {
	// JSON returns the values without secrets, as one JSON object.
	JSON() ([]byte, error)
	// SecretNames returns the paths of the secrets that are set, such as
	// "destinations[0].token".
	SecretNames() []string
	// Secret returns the value of a secret.
	Secret(name string) (string, bool)
}

// Resolver finds the addresses of a name. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Permissions say what a plugin may ask for. The zero value is nothing.
type Permissions struct {
	Network        []string // host:port; an IPv6 address in brackets
	Unix           []string // absolute paths of sockets
	ReadFindings   bool
	FindingsFrom   []string // sources that ReadFindings is about; empty: all
	ReportFindings bool
	ReadAudit      bool
}

// Account is a user and a group, by number.
type Account struct{ UID, GID uint32 }

// Health is what a plugin says of itself.
type Health struct {
	Status  string             `json:"status"` // "ok", "degraded" or "failing"
	Message string             `json:"message,omitempty"`
	Metrics map[string]float64 `json:"metrics,omitempty"`
}

// Options say whom Serve serves, and how.
type Options struct {
	Name    string // of the plugin
	Version string // of the plugin
	Role    string // RoleService and so on

	HostVersion string // of mobileops
	HostID      string // identifies the host, as in the audit chain

	Permissions Permissions
	Account     *Account // who the plugin is; nil: who we are
	Config      Config   // nil: none
	Store       Store

	// Watchdog is the time within which each ping must be answered; 0: none is
	// sent.
	Watchdog time.Duration
	// AllowLinkLocal lets names lead to link-local addresses, and to others
	// where clouds hand out credentials (169.254.169.254). An address that
	// the permissions list as such can always be dialled.
	AllowLinkLocal bool
	Resolver       Resolver // nil: that of the system

	// What the plugin says, and what went wrong without ending the session.
	// They are called one at a time and must not block; nil: not called.
	OnReady  func()
	OnHealth func(Health)
	OnError  func(error)

	now   func() time.Time // by which rates are counted; nil: time.Now
	drain time.Duration    // for what is under way when the session ends; 0: drainGrace
}

// Ends of a session.
var (
	// ErrUnresponsive says that a plugin left a ping without an answer.
	ErrUnresponsive = failure.New(failure.Failed, "the plugin does not answer")
	errProtocol     = failure.New(failure.Untrustworthy, "the plugin broke the protocol "+Protocol)
)

func (o *Options) check() error {
	switch {
	case o.Name == "" || len(o.Name) > maxName:
		return failure.Errorf(failure.Usage, "the name of a plugin has 1 to %d bytes", maxName)
	case o.Store == nil:
		return failure.Errorf(failure.Usage, "plugin %s: there is no store", o.Name)
	case o.Role != RoleCommand && o.Role != RoleService && o.Role != RoleHook:
		return failure.Errorf(failure.Usage, "plugin %s: unknown role %q", o.Name, o.Role)
	}
	return nil
}

// source is that of the plugin's findings.
func (o *Options) source() string { return "plugin/" + o.Name }

// cursorName is under which name the plugin's cursor is kept. What a command of
// the plugin reads does not move the cursor of its service.
func (o *Options) cursorName() string {
	if o.Role == RoleService {
		return o.Name
	}
	return o.Name + "/" + o.Role
}

// Serve serves the plugin process at the other end of conn, which is Serve's
// from now on, until the process closes its end or the context is done; stop
// the process first, so that it can still speak while it drains: what it wrote
// before the context was done is taken, and it is told nothing more. It returns
// nil when the plugin went, the context's cause when that ended it, a
// *ProtocolError when the plugin sent what it must not, and ErrUnresponsive.
// What the plugin has acknowledged is written down when Serve returns.
func Serve(ctx context.Context, conn *net.UnixConn, opts Options) error {
	defer conn.Close()
	if err := opts.check(); err != nil {
		return err
	}
	return newSession(ctx, conn, &opts).run()
}
