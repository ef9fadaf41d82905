package manifest

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Bounds of permissions.
const (
	maxPlaces    = 256 // of one kind
	minMemory    = 16 << 20
	maxMemory    = 1 << 40
	minCPU       = time.Second
	maxCPU       = 24 * time.Hour
	maxProcesses = 4096
	minFiles     = 16
	maxFiles     = 65536
	minFileSize  = 4096
	maxFileSize  = 16 << 40
)

// check reports what is wrong with permissions. References must lead to
// strings of the configuration.
func (p *Permissions) check(bad report, config Options) {
	places := func(key string, list []string, check func(string) error) {
		checkDistinct(bad, join("permissions", key), list, maxPlaces, func(at, s string) {
			path, isReference := strings.CutPrefix(s, ConfigPrefix)
			if !isReference {
				if err := check(s); err != nil {
					bad(at, "%s %v", quote(s), err)
				}
				return
			}
			err := checkReference(config, path)
			for _, v := range config.defaultsOf(path) {
				if _, e := resolving(key)(v); e != nil && err == nil {
					err = fmt.Errorf("leads to the default %s, which %w", quote(v), e)
				}
			}
			if err != nil {
				bad(at, "%s %v", quote(s), err)
			}
		})
	}
	places("network", p.Network, func(s string) error {
		// One form alone, so that it can be compared by its letters.
		address, err := parseAddress(s)
		if err == nil && address != s {
			err = fmt.Errorf("is written %s", quote(address))
		}
		return err
	})
	places("unix", p.Unix, checkSocket)
	places("read", p.Read, checkPath)
	places("write", p.Write, checkPath)
	places("exec", p.Exec, checkPath)

	checkRights := func(key string, list []string, known ...string) {
		at := join("permissions", key)
		checkDistinct(bad, at, list, maxPlaces, func(at, s string) { checkChoice(bad, at, s, known...) })
	}
	checkRights("findings", p.Findings, RightRead, RightReport)
	checkRights("audit", p.Audit, RightRead)
	switch from := "permissions.findings_from"; {
	case p.FindingsFrom == nil:
	case len(p.FindingsFrom) == 0:
		bad(from, "is empty; leave it out for all sources, or leave read out of findings for none")
	case !contains(p.Findings, RightRead):
		bad(from, "is about findings that it may read; write findings: [read]")
	default:
		checkSources(bad, from, p.FindingsFrom)
	}

	checkSize := func(key string, n, least, most int64) {
		if n < least || n > most {
			bad(join("permissions", key), "is %s; it is from %s to %s", formatSize(n), formatSize(least), formatSize(most))
		}
	}
	checkNumber := func(key string, n, least, most int) {
		if n < least || n > most {
			bad(join("permissions", key), "is %d; it is from %d to %d", n, least, most)
		}
	}
	checkSize("memory", p.Memory, minMemory, maxMemory)
	checkSize("file_size", p.FileSize, minFileSize, maxFileSize)
	checkNumber("processes", p.Processes, 1, maxProcesses)
	checkNumber("files", p.Files, minFiles, maxFiles)
	if cpu := "permissions.cpu"; p.CPU != 0 {
		checkDuration(bad, cpu, p.CPU, minCPU, maxCPU)
		if p.CPU%time.Second != 0 {
			bad(cpu, "is %s; the kernel counts whole seconds", formatDuration(p.CPU))
		}
	}
	if p.RunAs != "" && !isUser(p.RunAs) {
		bad("permissions.run_as", `%s is not a user of the host; leave it out for an account of the plugin's own`, quote(p.RunAs))
	}
}

// resolving returns what makes a permission of a kind of a value of the
// configuration.
func resolving(kind string) func(string) (string, error) {
	switch kind {
	case "network":
		return resolveAddress
	case "unix":
		return func(s string) (string, error) { return s, checkSocket(s) }
	}
	return func(s string) (string, error) { return s, checkPath(s) }
}

// checkReference says what is wrong with a reference to the configuration.
func checkReference(config Options, path string) error {
	o, err := config.leaf(path)
	switch {
	case err != nil:
		return err
	case o.Type != TypeString:
		return errors.New("leads to a value of type " + o.Type + "; those of a permission are strings")
	case o.Secret:
		return errors.New("leads to a secret, which nobody could see among the permissions")
	}
	return nil
}
