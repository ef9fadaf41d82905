// Package schedule has checks run at set times, by systemd or by cron, and
// tells when one of them did not run.
//
// A Schedule is turned into files: a systemd service with its timer
// (systemd.service(5), systemd.timer(5)), or an entry in /etc/cron.d
// (crontab(5)). They stand below the root of the host or of an image, and are
// remembered in state.db with the digest of each file, so that a file which
// somebody edited is told from one that was written here.
//
// Times are those of the wall clock of the host. A jitter moves each host of a
// fleet to a time of its own that stays the same from day to day: systemd draws
// it from the machine id, and for cron it is drawn here in the same manner and
// written into the entry.
//
// Invariants: what is written was asked for, byte for byte the same each time;
// a file that is not as it was written here is replaced or removed only when
// that was asked for; every file is below the given root, whatever links are in
// it. Nothing outside of the files and the bucket is touched: starting timers
// is left to a function that the caller gives.
package schedule

import (
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/zeebo/blake3"
)

// Via is the program that runs a schedule.
type Via string

// The programs that run schedules.
const (
	Systemd Via = "systemd"
	Cron    Via = "cron"
)

// Schedule says what runs when, and where that is written down.
type Schedule struct {
	Name     string        `json:"name"`     // up to 64 letters, digits, "-" and "_": run-parts(8) takes no others
	Baseline string        `json:"baseline"` // the name of the baseline that is compared with
	Verify   bool          `json:"verify"`   // reads every byte
	Timing   Timing        `json:"timing"`
	Jitter   time.Duration `json:"jitter"` // 0: none
	Via      Via           `json:"via"`
	Binary   string        `json:"binary"` // absolute path of mobileops below Root
	Args     []string      `json:"args"`   // of mobileops: "integrity", "check", "--quiet", …
	// Env are the settings that the run must have to find the same state,
	// "MOBILEOPS_STATE_DIR=/srv/state".
	Env  []string `json:"env,omitempty"`
	Dirs Dirs     `json:"dirs"`
	Mail string   `json:"mail,omitempty"` // who gets what it prints

	Root      string        `json:"root"`   // the tree that the files are in, "/" or that of an image
	Offset    time.Duration `json:"offset"` // for cron: where within the jitter this host runs
	Installed time.Time     `json:"installed"`
	Files     []File        `json:"files"`
}

// Dirs are the directories that a run writes to. An empty one is the usual one.
type Dirs struct {
	State string `json:"state,omitempty"`
	Log   string `json:"log,omitempty"`
	Run   string `json:"run,omitempty"`
	// Anchors are the directories of files in which the end of the history is
	// kept, such as that of another mount.
	Anchors []string `json:"anchors,omitempty"`
}

// File is a file of a schedule.
type File struct {
	Path   string `json:"path"` // absolute, below Root
	Digest Digest `json:"digest"`
	// Before is the digest that was written here earlier: where writing the
	// file was cut short, it still has that.
	Before Digest `json:"before,omitzero"`
	data   []byte
}

// Data is what the file is to hold. It is known after Plan.
func (f *File) Data() []byte { return f.data }

// maxName bounds the name of a schedule.
const maxName = 64

// CheckName tells whether a schedule can have a name.
func CheckName(name string) error {
	for _, c := range []byte(name) {
		if !alnum(c) && c != '-' && c != '_' {
			name = ""
		}
	}
	if name == "" || len(name) > maxName || !alnum(name[0]) {
		return failure.Errorf(failure.Usage, "a schedule is named with up to %d letters, digits, '-' and '_'", maxName)
	}
	return nil
}

func alnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// DefaultName is what the schedule of a baseline is called when nobody says:
// "integrity-check" for the baseline "default", else with its name behind it.
func DefaultName(baseline, usual string, verify bool) string {
	name := "integrity-check"
	if verify {
		name = "integrity-verify"
	}
	if baseline != usual {
		name += "-" + strings.ReplaceAll(baseline, ".", "-")
	}
	return name[:min(len(name), maxName)]
}

// unit is the name of the unit and of the file in /etc/cron.d.
func (s *Schedule) unit() string { return "mobileops-" + s.Name }

// Timer is the name of the systemd unit that is enabled.
func (s *Schedule) Timer() string { return s.unit() + ".timer" }

// Mode is what runs: "check" or "verify".
func (s *Schedule) Mode() string {
	if s.Verify {
		return "verify"
	}
	return "check"
}

// Next is when it runs next after a moment, in the moment's time zone. With
// systemd it is up to Jitter later.
func (s *Schedule) Next(after time.Time) time.Time { return s.Timing.Shift(s.Offset).Next(after) }

// Check tells whether everything in a schedule can be written down.
func (s *Schedule) Check() error {
	if err := CheckName(s.Name); err != nil {
		return err
	}
	if err := s.Timing.check(); err != nil {
		return err
	}
	if s.Jitter < 0 || s.Jitter >= s.Timing.Period {
		return failure.Errorf(failure.Usage, "a jitter of %s does not fit in a schedule that runs %s", span(s.Jitter), s.Timing)
	}
	if s.Jitter > 0 && s.Jitter < time.Minute {
		return failure.Errorf(failure.Usage, "a jitter is at least a minute")
	}
	if s.Mail != "" && !validAddress(s.Mail) {
		return failure.Errorf(failure.Usage, "%q cannot be mailed to: write one address or the name of a user", s.Mail)
	}
	for _, text := range slices.Concat([]string{s.Binary, s.Dirs.State, s.Dirs.Log, s.Dirs.Run}, s.Dirs.Anchors, s.Args, s.Env) {
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return failure.Errorf(failure.Usage, "%q cannot stand in a schedule: it has a control character", text)
		}
	}
	return nil
}

// validAddress keeps to what every mailer takes and no shell minds.
func validAddress(s string) bool {
	if len(s) > 254 || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if !alnum(c) && strings.IndexByte("._+=@-", c) < 0 {
			return false
		}
	}
	return true
}

// offset draws where within its jitter a host runs, in whole minutes: the same
// for a machine and a schedule each time, and evenly spread over machines.
func offset(machineID, name string, jitter time.Duration) time.Duration {
	minutes := uint64(jitter / time.Minute)
	if minutes == 0 {
		return 0
	}
	h := blake3.NewDeriveKey("mobileops 2026 schedule jitter v1")
	h.WriteString(machineID)
	h.WriteString("\x00" + name)
	var n uint64
	for _, b := range h.Sum(nil)[:8] {
		n = n<<8 | uint64(b)
	}
	return time.Duration(n%minutes) * time.Minute
}

// mailer is the program that both kinds of schedules mail with, if there is one.
const mailer = "/usr/sbin/sendmail"
