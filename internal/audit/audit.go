// Package audit keeps a hash-chained record of every act.
package audit

import (
	"context"
	"time"

	"github.com/mobileops/mobileops/internal/state"
)

// Actor is who did it.
type Actor struct {
	UID      int    `json:"uid"`
	User     string `json:"user,omitempty"`
	LoginUID int64  `json:"login_uid"` // /proc/self/loginuid; -1: none
	TTY      string `json:"tty,omitempty"`
	Remote   string `json:"remote,omitempty"` // the address of an SSH client, or an API identity
}

// Act is one thing done.
type Act struct {
	Time    time.Time     `json:"time"`
	Actor   Actor         `json:"actor"`
	Command string        `json:"command"`          // "integrity baseline"
	Args    []string      `json:"args,omitempty"`   // secrets already redacted
	Status  int           `json:"status"`           // exit status
	Result  string        `json:"result,omitempty"` // one line: what came of it
	Elapsed time.Duration `json:"elapsed"`
}

// Append chains the act to the record and returns its sequence number once it
// is durable.
func Append(ctx context.Context, s *state.Store, act Act) (seq uint64, err error) { panic("skeleton") }

// Self returns the actor this process acts for.
func Self() Actor { return Actor{} }
