package parity

import (
	"path"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// deliberate are the differences that are meant. Each is a heading of
// docs/formats/scan-parity.md, which says why ours is more right.
var deliberate = []struct {
	name string
	is   func(g target, d difference) bool
}{
	{"More than Trivy's JSON says", func(_ target, d difference) bool {
		// Trivy knows the other names of a check, and doesn't print them. Of a licence
		// it knows neither whose it is nor which text it was.
		return d.Trivy == "" && d.Ours != "" &&
			(d.Of == "misconfiguration" && d.Field == "aliases" || d.Of == "licence" && (d.Field == "text" || d.Field == "copyright"))
	}},
	{"Licences that nobody asked for", func(g target, d difference) bool {
		return d.Of == "package" && d.Field == "licenses" && d.Ours == "" && (g.kind == protocol.Rootfs || g.kind == protocol.Image) &&
			!slices.Contains(g.scanners, protocol.Licenses) && (strings.HasSuffix(d.Result, " debian") || strings.HasSuffix(d.Result, " ubuntu"))
	}},
	{"COPYING and NOTICE files", func(_ target, d difference) bool {
		file, _, _ := strings.Cut(d.Key[strings.LastIndex(d.Key, " ")+1:], "\x00")
		return d.Of == "licence" && d.Trivy == "" && d.Field == "" &&
			slices.ContainsFunc([]string{"COPYING", "NOTICE", "COPYRIGHT", "UNLICENSE", "AUTHORS"}, func(n string) bool { return strings.HasPrefix(path.Base(file), n) })
	}},
}

// meant names the difference on the list that this one is, or returns "".
func meant(g target, d difference) string {
	for _, e := range deliberate {
		if e.is(g, d) {
			return e.name
		}
	}
	return ""
}
