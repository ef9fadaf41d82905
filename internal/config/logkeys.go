package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// logKeys are the keys of mobileops logs.
func logKeys() []Key {
	return []Key{
		{
			Name: "logs.discover", Example: "false", Default: "true",
			Doc: "Whether the logs that hosts usually have are collected: the journal, /var/log, containers, logins, kernel messages.",
			set: func(c *Config, v string) (err error) { c.Logs.Discover, err = parseBool(v); return err },
			get: func(c *Config) any { return c.Logs.Discover },
		},
		{
			Name: "logs.include", Optional: true, Example: "shop=/srv/shop/log/**/*.log /opt/old/app.log",
			Doc: "Further files to collect, each PATTERN or NAME=PATTERN; several are separated by spaces. Patterns have * and ** for any directories.",
			set: func(c *Config, v string) (err error) { c.Logs.Include, err = parsePatterns(v); return err },
			get: func(c *Config) any { return strings.Join(c.Logs.Include, " ") },
		},
		{
			Name: "logs.exclude", Optional: true, Example: "/var/log/debug/** **/*.trace",
			Doc: "Patterns of files that are not collected, separated by spaces.",
			set: func(c *Config, v string) error { c.Logs.Exclude = strings.Fields(v); return nil },
			get: func(c *Config) any { return strings.Join(c.Logs.Exclude, " ") },
		},
		{
			Name: "logs.formats", Optional: true, Example: "/srv/shop/log/*=logfmt",
			Doc: "The format of files whose content does not tell it, each PATTERN=FORMAT; several are separated by spaces. See mobileops logs sources --formats.",
			set: func(c *Config, v string) (err error) {
				c.Logs.Formats, err = parsePairs(v, "PATTERN=FORMAT")
				return err
			},
			get: func(c *Config) any { return strings.Join(c.Logs.Formats, " ") },
		},
		{
			Name: "logs.zone", Optional: true, Example: "Europe/Berlin",
			Doc: "The time zone of records that name none; unset: that of this host.",
			set: func(c *Config, v string) error {
				if _, err := time.LoadLocation(v); err != nil {
					return errors.New("is not the name of a time zone")
				}
				c.Logs.Zone = v
				return nil
			},
			get: func(c *Config) any { return c.Logs.Zone },
		},
		{
			Name: "logs.max_age", Example: "90d", Default: "0s",
			Doc: "How long records are kept; 0s is for ever. mobileops logs rotate lets go of what is older.",
			set: func(c *Config, v string) (err error) { c.Logs.MaxAge, err = ParseDuration(v); return err },
			get: func(c *Config) any { return c.Logs.MaxAge.String() },
		},
		{
			Name: "logs.max_size", Example: "20GB", Default: "0",
			Doc: "How much room stored logs may take; 0 is unlimited. The oldest go first.",
			set: func(c *Config, v string) (err error) { c.Logs.MaxSize, err = ParseSize(v); return err },
			get: func(c *Config) any { return c.Logs.MaxSize },
		},
		{
			Name: "logs.limits", Optional: true, Example: "journal=30d /var/log/nginx/access.log=5GB",
			Doc: "Other limits for single sources, each SOURCE=AGE or SOURCE=SIZE; several are separated by spaces.",
			set: func(c *Config, v string) (err error) { c.Logs.Limits, err = parseLimits(v); return err },
			get: func(c *Config) any { return strings.Join(c.Logs.Limits, " ") },
		},
		{
			Name: "logs.reserve", Example: "2GB", Default: "5%",
			Doc: "How much of the file system collecting leaves free, as a size or a percentage.",
			set: func(c *Config, v string) error { return parseReserve(c, v) },
			get: func(c *Config) any {
				if c.Logs.ReservePercent > 0 {
					return strconv.FormatFloat(c.Logs.ReservePercent, 'f', -1, 64) + "%"
				}
				return strconv.FormatInt(c.Logs.Reserve, 10)
			},
		},
		{
			Name: "logs.seal_every", Example: "1m", Default: "10m",
			Doc: "How often what was collected is sealed with the signing key of this host.",
			set: func(c *Config, v string) (err error) {
				if c.Logs.SealEvery, err = ParseDuration(v); err == nil && c.Logs.SealEvery < time.Second {
					err = errors.New("is less than a second")
				}
				return err
			},
			get: func(c *Config) any { return c.Logs.SealEvery.String() },
		},
		{
			Name: "logs.recipients", Path: true, Optional: true, Example: "/etc/mobileops/logs.recipients",
			Doc: "Who can read what is stored from now on: a file with age public keys (age1...), or a key file of mobileops logs key. Unset: logs are not encrypted.",
			set: func(c *Config, v string) error { c.Logs.Recipients = v; return nil },
			get: func(c *Config) any { return c.Logs.Recipients },
		},
		{
			Name: "logs.identities", Path: true, Optional: true, Example: "/etc/mobileops/logs.key",
			Doc: "The keys that open encrypted logs: a file with age identities (AGE-SECRET-KEY-1...), or a key file.",
			set: func(c *Config, v string) error { c.Logs.Identities = v; return nil },
			get: func(c *Config) any { return c.Logs.Identities },
		},
	}
}

// parsePatterns reads patterns of absolute paths, with or without names.
func parsePatterns(s string) ([]string, error) {
	list := strings.Fields(s)
	for _, item := range list {
		pattern := item
		if name, after, ok := strings.Cut(item, "="); ok && !strings.Contains(name, "/") {
			pattern = after
		}
		if !filepath.IsAbs(pattern) {
			return nil, fmt.Errorf("%q is neither /PATTERN nor NAME=/PATTERN", item)
		}
	}
	return list, nil
}

func parsePairs(s, shape string) ([]string, error) {
	list := strings.Fields(s)
	for _, item := range list {
		if i := strings.LastIndexByte(item, '='); i < 1 || i == len(item)-1 {
			return nil, fmt.Errorf("%q is not %s", item, shape)
		}
	}
	return list, nil
}

func parseLimits(s string) ([]string, error) {
	list, err := parsePairs(s, "SOURCE=AGE or SOURCE=SIZE")
	for _, item := range list {
		if _, _, _, err := ParseLimit(item); err != nil {
			return nil, err
		}
	}
	return list, err
}

// ParseLimit reads SOURCE=AGE or SOURCE=SIZE.
func ParseLimit(s string) (source string, age time.Duration, size int64, err error) {
	i := strings.LastIndexByte(s, '=')
	if i < 0 {
		return "", 0, 0, fmt.Errorf("%q is not SOURCE=AGE or SOURCE=SIZE", s)
	}
	source = s[:i]
	if age, err = ParseDuration(s[i+1:]); err == nil {
		return source, age, 0, nil
	}
	if size, err = ParseSize(s[i+1:]); err == nil {
		return source, 0, size, nil
	}
	return "", 0, 0, fmt.Errorf("%q has neither an age (such as 30d) nor a size (such as 5GB)", s)
}

func parseReserve(c *Config, v string) error {
	if number, ok := strings.CutSuffix(v, "%"); ok {
		p, err := strconv.ParseFloat(number, 64)
		if err != nil || !(p >= 0 && p <= 90) {
			return errors.New("is not a percentage from 0% to 90%")
		}
		c.Logs.Reserve, c.Logs.ReservePercent = 0, p
		return nil
	}
	n, err := ParseSize(v)
	c.Logs.Reserve, c.Logs.ReservePercent = n, 0
	return err
}
