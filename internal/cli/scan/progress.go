package scan

import (
	"sync/atomic"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/ui"
)

// progress shows how far mobileops-scan has come.
type progress struct {
	files, bytes atomic.Int64
	bar          *ui.Progress
}

func newProgress(a *app.App, label string) *progress {
	p := new(progress)
	p.bar = a.Streams.Progress(label, func() ui.Counters { return ui.Counters{Files: p.files.Load(), Bytes: p.bytes.Load()} })
	return p
}

func (p *progress) take(at protocol.Progress) {
	p.files.Store(at.Files)
	p.bytes.Store(at.Bytes)
}

func (p *progress) stop() { p.bar.Stop() }
