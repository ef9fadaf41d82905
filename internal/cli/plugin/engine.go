package plugin

import (
	"path/filepath"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/buildinfo"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/mobileops/mobileops/internal/plugin/catalogue"
)

// Lines about files in help texts.
const (
	installedFiles = "/var/lib/mobileops-plugins: plugins, and what they keep"
	configFiles    = "/etc/mobileops/plugins/NAME.yaml: the configuration of a plugin"
	keyFiles       = "/etc/mobileops/plugin-keys/: the public keys that vouch for plugins"
	stateFile      = "/var/lib/mobileops/state.db: what is installed"
)

// newEngine returns the engine of the configured plugins. Reserved are the names
// that no plugin may have; only who installs one needs them.
func newEngine(a *app.App, reserved []string) (*plugin.Engine, *config.Config, error) {
	c, err := a.Config()
	if err != nil {
		return nil, nil, err
	}
	if c.Root != "/" {
		return nil, nil, app.UsageError("--root: name the plugins in the tree with plugin.dir, and where their state is with --state-dir")
	}
	s, err := a.State()
	if err != nil {
		return nil, nil, err
	}
	return plugin.New(plugin.Options{
		State: s, Dir: c.Plugin.Dir, ConfigDir: c.Plugin.ConfigDir, KeysDir: c.Plugin.Keys, RunDir: c.RunDir,
		Product: buildinfo.Get().Version, HostID: audit.HostID(), Reserved: reserved, Bundled: catalogue.Names(),
	}), c, nil
}

// socket is where the supervisor of the services of plugins is asked.
func socket(c *config.Config) string { return filepath.Join(c.RunDir, "plugins.sock") }
