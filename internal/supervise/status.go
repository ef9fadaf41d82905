package supervise

import (
	"maps"
	"math"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// State is what a service is doing.
type State string

// The states. A service is Stopped before it is started for the first time,
// after it was stopped, and when it ended in a way that its policy accepts.
const (
	Starting   State = "starting"    // waits for others, is being started, or is not ready yet
	Ready      State = "ready"       // works
	Stopping   State = "stopping"    // was told to end, and has not yet
	Stopped    State = "stopped"     // does not run, and nobody wants it to
	BackingOff State = "backing-off" // ended, and waits before it is started again
	Failed     State = "failed"      // ended, and is not started again
)

// settled reports whether nothing happens in this state by itself, except that
// the process ends.
func (s State) settled() bool { return s == Ready || s == Stopped || s == Failed }

// Status is how a service is.
type Status struct {
	Name     string     `json:"name"`
	State    State      `json:"state"`
	Since    time.Time  `json:"since"`             // of the state
	PID      int        `json:"pid,omitempty"`     // main process, while there is one
	Started  *time.Time `json:"started,omitempty"` // when that was started
	Restarts int        `json:"restarts"`          // since somebody asked for the service
	Exit     *Exit      `json:"exit,omitempty"`    // how the last process ended
	Message  string     `json:"message,omitempty"` // why it is in this state; not escaped
	Next     *time.Time `json:"next,omitempty"`    // when it is started again, while it backs off
	Health   *Health    `json:"health,omitempty"`  // as its owner last said
	Dropped  uint64     `json:"dropped,omitempty"` // lines that could not be written to the log
	Last     []Line     `json:"last,omitempty"`    // last lines of the log, when it failed or backs off
}

// Health is what the owner of a service knows of it beyond that it runs.
type Health struct {
	Status  string             `json:"status"` // ok, degraded, failing
	Message string             `json:"message,omitempty"`
	Metrics map[string]float64 `json:"metrics,omitempty"`
}

// Limits of what a service can say of its health.
const (
	maxHealthMessage = 1024 // bytes
	maxMetrics       = 128
	maxMetricName    = 64 // bytes
)

func (h Health) check() error {
	bad := func(format string, args ...any) error {
		return failure.Errorf(failure.Usage, "health: "+format, args...)
	}
	switch h.Status {
	case "ok", "degraded", "failing":
	default:
		return bad("status is %q (it is one of ok, degraded, failing)", h.Status)
	}
	if len(h.Message) > maxHealthMessage {
		return bad("the message has more than %d bytes", maxHealthMessage)
	}
	if len(h.Metrics) > maxMetrics {
		return bad("more than %d metrics", maxMetrics)
	}
	for name, value := range h.Metrics {
		if name == "" || len(name) > maxMetricName {
			return bad("the name of a metric has 1 to %d bytes", maxMetricName)
		}
		if math.IsNaN(value) || math.IsInf(value, 0) {
			return bad("metric %q is not a number", name)
		}
	}
	return nil
}

// copy returns a status that shares nothing that changes.
func (s Status) copy() Status {
	if s.Health != nil {
		h := *s.Health
		h.Metrics = maps.Clone(h.Metrics)
		s.Health = &h
	}
	return s
}
