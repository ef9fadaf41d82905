package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
	"github.com/mobileops/mobileops/plugins/siem-integration-plugin/internal/deliver"
	"github.com/mobileops/mobileops/plugins/siem-integration-plugin/internal/queue"
)

const (
	batchEvents  = 1000            // of the host, in one sync of the queue
	finishWithin = 6 * time.Second // after SIGTERM; stop_timeout is longer
	statusEvery  = time.Second
	healthEvery  = 10 * time.Second
	memoryLimit  = 384 << 20 // from where on the collector of garbage works harder; plugin.yaml allows more
	troubled     = 3         // attempts in a row that failed, before health says so
)

// service is the running forwarder.
type service struct {
	client       *pluginsdk.Client
	q            *queue.Queue
	in           *intake
	destinations []*deliver.Destination
	started      time.Time

	health     pluginsdk.Health // what the host was told last
	healthSent time.Time
}

// report is the status file, which the status command shows.
type report struct {
	Schema       string           `json:"schema"`
	PID          int              `json:"pid"`
	Started      time.Time        `json:"started"`
	Written      time.Time        `json:"written"`
	Full         bool             `json:"full"` // the queue is; the host waits
	Queue        queue.Status     `json:"queue"`
	Destinations []deliver.Status `json:"destinations"`
}

const reportSchema = "mobileops.siem-integration-plugin.status/v1"

// serve forwards until it is told to stop.
func serve(ctx context.Context, client *pluginsdk.Client, _ []string, _ map[string]string) error {
	debug.SetMemoryLimit(memoryLimit)
	config, err := configured(ctx, client)
	if err != nil {
		_ = client.Health(pluginsdk.Health{Status: pluginsdk.StatusFailing, Message: oneLine(err.Error())})
		return err
	}
	s := &service{client: client, started: time.Now()}
	if s.q, err = queue.Open(filepath.Join(dataDir(), "queue"), int64(config.QueueSize), config.names()); err != nil {
		return err
	}
	defer s.q.Close()
	s.in = &intake{q: s.q}
	for i, c := range config.Destinations {
		d, err := deliver.New(c, config.options(client, i), s.q.Cursor(c.Name))
		if err != nil {
			_ = client.Health(pluginsdk.Health{Status: pluginsdk.StatusFailing, Message: oneLine(err.Error())})
			return &failure{statusNotReady, err}
		}
		s.destinations = append(s.destinations, d)
	}
	return s.run(ctx, pluginsdk.Subscription{Types: config.wanted(), From: pluginsdk.FromSaved, Batch: batchEvents})
}

func (s *service) run(ctx context.Context, sub pluginsdk.Subscription) error {
	soft, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	hard, cut := context.WithCancel(context.Background())
	defer cut()
	context.AfterFunc(soft, func() { time.AfterFunc(finishWithin, cut) })

	var running sync.WaitGroup
	for _, d := range s.destinations {
		running.Go(func() {
			if err := d.Run(soft, hard); err != nil {
				stop(fmt.Errorf("destination %s: %w", d.Name(), err))
			}
		})
	}
	told := make(chan struct{})
	go func() {
		defer close(told)
		s.tell(hard)
	}()
	err := s.client.Ready(soft)
	if err == nil {
		err = s.client.Subscribe(soft, sub, s.in.take)
	}
	if cause := context.Cause(soft); cause != nil && errors.Is(err, context.Canceled) {
		err = nil
		if !errors.Is(cause, context.Canceled) {
			err = cause
		}
	}
	// What is in the queue is safe. What is under way gets a chance to arrive.
	stop(nil)
	running.Wait()
	cut()
	<-told
	return errors.Join(err, s.q.Sync(), s.write())
}

// tell keeps the status file and the health up to date.
func (s *service) tell(ctx context.Context) {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for {
		_ = s.q.Sync()
		_ = s.write()
		s.tellHealth()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *service) report() report {
	r := report{Schema: reportSchema, PID: os.Getpid(), Started: s.started, Written: time.Now(), Full: s.in.full.Load(), Queue: s.q.Status()}
	for _, d := range s.destinations {
		r.Destinations = append(r.Destinations, d.Status(r.Queue.Behind[d.Name()]))
	}
	return r
}

// write writes the status file. It need not survive a power cut.
func (s *service) write() error {
	b, err := json.MarshalIndent(s.report(), "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(statusPath()+".new", append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(statusPath()+".new", statusPath())
}

// tellHealth tells the host how we are, when that changed or it is time.
func (s *service) tellHealth() {
	r := s.report()
	h := pluginsdk.Health{Status: pluginsdk.StatusOK, Metrics: map[string]float64{"queued": float64(r.Queue.Records), "queue_bytes": float64(r.Queue.Bytes)}}
	var troubles []string
	if r.Full {
		troubles = append(troubles, "the queue is full, and events wait at the host")
	}
	if r.Queue.Corrupt > 0 {
		troubles = append(troubles, fmt.Sprintf("%d damaged records of the queue were skipped", r.Queue.Corrupt))
	}
	for _, d := range r.Destinations {
		h.Metrics["delivered."+d.Name] = float64(d.Delivered)
		h.Metrics["dead_letters."+d.Name] = float64(d.DeadLetters)
		if d.Failing >= troubled {
			troubles = append(troubles, d.Name+": "+d.LastError)
		} else if d.DeadLetters > 0 {
			troubles = append(troubles, fmt.Sprintf("%s: %d dead letters", d.Name, d.DeadLetters))
		}
	}
	if len(troubles) > 0 {
		h.Status, h.Message = pluginsdk.StatusDegraded, oneLine(strings.Join(troubles, "; "))
	}
	if h.Status == s.health.Status && h.Message == s.health.Message && time.Since(s.healthSent) < healthEvery {
		return
	}
	s.health, s.healthSent = h, time.Now()
	_ = s.client.Health(h) // a host that is gone ends the subscription
}

// oneLine is text for a line of the status, whatever a receiver said.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "") + "…"
	}
	return s
}
