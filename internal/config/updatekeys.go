package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// Update configures updates of an installation and who may ask for them.
type Update struct {
	Target string // the installation: a directory tree, which becomes a link into the store
	Store  string // blobs and generations, on the same filesystem; "": Target with ".store" after it
	Keys   string // directory of the minisign keys that vouch for packages
	// Channel is the one that this host follows, such as "stable".
	Channel string
	// Repository is where updates come from: an http(s) URL or a directory; "":
	// none. RepositoryRoot is the path of the root metadata that is trusted at
	// first.
	Repository, RepositoryRoot string
	Keep                       int           // generations that prune leaves beside the current one and pinned ones
	RequireChange              bool          // nothing is applied without an approved change
	Deadline                   time.Duration // of health checks that name none
	SLA                        SLA
}

// StoreDir returns where the store is.
func (u Update) StoreDir() string {
	if u.Store != "" {
		return u.Store
	}
	return u.Target + ".store"
}

// Change configures who may approve changes.
type Change struct {
	Approvals int    // how many are needed
	People    string // path of the file that says which accounts and keys are one person; "": none
}

// updateKeys are the keys of mobileops update and mobileops change.
func updateKeys() []Key {
	return []Key{
		{
			Name: "update.target", Path: true, Example: "/opt/mobileops", Default: "/opt/mobileops",
			Doc: "The installation that updates change. A directory that is there is adopted at the first update: it becomes a link to the current generation.",
			set: func(c *Config, v string) error {
				if v == "/" {
					return errors.New("is the root of the filesystem")
				}
				c.Update.Target = v
				return nil
			},
			get: func(c *Config) any { return c.Update.Target },
		},
		{
			Name: "update.store", Path: true, Optional: true, Example: "/opt/mobileops.store",
			Doc: "Where generations and their content are kept, on the filesystem of update.target; unset: beside it, with .store after its name.",
			set: func(c *Config, v string) error { c.Update.Store = v; return nil },
			get: func(c *Config) any { return c.Update.Store },
		},
		{
			Name: "update.keys", Path: true, Example: "/etc/mobileops/update-keys",
			Doc: "The directory of the minisign public keys that vouch for update packages.",
			set: func(c *Config, v string) error { c.Update.Keys = v; return nil },
			get: func(c *Config) any { return c.Update.Keys },
		},
		{
			Name: "update.channel", Example: "stable", Default: "stable",
			Doc: "The channel of updates that this host follows; packages of another one are refused.",
			set: func(c *Config, v string) error {
				const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
				if v == "" || len(v) > 64 || !strings.Contains(letters, v[:1]) || strings.Trim(v, letters+"._-") != "" {
					return errors.New("is not a name of small letters, digits, dots and dashes")
				}
				c.Update.Channel = v
				return nil
			},
			get: func(c *Config) any { return c.Update.Channel },
		},
		{
			Name: "update.repository", Optional: true, Example: "https://updates.example.org/mobileops",
			Doc: "Where updates come from: the URL of a repository on a web server, or the directory of one, such as a mounted USB stick.",
			set: func(c *Config, v string) error {
				if v != "" && !strings.HasPrefix(v, "https://") && !strings.HasPrefix(v, "http://") && !filepath.IsAbs(v) {
					return errors.New("is neither a URL nor an absolute path")
				}
				c.Update.Repository = v
				return nil
			},
			get: func(c *Config) any { return c.Update.Repository },
		},
		{
			Name: "update.repository_root", Path: true, Optional: true, Example: "/etc/mobileops/update-root.json",
			Doc: "The root metadata of update.repository that is trusted at first: root.json as mobileops update repo init wrote it, brought here by a way that is trusted.",
			set: func(c *Config, v string) error { c.Update.RepositoryRoot = v; return nil },
			get: func(c *Config) any { return c.Update.RepositoryRoot },
		},
		{
			Name: "update.keep", Example: "5", Default: "3",
			Doc: "How many generations mobileops update prune leaves beside the current one and those that are pinned.",
			set: func(c *Config, v string) (err error) { c.Update.Keep, err = parseCount(v, 1, 10000); return err },
			get: func(c *Config) any { return c.Update.Keep },
		},
		{
			Name: "update.require_change", Example: "true", Default: "false",
			Doc: "Whether an update is applied only with an approved change: mobileops update apply --change ID.",
			set: func(c *Config, v string) (err error) { c.Update.RequireChange, err = parseBool(v); return err },
			get: func(c *Config) any { return c.Update.RequireChange },
		},
		{
			Name: "update.deadline", Example: "2m", Default: "60s",
			Doc: "How long the health checks of an update may take to pass, when its package does not say, before the host goes back by itself.",
			set: func(c *Config, v string) (err error) {
				if c.Update.Deadline, err = ParseDuration(v); err == nil && (c.Update.Deadline < time.Second || c.Update.Deadline > 24*time.Hour) {
					err = fmt.Errorf("is not between a second and a day")
				}
				return err
			},
			get: func(c *Config) any { return c.Update.Deadline.String() },
		},
		{
			Name: "change.approvals", Example: "2", Default: "1",
			Doc: "How many persons beside the one who asked must approve a change.",
			set: func(c *Config, v string) (err error) { c.Change.Approvals, err = parseCount(v, 1, 16); return err },
			get: func(c *Config) any { return c.Change.Approvals },
		},
		{
			Name: "change.people", Path: true, Optional: true, Example: "/etc/mobileops/people.yaml",
			Doc: "The file that says which accounts and keys belong to one person, so that nobody approves what they asked for themselves.",
			set: func(c *Config, v string) error { c.Change.People = v; return nil },
			get: func(c *Config) any { return c.Change.People },
		},
	}
}
