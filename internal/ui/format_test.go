package ui

import (
	"strings"
	"testing"
	"time"
)

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.00 kB", 1500: "1.50 kB", 9994: "9.99 kB", 9996: "10.0 kB", 99960: "100 kB",
		999499: "999 kB", 999500: "1.00 MB", 64e6: "64.0 MB", 8_800_000_000: "8.80 GB", 1<<63 - 1: "9.22 EB", -2000: "-2.00 kB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 198432: "198,432", 1234567: "1,234,567", -999: "-999", -1000: "-1,000"} {
		if got := Count(n); got != want {
			t.Errorf("Count(%d) = %q, want %q", n, got, want)
		}
	}
	if Plural(1, "file", "files") != "1 file" || Plural(0, "file", "files") != "0 files" || Plural(2000, "file", "files") != "2,000 files" {
		t.Error("Plural")
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ms", 350 * time.Millisecond: "350 ms", 999600 * time.Microsecond: "1.0 s", 2345 * time.Millisecond: "2.3 s",
		9960 * time.Millisecond: "10 s", 42 * time.Second: "42 s", 59600 * time.Millisecond: "1m00s", 252 * time.Second: "4m12s",
		3*time.Hour + 5*time.Minute: "3h05m", 51 * time.Hour: "2d03h", -time.Second: "-1.0 s",
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestAgo(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		time.Second: "just now", 30 * time.Second: "30 seconds ago", 5 * time.Minute: "5 minutes ago", 3 * time.Hour: "3 hours ago",
		72 * time.Hour: "3 days ago", 90 * 24 * time.Hour: "3 months ago", 800 * 24 * time.Hour: "2 years ago", -3 * time.Hour: "in 3 hours",
	} {
		if got := Ago(now.Add(-d), now); got != want {
			t.Errorf("Ago(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestFold(t *testing.T) {
	got := Fold("one two three four\nfive\n\n  kept   as it is\nsix", 14, "> ")
	want := strings.Join([]string{"> one two", "> three four", "> five", "", ">   kept   as it is", "> six", ""}, "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
