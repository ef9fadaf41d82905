//go:build goexperiment.jsonv2

package main

import (
	"os"
	"runtime/debug"
	"slices"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// growth is by how much more than what is alive the heap may grow, in percent, when
// a scan only matches packages: little is alive then, and collecting it often would
// be a fifth of the work. The usual 100 is for scans that read what is in files.
const growth = 200

func tune(r *protocol.Scan) {
	reads := slices.ContainsFunc(r.Scanners, func(s protocol.Scanner) bool { return s != protocol.Vulnerabilities })
	if !reads && os.Getenv("GOGC") == "" {
		debug.SetGCPercent(growth)
	}
}
