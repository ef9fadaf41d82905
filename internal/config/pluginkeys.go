package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Plugin configures where plugins are and where they come from.
type Plugin struct {
	Dir       string // programs and data of plugins
	ConfigDir string // NAME.yaml of each plugin
	Keys      string // directory of the minisign keys that vouch for plugins
	// Indexes are where plugins are looked for by name: an http(s) URL by a
	// name of its own.
	Indexes map[string]string
	// Credentials is a file of passwords for indexes and registries, in the form
	// of docker's config.json; "": none.
	Credentials string
}

// pluginKeys are the keys of mobileops plugin.
func pluginKeys() []Key {
	return []Key{
		{
			Name: "plugin.dir", Path: true, Example: "/var/lib/mobileops-plugins",
			Doc: "Where plugins are installed and where they keep their data. Everybody may go through it, unlike the state, since plugins run under accounts of their own.",
			set: func(c *Config, v string) error { c.Plugin.Dir = v; return nil },
			get: func(c *Config) any { return c.Plugin.Dir },
		},
		{
			Name: "plugin.config_dir", Path: true, Example: "/etc/mobileops/plugins",
			Doc: "Where plugins are configured, each in a file NAME.yaml.",
			set: func(c *Config, v string) error { c.Plugin.ConfigDir = v; return nil },
			get: func(c *Config) any { return c.Plugin.ConfigDir },
		},
		{
			Name: "plugin.keys", Path: true, Example: "/etc/mobileops/plugin-keys",
			Doc: "The directory of the minisign public keys that vouch for plugins; those that come with mobileops need none.",
			set: func(c *Config, v string) error { c.Plugin.Keys = v; return nil },
			get: func(c *Config) any { return c.Plugin.Keys },
		},
		{
			Name: "plugin.indexes", Optional: true, Example: "ops=https://plugins.example.org/",
			Doc: "Where plugins are looked for by name, beside those that come with mobileops: NAME=URL of signed indexes, with blanks between them.",
			set: func(c *Config, v string) error {
				indexes := map[string]string{}
				for _, w := range strings.Fields(v) {
					name, url, ok := strings.Cut(w, "=")
					switch {
					case !ok || name == "" || !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, "http://"):
						return fmt.Errorf("%q is not NAME=URL", w)
					case strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
						return fmt.Errorf("%q is not a name of small letters, digits and dashes", name)
					case indexes[name] != "":
						return fmt.Errorf("%q is there twice", name)
					}
					indexes[name] = url
				}
				if len(indexes) > 16 {
					return errors.New("has more than 16 indexes")
				}
				c.Plugin.Indexes = indexes
				return nil
			},
			get: func(c *Config) any {
				var list []string
				for _, name := range slices.Sorted(maps.Keys(c.Plugin.Indexes)) {
					list = append(list, name+"="+c.Plugin.Indexes[name])
				}
				return strings.Join(list, " ")
			},
		},
		{
			Name: "plugin.credentials", Path: true, Optional: true, Example: "/etc/mobileops/registry.json",
			Doc: "Passwords for indexes and registries of plugins, in a file as docker login writes it (config.json).",
			set: func(c *Config, v string) error { c.Plugin.Credentials = v; return nil },
			get: func(c *Config) any { return c.Plugin.Credentials },
		},
	}
}
