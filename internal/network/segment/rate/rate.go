// Package rate bounds how much each of many clients may ask for, with a memory
// that is bounded too: whoever invents clients runs into a bound for all of the
// invented ones together.
//
// Each key has a bucket of tokens, which fills at a steady rate up to a burst.
// A key that is not in the table has a full bucket; so those whose bucket has
// filled up again can be forgotten. When the table is full of others, unknown
// keys share one bucket.
package rate

import (
	"sync"
	"time"
)

// Limiter is the buckets of all keys. It is safe for concurrent use.
type Limiter[K comparable] struct {
	rate  float64 // tokens a second
	burst float64
	max   int

	mu      sync.Mutex
	buckets map[K]*bucket
	rest    bucket
	swept   time.Time
}

type bucket struct {
	tokens float64
	at     time.Time
}

// New returns a limiter that allows each key perSecond events a second, and
// burst at once, and remembers at most max keys. A rate of 0 or less allows
// everything.
func New[K comparable](perSecond, burst float64, max int) *Limiter[K] {
	return &Limiter[K]{rate: perSecond, burst: burst, max: max, buckets: map[K]*bucket{}, rest: bucket{tokens: burst}}
}

// Allow reports whether one more event of the key fits, and counts it if so.
func (l *Limiter[K]) Allow(key K, now time.Time) bool {
	if l.rate <= 0 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[key]
	if b == nil {
		if len(l.buckets) >= l.max {
			l.sweep(now)
		}
		if len(l.buckets) >= l.max {
			b = &l.rest
		} else {
			b = &bucket{l.burst, now}
			l.buckets[key] = b
		}
	}
	b.tokens, b.at = l.filled(b, now), now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// filled is how many tokens a bucket has by now.
func (l *Limiter[K]) filled(b *bucket, now time.Time) float64 {
	return min(l.burst, b.tokens+max(0, now.Sub(b.at).Seconds())*l.rate)
}

// sweep forgets full buckets, at most once a second.
func (l *Limiter[K]) sweep(now time.Time) {
	if d := now.Sub(l.swept); d >= 0 && d < time.Second {
		return
	}
	l.swept = now
	for k, b := range l.buckets {
		if l.filled(b, now) >= l.burst {
			delete(l.buckets, k)
		}
	}
}
