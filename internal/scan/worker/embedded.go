//go:build bundled_scan

package worker

import (
	"embed"
	"errors"
	"io/fs"
)

// "make release" puts worker.zst and worker.json there. Without them it is as if
// nothing was embedded, so that the tag alone breaks nothing.
//
//go:embed bundled
var bundled embed.FS

// embedded returns the worker that comes within this mobileops.
func embedded() (*bundle, error) {
	about, err := bundled.ReadFile("bundled/" + AboutName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return readBundle(about, func() (fs.File, error) { return bundled.Open("bundled/" + ArchiveName) })
}
