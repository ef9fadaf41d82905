package config

import (
	"errors"
	"strings"
	"time"
)

// Vulndb configures the vulnerability databases that scans look into.
type Vulndb struct {
	// Repository and JavaRepository are references of databases in a registry;
	// "": none.
	Repository, JavaRepository string
	// Credentials is a file of passwords for registries, in the form of docker's
	// config.json; "": none.
	Credentials string
	Keys        string        // directory of the minisign keys that must vouch for databases; "": they are taken unsigned
	MaxAge      time.Duration // how old a database may be; 0: any age
	Keep        int           // generations beside the current one
}

// vulndbKeys are the keys of mobileops vulndb.
func vulndbKeys() []Key {
	reference := func(name, example, doc string, of func(c *Config) *string) Key {
		return Key{
			Name: name, Optional: true, Example: example, Doc: doc,
			set: func(c *Config, v string) error {
				rest := strings.TrimPrefix(v, "oci://")
				_, path, ok := strings.Cut(rest, "/")
				if v != "" && (!ok || !strings.ContainsAny(path, ":@") || strings.Contains(rest, "://") || strings.ContainsAny(v, " \t\n")) {
					return errors.New("is not HOST/REPOSITORY:TAG, or with @sha256: and a digest in place of the tag")
				}
				*of(c) = v
				return nil
			},
			get: func(c *Config) any { return *of(c) },
		}
	}
	return []Key{
		reference("vulndb.repository", "registry.example.org/security/trivy-db:2", "Where mobileops vulndb pull gets the vulnerability database: a reference in an OCI registry, such as a mirror of Trivy's.",
			func(c *Config) *string { return &c.Vulndb.Repository }),
		reference("vulndb.java_repository", "registry.example.org/security/trivy-java-db:1", "Where mobileops vulndb pull gets the database that knows JAR files by their digests; unset: it gets none.",
			func(c *Config) *string { return &c.Vulndb.JavaRepository }),
		{
			Name: "vulndb.credentials", Path: true, Optional: true, Example: "/etc/mobileops/registry.json",
			Doc: "Passwords for registries of vulnerability databases, in a file as docker login writes it (config.json).",
			set: func(c *Config, v string) error { c.Vulndb.Credentials = v; return nil },
			get: func(c *Config) any { return c.Vulndb.Credentials },
		},
		{
			Name: "vulndb.keys", Path: true, Optional: true, Example: "/etc/mobileops/vulndb-keys",
			Doc: "The directory of the minisign public keys that must vouch for vulnerability databases, KEV and EPSS; unset: they are taken unsigned.",
			set: func(c *Config, v string) error { c.Vulndb.Keys = v; return nil },
			get: func(c *Config) any { return c.Vulndb.Keys },
		},
		{
			Name: "vulndb.max_age", Example: "2d", Default: "7d",
			Doc: "How old the vulnerability database may be, by what it says of itself, before scans refuse it with status 7; none for any age.",
			set: func(c *Config, v string) (err error) { c.Vulndb.MaxAge, err = parseDeadline(v); return err },
			get: func(c *Config) any { return deadlineText(c.Vulndb.MaxAge) },
		},
		{
			Name: "vulndb.keep", Example: "3", Default: "1",
			Doc: "How many generations of a vulnerability database are kept beside the current one, to go back to; each takes its size on disk.",
			set: func(c *Config, v string) (err error) { c.Vulndb.Keep, err = parseCount(v, 1, 100); return err },
			get: func(c *Config) any { return c.Vulndb.Keep },
		},
	}
}
