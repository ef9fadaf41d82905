package plugin

import (
	"context"
	"errors"
	"time"

	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/supervise"
)

// askTime bounds how long commands that only look wait for the supervisor.
const askTime = 2 * time.Second

// dial finds the supervisor of plugins; nil without an error: none runs.
func dial(ctx context.Context, c *config.Config) (*supervise.Client, error) {
	if c.RunDir == "" {
		return nil, nil
	}
	client, err := supervise.Dial(ctx, socket(c))
	if failure.KindOf(err) == failure.NotReady {
		return nil, nil
	}
	return client, err
}

// serviceStates returns how the services of plugins are, by name; nil: no supervisor
// runs.
func serviceStates(ctx context.Context, c *config.Config) (map[string]supervise.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	client, err := dial(ctx, c)
	if client == nil || err != nil {
		return nil, err
	}
	list, err := client.List(ctx)
	if err != nil {
		return nil, err
	}
	byName := map[string]supervise.Status{}
	for _, s := range list {
		byName[s.Name] = s
	}
	return byName, nil
}

// running reports whether something of a service is there, or soon will be.
func running(s supervise.Status) bool {
	switch s.State {
	case supervise.Starting, supervise.Ready, supervise.Stopping, supervise.BackingOff:
		return true
	}
	return false
}

// asked asks how the service of a plugin is; "" when the supervisor knows none.
// The client is nil when no supervisor runs.
func asked(ctx context.Context, c *config.Config, name string) (*supervise.Client, supervise.Status, error) {
	client, err := dial(ctx, c)
	if client == nil || err != nil {
		return nil, supervise.Status{}, err
	}
	s, err := client.Status(ctx, name)
	if errors.Is(err, supervise.ErrUnknown) || failure.KindOf(err) == failure.Usage {
		return client, supervise.Status{}, nil
	}
	return client, s, err
}

// stopIfRunning stops the service of a plugin, and says whether it had to.
func stopIfRunning(ctx context.Context, c *config.Config, name string) (stopped bool, err error) {
	client, s, err := asked(ctx, c, name)
	if err != nil || !running(s) {
		return false, err
	}
	_, err = client.Stop(ctx, name)
	if failure.KindOf(err) == failure.Busy { // it ended by itself meanwhile
		return false, nil
	}
	return err == nil, err
}

// renew has a running supervisor look at what is installed now, and start a
// service anew that runs or has failed, so that it is of the version that is
// installed.
func renew(ctx context.Context, c *config.Config, name string) (restarted bool, err error) {
	client, s, err := asked(ctx, c, name)
	if client == nil || err != nil {
		return false, err
	}
	if err := client.Reload(ctx); err != nil || !running(s) && s.State != supervise.Failed {
		return false, err
	}
	// It is not there any more when it was removed, disabled, or has no service
	// in this version.
	if _, now, err := asked(ctx, c, name); err != nil || now.Name == "" {
		return false, err
	}
	_, err = client.Restart(ctx, name, true)
	return err == nil, err
}
