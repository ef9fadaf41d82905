package plugin

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/ui"
)

// Hooks runs the hooks of plugins around commands.
type Hooks struct{ app *app.App }

// NewHooks makes them. It opens nothing.
func NewHooks(a *app.App) *Hooks { return &Hooks{a} }

// engine returns the engine when a plugin has a hook on the command, and nil
// otherwise: then one small file was looked for.
func (h *Hooks) engine(command string) *plugin.Engine {
	noun, _, _ := strings.Cut(command, " ")
	if manifest.Unhooked(noun) {
		return nil
	}
	c, err := h.app.Config()
	if err != nil || !plugin.HasHooks(c.Plugin.Dir, command) {
		return nil // the command says what is wrong with the configuration
	}
	e, _, err := newEngine(h.app, nil)
	if err != nil {
		return nil
	}
	return e
}

// Before runs the hooks before a command. An error keeps it from running.
func (h *Hooks) Before(ctx context.Context, command string, args func() []string) error {
	e := h.engine(command)
	if e == nil {
		return nil
	}
	for _, err := range e.Before(ctx, command, args()) {
		if errors.Is(err, plugin.ErrRefused) {
			return err
		}
		h.warn(err)
	}
	return ctx.Err()
}

// After runs the hooks after a command that ended with err.
func (h *Hooks) After(ctx context.Context, command string, args func() []string, err error) {
	e := h.engine(command)
	if e == nil {
		return
	}
	for _, err := range e.After(context.WithoutCancel(ctx), command, args(), failure.KindOf(err).Status()) {
		h.warn(err)
	}
}

func (h *Hooks) warn(err error) {
	fmt.Fprintf(h.app.Streams.Err, "mobileops: %s\n", ui.Printable(err.Error()))
}
