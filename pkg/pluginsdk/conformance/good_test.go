package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// goodService is a plugin made with pluginsdk: it writes the ids of events to
// a file and sends them to an address. Its log is standard error.
func goodService() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err := serve(ctx)
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, pluginsdk.ErrHostGone) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func serve(ctx context.Context) error {
	c, err := pluginsdk.Connect()
	if err != nil {
		return err
	}
	defer c.Close()
	var config struct{ Address string }
	if err := c.Config(ctx, &config); err != nil {
		return err
	}
	if _, err := c.Secret(ctx, "token"); err != nil && !errors.Is(err, &pluginsdk.Error{Code: pluginsdk.CodeNotFound}) {
		return err
	}
	seen, err := os.OpenFile(filepath.Join(os.Getenv(pluginsdk.EnvData), "seen"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer seen.Close()
	if err := c.Ready(ctx); err != nil {
		return err
	}
	return c.Subscribe(ctx, pluginsdk.Subscription{}, func(ctx context.Context, b pluginsdk.Batch) error {
		for _, e := range b.Events {
			if _, err := fmt.Fprintln(seen, e.ID); err != nil {
				return err
			}
		}
		if err := seen.Sync(); err != nil {
			return err
		}
		if config.Address == "" {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		conn, err := c.Dial(ctx, "tcp", config.Address)
		if errors.Is(err, &pluginsdk.Error{Code: pluginsdk.CodeDenied}) {
			time.Sleep(50 * time.Millisecond) // nothing that trying again would change
			return nil
		}
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = json.NewEncoder(conn).Encode(b) // a partner that hears nothing for a while has hung up
		return nil
	})
}

func goodHook() int {
	for e, err := range pluginsdk.HookEvents(os.Stdin) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if e.Type == pluginsdk.TypeFinding && e.Finding == nil {
			return 1
		}
	}
	return 0
}

func goodCommand() int {
	c, err := pluginsdk.Connect()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	n := 0
	for _, err := range c.Findings(ctx, pluginsdk.Filter{}) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 3
		}
		n++
	}
	fmt.Println(n, "findings")
	return 0
}
