package audit

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// noLoginUID is what the kernel says when nobody logged in: (uid_t)-1.
const noLoginUID = 1<<32 - 1

// Self returns the actor this process acts for. remote is the address of the
// SSH client or the API identity that it acts for, "" for none; see
// RemoteOfSSH.
func Self(remote string) Actor {
	a := Actor{UID: os.Getuid(), LoginUID: -1, TTY: terminal(), Remote: remote}
	if u, err := user.LookupId(strconv.Itoa(a.UID)); err == nil {
		a.User = u.Username
	}
	// proc_pid_loginuid(5): who logged in, also after su and sudo.
	if b, err := os.ReadFile("/proc/self/loginuid"); err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n != noLoginUID {
			a.LoginUID = n
		}
	}
	return a
}

// RemoteOfSSH returns the client's address from the value of SSH_CONNECTION
// (ssh(1): client address, client port, server address, server port).
func RemoteOfSSH(connection string) string {
	address, _, _ := strings.Cut(strings.TrimSpace(connection), " ")
	return address
}

// terminal returns the terminal on standard input, output or error, such as
// "/dev/pts/3", or "".
func terminal() string {
	for _, fd := range []string{"0", "1", "2"} {
		name, err := os.Readlink("/proc/self/fd/" + fd)
		if err == nil && (strings.HasPrefix(name, "/dev/pts/") || strings.HasPrefix(filepath.Base(name), "tty") && strings.HasPrefix(name, "/dev/")) {
			return name
		}
	}
	return ""
}

// Name names the person on whose behalf this process runs, as records keep it:
// the user, and who logged in where that is somebody else, as after sudo.
func (a Actor) Name() string {
	name := a.User
	if name == "" {
		name = "uid " + strconv.Itoa(a.UID)
	}
	if a.LoginUID >= 0 && a.LoginUID != int64(a.UID) {
		login := strconv.FormatInt(a.LoginUID, 10)
		if u, err := user.LookupId(login); err == nil {
			return name + " (login " + u.Username + ")"
		}
		return name + " (login uid " + login + ")"
	}
	return name
}
