//go:build goexperiment.jsonv2

// Command mobileops-scan looks at one target with Trivy, or builds a database for
// it, and reports. mobileops starts it; docs/formats/scan-protocol.md says what the
// two tell each other.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/buildinfo"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/trivy"
)

// patience is how long a scan that was cancelled may take to end. Some of Trivy's
// parsers don't look at their context.
const patience = 800 * time.Millisecond

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Printf("mobileops-scan %s\n%s\n", buildinfo.Get().Version, trivy.Engine)
		return
	}
	if len(os.Args) > 1 {
		fmt.Fprintln(os.Stderr, "mobileops-scan: it is started by mobileops and takes no arguments (see: mobileops scan --help)")
		os.Exit(failure.Usage.Status())
	}
	go keepSmall()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() {
		time.Sleep(patience)
		fmt.Fprintln(os.Stderr, "mobileops-scan: it was interrupted, and ends though a parser is still at work")
		os.Exit(failure.Interrupted.Status())
	})
	os.Exit(serve(ctx, os.Stdin, os.Stdout, os.Stderr))
}
