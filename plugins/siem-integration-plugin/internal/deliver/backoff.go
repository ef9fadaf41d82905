package deliver

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// maxRetryAfter bounds what a receiver may ask us to wait.
const maxRetryAfter = time.Hour

// backoff is how long to wait before the next attempt: twice as long each
// time, and by chance up to half of that less, so that many hosts do not come
// back to a receiver at once.
type backoff struct {
	least, most time.Duration
	failures    int
}

func newBackoff(c Config) backoff {
	return backoff{least: time.Duration(c.RetryMin), most: time.Duration(c.RetryMax)}
}

func (b *backoff) next() time.Duration {
	wait := b.most
	if b.failures < 30 && b.least<<b.failures < b.most {
		wait = b.least << b.failures
	}
	b.failures++
	return wait/2 + rand.N(wait/2+1)
}

func (b *backoff) reset() { b.failures = 0 }

// retryAfter reads the header of that name, seconds or a date (RFC 9110
// section 10.2.3). Zero: it says nothing.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if s, err := strconv.ParseUint(v, 10, 31); err == nil {
		return min(time.Duration(s)*time.Second, maxRetryAfter)
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, min(at.Sub(now), maxRetryAfter))
	}
	return 0
}
