package logs

import (
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
)

// printLines prints each record as a line of JSON.
func printLines[T any](s *ui.Streams, records []T) error {
	lines := s.Lines()
	for _, r := range records {
		if err := lines.Print(r); err != nil {
			return err
		}
	}
	return lines.Flush()
}

// anyOf is the status of a list: 1 when it is empty.
func anyOf(n int, err error) error {
	if err == nil && n == 0 {
		return failure.Silent(failure.No)
	}
	return err
}
