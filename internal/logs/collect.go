package logs

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/format"
	"github.com/mobileops/mobileops/internal/logs/source"
	"github.com/mobileops/mobileops/internal/logs/store"
)

// CollectOptions say what is collected.
type CollectOptions struct {
	Specs   []source.Spec
	Formats *format.Set
	Reading source.Options
	// Follow goes on until the context ends.
	Follow bool
	// Notice is told what an operator should know at once; nil: nobody is.
	Notice func(format string, args ...any)
	// Watch is called about once a second with how it stands; nil: never.
	Watch func([]source.Status)
}

// tickEvery is how often a collector that follows looks whether segments or
// seals are due, and says how it stands.
const tickEvery = 2 * time.Second

// Collected is what collecting did.
type Collected struct {
	source.Report
	Recovery store.Recovery `json:"-"` // what a process that died had left
}

// Collect reads the sources into the store. What is interrupted goes on later
// where it ended: cursors are kept together with the records.
func Collect(ctx context.Context, s *store.Store, o CollectOptions) (done Collected, err error) {
	w, err := s.Writer(ctx)
	if err != nil {
		return done, err
	}
	defer func() {
		if cerr := w.Close(); err == nil {
			err = cerr
		}
	}()
	done.Recovery = w.Recovery()
	c, err := source.New(o.Specs, o.Formats, w, o.Reading)
	if err != nil {
		return done, err
	}
	if o.Notice == nil {
		o.Notice = func(string, ...any) {}
	}
	state := Collector{PID: os.Getpid(), Started: time.Now().UTC(), Follow: o.Follow}
	news := news{notice: o.Notice}
	tick := func() {
		if err := w.Tick(context.WithoutCancel(ctx)); err != nil {
			o.Notice("%v", err)
		}
		state.Sources, state.Problems = c.Status(), unread(c.Problems())
		if o.Follow { // else the report says it
			news.tell(state.Sources, state.Problems)
		}
		state.write(s)
	}
	stop := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() {
		t := time.NewTicker(tickEvery)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				tick()
				if o.Watch != nil {
					o.Watch(c.Status())
				}
			case <-stop:
				return
			}
		}
	})
	if o.Follow {
		err = c.Follow(ctx)
		done.Sources = c.Status()
	} else {
		done.Report, err = c.Once(ctx)
	}
	close(stop)
	ticking.Wait()
	state.Ended = time.Now().UTC()
	if err == nil && !o.Follow {
		// What was read at once is often much, and nobody comes soon to make
		// segments of it.
		err = w.Flush(context.WithoutCancel(ctx))
	}
	tick()
	return done, err
}

// Collector is what a collecting process tells of itself, in a file beside the
// store.
type Collector struct {
	Schema  string          `json:"schema"`
	PID     int             `json:"pid"`
	Follow  bool            `json:"follow"`
	Started time.Time       `json:"started"`
	Written time.Time       `json:"written"`
	Ended   time.Time       `json:"ended,omitzero"`
	Sources []source.Status `json:"sources"`
	// Problems are what is to be read and is not, for another reason than that
	// nobody wants it.
	Problems []source.Problem `json:"problems"`
}

// unread leaves out what is not read on purpose.
func unread(list []source.Problem) []source.Problem {
	return slices.DeleteFunc(list, func(p source.Problem) bool { return p.Skipped })
}

const collectorSchema = "mobileops.logs.collector/v1"

func collectorFile(s *store.Store) string { return filepath.Join(s.Dir(), "collector.json") }

// write tells how it stands. It is for people who look: that it could not be
// written is no reason to stop.
func (c *Collector) write(s *store.Store) {
	c.Schema, c.Written = collectorSchema, time.Now().UTC()
	data, err := json.Marshal(c)
	if err != nil {
		return
	}
	tmp := collectorFile(s) + ".new"
	if os.WriteFile(tmp, data, 0o600) == nil {
		_ = os.Rename(tmp, collectorFile(s))
	}
}

// LastCollector returns what the last collecting process said of itself, or
// nil when there was none.
func LastCollector(s *store.Store) (*Collector, error) {
	data, err := os.ReadFile(collectorFile(s))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c := new(Collector)
	if err := json.Unmarshal(data, c); err != nil || c.Schema != collectorSchema {
		return nil, failure.Errorf(failure.Untrustworthy, "%s is not what a collector writes", collectorFile(s))
	}
	return c, nil
}
