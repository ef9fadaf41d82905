package facts

import (
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/finding"
)

// Risks is the attribute in which a collector names what about a fact gives
// away rights: "privileged, mounts /". A risk that a fact did not have before
// is always of high severity.
const Risks = "risks"

// isCompared tells whether a difference of that attribute is a change. The
// others are there to be looked at: a command line holds whatever a daemon
// writes into it, and a version changes with every update of its package, which
// the files tell about.
func isCompared(name string) bool {
	switch name {
	case "command", "version", "dynamic", "port", "created":
		return false
	}
	return true
}

// severityOf is how much it means that an attribute of a fact changed.
func severityOf(now *Fact, name, was, is string) finding.Severity {
	switch name {
	case Risks:
		if gained(was, is) {
			return finding.High
		}
		return finding.Low
	case "id", "unit", "socket": // made anew from the same image, moved to another unit
		return finding.Low
	}
	switch now.Kind {
	case "firewall":
		if m := now.Attributes["managed"]; m != "" && m != None {
			return finding.Low // a daemon writes it all day
		}
		return finding.High
	case "listen", "dynamic":
		if name == "program" || name == "script" || name == "user" && is == "root" {
			return finding.High
		}
	case "interface":
		if name == "xdp" || name == "promiscuous" && is == "yes" {
			return finding.High
		}
		return finding.Low
	case "program":
		switch name {
		case "mode", "owner", "capabilities":
			return finding.High
		case "digest":
			if now.Attributes["content"] == "as packaged" {
				return finding.Low // an update of its package
			}
			return finding.High
		}
	case "runtime":
		if name == "mode" || name == "owner" {
			return finding.High
		}
	}
	return finding.Medium
}

// severityGone is the most that it means that a fact has gone: what no longer
// listens or runs cannot do harm, but a firewall that is gone can.
func severityGone(f *Fact) finding.Severity {
	switch f.Kind {
	case "firewall", "sysctl":
		return finding.High
	case "rule", "route", "resolver", "hosts":
		return finding.Medium
	}
	return finding.Low
}

func gained(was, is string) bool {
	had := strings.Split(was, separator)
	return slices.ContainsFunc(strings.Split(is, separator), func(risk string) bool {
		return risk != None && !slices.Contains(had, risk)
	})
}

// dynamicPort is equal for sockets of one program that differ in nothing but a
// port that the kernel chose; empty for all others.
func dynamicPort(f *Fact) string {
	if f == nil || f.Kind != "listen" || f.Attributes["dynamic"] != "yes" || f.Attributes["program"] == "" {
		return ""
	}
	a := f.Attributes
	return strings.Join([]string{a["protocol"], a["address"], a["interface"], a["program"], a["script"], a["user"]}, "\x00")
}
