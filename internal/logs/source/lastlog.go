package source

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/format"
	"golang.org/x/sys/unix"
)

// lastlog reads the last login of each user, lastlog(8): an array of records
// by user id, with holes, in which records are overwritten. Its cursor is what
// each record said last; a record that says something else is one that is new.
type lastlog struct {
	c    *Collector
	spec *spec
	meter
	path string
	key  string
	cur  lastlogCursor
	seen info
}

type lastlogCursor struct {
	Version int `json:"v"`
	// Logins are the times of the last login in seconds since 1970, by user.
	Logins map[uint32]uint32 `json:"logins"`
}

// maxLogins is how many users lastlog may have. A cursor of more would be
// larger than a store takes.
const maxLogins = 32_768

func newLastlog(c *Collector, s *spec, path string, cursor []byte) (*lastlog, error) {
	l := &lastlog{c: c, spec: s, path: path, key: "lastlog:" + path}
	l.status.Kind = Lastlog
	l.place(s.Name, path, path, "")
	l.formatted(utmpFormat)
	if cursor == nil {
		l.cur.Logins = map[uint32]uint32{}
		return l, nil
	}
	if err := decodeCursor(cursor, &l.cur); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if l.cur.Version != cursorVersion || len(l.cur.Logins) > maxLogins {
		return nil, fmt.Errorf("%s: %w", path, ErrCursor)
	}
	if l.cur.Logins == nil {
		l.cur.Logins = map[uint32]uint32{}
	}
	return l, nil
}

func (l *lastlog) packed() bool { return false }
func (l *lastlog) close()       {}

func (l *lastlog) turn() bool {
	if err := l.read(); err != nil {
		l.trouble(err.Error())
	} else {
		l.trouble("")
	}
	return false
}

func (l *lastlog) read() error {
	f, st, err := l.c.tree.openRegular(l.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if st.mod == l.seen.mod && st.ctime == l.seen.ctime && st.size == l.seen.size {
		return nil
	}
	logins := maps.Clone(l.cur.Logins)
	var recs []event.Record
	bytesRead := 0
	err = eachLogin(f, st.size, func(uid uint32, rec []byte) error {
		when := binary.LittleEndian.Uint32(rec)
		if last, ok := logins[uid]; ok && last == when {
			return nil
		}
		if _, ok := logins[uid]; !ok && len(logins) >= maxLogins {
			return fmt.Errorf("lastlog has more than %d users", maxLogins)
		}
		logins[uid] = when
		line, ok := format.DecodeLastlog(uid, rec)
		r := event.Record{Time: int64(when) * 1e9, Clock: event.ClockExact, Raw: line}
		if ok && (l.c.opts.Since.IsZero() || r.Time >= l.c.opts.Since.UnixNano() || len(l.cur.Logins) > 0) {
			recs = append(recs, r)
			bytesRead += len(rec)
		}
		return nil
	})
	if err != nil {
		return err
	}
	l.seen = *st
	if maps.Equal(logins, l.cur.Logins) {
		return nil
	}
	l.cur = lastlogCursor{cursorVersion, logins}
	l.c.out.add(&l.meter, bytesRead, Batch{Key: l.key, Origin: event.Origin{Source: l.path, Format: utmpFormat, Host: l.c.opts.Host}, Records: recs, Cursor: encodeCursor(&l.cur)})
	return nil
}

// eachLogin calls fn with every record that is not empty. Holes are passed
// over: the file of a host with large user ids has an apparent size of
// hundreds of gigabytes.
func eachLogin(f interface {
	io.ReaderAt
	Fd() uintptr
}, size int64, fn func(uid uint32, rec []byte) error) error {
	const many = 1024 * format.LastlogSize
	buf := make([]byte, many)
	for at := int64(0); at+format.LastlogSize <= size; {
		if data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA); err == nil && data > at {
			at = data / format.LastlogSize * format.LastlogSize
		} else if err == unix.ENXIO {
			return nil
		}
		n, err := readFull(f, buf[:min(many, size-at)], at)
		if err != nil {
			return err
		}
		if n < format.LastlogSize {
			return nil
		}
		for off := 0; off+format.LastlogSize <= n; off += format.LastlogSize {
			rec := buf[off : off+format.LastlogSize]
			uid := (at + int64(off)) / format.LastlogSize
			if uid > 1<<32-1 || len(bytes.TrimLeft(rec[:4], "\x00")) == 0 {
				continue
			}
			if err := fn(uint32(uid), rec); err != nil {
				return err
			}
		}
		at += int64(n) / format.LastlogSize * format.LastlogSize
	}
	return nil
}
