package schedule

import (
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
)

// cronDir is where entries stand, with the field that names the user.
const cronDir = "/etc/cron.d"

// maxCommand bounds a command in a crontab: Vixie cron cuts a longer one off
// at MAX_COMMAND, and would run the rest of it as something else.
const maxCommand = 990

// cronPath is the PATH of a run: cron's own lacks the sbin directories.
const cronPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// cronEntry returns the file in /etc/cron.d.
func (s *Schedule) cronEntry() (File, error) {
	words := append([]string{"nice", "-n", "19", s.Binary}, s.Args...)
	for i, w := range words {
		words[i] = shellQuote(w)
	}
	// A percent sign would end the command: what follows is its input.
	command := strings.ReplaceAll(strings.Join(words, " "), "%", `\%`)
	if len(command) > maxCommand {
		return File{}, failure.Errorf(failure.Usage, "cron takes commands of up to %d bytes, and this one has %d", maxCommand, len(command))
	}
	var b strings.Builder
	b.WriteString("# Written by mobileops integrity schedule, which leaves it alone once it is edited.\n")
	b.WriteString("# Remove it: mobileops integrity schedule remove " + s.Name + "\n#\n")
	b.WriteString("# " + s.Timing.String())
	if s.Jitter > 0 {
		b.WriteString(", moved by " + span(s.Offset) + ": each host has its own time within " + span(s.Jitter))
	}
	b.WriteString(". It prints, and so mails, only news.\n")
	mail := s.Mail
	if mail == "" {
		mail = "root"
	}
	b.WriteString("SHELL=/bin/sh\nPATH=" + cronPath + "\nMAILTO=" + mail + "\n")
	for _, setting := range s.Env {
		name, value, _ := strings.Cut(setting, "=")
		quoted, ok := cronQuote(value)
		if !ok {
			return File{}, failure.Errorf(failure.Usage, "%s=%s cannot stand in a crontab: it has both kinds of quotes", name, value)
		}
		b.WriteString(name + "=" + quoted + "\n")
	}
	b.WriteString(s.Timing.Shift(s.Offset).Crontab() + " root " + command + "\n")
	return File{Path: cronDir + "/" + s.unit(), data: []byte(b.String())}, nil
}

// shellQuote quotes a word for sh(1).
func shellQuote(s string) string {
	plain := s != ""
	for _, c := range []byte(s) {
		plain = plain && (alnum(c) || strings.IndexByte("_@%+=:,./-", c) >= 0)
	}
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// cronQuote quotes a value for crontab(5), which knows quotes and nothing to
// escape them.
func cronQuote(s string) (string, bool) {
	switch {
	case !strings.ContainsAny(s, ` "'`):
		return s, true
	case !strings.Contains(s, `"`):
		return `"` + s + `"`, true
	}
	return `'` + s + `'`, !strings.Contains(s, `'`)
}
