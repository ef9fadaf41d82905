//go:build goexperiment.jsonv2

package license

import (
	"cmp"
	"slices"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// sortNotices makes their order that of their paths, whichever file was done first.
func sortNotices(notices []protocol.Notice) {
	slices.SortFunc(notices, func(a, b protocol.Notice) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Layer, b.Layer))
	})
}
