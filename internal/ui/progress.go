package ui

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Counters say how far an operation has come. An engine adds to them, and a
// Progress reads them.
type Counters struct {
	Bytes, Files           int64
	TotalBytes, TotalFiles int64  // 0: not known yet
	Current                string // what is being worked on, such as a path
}

const (
	progressDelay    = time.Second            // what ends earlier needs no progress
	progressInterval = 100 * time.Millisecond // at most ten times a second
)

// Progress shows on Err how far an operation has come, on one line that it
// draws again and again.
type Progress struct {
	s    *Streams
	stop chan struct{}
	done chan struct{}
	once sync.Once

	label   string
	read    func() Counters
	started time.Time
	last    time.Time
	lastN   int64
	rate    float64 // bytes a second, or files when no bytes are counted; smoothed
}

// Progress begins to show how far an operation has come, from what read
// returns, once it takes longer than a second. It shows nothing when Err is no
// terminal that can redraw a line, or under --quiet. Stop must be called
// before anything else is printed.
func (s *Streams) Progress(label string, read func() Counters) *Progress {
	return s.progress(label, read, progressDelay, progressInterval)
}

func (s *Streams) progress(label string, read func() Counters, delay, interval time.Duration) *Progress {
	p := &Progress{s: s, label: label, read: read, stop: make(chan struct{}), done: make(chan struct{})}
	if !s.ErrTTY || s.Dumb || s.Quiet {
		close(p.done)
		return p
	}
	p.started = time.Now()
	p.last = p.started
	go p.run(delay, interval)
	return p
}

// Stop removes the line. It may be called more than once.
func (p *Progress) Stop() {
	p.once.Do(func() { close(p.stop) })
	<-p.done
}

// eraseLine goes to the beginning of the line and clears it (ECMA-48 EL).
const eraseLine = "\r\x1b[K"

func (p *Progress) run(delay, interval time.Duration) {
	defer close(p.done)
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		select {
		case <-p.stop:
			p.s.line.set(p.s.Err, "")
			return
		case now := <-timer.C:
			p.s.line.set(p.s.Err, p.draw(p.read(), now, p.s.errWidth()))
			timer.Reset(interval)
		}
	}
}

// draw returns the line, narrower than the terminal so that it never wraps.
func (p *Progress) draw(c Counters, now time.Time, width int) string {
	n, totalN := c.Bytes, c.TotalBytes
	if n == 0 && totalN == 0 {
		n, totalN = c.Files, c.TotalFiles
	}
	p.measure(n, now)
	parts := []string{p.label}
	of := func(n, total int64, show func(int64) string) string {
		if total > 0 {
			return show(n) + " of " + show(total)
		}
		return show(n)
	}
	if c.Files > 0 || c.TotalFiles > 0 {
		parts = append(parts, of(c.Files, c.TotalFiles, Count)+" files")
	}
	if c.Bytes > 0 || c.TotalBytes > 0 {
		parts = append(parts, of(c.Bytes, c.TotalBytes, Bytes))
		if p.rate >= 1 {
			parts = append(parts, Bytes(int64(p.rate))+"/s")
		}
	}
	if left := totalN - n; totalN > 0 && left >= 0 && p.rate > 0 {
		if seconds := float64(left) / p.rate; seconds < 100*3600 {
			parts = append(parts, Duration(time.Duration(seconds*float64(time.Second)).Round(time.Second))+" left")
		}
	}
	line := cut(strings.Join(parts, "  "), width-1, false)
	if room := width - 1 - columns(line) - 2; c.Current != "" && room >= 16 {
		line += "  " + p.s.ErrTheme().Faint(cut(Escape(c.Current), room, true))
	}
	return line
}

// measure smooths the rate over about three seconds: a number that jumps
// cannot be read.
func (p *Progress) measure(n int64, now time.Time) {
	passed := now.Sub(p.last).Seconds()
	if passed <= 0 {
		return
	}
	current := float64(n-p.lastN) / passed
	weight := min(passed/3, 1)
	if p.rate == 0 {
		weight = 1
	}
	p.rate += weight * (current - p.rate)
	p.last, p.lastN = now, n
}

// Notice prints a line to Err that is not a result, above a progress that is
// being shown.
func (s *Streams) Notice(format string, args ...any) {
	s.line.mu.Lock()
	defer s.line.mu.Unlock()
	text := Printable(fmt.Sprintf(format, args...)) + "\n"
	if s.line.shown != "" {
		text = eraseLine + text + s.line.shown
	}
	io.WriteString(s.Err, text)
}

// statusLine is the line at the bottom that a Progress draws.
type statusLine struct {
	mu    sync.Mutex
	shown string
}

func (l *statusLine) set(w io.Writer, line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if line == l.shown {
		return
	}
	l.shown = line
	// One write, so that nothing flickers.
	io.WriteString(w, eraseLine+line)
}

// errWidth is the width that Err has now; a window may have been resized.
func (s *Streams) errWidth() int {
	if f, ok := s.Err.(*os.File); ok && !s.fixedWidth {
		if w := terminalWidth(f); w > 0 {
			return w
		}
	}
	if s.Width > 0 {
		return s.Width
	}
	return 80
}
