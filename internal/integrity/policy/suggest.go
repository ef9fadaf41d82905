package policy

import (
	"fmt"

	"github.com/mobileops/mobileops/internal/spelling"
)

// didYouMean returns ` (did you mean "mode"?)` for the nearest known word, or
// nothing when none is near.
func didYouMean(word string, known []string) string {
	if near := spelling.Nearest(word, known); near != "" {
		return fmt.Sprintf(" (did you mean %q?)", near)
	}
	return ""
}
