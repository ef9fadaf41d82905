package config

import (
	"testing"
	"time"
)

func TestDeadlinesOfUpdates(t *testing.T) {
	for in, want := range map[string]string{"30d": "30d", "none": "none", "NONE": "none", "36h": "36h0m0s", "7d12h": "180h0m0s", "0s": "", "": "", "-1d": "", "4000d": "", "soon": ""} {
		d, err := parseDeadline(in)
		if (want == "") != (err != nil) || err == nil && deadlineText(d) != want {
			t.Errorf("%q is %s (%v), not %q", in, d, err, want)
		}
	}
	l, err := Load(Sources{Getenv: env(map[string]string{"HOME": t.TempDir()}), UID: 1})
	if err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	if got := l.Config.Update.SLA; got != (SLA{Critical: 30 * day, High: 30 * day, Medium: 90 * day, Debian: "high", ListsAge: 7 * day}) {
		t.Errorf("%+v", got)
	}
}
