package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Key describes one configuration key.
type Key struct {
	Name    string // "integrity.io_limit"
	Doc     string // one or two sentences for the commented file
	Example string // a value as it would be written
	Default string // "" where it depends on who runs mobileops
	Path    bool   // an absolute path; a relative one from flag or environment is taken from the working directory
	// Optional keys have no default, and may be set to nothing.
	Optional bool

	set func(c *Config, value string) error
	get func(c *Config) any
}

// Env returns the environment variable of the key: MOBILEOPS_INTEGRITY_IO_LIMIT.
func (k Key) Env() string {
	return "MOBILEOPS_" + strings.ToUpper(strings.ReplaceAll(k.Name, ".", "_"))
}

// Value returns the value of the key in c: a string, bool, int or int64.
func (k Key) Value(c *Config) any { return k.get(c) }

// Keys returns every key, in the order of the commented file.
func Keys() []Key {
	return append([]Key{
		{
			Name: "state_dir", Path: true, Example: "/var/lib/mobileops",
			Doc: "Where state.db, baselines and other lasting data live.",
			set: func(c *Config, v string) error { c.StateDir = v; return nil },
			get: func(c *Config) any { return c.StateDir },
		},
		{
			Name: "log_dir", Path: true, Example: "/var/log/mobileops",
			Doc: "Where the signed heads of the audit chain are kept. Put it on another disk or host to notice a chain whose tail was cut.",
			set: func(c *Config, v string) error { c.LogDir = v; return nil },
			get: func(c *Config) any { return c.LogDir },
		},
		{
			Name: "run_dir", Path: true, Example: "/run/mobileops",
			Doc: "Where sockets and locks live that need not survive a reboot.",
			set: func(c *Config, v string) error { c.RunDir = v; return nil },
			get: func(c *Config) any { return c.RunDir },
		},
		{
			Name: "root", Path: true, Example: "/mnt/image", Default: "/",
			Doc: "The tree that stands for /: set it to look at a mounted image.",
			set: func(c *Config, v string) error { c.Root = v; return nil },
			get: func(c *Config) any { return c.Root },
		},
		{
			Name: "lock_timeout", Example: "30s", Default: "10s",
			Doc: "How long to wait for another mobileops process before giving up with status 8.",
			set: func(c *Config, v string) (err error) {
				if c.LockTimeout, err = ParseDuration(v); err == nil && c.LockTimeout > 24*time.Hour {
					err = errors.New("more than a day")
				}
				return err
			},
			get: func(c *Config) any { return c.LockTimeout.String() },
		},
		{
			Name: "integrity.policy", Example: "/etc/mobileops/policy.yaml", Default: "system",
			Doc: "What a baseline covers: a built-in policy (system, mobileops, full) or the path of a policy file.",
			set: func(c *Config, v string) error { c.Integrity.Policy = v; return nil },
			get: func(c *Config) any { return c.Integrity.Policy },
		},
		{
			Name: "integrity.jobs", Example: "2", Default: "0",
			Doc: "How many files are read at the same time; 0 lets the storage decide.",
			set: func(c *Config, v string) (err error) { c.Integrity.Jobs, err = parseCount(v, 0, 1024); return err },
			get: func(c *Config) any { return c.Integrity.Jobs },
		},
		{
			Name: "integrity.io_limit", Example: "50MB/s", Default: "0",
			Doc: "How much is read a second at most, for checks in production hours; 0 is unlimited.",
			set: func(c *Config, v string) (err error) { c.Integrity.IOLimit, err = ParseRate(v); return err },
			get: func(c *Config) any { return c.Integrity.IOLimit },
		},
		{
			Name: "integrity.idle", Example: "true", Default: "false",
			Doc: "Run with idle CPU and I/O priority: everything else goes first.",
			set: func(c *Config, v string) (err error) { c.Integrity.Idle, err = parseBool(v); return err },
			get: func(c *Config) any { return c.Integrity.Idle },
		},
		{
			Name: "integrity.retained", Example: "10", Default: "5",
			Doc: "How many baselines of one name are kept; the oldest go first.",
			set: func(c *Config, v string) (err error) { c.Integrity.Retained, err = parseCount(v, 1, 10000); return err },
			get: func(c *Config) any { return c.Integrity.Retained },
		},
		{
			Name: "integrity.public_key", Path: true, Optional: true, Example: "/etc/mobileops/integrity.pub",
			Doc: "The minisign public key that must vouch for the history of the baselines, when its private half is kept elsewhere; unset: the key in the state directory.",
			set: func(c *Config, v string) error { c.Integrity.PublicKey = v; return nil },
			get: func(c *Config) any { return c.Integrity.PublicKey },
		},
		{
			Name: "integrity.runtimes", Optional: true, Example: "docker=/run/docker.sock podman:ci=/srv/ci/podman.sock",
			Doc: "Where container runtimes answer, each as NAME=SOCKET with a name that begins with docker, podman or containerd; several are separated by spaces. Unset: where they usually do, those of users included.",
			set: func(c *Config, v string) (err error) { c.Integrity.Runtimes, err = parseRuntimes(v); return err },
			get: func(c *Config) any { return strings.Join(c.Integrity.Runtimes, " ") },
		},
		{
			Name: "integrity.anchors", Optional: true, Example: "file:/mnt/safe/anchors https://anchors.example.org/web1",
			Doc: "Where the end of the history of the baselines is kept after every change and compared with at every check: file:PATH, an https URL, syslog:ADDRESS; several are separated by spaces.",
			set: func(c *Config, v string) (err error) { c.Integrity.Anchors, err = parseAnchors(v); return err },
			get: func(c *Config) any { return strings.Join(c.Integrity.Anchors, " ") },
		},
		{
			Name: "integrity.anchor_ca", Path: true, Optional: true, Example: "/etc/mobileops/anchors-ca.pem",
			Doc: "Certificates that may vouch for https anchors, instead of those of the system.",
			set: func(c *Config, v string) error { c.Integrity.AnchorCA = v; return nil },
			get: func(c *Config) any { return c.Integrity.AnchorCA },
		},
		{
			Name: "integrity.anchor_token_file", Path: true, Optional: true, Example: "/etc/mobileops/anchors.token",
			Doc: "A file whose first line is the bearer token that https anchors want.",
			set: func(c *Config, v string) error { c.Integrity.AnchorToken = v; return nil },
			get: func(c *Config) any { return c.Integrity.AnchorToken },
		},
	}, slices.Concat(logKeys(), networkKeys(), pluginKeys(), scanningKeys(), slaKeys(), updateKeys(), vulndbKeys())...)
}

func parseCount(s string, least, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("is not a number from %d to %d", least, most)
	}
	return n, nil
}

// parseRuntimes reads sockets of container runtimes that are separated by spaces.
func parseRuntimes(s string) ([]string, error) {
	list := strings.Fields(s)
	for _, r := range list {
		name, socket, ok := strings.Cut(r, "=")
		kind, _, _ := strings.Cut(name, ":")
		if !ok || !filepath.IsAbs(socket) || kind != "docker" && kind != "podman" && kind != "containerd" {
			return nil, fmt.Errorf("%q is not NAME=/PATH with a name such as docker, podman:ci or containerd", r)
		}
	}
	return list, nil
}

// parseAnchors reads places for anchors that are separated by spaces.
func parseAnchors(s string) ([]string, error) {
	list := strings.Fields(s)
	for _, a := range list {
		if !strings.HasPrefix(a, "file:/") && !strings.HasPrefix(a, "https://") && !strings.HasPrefix(a, "http://") && !strings.HasPrefix(a, "syslog:") {
			return nil, errors.New("has a place that is not file:/PATH, an https URL or syslog:ADDRESS")
		}
	}
	return list, nil
}

func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true", "yes", "on":
		return true, nil
	case "false", "no", "off":
		return false, nil
	}
	return false, errors.New("is neither true nor false")
}

// ParseDuration reads a duration such as "10s", "1h30m" or "7d". It is never
// negative.
func ParseDuration(s string) (time.Duration, error) {
	wrong := errors.New("is not a duration (such as 10s, 1h30m or 7d)")
	var days time.Duration
	if before, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(before, 10, 16)
		if err != nil {
			return 0, wrong
		}
		days = time.Duration(n) * 24 * time.Hour
		if s = after; s == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > 100*365*24*time.Hour {
		return 0, wrong
	}
	return days + d, nil
}

// ParseSize reads a number of bytes such as "4096", "50MB" (millions) or
// "64MiB" (powers of two).
func ParseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "kKMGTiB ")
	factor, ok := map[string]float64{
		"": 1, "B": 1,
		"k": 1e3, "K": 1e3, "kB": 1e3, "KB": 1e3, "M": 1e6, "MB": 1e6, "G": 1e9, "GB": 1e9, "T": 1e12, "TB": 1e12,
		"KiB": 1 << 10, "Ki": 1 << 10, "MiB": 1 << 20, "Mi": 1 << 20, "GiB": 1 << 30, "Gi": 1 << 30, "TiB": 1 << 40, "Ti": 1 << 40,
	}[strings.TrimSpace(s[len(digits):])]
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || !ok || !(n >= 0) || n*factor > 1<<62 || strings.ContainsAny(digits, "eExXpP_nNiI+") {
		return 0, errors.New("is not a size (such as 4096, 50MB or 64MiB)")
	}
	return int64(n * factor), nil
}

// ParseRate reads a number of bytes a second such as "50MB/s"; 0 is unlimited.
func ParseRate(s string) (int64, error) {
	n, err := ParseSize(strings.TrimSpace(strings.TrimSuffix(s, "/s")))
	if err != nil {
		return 0, errors.New("is not a rate (such as 50MB/s; 0 is unlimited)")
	}
	return n, nil
}

// absolute cleans a path. One in a file must be absolute already: what it
// means must not depend on where mobileops was started.
func absolute(path string, inFile bool) (string, error) {
	if path == "" { // an empty variable in a script; it does not mean the working directory
		return "", errors.New("names no directory")
	}
	if strings.ContainsRune(path, 0) {
		return "", errors.New("contains a NUL byte")
	}
	if inFile && !filepath.IsAbs(path) {
		return "", errors.New("is not an absolute path")
	}
	return filepath.Abs(path)
}
