package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Holder says who holds a lock or a lease.
type Holder struct {
	PID   int       `json:"pid"`
	UID   int       `json:"uid"`
	Doing string    `json:"doing"` // the command, such as "integrity baseline"
	Since time.Time `json:"since"`
}

// String describes the holder, such as "integrity baseline (pid 123, user
// root, since 14:02:11)".
func (h Holder) String() string {
	if h.PID == 0 {
		return "another process"
	}
	return h.Doing + " " + h.who()
}

func (h Holder) who() string {
	name := "uid " + strconv.Itoa(h.UID)
	if u, err := user.LookupId(strconv.Itoa(h.UID)); err == nil {
		name = "user " + u.Username
	}
	since := h.Since.Local()
	layout := time.TimeOnly
	if now := time.Now(); since.YearDay() != now.YearDay() || since.Year() != now.Year() {
		layout = time.DateTime
	}
	return fmt.Sprintf("(pid %d, %s, since %s)", h.PID, name, since.Format(layout))
}

// holderSize is what a holder takes in a lock file. A record of one size is
// replaced by one write, so a reader never meets half of one.
const holderSize = 512

// maxDoing bounds the name of a command in a lock file, so that it fits.
const maxDoing = 200

func writeHolder(f *os.File, doing string) error {
	if len(doing) > maxDoing {
		doing = doing[:maxDoing]
	}
	b, err := json.Marshal(Holder{PID: os.Getpid(), UID: os.Getuid(), Doing: doing, Since: time.Now().UTC()})
	if err != nil {
		return err
	}
	if len(b) >= holderSize { // a name of control characters, each escaped to six bytes
		b = nil
	}
	rec := bytes.Repeat([]byte{' '}, holderSize)
	copy(rec, b)
	rec[holderSize-1] = '\n'
	_, err = f.WriteAt(rec, 0)
	return err
}

// readHolder returns who last wrote the lock file, and the zero Holder when
// that is nobody, or a process that is gone.
func readHolder(f *os.File) Holder {
	var b [holderSize]byte
	n, _ := f.ReadAt(b[:], 0)
	var h Holder
	if json.Unmarshal(bytes.TrimSpace(b[:n]), &h) != nil || h.PID <= 0 {
		return Holder{}
	}
	if err := unix.Kill(h.PID, 0); err == unix.ESRCH {
		return Holder{}
	}
	return h
}
