package supervise

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/mobileops/mobileops/internal/failure"
)

// Protocol is the name and version of the control protocol, which
// docs/formats/supervise.md describes.
const Protocol = "mobileops.supervise/v1"

// Limits of the protocol.
const (
	maxRequest = 64 << 10 // bytes of a line from a client
	maxAnswer  = 4 << 20  // bytes of a line from the supervisor
	maxTail    = 100000   // lines of a log
)

// Method is a method of the control protocol that the owner of the supervisor
// adds. What it returns is encoded as JSON.
type Method func(ctx context.Context, params json.RawMessage) (any, error)

// hello is the first line of the supervisor.
type hello struct {
	Protocol string `json:"protocol"`
	PID      int    `json:"pid"`
	Version  string `json:"version,omitempty"`
}

// request is a line of a client.
type request struct {
	ID     int64           `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params,omitempty"`
}

// response is a line of the supervisor: an item of a stream, or the end of an
// answer, which has a result or an error.
type response struct {
	ID     int64      `json:"id"`
	Item   any        `json:"item,omitempty"`
	Result any        `json:"result,omitempty"`
	Error  *wireError `json:"error,omitempty"`
}

// params of all methods of the protocol.
type params struct {
	Name   string `json:"name,omitempty"`
	Wait   bool   `json:"wait,omitempty"`
	Lines  int    `json:"lines,omitempty"`
	Follow bool   `json:"follow,omitempty"`
}

// wireError is an error as it goes over the socket.
type wireError struct {
	Kind    string `json:"kind"`           // one of kinds
	Code    string `json:"code,omitempty"` // one of codes
	Message string `json:"message"`
}

// kinds of failure, by their names.
func kinds() map[failure.Kind]string {
	return map[failure.Kind]string{
		failure.No: "no", failure.Usage: "usage", failure.Failed: "failed", failure.NotAllowed: "not-allowed",
		failure.Untrustworthy: "untrustworthy", failure.Incomplete: "incomplete", failure.NotReady: "not-ready",
		failure.Busy: "busy", failure.Interrupted: "interrupted",
	}
}

// codes of the errors that callers tell apart.
func codes() map[string]error {
	return map[string]error{
		"unknown": ErrUnknown, "running": ErrRunning, "stopped": ErrStopped, "closing": ErrClosing, "held": ErrHeld,
	}
}

func toWire(err error) *wireError {
	w := &wireError{Kind: kinds()[failure.KindOf(err)], Message: err.Error()}
	for code, sentinel := range codes() {
		if errors.Is(err, sentinel) {
			w.Code = code
		}
	}
	return w
}

// remote is an error that the supervisor answered with.
type remote struct {
	message  string
	sentinel error
}

func (r *remote) Error() string { return r.message }
func (r *remote) Unwrap() error { return r.sentinel }

func (w *wireError) err() error {
	kind := failure.Failed
	for k, name := range kinds() {
		if name == w.Kind {
			kind = k
		}
	}
	return failure.Wrap(kind, &remote{w.Message, codes()[w.Code]})
}
