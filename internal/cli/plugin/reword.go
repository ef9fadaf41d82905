package plugin

import "strings"

// reworded is an error whose hint names the commands about keys of plugins:
// package trust knows those about keys of updates.
type reworded struct {
	err  error
	text string
}

func (e *reworded) Error() string { return e.text }
func (e *reworded) Unwrap() error { return e.err }

// reword changes the hints of an error of package trust, and leaves any other as
// it is, also nil.
func reword(err error) error {
	if err == nil || !strings.Contains(err.Error(), "mobileops update key ") {
		return err
	}
	text := err.Error()
	for _, verb := range []string{"add", "list", "remove"} {
		text = strings.ReplaceAll(text, "mobileops update key "+verb, "mobileops plugin trust "+verb)
	}
	return &reworded{err, text}
}
