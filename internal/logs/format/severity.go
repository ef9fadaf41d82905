package format

import "github.com/mobileops/mobileops/internal/logs/event"

// severityWords are the words by which programs name severities, in lower
// case. A format can have words of its own (severities in its file).
var severityWords = map[string]event.Severity{
	"emerg": event.Emergency, "emergency": event.Emergency, "panic": event.Emergency,
	"alert": event.Alert,
	"crit":  event.Critical, "critical": event.Critical, "fatal": event.Critical, "f": event.Critical,
	"err": event.Error, "error": event.Error, "severe": event.Error, "e": event.Error, "failure": event.Error,
	"warn": event.Warning, "warning": event.Warning, "w": event.Warning,
	"notice": event.Notice,
	"info":   event.Info, "information": event.Info, "informational": event.Info, "i": event.Info,
	"debug": event.Debug, "trace": event.Debug, "d": event.Debug, "verbose": event.Debug, "fine": event.Debug,
}

// severityOf reads a word such as "ERROR" or "warn"; those of own come first. ok is false when it is none.
func severityOf(own map[string]event.Severity, word []byte) (s event.Severity, ok bool) {
	var low [16]byte
	if len(word) == 0 || len(word) > len(low) {
		return event.NoSeverity, false
	}
	for i, c := range word {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		low[i] = c
	}
	if own != nil {
		if s, ok = own[string(low[:len(word)])]; ok {
			return s, true
		}
	}
	s, ok = severityWords[string(low[:len(word)])]
	if !ok {
		s = event.NoSeverity
	}
	return s, ok
}

// facilities are the names of syslog's facilities (RFC 5424, table 1) as
// syslog.conf(5) writes them. They are values of fields; nobody changes them.
var facilities = [...][]byte{[]byte("kern"), []byte("user"), []byte("mail"), []byte("daemon"), []byte("auth"), []byte("syslog"), []byte("lpr"), []byte("news"), []byte("uucp"), []byte("cron"), []byte("authpriv"),
	[]byte("ftp"), []byte("ntp"), []byte("audit"), []byte("alert"), []byte("clock"), []byte("local0"), []byte("local1"), []byte("local2"), []byte("local3"), []byte("local4"), []byte("local5"), []byte("local6"), []byte("local7")}

// maxPriority is the highest PRI: facility 23, severity 7.
const maxPriority = 191
