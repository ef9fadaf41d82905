// Command bundle-tool makes the plugins that come with mobileops: it builds,
// packs and signs those below plugins/, and writes them where package catalogue
// embeds them. "make bundle" runs it.
//
//	bundle-tool -root DIR [-goos linux] [-goarch amd64]
//
// It is signed by the key that the environment variable MOBILEOPS_PLUGIN_KEY
// names, as for mobileops plugin pack --key: a file, pkcs11:… or exec:…. Without
// it, a key is made that signs this bundle and is then forgotten.
//
// When the bundle has what would be made anyway, nothing is written, so that
// the build cache of Go stays valid and a second make takes no time.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/mobileops/mobileops/internal/plugin/catalogue/listing"
	"github.com/mobileops/mobileops/internal/trust"
)

// keyVariable names the key of a release.
const keyVariable = "MOBILEOPS_PLUGIN_KEY"

func main() {
	var j job
	flag.StringVar(&j.root, "root", ".", "directory of the repository")
	flag.StringVar(&j.goos, "goos", runtime.GOOS, "system that the plugins are for")
	flag.StringVar(&j.goarch, "goarch", runtime.GOARCH, "architecture that the plugins are for")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, j, os.Getenv(keyVariable)); err != nil {
		fmt.Fprintln(os.Stderr, "bundle-tool:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, j job, key string) error {
	var err error
	if j.root, err = filepath.Abs(j.root); err != nil {
		return err
	}
	j.names, j.level, j.goTool = listing.Names(), packLevel, "go"
	if tool := os.Getenv("GO"); tool != "" {
		j.goTool = tool
	}
	if key != "" {
		if j.signer, err = trust.OpenSigner(ctx, key, nil); err != nil {
			return fmt.Errorf("%s: %w", keyVariable, err)
		}
	}
	made, err := j.run(ctx)
	if made {
		fmt.Fprintln(os.Stderr, "plugins that come with mobileops:", j.bundleDir())
	}
	return err
}
