// Package sdnotify tells systemd how a command that runs as a service is, as
// sd_notify(3) describes.
package sdnotify

import (
	"net"
	"strings"
	"time"
)

// Manager is the service manager that started this process. The zero value is
// none, and being told does nothing.
type Manager struct{ socket string }

// New finds the manager by the environment (NOTIFY_SOCKET).
func New(getenv func(string) string) Manager {
	name := getenv("NOTIFY_SOCKET")
	if !strings.HasPrefix(name, "/") && !strings.HasPrefix(name, "@") {
		return Manager{}
	}
	return Manager{name}
}

// Ready says that the service has begun.
func (m Manager) Ready() { m.send("READY=1") }

// Alive says that it does not hang (WatchdogSec= of the unit).
func (m Manager) Alive() { m.send("WATCHDOG=1") }

// Stopping says that it is about to end.
func (m Manager) Stopping() { m.send("STOPPING=1") }

// send never fails the service: without the manager it is as good.
func (m Manager) send(state string) {
	if m.socket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetWriteDeadline(time.Now().Add(time.Second))
	conn.Write([]byte(state))
}
