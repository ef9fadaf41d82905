package config

import (
	"errors"
	"time"
)

// Scan configures scans of hosts, images and trees.
type Scan struct {
	Worker  string        // path of mobileops-scan; "": beside mobileops
	Memory  int64         // bytes it may use before it is ended
	Timeout time.Duration // how long one target may take
	// Memo is how much is remembered of files that were scanned, in bytes; 0: nothing.
	Memo          int64
	SecretRules   string // path of a file of rules for secrets; "": those built in
	LicensePolicy string // path of a policy; "": the one built in
	// WaiverApproval: a waiver is in force once somebody else approved it.
	WaiverApproval bool
	SLA            ScanSLA
}

// ScanSLA says until when what scans find has to be mended. 0: never.
type ScanSLA struct {
	Basis                       string // what it is counted from: "fix-available" or "first-seen"
	Critical, High, Medium, Low time.Duration
	KEV                         bool // what is known to be exploited is due when CISA says, if that is earlier
}

// scanningKeys are the keys of mobileops scan.
func scanningKeys() []Key {
	deadline := func(severity, def, doc string, of func(c *Config) *time.Duration) Key {
		return Key{
			Name: "scan.sla_" + severity, Example: "7d", Default: def, Doc: doc,
			set: func(c *Config, v string) (err error) { *of(c), err = parseDeadline(v); return err },
			get: func(c *Config) any { return deadlineText(*of(c)) },
		}
	}
	return []Key{
		{
			Name: "scan.worker", Path: true, Optional: true, Example: "/usr/local/libexec/mobileops/mobileops-scan",
			Doc: "Where mobileops-scan is, the program that has Trivy in it; unset: beside mobileops, in ../libexec/mobileops, or brought along in mobileops itself.",
			set: func(c *Config, v string) error { c.Scan.Worker = v; return nil },
			get: func(c *Config) any { return c.Scan.Worker },
		},
		{
			Name: "scan.memory", Example: "2GiB", Default: "4GiB",
			Doc: "How much memory a scan may use before it is ended.",
			set: func(c *Config, v string) (err error) {
				if c.Scan.Memory, err = ParseSize(v); err == nil && c.Scan.Memory < 128<<20 {
					err = errors.New("is less than 128MiB, with which nothing can be scanned")
				}
				return err
			},
			get: func(c *Config) any { return c.Scan.Memory },
		},
		{
			Name: "scan.timeout", Example: "30m", Default: "2h",
			Doc: "How long the scan of one target may take before it is ended.",
			set: func(c *Config, v string) (err error) { c.Scan.Timeout, err = ParseDuration(v); return err },
			get: func(c *Config) any { return c.Scan.Timeout.String() },
		},
		{
			Name: "scan.memo", Example: "1GiB", Default: "256MiB",
			Doc: "How much may be kept of what files were found to hold, by their content, so that unchanged ones are not searched for secrets and licences again; 0 keeps nothing.",
			set: func(c *Config, v string) (err error) { c.Scan.Memo, err = ParseSize(v); return err },
			get: func(c *Config) any { return c.Scan.Memo },
		},
		{
			Name: "scan.secret_rules", Path: true, Optional: true, Example: "/etc/mobileops/secret-rules.yaml",
			Doc: "Rules for secrets, in the format of Trivy's trivy-secret.yaml; unset: those that are built in.",
			set: func(c *Config, v string) error { c.Scan.SecretRules = v; return nil },
			get: func(c *Config) any { return c.Scan.SecretRules },
		},
		{
			Name: "scan.license_policy", Path: true, Optional: true, Example: "/etc/mobileops/license-policy.yaml",
			Doc: "Which licences are allowed, must be looked at, are denied, or ask for attribution; unset: the policy that is built in.",
			set: func(c *Config, v string) error { c.Scan.LicensePolicy = v; return nil },
			get: func(c *Config) any { return c.Scan.LicensePolicy },
		},
		{
			Name: "scan.waiver_approval", Example: "true", Default: "false",
			Doc: "Whether somebody else has to approve a waiver (mobileops scan approve) before it is in force.",
			set: func(c *Config, v string) (err error) { c.Scan.WaiverApproval, err = parseBool(v); return err },
			get: func(c *Config) any { return c.Scan.WaiverApproval },
		},
		{
			Name: "scan.sla_basis", Example: "first-seen", Default: "fix-available",
			Doc: "What the time until something must be mended is counted from: fix-available (since when a fix is known here) or first-seen.",
			set: func(c *Config, v string) error {
				if c.Scan.SLA.Basis = v; v != "fix-available" && v != "first-seen" {
					return errors.New("is not fix-available or first-seen")
				}
				return nil
			},
			get: func(c *Config) any { return c.Scan.SLA.Basis },
		},
		deadline("critical", "30d", "How long a critical vulnerability may stay; none for ever.", func(c *Config) *time.Duration { return &c.Scan.SLA.Critical }),
		deadline("high", "30d", "How long a vulnerability of high, or of unknown, severity may stay; none for ever.", func(c *Config) *time.Duration { return &c.Scan.SLA.High }),
		deadline("medium", "90d", "How long a vulnerability of medium severity may stay; none for ever.", func(c *Config) *time.Duration { return &c.Scan.SLA.Medium }),
		deadline("low", "none", "How long a vulnerability of low severity may stay; none for ever.", func(c *Config) *time.Duration { return &c.Scan.SLA.Low }),
		{
			Name: "scan.sla_kev", Example: "false", Default: "true",
			Doc: "Whether what CISA knows to be exploited is due on the day that CISA says, when that is earlier.",
			set: func(c *Config, v string) (err error) { c.Scan.SLA.KEV, err = parseBool(v); return err },
			get: func(c *Config) any { return c.Scan.SLA.KEV },
		},
	}
}
