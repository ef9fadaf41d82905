package config

import "path/filepath"

// Paths are the usual places, which depend on who runs mobileops: those of the
// Filesystem Hierarchy Standard for root, those of the XDG Base Directory
// Specification for others. A place is "" when it cannot be known because HOME
// is not set.
type Paths struct {
	Config   string // the configuration file
	StateDir string
	LogDir   string
	RunDir   string
	// Keys are beside the configuration: what vouches for packages is decided
	// by people, and is no state.
	UpdateKeys   string
	PluginKeys   string
	PluginConfig string // of plugins
	PluginDir    string // beside the state, which accounts of plugins may not enter
}

// UsualPaths returns the usual places for a user.
func UsualPaths(uid int, getenv func(string) string) Paths {
	if uid == 0 {
		return Paths{
			Config: "/etc/mobileops/config.yaml", StateDir: "/var/lib/mobileops", LogDir: "/var/log/mobileops", RunDir: "/run/mobileops",
			UpdateKeys: "/etc/mobileops/update-keys", PluginKeys: "/etc/mobileops/plugin-keys", PluginConfig: "/etc/mobileops/plugins",
			PluginDir: "/var/lib/mobileops-plugins",
		}
	}
	var p Paths
	if dir := xdg(getenv, "XDG_CONFIG_HOME", ".config"); dir != "" {
		p.Config = filepath.Join(dir, "mobileops", "config.yaml")
		p.UpdateKeys = filepath.Join(dir, "mobileops", "update-keys")
		p.PluginKeys = filepath.Join(dir, "mobileops", "plugin-keys")
		p.PluginConfig = filepath.Join(dir, "mobileops", "plugins")
	}
	if dir := xdg(getenv, "XDG_STATE_HOME", ".local/state"); dir != "" {
		p = p.beneath(filepath.Join(dir, "mobileops"))
	}
	if dir := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		p.RunDir = filepath.Join(dir, "mobileops")
	}
	return p
}

// beneath returns p with state, and logs and locks beneath it.
func (p Paths) beneath(stateDir string) Paths {
	p.StateDir, p.LogDir, p.RunDir = stateDir, filepath.Join(stateDir, "log"), filepath.Join(stateDir, "run")
	p.PluginDir = stateDir + "-plugins"
	return p
}

// xdg returns an XDG directory. The specification wants a relative value
// ignored.
func xdg(getenv func(string) string, name, beneathHome string) string {
	if dir := getenv(name); filepath.IsAbs(dir) {
		return dir
	}
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, beneathHome)
	}
	return ""
}
