package host

import (
	"sync"
	"time"
)

// allowance is a token bucket: so many at once, and so many a second.
type allowance struct {
	burst, perSecond float64
	now              func() time.Time

	mu   sync.Mutex
	left float64
	at   time.Time
}

func newAllowance(burst, perSecond float64, now func() time.Time) *allowance {
	if now == nil {
		now = time.Now
	}
	return &allowance{burst: burst, perSecond: perSecond, now: now, left: burst, at: now()}
}

// take takes n, and reports whether there were as many.
func (a *allowance) take(n float64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	a.left = min(a.burst, a.left+now.Sub(a.at).Seconds()*a.perSecond)
	a.at = now
	if a.left < n {
		return false
	}
	a.left -= n
	return true
}
