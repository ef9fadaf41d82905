package app

import (
	"os"
	"strings"

	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
)

// Govern refuses, with an error of kind NotAllowed, to go on when one of the
// keys is overridden that are rules for whoever runs mobileops: such as how many
// must approve a change. A rule that stands in the configuration file counts,
// and neither a flag nor the environment goes before it. Of another file than
// the usual one, which a flag or the environment can name too, the usual one's
// rules count as well, where that is about the same state.
func (a *App) Govern(keys ...string) error {
	inForce, err := a.LoadedConfig()
	if err != nil {
		return err
	}
	plain := func(name string) string {
		if strings.HasPrefix(name, "MOBILEOPS_") {
			return ""
		}
		return a.Getenv(name)
	}
	var files []*config.Loaded
	usual, _ := config.FileOf(config.Sources{Getenv: plain, UID: os.Geteuid()})
	if _, err := os.Stat(usual); err == nil {
		l, err := config.Load(config.Sources{Getenv: plain, UID: os.Geteuid()})
		if err != nil {
			return err
		}
		if sameDir(l.StateDir, inForce.StateDir) {
			files = append(files, l)
		}
	}
	if inForce.File != "" && inForce.File != usual {
		l, err := config.Load(config.Sources{File: inForce.File, UID: os.Geteuid(), Getenv: func(name string) string {
			if name == "MOBILEOPS_STATE_DIR" { // without HOME nothing else may say it
				return inForce.StateDir
			}
			return plain(name)
		}})
		if err != nil {
			return err
		}
		files = append(files, l)
	}
	for _, k := range config.Keys() {
		for _, name := range keys {
			for _, l := range files {
				if k.Name != name || l.Origins[name].Kind != "file" || k.Value(&l.Config) == k.Value(&inForce.Config) {
					continue
				}
				by := inForce.Origins[name].Where
				if by == "" {
					by = "--config or MOBILEOPS_CONFIG"
				}
				return failure.Hint(failure.Errorf(failure.NotAllowed, "%s is a rule that %s sets, and %s says otherwise", name, l.Origins[name].Where, by), "change the file")
			}
		}
	}
	return nil
}

// sameDir says whether two paths lead to the same place.
func sameDir(a, b string) bool {
	if a == b {
		return true
	}
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
