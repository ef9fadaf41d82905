package state

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
)

// Sound examines the structure of any bbolt file at path by plain reads, and
// returns an error that wraps ErrCorrupt, ErrForeign or an error of the system
// when bbolt cannot be let near it: bbolt follows a damaged page into an
// endless loop as readily as off the end of the file. The content of the
// values is not looked at.
func Sound(ctx context.Context, path string) error {
	f, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	h, err := readHeader(f)
	if err != nil {
		return err
	}
	problems, err := structure(ctx, f, h)
	if err != nil {
		return err
	}
	if len(problems) > 0 {
		return failure.Wrap(failure.Untrustworthy, errors.Join(ErrCorrupt, errors.New(strings.Join(problems, "; "))))
	}
	return nil
}
