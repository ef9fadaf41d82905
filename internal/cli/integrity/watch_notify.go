package integrity

import (
	"net"
	"strings"
	"time"
)

// serviceManager tells systemd how the watch is, as sd_notify(3) describes. Where
// there is no NOTIFY_SOCKET it does nothing.
type serviceManager struct{ socket string }

func newServiceManager(getenv func(string) string) serviceManager {
	name := getenv("NOTIFY_SOCKET")
	if !strings.HasPrefix(name, "/") && !strings.HasPrefix(name, "@") {
		return serviceManager{}
	}
	return serviceManager{name}
}

func (m serviceManager) ready()    { m.send("READY=1") }
func (m serviceManager) alive()    { m.send("WATCHDOG=1") }
func (m serviceManager) stopping() { m.send("STOPPING=1") }

// send never fails the watch: without the manager it is as good.
func (m serviceManager) send(state string) {
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
