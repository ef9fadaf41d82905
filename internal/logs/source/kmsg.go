package source

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
	"golang.org/x/sys/unix"
)

// kmsg reads the messages of the kernel: Documentation/ABI/testing/dev-kmsg.
// Each read(2) returns one record, "priority,sequence,microseconds,flags;text"
// with lines " NAME=value" after it. Sequence numbers begin with 0 at each
// boot; a record that is gone from the ring before it was read leaves a gap
// in them.
type kmsg struct {
	c    *Collector
	spec *spec
	meter
	path  string
	key   string
	cur   kmsgCursor
	known bool // there was a cursor
	fd    int  // 0: not open
	boot  string
	start time.Time // of the machine, by its own clock
}

// kmsgCursor is the last record that was read.
type kmsgCursor struct {
	Version int    `json:"v"`
	Boot    string `json:"boot"`
	Seq     uint64 `json:"seq"`
}

const bootIDFile = "/proc/sys/kernel/random/boot_id"

func newKmsg(c *Collector, s *spec, path string, cursor []byte) (*kmsg, error) {
	k := &kmsg{c: c, spec: s, path: path, key: "kmsg:" + path}
	k.status.Kind = Kmsg
	k.place(s.Name, "kernel", path, "")
	k.formatted(kmsgFormat)
	if cursor == nil {
		return k, nil
	}
	if err := decodeCursor(cursor, &k.cur); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if k.cur.Version != cursorVersion || k.cur.Boot == "" {
		return nil, fmt.Errorf("%s: %w", path, ErrCursor)
	}
	k.known = true
	return k, nil
}

func (k *kmsg) packed() bool { return false }

// open opens the device where it begins, or where it was read up to.
func (k *kmsg) open() error {
	if k.fd != 0 {
		return nil
	}
	boot, err := os.ReadFile(bootIDFile)
	if err != nil {
		return err
	}
	// A device is what is wanted here, or in a test a pipe: not openRegular.
	fd, err := k.c.tree.openFD(k.path, unix.O_RDONLY)
	if err != nil {
		return err
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &up); err != nil {
		unix.Close(fd)
		return err
	}
	k.start = k.c.now().Add(-time.Duration(up.Nano()))
	k.fd, k.boot = fd, strings.TrimSpace(string(boot))
	return nil
}

func (k *kmsg) turn() bool {
	if err := k.open(); err != nil {
		k.trouble(err.Error())
		return false
	}
	more, err := k.read()
	if err != nil {
		k.close()
		k.trouble(err.Error())
		return false
	}
	k.trouble("")
	return more
}

func (k *kmsg) read() (more bool, err error) {
	var recs []event.Record
	buf := make([]byte, 16<<10) // CONSOLE_EXT_LOG_MAX is half of it
	total, at := 0, k.cur
	for total < turnBytes {
		n, err := unix.Read(k.fd, buf)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EPIPE):
			continue // EPIPE: records were overwritten; their numbers say how many
		case errors.Is(err, unix.EAGAIN) || err == nil && n == 0:
			k.send(at, recs, total)
			return false, nil
		case err != nil:
			return false, err
		}
		rec, seq, err := parseKmsg(buf[:n], k.start)
		if err != nil {
			return false, err
		}
		if k.known && at.Boot == k.boot {
			if seq <= at.Seq {
				continue
			}
			if lost := seq - at.Seq - 1; lost > 0 {
				k.c.gap(&k.meter, Gap{Source: k.path, Time: k.c.now(), Records: int64(lost),
					Reason: fmt.Sprintf("the kernel overwrote %d messages before they were read", lost)})
			}
		} else if since := k.c.opts.Since; !since.IsZero() && !k.known && rec.Time < since.UnixNano() {
			at.Seq, at.Boot, k.known = seq, k.boot, true
			continue
		}
		at.Seq, at.Boot, k.known = seq, k.boot, true
		recs = append(recs, rec)
		total += n
	}
	k.send(at, recs, total)
	return true, nil
}

// send hands records on, with the position behind them.
func (k *kmsg) send(at kmsgCursor, recs []event.Record, bytes int) {
	if at == k.cur {
		return
	}
	at.Version = cursorVersion
	k.cur = at
	k.c.out.add(&k.meter, bytes, Batch{Key: k.key, Origin: event.Origin{Source: "kernel", Format: kmsgFormat, Host: k.c.opts.Host}, Records: recs, Cursor: encodeCursor(&at)})
}

// parseKmsg makes a record of what one read(2) returned.
func parseKmsg(b []byte, start time.Time) (r event.Record, seq uint64, err error) {
	raw := bytes.TrimSuffix(b, []byte("\n"))
	head, _, ok := bytes.Cut(raw, []byte(";"))
	parts := bytes.Split(head, []byte(","))
	if !ok || len(parts) < 3 {
		return r, 0, fmt.Errorf("a kernel message without header: %.80q", raw)
	}
	seq, err = strconv.ParseUint(string(parts[1]), 10, 64)
	if err != nil {
		return r, 0, fmt.Errorf("a kernel message without number: %.80q", raw)
	}
	usec, err := strconv.ParseInt(string(parts[2]), 10, 64)
	if err != nil || usec < 0 || usec > 1<<53 {
		return r, 0, fmt.Errorf("a kernel message without time: %.80q", raw)
	}
	return event.Record{Time: start.Add(time.Duration(usec) * time.Microsecond).UnixNano(), Clock: event.ClockBoot, Raw: bytes.Clone(raw)}, seq, nil
}

func (k *kmsg) close() {
	if k.fd != 0 {
		unix.Close(k.fd)
		k.fd = 0
	}
}
