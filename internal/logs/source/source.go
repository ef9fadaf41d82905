// Package source reads the logs of a host, each record once.
//
// A Spec names logs: files, the journal, the kernel's messages, logins. Each
// file, journal or device that a Spec leads to has a cursor: how far it was
// read. A Sink keeps records and cursors together, so that after a crash
// reading goes on exactly behind what was kept.
//
// A file is known by its inode and by its content, never by its name. The
// cursor holds a fingerprint of the file's beginning (BLAKE3 of up to 1024
// bytes) and one of the bytes right before the position. Both are compared
// whenever something was read, before it counts. So
//
//   - a file that was renamed is read on under its new name,
//   - a file that was truncated and written anew begins anew, however large it
//     has become meanwhile,
//   - a copy, compressed or not, of what was read is recognised, and what had
//     not been read of the original is read from it,
//   - an inode that is used again for something else is something else.
//
// What cannot be told apart is a copy from another file of the same log whose
// beginning is the same, byte for byte, for as long as the first was read;
// only files named like rotated ones of the same log are compared at all.
//
// A last line without a newline is left until the newline comes. When nothing
// has come for Options.Idle, or when the file was rotated, it is taken as a
// record. Should the line go on after that, the rest is a record of its own:
// every byte is in exactly one record.
//
// Holes and runs of NUL bytes before a record, which a writer leaves whose
// file was truncated beneath it, are no part of a record. NULs at the end of a
// file are left where they are until something else follows them.
package source

import (
	"context"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/event"
)

// Kind is what sort of thing a Spec leads to.
type Kind string

// The kinds.
const (
	Files   Kind = "file"    // lines, and records of several lines
	Journal Kind = "journal" // files of systemd-journald
	Kmsg    Kind = "kmsg"    // /dev/kmsg
	Utmp    Kind = "utmp"    // wtmp and btmp: utmp(5)
	Lastlog Kind = "lastlog" // lastlog(8)
)

// Spec names the logs of one source.
type Spec struct {
	Name string
	Kind Kind
	// Include are paths beneath the root: of files, of directories (everything
	// in them), or patterns in which * and ? stand for anything but a slash,
	// ** for any directories, [a-z] for one of a set and {a,b} for one of
	// several. Rotated versions of what matches are included: see Stem.
	Include []string
	// Exclude are patterns of what is not read although it is included.
	Exclude []string
	// Format is the name of the format; empty: by content, file by file.
	Format string
	// Zone is the time zone of records that name none, as in the zone
	// database; empty: that of the host.
	Zone string
	// Why says what led to this source, for people.
	Why string
}

// Batch is what was read of one instance (a file, a journal, a device), in
// order, and the position behind it.
type Batch struct {
	Key     string // of the cursor
	Origin  event.Origin
	Records []event.Record
	Cursor  []byte // JSON; nil: forget this cursor
}

// Sink keeps what sources found.
type Sink interface {
	// Cursors returns the last cursor kept of each instance, by its key.
	Cursors(ctx context.Context) (map[string][]byte, error)
	// Append keeps the batches, and their cursors with them, durably: when it
	// returns nil they survive a crash; when it returns an error, none of them
	// was kept. ErrFull says that there is no room; everything else is an
	// error that another attempt does not mend. The records are not used after
	// it returned.
	Append(ctx context.Context, batches []Batch) error
}

// ErrFull is what Append returns when the sink has reached its reserve.
var ErrFull = failure.New(failure.Failed, "no room is left for logs")

// Options say how a Collector reads.
type Options struct {
	// Root is the directory that is taken for the root of the host; empty: "/".
	// Paths of sources, and links among them, are below it.
	Root string
	// Host is the name of the host that Root belongs to.
	Host string
	// Zone is that of the host, for records that name none; nil: UTC.
	Zone *time.Location
	// Since leaves out records that are older, of instances that are read for
	// the first time. Zero: all are kept.
	Since time.Time
	// Idle is how long nothing was written before a last line without a
	// newline, or a record that could go on, is taken as it is. Zero: 5 s.
	Idle time.Duration
	// Poll is the time between looks at all sources when changes are not
	// announced (network file systems, no inotify). Zero: 1 s. Where they are
	// announced all sources are looked at every tenfold of it.
	Poll time.Duration
	// Flush is how long a record waits for others to be kept together with,
	// when following. Zero: 1 s.
	Flush time.Duration
	// Now tells the time; nil: time.Now.
	Now func() time.Time
}

const (
	turnBytes   = 256 << 10 // what is read of an instance before it is another's turn
	maxRecord   = 1 << 20   // a record that is longer is cut
	batchBytes  = 1 << 20   // of records that are kept together
	queueBytes  = 4 << 20   // of records that wait to be kept, before reading stops
	readers     = 2         // instances that are read at the same time
	maxFiles    = 100_000   // files of one collector
	maxOpen     = 256       // files that are held open
	forgetAfter = 30 * 24 * time.Hour
	lostAfter   = time.Minute // without a file that was not read to its end
	copyStable  = time.Minute // without a change of a copy
)

func (o *Options) fill() {
	if o.Root == "" {
		o.Root = "/"
	}
	if o.Idle == 0 {
		o.Idle = 5 * time.Second
	}
	if o.Poll == 0 {
		o.Poll = time.Second
	}
	if o.Flush == 0 {
		o.Flush = time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}
