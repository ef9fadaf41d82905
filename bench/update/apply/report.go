package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"time"
)

// measured is one line of what is measured. Times are medians of the rounds.
type measured struct {
	What   string  `json:"what"` // apply, rollback
	Way    string  `json:"way"`
	Kind   string  `json:"package,omitempty"`
	Format string  `json:"format,omitempty"`
	Rounds int     `json:"rounds"`
	Wall   float64 `json:"wall_s"`
	Min    float64 `json:"wall_min_s"`
	P90    float64 `json:"wall_p90_s"`
	CPU    float64 `json:"cpu_s"`
	RSS    int64   `json:"max_rss_kib"`
}

// amount is one line of what is not a time.
type amount struct {
	What  string `json:"what"` // disk, memory
	Of    string `json:"of"`
	Bytes int64  `json:"bytes"`
}

// target is what was promised and what came of it. Ratio is of wall time, CPU of
// processor time.
type target struct {
	What   string  `json:"what"` // "target"
	Of     string  `json:"of"`
	AtMost float64 `json:"at_most"`
	Is     float64 `json:"is"`
	CPU    float64 `json:"is_of_cpu,omitempty"`
	Met    bool    `json:"met"`
}

func (b *bench) report() error {
	if err := b.reportTimes("apply", b.ways); err != nil {
		return err
	}
	var back []*way
	for _, name := range []string{"floor", "mobileops", "ostree", "script"} {
		if w := b.back[name]; w != nil {
			back = append(back, w)
		}
	}
	if err := b.reportTimes("rollback", back); err != nil {
		return err
	}
	for _, w := range b.ways {
		if w.who == "mobileops" && len(w.runs) > 0 {
			b.peaks[fmt.Sprintf("%d files, %d MB, %s, %s", b.files, b.size/1e6, w.kind, w.format)] = slices.MaxFunc(w.runs, func(a, b sample) int { return int(a.rss - b.rss) }).rss
		}
	}
	for _, list := range []struct {
		what  string
		of    map[string]int64
		bytes int64 // in one
	}{{"disk", b.disk, 1}, {"memory", b.peaks, 1 << 10}} {
		for _, of := range slices.Sorted(maps.Keys(list.of)) {
			n := list.of[of] * list.bytes
			if err := b.out.Encode(amount{list.what, of, n}); err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "%-8s %-60s %8.1f MB\n", list.what, of, float64(n)/1e6)
		}
	}
	if err := b.targets(); err != nil {
		return err
	}
	for _, peer := range slices.Sorted(maps.Keys(b.missing)) {
		fmt.Fprintf(os.Stderr, "not measured: %s: %s\n", peer, b.missing[peer])
		if err := b.out.Encode(map[string]string{"what": "not measured", "of": peer, "reason": b.missing[peer]}); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) reportTimes(what string, ways []*way) error {
	unit, scale := "s", 1.0
	if what == "rollback" {
		unit, scale = "ms", 1e3
	}
	first := true
	for _, w := range ways {
		if len(w.runs) == 0 {
			continue
		}
		if first {
			fmt.Fprintf(os.Stderr, "%-44s %9s %9s %9s %9s %8s\n", what+", "+unit, "median", "min", "p90", "cpu", "MiB")
			first = false
		}
		var walls []time.Duration
		for _, r := range w.runs {
			walls = append(walls, r.wall)
		}
		slices.Sort(walls)
		m := measured{what, w.who, w.kind, w.format, len(walls), walls[len(walls)/2].Seconds(), walls[0].Seconds(), walls[len(walls)*9/10].Seconds(),
			median(w.runs, cpu).Seconds(), median(w.runs, rss)}
		if err := b.out.Encode(m); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%-44s %9.2f %9.2f %9.2f %9.2f %8d\n", w.name(), m.Wall*scale, m.Min*scale, m.P90*scale, m.CPU*scale, m.RSS>>10)
	}
	return nil
}

// targets holds what was measured against what was promised.
func (b *bench) targets() error {
	tell := func(t target) error {
		t.What = "target"
		t.Met = t.Is <= t.AtMost
		word := "met"
		if !t.Met {
			word = "MISSED"
		}
		cpu := ""
		if t.CPU > 0 {
			cpu = fmt.Sprintf("%.3f of processor time", t.CPU)
		}
		fmt.Fprintf(os.Stderr, "%-62s %8.3f, at most %6.2f: %-6s %s\n", t.Of, t.Is, t.AtMost, word, cpu)
		return b.out.Encode(t)
	}
	compare := func(ours, theirs *way, atMost float64) error {
		if ours == nil || theirs == nil {
			return nil
		}
		return tell(target{Of: ours.name() + " / " + theirs.name(), AtMost: atMost,
			Is:  median(ours.runs, wall).Seconds() / median(theirs.runs, wall).Seconds(),
			CPU: median(ours.runs, cpu).Seconds() / median(theirs.runs, cpu).Seconds()})
	}
	for _, kind := range []string{"full", "overlay"} {
		for _, f := range formats {
			ours := b.done("mobileops", kind, f)
			for _, p := range []struct {
				who    string
				atMost float64
			}{{"script", 0.2}, {"script+sync", 0.2}, {"ostree from tar", 0.6}, {"ostree from dir", 0.6}} {
				if err := compare(ours, b.done(p.who, kind, f), p.atMost); err != nil {
					return err
				}
			}
		}
		if err := compare(b.done("mobileops", kind, "zst"), b.done("mobileops", kind, "gz"), 0.6); err != nil {
			return err
		}
	}
	for _, f := range []string{"xz", "zst"} {
		for _, who := range []string{"dpkg", "dpkg+unsafe-io"} {
			for _, kind := range []string{"full", "overlay"} {
				if err := compare(b.done("mobileops", kind, "zst"), b.done(who, "full", f), 0.35); err != nil {
					return err
				}
			}
		}
	}
	if w := b.back["mobileops"]; w != nil {
		if err := tell(target{Of: "rollback, ms", AtMost: 10, Is: median(w.runs, wall).Seconds() * 1e3}); err != nil {
			return err
		}
	}
	for _, kind := range []string{"full", "overlay"} {
		if n := b.disk["mobileops "+kind]; n > 0 {
			if err := tell(target{Of: "disk, " + kind + " / copies", AtMost: 0.6, Is: float64(n) / float64(b.disk["copies"])}); err != nil {
				return err
			}
		}
	}
	for _, of := range slices.Sorted(maps.Keys(b.peaks)) {
		if err := tell(target{Of: "memory, MiB: " + of, AtMost: 64, Is: float64(b.peaks[of]) / 1024}); err != nil {
			return err
		}
	}
	return nil
}

// done returns a way that was measured.
func (b *bench) done(who, kind, format string) *way {
	for _, w := range b.ways {
		if w.who == who && w.kind == kind && w.format == format && len(w.runs) > 0 {
			return w
		}
	}
	return nil
}
