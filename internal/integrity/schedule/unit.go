package schedule

import (
	"bytes"
	"embed"
	"path"
	"strconv"
	"strings"
	"text/template"
	"time"
)

// unitDir is where an administrator's units stand.
const unitDir = "/etc/systemd/system"

// usualState is where the state of a service is unless something else is said.
const usualState = "/var/lib/mobileops"

//go:embed unit/*.tmpl
var unitTemplates embed.FS

// unitValues are what the templates of units take.
type unitValues struct {
	Name, Unit, Mode, About, When string
	State, Command, Timeout       string
	Env, Writable                 []string
	Calendar, Jitter              string
	Mail, Mailer                  string
	// Image: the units are of an image, which may have no state yet. On a host
	// there is one as they are made, and without it the run must fail: else
	// whoever takes state.db away silences the checks.
	Image bool
}

// units returns the service and its timer, and with a mail address the service
// that mails when the first one failed.
func (s *Schedule) units() ([]File, error) {
	v := unitValues{
		Name: s.Name, Unit: s.unit(), Mode: s.Mode(), When: s.Timing.String(),
		About: "Check the integrity of files against baseline " + s.Baseline, Timeout: "2h",
		State: unitEscape(usualState), Calendar: s.Timing.Calendar(), Mail: s.Mail, Mailer: mailer,
		Image: s.Root != "/",
	}
	if s.Verify {
		v.About, v.Timeout = "Verify every byte of the files of baseline "+s.Baseline, "12h"
	}
	if s.Jitter > 0 {
		v.Jitter = strconv.Itoa(int(s.Jitter/time.Second)) + "s"
	}
	if s.Dirs.State != "" {
		v.State = unitEscape(s.Dirs.State)
	}
	for _, dir := range append([]string{s.Dirs.State, s.Dirs.Log, s.Dirs.Run}, s.Dirs.Anchors...) {
		if dir != "" {
			v.Writable = append(v.Writable, unitQuote("-"+dir))
		}
	}
	words := append([]string{s.Binary}, s.Args...)
	for i, w := range words {
		// The shell's variables are expanded in a command, quoted or not.
		words[i] = strings.ReplaceAll(unitQuote(w), "$", "$$")
	}
	v.Command = strings.Join(words, " ")
	for _, setting := range s.Env {
		v.Env = append(v.Env, unitQuote(setting))
	}
	all, err := template.ParseFS(unitTemplates, "unit/*.tmpl")
	if err != nil {
		return nil, err
	}
	parts := []struct{ tmpl, name string }{{"service.tmpl", s.unit() + ".service"}, {"timer.tmpl", s.Timer()}}
	if s.Mail != "" {
		parts = append(parts, struct{ tmpl, name string }{"mail.tmpl", s.unit() + "-mail.service"})
	}
	var files []File
	for _, p := range parts {
		var b bytes.Buffer
		if err := all.ExecuteTemplate(&b, p.tmpl, v); err != nil {
			return nil, err
		}
		files = append(files, File{Path: path.Join(unitDir, p.name), data: b.Bytes()})
	}
	return files, nil
}

// unitEscape keeps systemd from reading a percent sign as a specifier.
func unitEscape(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// unitQuote quotes a word for systemd.syntax(7), where a backslash escapes.
func unitQuote(s string) string {
	s = unitEscape(s)
	if s != "" && !strings.ContainsAny(s, " \"'\\;") {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
