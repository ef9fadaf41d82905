//go:build goexperiment.jsonv2

package trivy

import (
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// hostnameOf returns what the host of a tree calls itself, or "". Whoever made the
// tree may have put a pipe or a device there, which would be waited for.
func hostnameOf(dir string) string {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return ""
	}
	defer root.Close()
	f, err := root.OpenFile("etc/hostname", os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	b, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
