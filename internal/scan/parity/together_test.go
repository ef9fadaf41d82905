package parity

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// TestEightAtOnce runs eight workers with the same database and the same memo. Each
// must find what one alone finds, and none may wait for another until it gives up.
func TestEightAtOnce(t *testing.T) {
	_, hashed := hashedJAR(t)
	workerProgram(t)
	cache := writeDatabase(t, hashed)
	dir := secretTree(t, debianTree(t, t.TempDir()))
	licenseTree(t, dir)
	jarTree(t, dir)
	made := time.Now()
	scan := protocol.Scan{Kind: protocol.Rootfs, Target: dir, Packages: true, Database: filepath.Join(cache, "db"), JavaDatabase: filepath.Join(cache, "java-db"),
		Scanners: []protocol.Scanner{protocol.Vulnerabilities, protocol.Secrets, protocol.Licenses}}
	alone := scanned(t, scan)
	if n := count(alone); !n.least(counts{packages: 8, vulnerabilities: 10, secrets: 10, licenses: 4}) {
		t.Fatalf("one alone finds %+v", n)
	}
	before := snapshot(t, cache)
	scan.Memo = filepath.Join(t.TempDir(), "memo")
	time.Sleep(time.Until(made.Add(2100 * time.Millisecond))) // see TestSameFindings
	for _, what := range []string{"with an empty memo", "with what they remember"} {
		t.Run(what, func(t *testing.T) {
			var wait sync.WaitGroup
			var answers [8]answer
			for i := range answers {
				s := scan
				s.Temp = t.TempDir()
				wait.Go(func() { answers[i] = runWorker(t, patience, s, nil) })
			}
			wait.Wait()
			for i, a := range answers {
				if a.report == nil {
					t.Errorf("number %d ended with %d: %+v\n%s", i, a.status, a.failure, tail(a.stderr))
					continue
				}
				for _, d := range compare(alone, a.report) {
					t.Errorf("number %d finds something else than one alone: %s", i, d)
				}
			}
		})
	}
	if after := snapshot(t, cache); after != before {
		t.Errorf("the database was\n%s\nand is\n%s", before, after)
	}
	if again := scanned(t, scan); again.Stats.Remembered == 0 {
		t.Errorf("nothing is remembered of 16 runs: %+v", again.Stats)
	}
}
