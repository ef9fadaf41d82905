package query

import (
	"net/netip"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// made is an event of a test: what a format would have found, and a count of
// how often it was asked.
type made struct {
	raw      string
	time     string // RFC 3339
	host     string
	unit     string
	program  string
	pid      int64
	severity event.Severity
	user     string
	addrs    string // with spaces between
	message  string
	fields   string // name=value, with spaces between
	source   string
	parsed   *int
}

func (m made) event() *event.Event {
	at, err := time.Parse(time.RFC3339, m.time)
	if err != nil {
		panic(err)
	}
	ev := &event.Event{Record: event.Record{Time: at.UnixNano(), Clock: event.ClockYear, Raw: []byte(m.raw)}}
	ev.Text = ev.Raw
	ev.Origin = &event.Origin{Source: m.source, Format: "syslog", Host: "collector"}
	ev.Severity = event.NoSeverity
	ev.Fill = func(ev *event.Event) {
		if m.parsed != nil {
			*m.parsed++
		}
		ev.Host, ev.Unit, ev.Program, ev.PID, ev.Severity, ev.User = m.host, m.unit, m.program, m.pid, m.severity, m.user
		for _, a := range strings.Fields(m.addrs) {
			ev.Addrs = append(ev.Addrs, netip.MustParseAddr(a))
		}
		ev.Message = []byte(m.message)
		for _, f := range strings.Fields(m.fields) {
			name, value, _ := strings.Cut(f, "=")
			ev.Fields = append(ev.Fields, event.Field{Name: name, Value: []byte(value)})
		}
	}
	return ev
}

// sample are the events that the examples of docs/query.md run over.
func sample() []made {
	return []made{
		{raw: "May 10 06:55:46 web1 sshd[24200]: Invalid user webmaster from 173.234.31.186 [preauth]", time: "2026-05-10T06:55:46Z",
			host: "web1", unit: "ssh.service", program: "sshd", pid: 24200, severity: event.Info, user: "webmaster", addrs: "173.234.31.186",
			message: "Invalid user webmaster from 173.234.31.186 [preauth]", source: "/var/log/auth.log"},
		{raw: "May 10 06:55:48 web1 sshd[24200]: Failed password for invalid user webmaster from 173.234.31.186 port 38926 ssh2", time: "2026-05-10T06:55:48Z",
			host: "web1", unit: "ssh.service", program: "sshd", pid: 24200, severity: event.Info, user: "webmaster", addrs: "173.234.31.186",
			message: "Failed password for invalid user webmaster from 173.234.31.186 port 38926 ssh2", fields: "port=38926", source: "/var/log/auth.log"},
		{raw: "May 10 07:02:47 web1 sshd[24203]: Accepted publickey for root from 10.0.0.7 port 37618 ssh2", time: "2026-05-10T07:02:47Z",
			host: "web1", unit: "ssh.service", program: "sshd", pid: 24203, severity: event.Notice, user: "root", addrs: "10.0.0.7",
			message: "Accepted publickey for root from 10.0.0.7 port 37618 ssh2", fields: "port=37618", source: "/var/log/auth.log"},
		{raw: "May 10 07:07:38 web1 sshd[24206]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh rhost=5.36.59.76  user=root", time: "2026-05-10T07:07:38Z",
			host: "web1", unit: "ssh.service", program: "sshd", pid: 24206, severity: event.Warning, user: "root", addrs: "5.36.59.76",
			message: "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh rhost=5.36.59.76  user=root", source: "/var/log/auth.log"},
		{raw: `{"ts":"2026-05-10T07:10:00Z","level":"error","host":"db1","msg":"query failed","took":"2.5s","http":{"status":500},"bytes":20480,"client":"10.0.0.9"}`, time: "2026-05-10T07:10:00Z",
			host: "db1", unit: "api", program: "api", severity: event.Error, addrs: "10.0.0.9", message: "query failed",
			fields: "level=error took=2.5s http.status=500 bytes=20480 client=10.0.0.9", source: "/var/log/api.json"},
		{raw: `{"ts":"2026-05-10T08:20:00Z","level":"info","host":"db1","msg":"query done","took":"120ms","http":{"status":200},"bytes":512,"client":"10.0.0.7"}`, time: "2026-05-10T08:20:00Z",
			host: "db1", unit: "api", program: "api", severity: event.Info, addrs: "10.0.0.7", message: "query done",
			fields: "level=info took=120ms http.status=200 bytes=512 client=10.0.0.7", source: "/var/log/api.json"},
		{raw: "May 10 09:00:01 db1 kernel: [12345.678] Out of memory: Killed process 4242 (postgres) total-vm:10kB", time: "2026-05-10T09:00:01Z",
			host: "db1", program: "kernel", severity: event.Critical, message: "Out of memory: Killed process 4242 (postgres) total-vm:10kB", source: "kmsg"},
		{raw: "May 10 11:30:00 DB1 nginx: 2001:db8::7 [::ffff:10.0.0.7] GET /var/log/app/ 404 error: file not found", time: "2026-05-10T11:30:00Z",
			host: "DB1", unit: "nginx.service", program: "nginx", severity: event.NoSeverity, addrs: "2001:db8::7 ::ffff:10.0.0.7",
			message: "2001:db8::7 [::ffff:10.0.0.7] GET /var/log/app/ 404 error: file not found", fields: "status=404", source: "journal"},
	}
}

func sampleEvent() *event.Event { return sample()[4].event() }
