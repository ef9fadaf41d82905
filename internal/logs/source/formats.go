package source

import (
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/format"
)

// Names of formats that sources know of.
const (
	plain      = "plain"
	utmpFormat = "utmp"
	kmsgFormat = "kmsg"
)

// framer cuts bytes into records: *format.Reader.
type framer interface {
	Next(dst []event.Record, data []byte, final bool) (recs []event.Record, n int)
	State() []byte
	SetModTime(t time.Time)
}

// formats finds out formats and makes readers of them.
type formats struct {
	set  *format.Set
	opts *Options
}

// detect returns the name of the format of a file.
func (f formats) detect(path string, sample []byte) string {
	return f.set.Detect(path, sample).Name()
}

// reader makes a reader of a format; state is that of an earlier one, or nil.
func (f formats) reader(name, zone string, mod time.Time, state []byte) (framer, error) {
	form, ok := f.set.Lookup(name)
	if !ok {
		return nil, failure.Errorf(failure.Usage, "there is no format %q", name)
	}
	o := format.ReaderOptions{Host: f.opts.Host, Zone: f.opts.Zone, ModTime: mod, Now: f.opts.Now(), State: state}
	if zone != "" {
		z, err := time.LoadLocation(zone)
		if err != nil {
			return nil, failure.Wrap(failure.Usage, fmt.Errorf("time zone %q: %w", zone, err))
		}
		o.Zone = z
	}
	return form.NewReader(o), nil
}

// check says what is wrong with the format and the zone of a spec.
func (f formats) check(s *Spec) error {
	if s.Format == "" {
		if s.Zone == "" {
			return nil
		}
		_, err := time.LoadLocation(s.Zone)
		return failure.Wrap(failure.Usage, err)
	}
	_, err := f.reader(s.Format, s.Zone, time.Time{}, nil)
	return err
}
