package rate

import (
	"testing"
	"time"
)

func TestEachKeyHasItsOwn(t *testing.T) {
	now := time.Unix(1000, 0)
	l := New[string](2, 4, 10)
	take := func(key string) (n int) {
		for l.Allow(key, now) {
			n++
		}
		return n
	}
	if n := take("a"); n != 4 {
		t.Errorf("a burst of %d, want 4", n)
	}
	if n := take("b"); n != 4 {
		t.Errorf("another key has %d, want 4", n)
	}
	now = now.Add(time.Second)
	if n := take("a"); n != 2 {
		t.Errorf("after a second %d, want 2", n)
	}
	now = now.Add(-time.Hour) // the clock is set back
	if n := take("a"); n != 0 {
		t.Errorf("an hour earlier %d, want none", n)
	}
}

func TestInventedKeysShareABucket(t *testing.T) {
	now := time.Unix(1000, 0)
	l := New[int](1, 2, 8)
	allowed := 0
	for key := range 1000 {
		if l.Allow(key, now) {
			allowed++
		}
	}
	if want := 8 + 2; allowed != want {
		t.Errorf("%d invented keys were allowed, want %d", allowed, want)
	}
	if len(l.buckets) != 8 {
		t.Errorf("%d keys are remembered, want 8", len(l.buckets))
	}
	now = now.Add(time.Minute)
	if !l.Allow(5000, now) || len(l.buckets) != 1 {
		t.Errorf("%d keys are remembered after they had filled up", len(l.buckets))
	}
}
