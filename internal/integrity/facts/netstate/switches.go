package netstate

import (
	_ "embed"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/facts"
)

// switchList names the switches of the kernel that are told, one a line.
//
//go:embed switches.txt
var switchList string

// switches tells of sysctl(8)s that decide where packets may go.
func switches(g *gathering) {
	var err error
	meaning(switchList, "#", func(w []string) {
		b, e := os.ReadFile(filepath.Join(g.Proc, "sys", filepath.FromSlash(strings.ReplaceAll(w[0], ".", "/"))))
		switch {
		case errors.Is(e, fs.ErrNotExist): // IPv6 or conntrack is not in this kernel
		case e != nil:
			err = e
		default:
			g.add("sysctl", "sysctl", w[0], facts.Fact{Severity: finding.Medium,
				Attributes: map[string]string{"value": bounded(strings.Join(strings.Fields(string(b)), " "))}})
		}
	})
	if err != nil {
		g.drop("sysctl")
	}
	g.told("sysctl", err, "")
}
