package scan

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// prefixes are what the ids of assets begin with.
var prefixes = []string{"host", "named", string(protocol.Filesystem), string(protocol.Rootfs), string(protocol.Image), string(protocol.SBOM), string(protocol.Repository)}

// asset is what a target is remembered as. It is the same thing at the next scan,
// although its packages, its commit or its tag are others by then.
//
// The name is what was asked for: a path, the name of an image, this host. What a
// target says of itself is no name, or an archive that calls itself like something
// else would take its place, and with it everything that was found there.
func asset(r *Request) ledger.Asset {
	prefix, name := string(r.Kind), absolute(r.Target)
	switch {
	case r.Asset != "":
		prefix, name = "named", r.Asset
		// What goes on under the name of something that was scanned before.
		if before, rest, ok := strings.Cut(r.Asset, ":"); ok && rest != "" && slices.Contains(prefixes, before) {
			prefix, name = before, rest
		}
	case r.Host && name == "/":
		prefix, name = "host", hostname()
	case r.Remote:
		name = imageName(r.Target)
	}
	return ledger.NewAsset(r.Kind, prefix, name)
}

// hostname is what this host calls itself.
func hostname() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "localhost"
	}
	return name
}

// imageName is the name of an image without tag and digest.
func imageName(reference string) string {
	name, _, _ := strings.Cut(reference, "@")
	// A colon before the last slash is that of a port.
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	return name
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
