// Package pluginsdk is the plugin's side of the protocol mobileops.plugin/v1,
// over which a plugin of mobileops talks to the host that started it.
//
// A plugin is a program of its own. It inherits one end of a socket pair, on
// which both sides write JSON objects, one a line. Connect takes that end and
// waits for the host's greeting; everything else is a method of Client:
//
//	client, err := pluginsdk.Connect()
//	if err != nil {
//		return err // ErrNoHost: somebody ran the program by hand
//	}
//	defer client.Close()
//	if err := client.Ready(ctx); err != nil {
//		return err
//	}
//	return client.Subscribe(ctx, pluginsdk.Subscription{Types: []string{pluginsdk.TypeFinding}},
//		func(ctx context.Context, b pluginsdk.Batch) error {
//			return store(b.Events) // nil: these events are not delivered again
//		})
//
// What the package promises:
//   - All methods can be called at the same time. Answers are matched to
//     questions by their number, so a slow one holds up no other.
//   - Every method ends when its context does, and with ErrHostGone when the
//     host dies; Done tells a plugin that waits for nothing else.
//   - Memory is bounded: by MaxLine for each of at most maxCalls questions, and
//     by two batches of events. What does not fit makes the host wait.
//   - The host's pings are answered while all else is busy.
//   - A descriptor that comes from the host is close-on-exec, and closed when
//     nobody waits for it any more.
//
// Errors that the host answers are *Error and carry a Code. docs/plugins.md
// describes the protocol for other languages, and how plugins are packed,
// signed and confined; package conformance checks a plugin against it.
package pluginsdk

import (
	"errors"
	"fmt"
)

// Protocol is the name and version of the protocol. A host says it first.
const Protocol = "mobileops.plugin/v1"

// MaxLine is how many bytes a line may have, its newline not counted.
const MaxLine = 1 << 20

// The environment that a plugin starts with; see docs/plugins.md.
const (
	EnvFD      = "MOBILEOPS_PLUGIN_FD"      // the number of the inherited descriptor
	EnvName    = "MOBILEOPS_PLUGIN"         // the plugin's name
	EnvVersion = "MOBILEOPS_PLUGIN_VERSION" // the plugin's version
	EnvData    = "MOBILEOPS_PLUGIN_DATA"    // its private directory, also the working directory
	EnvRole    = "MOBILEOPS_PLUGIN_ROLE"    // command, service or hook
	EnvOutput  = "MOBILEOPS_OUTPUT"         // how a command is to print: text, json or jsonl, as --output says
	EnvQuiet   = "MOBILEOPS_QUIET"          // 1: a command prints only what needs attention, as --quiet says
)

// What a plugin can be started as.
const (
	RoleCommand = "command"
	RoleService = "service"
	RoleHook    = "hook"
)

var (
	// ErrNoHost says that no host started this program: EnvFD is not set.
	ErrNoHost = errors.New("this program is a plugin: mobileops starts it (mobileops plugin run NAME)")
	// ErrHostGone says that the host closed the connection or died. A plugin
	// should end then.
	ErrHostGone = errors.New("mobileops is gone")
	// ErrClosed says that Close was called.
	ErrClosed = errors.New("the connection to mobileops was closed by this plugin")
	// ErrProtocol says that the host sent what the protocol does not allow.
	// The connection ends with it.
	ErrProtocol = errors.New("mobileops broke the protocol " + Protocol)
	// ErrSubscribed says that a Subscribe is running already.
	ErrSubscribed = errors.New("this plugin has a subscription already")
)

// Code says why a request was refused.
type Code string

// The codes of version 1.
const (
	CodeDenied   Code = "denied"    // the plugin's permissions do not have it
	CodeInvalid  Code = "invalid"   // the request makes no sense
	CodeUnknown  Code = "unknown"   // there is no such method
	CodeNotFound Code = "not-found" // there is no such secret, finding, cursor
	CodeBusy     Code = "busy"      // try again later
	CodeFailed   Code = "failed"    // it was tried, and failed
	CodeTooLarge Code = "too-large" // it exceeds a limit
)

// Error is a refusal. errors.Is(err, &Error{Code: CodeBusy}) asks for a code
// whatever the message is.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Error returns the message with its code.
func (e *Error) Error() string {
	if e.Message == "" {
		return string(e.Code)
	}
	return fmt.Sprintf("%s (%s)", e.Message, e.Code)
}

// Is reports whether target is an *Error of the same code, and of the same
// message if it has one.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && (t.Message == "" || t.Message == e.Message)
}

// Hello is the host's greeting.
type Hello struct {
	Protocol string `json:"protocol"` // Protocol
	Host     struct {
		Version string `json:"version"` // of mobileops
		ID      string `json:"id"`      // identifies the host, as in the audit chain
	} `json:"host"`
	Plugin struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	} `json:"plugin"`
	Role string `json:"role"` // RoleCommand, RoleService or RoleHook
}

// What a service says of itself.
const (
	StatusOK       = "ok"
	StatusDegraded = "degraded" // works, but somebody should look
	StatusFailing  = "failing"  // does not do what it is for
)

// Health is what a service says of itself; mobileops plugin status shows it.
type Health struct {
	Status  string             `json:"status"`
	Message string             `json:"message,omitempty"` // one line
	Metrics map[string]float64 `json:"metrics,omitempty"`
}
