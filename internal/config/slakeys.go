package config

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
)

// SLA says until when security updates have to be installed, counted from when
// each was first known here. 0: never.
type SLA struct {
	Critical, High, Medium, Low time.Duration
	Debian                      string        // the severity of security updates of the distribution, whose package lists name none
	ListsAge                    time.Duration // how old these package lists may be
}

// slaKeys are the keys of mobileops update sla.
func slaKeys() []Key {
	deadline := func(severity, def, doc string, of func(c *Config) *time.Duration) Key {
		return Key{
			Name: "update.sla_" + severity, Example: "7d", Default: def, Doc: doc,
			set: func(c *Config, v string) (err error) { *of(c), err = parseDeadline(v); return err },
			get: func(c *Config) any { return deadlineText(*of(c)) },
		}
	}
	return []Key{
		deadline("critical", "30d", "How long after it was first known here a critical security update is due; none for never.", func(c *Config) *time.Duration { return &c.Update.SLA.Critical }),
		deadline("high", "30d", "How long after it was first known here a security update of high, or of unknown, severity is due; none for never.", func(c *Config) *time.Duration { return &c.Update.SLA.High }),
		deadline("medium", "90d", "How long after it was first known here a security update of medium severity is due; none for never.", func(c *Config) *time.Duration { return &c.Update.SLA.Medium }),
		deadline("low", "none", "How long after it was first known here a security update of low severity is due; none for never.", func(c *Config) *time.Duration { return &c.Update.SLA.Low }),
		{
			Name: "update.sla_debian", Example: "critical", Default: "high",
			Doc: "The severity of security updates of the distribution: critical, high, medium or low. Its package lists do not say; what Debian does not think urgent comes with point releases instead.",
			set: func(c *Config, v string) error {
				if c.Update.SLA.Debian = strings.ToLower(v); !slices.Contains([]string{"critical", "high", "medium", "low"}, c.Update.SLA.Debian) {
					return errors.New("is not critical, high, medium or low")
				}
				return nil
			},
			get: func(c *Config) any { return c.Update.SLA.Debian },
		},
		{
			Name: "update.sla_lists_age", Example: "14d", Default: "7d",
			Doc: "How old the answer of a security archive may be, by the date in its Release file, before mobileops update sla calls itself incomplete; none for any age.",
			set: func(c *Config, v string) (err error) { c.Update.SLA.ListsAge, err = parseDeadline(v); return err },
			get: func(c *Config) any { return deadlineText(c.Update.SLA.ListsAge) },
		},
	}
}

// parseDeadline reads a span, or "none".
func parseDeadline(s string) (time.Duration, error) {
	if strings.EqualFold(s, "none") {
		return 0, nil
	}
	d, err := ParseDuration(s)
	if err == nil && d <= 0 {
		err = errors.New("is no time at all (none: never due)")
	}
	if err == nil && d > 10*365*24*time.Hour {
		err = errors.New("is more than ten years (none: never due)")
	}
	return d, err
}

func deadlineText(d time.Duration) string {
	switch {
	case d == 0:
		return "none"
	case d%(24*time.Hour) == 0:
		return strconv.Itoa(int(d/(24*time.Hour))) + "d"
	}
	return d.String()
}
