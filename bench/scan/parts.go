package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// measured is one line of what is measured, medians of the rounds.
type measured struct {
	What   string  `json:"what"`
	Who    string  `json:"who"`
	Rounds int     `json:"rounds"`
	Wall   float64 `json:"wall_s"`
	CPU    float64 `json:"cpu_s"`
	RSS    int64   `json:"max_rss_bytes"`
	Own    int64   `json:"max_anonymous_bytes"`
}

// ratio is one line of what is compared.
type ratio struct {
	What   string  `json:"what"`
	Is     float64 `json:"is"`
	AtMost float64 `json:"at_most,omitempty"` // 0: nothing was promised
	Met    bool    `json:"met"`
}

// table prints what contenders took, as docs/benchmarks.md has it.
func (b *bench) table(what string, contenders ...*contender) error {
	fmt.Fprintf(os.Stderr, "\n| %s | wall s | CPU s | peak, all | peak, own |\n|---|---|---|---|---|\n", what)
	for _, c := range contenders {
		m := measured{what, c.name, len(c.runs), median(c.runs, wall).Seconds(), median(c.runs, cpu).Seconds(), median(c.runs, rss), median(c.runs, own)}
		if err := b.out.Encode(m); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "| %s | %.2f | %.2f | %d MB | %d MB |\n", c.name, m.Wall, m.CPU, m.RSS/1e6, m.Own/1e6)
	}
	return nil
}

func (b *bench) ratios(list ...ratio) error {
	fmt.Fprint(os.Stderr, "\n| ratio | is | target |\n|---|---|---|\n")
	for _, r := range list {
		r.Met = r.AtMost == 0 || r.Is <= r.AtMost
		target := ""
		if r.AtMost > 0 {
			target = fmt.Sprint(r.AtMost)
			if !r.Met {
				target += ", not met"
			}
		}
		fmt.Fprintf(os.Stderr, "| %s | %.3f | %s |\n", r.What, r.Is, target)
		if err := b.out.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

func of[T int64 | time.Duration](what string, ours, theirs *contender, f func(sample) T, atMost float64) ratio {
	return ratio{What: what, Is: float64(median(ours.runs, f)) / float64(median(theirs.runs, f)), AtMost: atMost}
}

func (b *bench) secrets() error  { return b.remembered("secrets", protocol.Secrets, 0.2, 0.15) }
func (b *bench) licenses() error { return b.remembered("licenses", protocol.Licenses, 0, 0.2) }

// remembered measures a scanner that remembers: at first, and again.
func (b *bench) remembered(what string, scanner protocol.Scanner, atFirst, again float64) error {
	tree, err := b.made("sources")
	if err != nil {
		return err
	}
	memos := filepath.Join(b.dir, "memos")
	if err := os.MkdirAll(memos, 0o700); err != nil {
		return err
	}
	scan := protocol.Scan{Kind: protocol.Filesystem, Target: tree, Scanners: []protocol.Scanner{scanner}}
	theirs := b.trivyOf("fs", tree, b.dir, string(scanner))
	none := b.oursOf("ours, without a memo", scan)
	scan.Memo = filepath.Join(memos, what+"-cold")
	cold := b.oursOf("ours, at first", scan)
	cold.before = func() error { return forget(memos, what+"-cold") }
	scan.Memo = filepath.Join(memos, what+"-warm")
	warm := b.oursOf("ours, again", scan)
	if err := forget(memos, what+"-warm"); err != nil {
		return err
	}
	if _, err := b.run1(warm, false); err != nil { // which makes it remember
		return err
	}
	list := []*contender{theirs, none, cold, warm}
	if err := b.compare(list...); err != nil {
		return err
	}
	if err := b.table(what, list...); err != nil {
		return err
	}
	return b.ratios(of(what+", at first: CPU", cold, theirs, cpu, atFirst), of(what+", without a memo: CPU", none, theirs, cpu, atFirst), of(what+", again: CPU", warm, theirs, cpu, again),
		of(what+", at first: memory, own", cold, theirs, own, 0), of(what+", again: wall", warm, theirs, wall, 0))
}

// forget removes a memo and all that lies beside it.
func forget(dir, name string) error {
	list, err := filepath.Glob(filepath.Join(dir, name+"*"))
	for _, f := range list {
		if err == nil {
			err = os.RemoveAll(f)
		}
	}
	return err
}

func (b *bench) rootfs() error {
	theirs, ours, err := b.systems()
	if err != nil {
		return err
	}
	if err := b.compare(theirs, ours); err != nil {
		return err
	}
	if err := b.table("rootfs, 2,000 packages", theirs, ours); err != nil {
		return err
	}
	return b.ratios(of("rootfs: CPU", ours, theirs, cpu, 1), of("rootfs: memory, all", ours, theirs, rss, 0.7), of("rootfs: memory, own", ours, theirs, own, 0.7), of("rootfs: wall", ours, theirs, wall, 0))
}

func (b *bench) systems() (theirs, ours *contender, err error) {
	tree, err := b.made("system")
	if err != nil {
		return nil, nil, err
	}
	cache, err := b.made("database")
	if err != nil {
		return nil, nil, err
	}
	return b.trivyOf("rootfs", tree, cache, "vuln"),
		b.oursOf("ours", protocol.Scan{Kind: protocol.Rootfs, Target: tree, Scanners: []protocol.Scanner{protocol.Vulnerabilities}, Database: filepath.Join(cache, "db")}), nil
}

// parallel runs eight at once, with the same database and the same memo.
func (b *bench) parallel() error {
	theirs, ours, err := b.systems()
	if err != nil {
		return err
	}
	memos := filepath.Join(b.dir, "memos")
	if err := os.MkdirAll(memos, 0o700); err != nil {
		return err
	}
	ours.request.Memo = filepath.Join(memos, "eight")
	failed := map[string]int{}
	for range b.rounds {
		for _, c := range []*contender{theirs, ours} {
			const at = 8
			var samples [at]sample
			var errs [at]error
			var all sync.WaitGroup
			began := time.Now()
			for i := range at {
				all.Go(func() { samples[i], errs[i] = b.run1(c, false) })
			}
			all.Wait()
			whole := sample{wall: time.Since(began)}
			for i, s := range samples {
				whole.cpu += s.cpu
				whole.rss = max(whole.rss, s.rss)
				whole.own += s.own
				if errs[i] != nil {
					failed[c.name]++
					fmt.Fprintf(os.Stderr, "one of eight: %v\n", errs[i])
				}
			}
			c.runs = append(c.runs, whole)
		}
	}
	if err := b.table("eight at once", theirs, ours); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "\nfailed, of %d each: trivy %d, ours %d (the peak of all is that of the largest, their own is the sum)\n", 8*b.rounds, failed["trivy"], failed["ours"])
	return b.ratios(of("eight at once: CPU", ours, theirs, cpu, 0), of("eight at once: wall", ours, theirs, wall, 0), of("eight at once: memory, own", ours, theirs, own, 0),
		ratio{What: "eight at once: failed of ours", Is: float64(failed["ours"]), AtMost: 1e-9})
}

// start measures what a person waits for before anything is scanned.
func (b *bench) start() error {
	dir, err := os.MkdirTemp(b.dir, "start-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	lines := [][]string{{"version"}, {"scan", "--help"}, {"__complete", "scan", ""}, {"__complete", "scan", "--"}, {"vulndb", "--help"}}
	took := make([][]time.Duration, len(lines))
	const rounds, warmUp = 60, 3
	for round := range rounds + warmUp {
		for i, l := range lines {
			cmd := exec.CommandContext(b.ctx, b.mobileops, l...)
			cmd.Env = append(os.Environ(), "MOBILEOPS_STATE_DIR="+dir+"/state", "MOBILEOPS_LOG_DIR="+dir+"/log", "MOBILEOPS_RUN_DIR="+dir+"/run", "MOBILEOPS_CONFIG=/dev/null")
			began := time.Now()
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%q: %w: %s", l, err, out)
			}
			if round >= warmUp {
				took[i] = append(took[i], time.Since(began))
			}
		}
	}
	var list []ratio
	for i, l := range lines {
		slices.Sort(took[i])
		list = append(list, ratio{What: "mobileops " + strings.Join(l, " ") + ", ms", Is: took[i][rounds/2].Seconds() * 1e3, AtMost: 20})
	}
	return b.ratios(list...)
}
