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
}

// UsualPaths returns the usual places for a user.
func UsualPaths(uid int, getenv func(string) string) Paths {
	if uid == 0 {
		return Paths{"/etc/mobileops/config.yaml", "/var/lib/mobileops", "/var/log/mobileops", "/run/mobileops"}
	}
	var p Paths
	if dir := xdg(getenv, "XDG_CONFIG_HOME", ".config"); dir != "" {
		p.Config = filepath.Join(dir, "mobileops", "config.yaml")
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
