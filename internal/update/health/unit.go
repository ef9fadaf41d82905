package health

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// booted is there while systemd runs the host; see sd_booted(3).
const booted = "/run/systemd/system"

// unitProbe watches one unit over the attempts of a check. What it was before
// the first attempt does not count: an update may just have broken it.
type unitProbe struct {
	systemctl string
	name      string
	settle    time.Duration

	run   string    // what is different after a restart
	since time.Time // when this run was first seen
}

// newUnitProbe returns an error of kind failure.NotReady where units cannot be
// asked for.
func newUnitProbe(name string, settle time.Duration, dir string) (*unitProbe, error) {
	if dir == "" {
		dir = booted
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, failure.Errorf(failure.NotReady, "unit %s: systemd does not run this host, so no unit is active", name)
	}
	path, err := exec.LookPath("systemctl")
	if err != nil {
		return nil, failure.Errorf(failure.NotReady, "unit %s: %w", name, err)
	}
	return &unitProbe{systemctl: path, name: name, settle: settle}, nil
}

// validUnit reports whether s can be the name of one unit, with or without
// its type: patterns, options and paths are not. See systemd.unit(5).
func validUnit(s string) bool {
	const others = `:-_.\@`
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && !strings.ContainsRune(others, rune(c)) {
			return false
		}
	}
	return s != "" && len(s) <= 255 && s[0] != '-' && s[0] != '.'
}

// ask passes when the unit was active at every attempt since settle ago, in
// one run.
func (u *unitProbe) ask(ctx context.Context) error {
	asked := time.Now()
	out, err := RunHook(ctx, Hook{
		Command: []string{u.systemctl, "show", "--no-pager",
			"--property=LoadState,ActiveState,SubState,Result,NRestarts,ActiveEnterTimestampMonotonic,InvocationID", "--", u.name},
		Timeout: u.settle + DefaultTimeout,
	})
	if err != nil {
		u.run = ""
		return fmt.Errorf("unit %s: %w", u.name, err)
	}
	p := properties(out.Head)
	if p["LoadState"] == "not-found" {
		u.run = ""
		return fmt.Errorf("unit %s: systemd does not know it", u.name)
	}
	if p["ActiveState"] != "active" {
		u.run = ""
		text := fmt.Sprintf("unit %s is %q (%s)", u.name, p["ActiveState"], p["SubState"])
		if r := p["Result"]; r != "" && r != "success" {
			text += ", result " + r
		}
		return fmt.Errorf("%s (see: journalctl -u %s)", text, u.name)
	}
	// Units other than services have no NRestarts; all have the time.
	run := p["NRestarts"] + " " + p["ActiveEnterTimestampMonotonic"] + " " + p["InvocationID"]
	restarted := u.run != "" && u.run != run
	if u.run != run {
		u.run, u.since = run, asked
	}
	if restarted {
		return fmt.Errorf("unit %s was restarted", u.name)
	}
	if stayed := asked.Sub(u.since); stayed < u.settle {
		return fmt.Errorf("unit %s is active, and has to stay so for %v", u.name, u.settle)
	}
	return nil
}

// properties reads what systemctl show prints: NAME=VALUE, one a line.
func properties(text []byte) map[string]string {
	p := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimRight(line, "\n"), "="); ok {
			p[name] = value
		}
	}
	return p
}
