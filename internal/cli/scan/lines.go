package scan

import "github.com/mobileops/mobileops/internal/cli/app"

// printLines prints records as JSON, one a line.
func printLines[T any](a *app.App, list []T) error {
	lines := a.Streams.Lines()
	for i := range list {
		if err := lines.Print(&list[i]); err != nil {
			return err
		}
	}
	return lines.Flush()
}
