package source

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// Gap is a stretch of a log that is lost: nobody has it any more.
type Gap struct {
	Source  string    `json:"source"` // path of the file, or name of the device or journal
	Time    time.Time `json:"time"`   // when it was noticed
	Bytes   int64     `json:"bytes,omitempty"`
	Records int64     `json:"records,omitempty"`
	Reason  string    `json:"reason"`
}

// maxGaps is how many gaps of one instance are kept for Status; all of them
// are counted.
const maxGaps = 16

// Status is how it stands with one instance of a source.
type Status struct {
	Source  string `json:"source"` // name of the Spec
	Stored  string `json:"stored"` // what its records name as their source: the path of a log, or a container
	Kind    Kind   `json:"kind"`
	Path    string `json:"path"` // of the file, with its other names
	PathB64 []byte `json:"path_b64,omitempty"`
	Format  string `json:"format,omitempty"`
	Packed  string `json:"packed,omitempty"` // how it is compressed

	LagBytes int64         `json:"lag_bytes"`     // that are there and were not taken; of a compressed file its size
	Lag      time.Duration `json:"lag_ns"`        // from the last record kept to the last change, when there is a lag
	Last     time.Time     `json:"last,omitzero"` // of the last record kept by this process
	Records  int64         `json:"records"`       // kept by this process
	Bytes    int64         `json:"bytes"`         // kept by this process
	Rate     float64       `json:"rate"`          // records a second, over about a minute

	Gone     bool   `json:"gone,omitempty"` // it is not to be found; a copy of it may turn up
	Gaps     []Gap  `json:"gaps,omitempty"` // the last ones
	GapCount int64  `json:"gap_count"`
	Error    string `json:"error,omitempty"` // why it is not read further
}

// meter keeps the Status of an instance. It has its own lock, so that looking
// at it waits for nothing.
type meter struct {
	meterMu sync.Mutex
	status  Status
	shown   bool
	rated   time.Time // when Rate was brought up to date
	mod     int64
}

// place notes where the instance is.
func (m *meter) place(source, stored, path, packed string) {
	m.meterMu.Lock()
	defer m.meterMu.Unlock()
	m.shown = true
	m.status.Source, m.status.Stored, m.status.Gone = source, strings.ToValidUTF8(stored, "\uFFFD"), false
	m.status.Path, m.status.PathB64, m.status.Packed = path, nil, packed
	if !utf8.ValidString(path) {
		m.status.PathB64 = []byte(path)
	}
	m.status.Kind = cmp.Or(m.status.Kind, Files)
}

// leave notes that the instance is not to be found.
func (m *meter) leave() {
	m.meterMu.Lock()
	defer m.meterMu.Unlock()
	m.status.Gone, m.status.LagBytes = true, 0
}

// behind notes how much is left to read.
func (m *meter) behind(packed, done bool, left, size, mod int64) {
	if packed {
		left = size
		if done {
			left = 0
		}
	}
	m.meterMu.Lock()
	defer m.meterMu.Unlock()
	m.status.LagBytes, m.mod = max(0, left), mod
}

// trouble notes why the instance is not read further; "" that it is.
func (m *meter) trouble(reason string) {
	m.meterMu.Lock()
	defer m.meterMu.Unlock()
	m.status.Error = reason
}

const rateWindow = time.Minute

// kept notes records that the sink has.
func (m *meter) kept(records []event.Record, bytes int) {
	if len(records) == 0 {
		return
	}
	now := time.Now()
	m.meterMu.Lock()
	defer m.meterMu.Unlock()
	s := &m.status
	s.Records += int64(len(records))
	s.Bytes += int64(bytes)
	if last := records[len(records)-1].When(); last.After(s.Last) {
		s.Last = last
	}
	s.Rate = m.rate(now) + float64(len(records))/rateWindow.Seconds()
	m.rated = now
}

// rate is the rate now: what it was fades with time. m.meterMu is held.
func (m *meter) rate(now time.Time) float64 {
	if m.rated.IsZero() {
		return 0
	}
	return m.status.Rate * math.Exp(-now.Sub(m.rated).Seconds()/rateWindow.Seconds())
}

func (m *meter) lose(g Gap) {
	m.meterMu.Lock()
	defer m.meterMu.Unlock()
	s := &m.status
	s.GapCount++
	if len(s.Gaps) == maxGaps {
		s.Gaps = slices.Delete(s.Gaps, 0, 1)
	}
	s.Gaps = append(s.Gaps, g)
}

// snapshot returns the status, and whether there is one to show.
func (m *meter) snapshot() (Status, bool) {
	m.meterMu.Lock()
	defer m.meterMu.Unlock()
	s := m.status
	s.Gaps = slices.Clone(s.Gaps)
	s.Rate = m.rate(time.Now())
	if s.LagBytes > 0 && !s.Last.IsZero() {
		s.Lag = max(0, time.Unix(0, m.mod).Sub(s.Last))
	}
	return s, m.shown
}

// formatted notes the format.
func (m *meter) formatted(name string) {
	m.meterMu.Lock()
	defer m.meterMu.Unlock()
	m.status.Format = name
}
