//go:build goexperiment.jsonv2

package trivy

import (
	"bytes"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// meter counts what has been looked at.
type meter struct {
	files, bytes     atomic.Int64
	special, pattern atomic.Int64
	stage, item      atomic.Pointer[string]
}

const reportEvery = 250 * time.Millisecond

func (m *meter) set(stage string) { m.stage.Store(&stage) }

func (m *meter) look(path string) { m.item.Store(&path) }

// at returns what was looked at last.
func (m *meter) at() string {
	if p := m.item.Load(); p != nil {
		return *p
	}
	return ""
}

func (m *meter) progress() protocol.Progress {
	// The stage first: what is counted in one is in every line of the next.
	p := protocol.Progress{Stage: "walk"}
	if s := m.stage.Load(); s != nil {
		p.Stage = *s
	}
	p.Files, p.Bytes, p.Item = m.files.Load(), m.bytes.Load(), m.at()
	return p
}

// report calls progress now and then until stop is called; stop may be called again.
func (m *meter) report(progress func(protocol.Progress)) (stop func()) {
	if progress == nil {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(reportEvery)
		defer tick.Stop()
		progress(m.progress())
		for {
			select {
			case <-quit:
				progress(m.progress())
				return
			case <-tick.C:
				progress(m.progress())
			}
		}
	}()
	return sync.OnceFunc(func() { close(quit); <-done })
}

// peakMemory returns the largest resident size of this process in bytes (VmHWM of
// proc_pid_status(5)), or 0 where nobody tells.
func peakMemory() int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			if f := bytes.Fields(rest); len(f) > 0 {
				n, _ := strconv.ParseInt(string(f[0]), 10, 64)
				return n * 1024
			}
		}
	}
	return 0
}
