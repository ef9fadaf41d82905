package repo

import (
	"fmt"
	"math"
	"testing"
)

const manyHosts = 100000

func hostID(n int) string { return fmt.Sprintf("%032x", n*2654435761) }

// The positions of many hosts are spread evenly, and a percentage hits that many
// of them.
func TestRolloutIsUniform(t *testing.T) {
	const bins = 100
	for _, salt := range []string{"platform-2.4.1", "platform-2.4.2", "x"} {
		var count [bins]float64
		in := 0
		for n := range manyHosts {
			ok, pos := Rollout{12.5, salt}.Includes(hostID(n))
			if pos < 0 || pos >= Positions {
				t.Fatalf("position %d", pos)
			}
			count[pos*bins/Positions]++
			if ok {
				in++
			}
		}
		// 99 degrees of freedom: a chi-squared above 161 happens once in 10,000
		// times, and here always or never.
		chi := 0.0
		for _, c := range count {
			chi += (c - manyHosts/bins) * (c - manyHosts/bins) / (manyHosts / bins)
		}
		if chi > 161 {
			t.Errorf("%s: chi-squared %.1f", salt, chi)
		}
		if share := float64(in) / manyHosts; math.Abs(share-0.125) > 0.004 {
			t.Errorf("%s: %.4f of the hosts at 12.5 %%", salt, share)
		}
	}
}

// Who was included stays so while the percentage grows; nobody at 0, everybody
// at 100.
func TestRolloutIsMonotonous(t *testing.T) {
	steps := []float64{0, 0.01, 0.29, 1, 9.99, 10, 20, 33.33, 50, 99.99, 100}
	for n := range manyHosts {
		was := false
		for _, percent := range steps {
			in, pos := Rollout{percent, "platform-2.4.1"}.Includes(hostID(n))
			if was && !in {
				t.Fatalf("host %d (position %d) was included before %v %%", n, pos, percent)
			}
			if in != (float64(pos) < math.Round(percent*100)) {
				t.Fatalf("host %d at position %d, %v %%: %v", n, pos, percent, in)
			}
			was = in
		}
		if !was {
			t.Fatalf("host %d is left out at 100 %%", n)
		}
	}
}

// Another release begins with other hosts.
func TestRolloutPicksOthersForAnotherRelease(t *testing.T) {
	both, first := 0, 0
	for n := range manyHosts {
		a, _ := Rollout{10, "platform-2.4.1"}.Includes(hostID(n))
		b, _ := Rollout{10, "platform-2.4.2"}.Includes(hostID(n))
		if a {
			first++
			if b {
				both++
			}
		}
	}
	if share := float64(both) / float64(first); share < 0.08 || share > 0.12 {
		t.Errorf("%.3f of the hosts that were first are so again, which would be 0.1 by chance", share)
	}
}

// The hash is part of the format: hosts of all versions must agree.
func TestRolloutIsStable(t *testing.T) {
	for id, want := range map[string]int{"": 1431, "0123456789abcdef0123456789abcdef": 8888, "host": 6498} {
		if _, pos := (Rollout{10, "platform-2.4.1"}).Includes(id); pos != want {
			t.Errorf("host %q has the position %d, not %d", id, pos, want)
		}
	}
	// The length of the salt is part of it: salt and host do not run together.
	_, a := Rollout{10, "ab"}.Includes("c")
	_, b := Rollout{10, "a"}.Includes("bc")
	if a == b {
		t.Error("salt and host run together")
	}
}
