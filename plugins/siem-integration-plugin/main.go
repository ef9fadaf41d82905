// Command mobileops-siem-integration-plugin forwards findings and audit records
// to the systems that collect events: syslog over TLS (RFC 5424, CEF, LEEF),
// Splunk, OpenSearch and Elasticsearch, OpenTelemetry, and webhooks. It is a
// plugin: mobileops starts it.
//
// What happens to an event:
//
//  1. The host delivers it in a batch (intake.go). It is packed
//     (internal/packed) and appended to a queue on disk (internal/queue). When
//     the queue is synced, the host is told that it may forget the batch.
//  2. Each destination reads the queue at its own speed, encodes what its
//     filter wants (internal/format), brings it over, and moves its cursor on
//     when the receiver has it (internal/deliver).
//
// README.md says how to configure it and what is promised.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// Exit statuses, as of every command of mobileops.
const (
	statusNo       = 1 // the answer is no
	statusUsage    = 2
	statusFailed   = 3
	statusNotReady = 7
)

// failure is an error with an exit status.
type failure struct {
	status int
	err    error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fail(status int, format string, args ...any) error {
	return &failure{status, fmt.Errorf(format, args...)}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	err := run(ctx, os.Args[1:])
	stop()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "siem-integration-plugin:", err)
	status := statusFailed
	var f *failure
	if errors.As(err, &f) {
		status = f.status
	}
	os.Exit(status)
}

// run does one command. The first word says which.
func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fail(statusUsage, "a command is missing: status, test, dead-letters (serve is for mobileops)")
	}
	name := args[0]
	words, flags, err := split(args[1:])
	if err != nil {
		return err
	}
	commands := map[string]func(context.Context, *pluginsdk.Client, []string, map[string]string) error{
		"serve": serve, "status": status, "test": test, "dead-letters": deadLetters,
	}
	command := commands[name]
	if command == nil {
		return fail(statusUsage, "unknown command %q: status, test, dead-letters (serve is for mobileops)", name)
	}
	client, err := pluginsdk.Connect()
	if err != nil {
		return fail(statusNotReady, "%w", err)
	}
	defer client.Close()
	return command(ctx, client, words, flags)
}

// split tells words from flags. The host has checked them against plugin.yaml
// and passes on "--name=value", or "--name" for a bool.
func split(args []string) (words []string, flags map[string]string, err error) {
	flags = map[string]string{}
	for i, a := range args {
		switch {
		case a == "--":
			return append(words, args[i+1:]...), flags, nil
		case strings.HasPrefix(a, "--"):
			name, value, ok := strings.Cut(a[2:], "=")
			if !ok {
				value = "true"
			}
			if name != "json" {
				return nil, nil, fail(statusUsage, "unknown flag %q", a)
			}
			flags[name] = value
		default:
			words = append(words, a)
		}
	}
	return words, flags, nil
}
