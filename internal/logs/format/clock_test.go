package format

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// TestYearsOfRandomFiles writes files of up to eleven months, with gaps and some
// disorder, in several zones, as syslog does, without a year; and reads them in
// one go, or with a restart in the middle.
func TestYearsOfRandomFiles(t *testing.T) {
	f, _ := builtinSet(t).Lookup("syslog")
	rnd := rand.New(rand.NewPCG(7, 8))
	for _, name := range []string{"UTC", "Europe/Berlin", "America/New_York", "Pacific/Auckland", "Asia/Kathmandu"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		for range 300 {
			end := time.Date(2000+rnd.IntN(30), time.Month(1+rnd.IntN(12)), 1+rnd.IntN(31), rnd.IntN(24), rnd.IntN(60), rnd.IntN(60), 0, time.UTC)
			var want []int64
			for range 2 + rnd.IntN(40) {
				want = append(want, end.Unix()-rnd.Int64N(int64(1+rnd.IntN(330))*86400))
			}
			slices.Sort(want)
			for i := 1; i < len(want); i++ { // relays and threads write out of order
				if rnd.IntN(10) == 0 && want[i]-want[i-1] < 86400 {
					want[i-1], want[i] = want[i], want[i-1]
				}
			}
			// An hour that is there twice cannot be told apart in disorder.
			want = slices.DeleteFunc(want, func(u int64) bool {
				wall := time.Unix(u, 0).In(zone).Format(time.DateTime)
				return time.Unix(u-3600, 0).In(zone).Format(time.DateTime) == wall || time.Unix(u+3600, 0).In(zone).Format(time.DateTime) == wall
			})
			var text []byte
			for _, u := range want {
				text = time.Unix(u, 0).In(zone).AppendFormat(text, "Jan _2 15:04:05 h p: m\n")
			}
			o := ReaderOptions{Zone: zone, ModTime: end, Now: end.Add(time.Duration(rnd.IntN(3000)) * time.Hour)}
			recs, _ := f.NewReader(o).Next(nil, text, true)
			half := 0
			if len(text) > 0 {
				half = rnd.IntN(len(text))
			}
			r := f.NewReader(o)
			split, n := r.Next(nil, text[:half], false)
			o.State = r.State()
			rest, _ := f.NewReader(o).Next(nil, text[n:], true)
			if split = append(split, rest...); !slices.EqualFunc(recs, split, sameRecord) {
				t.Fatalf("%s: a restart after %d bytes makes a difference in\n%s", name, half, text)
			}
			for i, rec := range recs {
				if rec.Time != want[i]*1e9 || rec.Clock != event.ClockYear {
					t.Fatalf("%s, changed %s: record %d is of %s (%v), not %s, in\n%s", name, end, i+1, rec.When(), rec.Clock, time.Unix(want[i], 0).UTC(), text)
				}
			}
		}
	}
}

// TestZonesAgainstTime converts random times of the clock on the wall in zones
// of all kinds: what comes out shows that time, unless there is none.
func TestZonesAgainstTime(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 10))
	for _, name := range []string{"UTC", "Europe/Berlin", "Europe/Dublin", "America/Sao_Paulo", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca", "Asia/Tehran"} {
		loc, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		z := zoneRange{loc: loc}
		for range 20000 {
			u := rnd.Int64N(2e9)
			if _, end := time.Unix(u, 0).In(loc).ZoneBounds(); !end.IsZero() && rnd.IntN(2) == 0 {
				u = end.Unix() - 3*86400 + rnd.Int64N(6*86400) // around a change
			}
			at := time.Unix(u, 0).In(loc)
			_, offset := at.Zone()
			first, second := z.unix(u + int64(offset))
			if first != u && second != u {
				t.Fatalf("%s: %s is %d or %d, not %d", name, at, first, second, u)
			}
		}
	}
}
