// Package buildinfo says which mobileops this is. A release sets the version
// with -ldflags "-X github.com/mobileops/mobileops/internal/buildinfo.version=1.2.3";
// any other build tells what the Go toolchain recorded about it.
package buildinfo

import (
	"runtime"
	"runtime/debug"
)

var version string // set by the linker

// Info is what is known about this build.
type Info struct {
	Version  string `json:"version"`            // "1.2.3", or "devel"
	Commit   string `json:"commit,omitempty"`   // full commit id
	Modified bool   `json:"modified,omitempty"` // built from a tree with uncommitted changes
	Go       string `json:"go"`                 // "go1.26.0"
	Platform string `json:"platform"`           // "linux/amd64"
}

// Get returns what is known about this build.
func Get() Info {
	info := Info{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if b, ok := debug.ReadBuildInfo(); ok {
		if info.Version == "" && b.Main.Version != "(devel)" {
			info.Version = b.Main.Version
		}
		for _, s := range b.Settings {
			switch s.Key {
			case "vcs.revision":
				info.Commit = s.Value
			case "vcs.modified":
				info.Modified = s.Value == "true"
			}
		}
	}
	if info.Version == "" {
		info.Version = "devel"
	}
	return info
}
