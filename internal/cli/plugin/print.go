package plugin

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/ui"
)

// fact is a line of a description: what, and its value.
type fact struct{ what, value string }

// printFacts prints lines with aligned values, and leaves out those without.
func printFacts(s *ui.Streams, facts []fact) error {
	width := 0
	for _, f := range facts {
		if f.value != "" {
			width = max(width, len(f.what))
		}
	}
	theme := s.Theme()
	for _, f := range facts {
		if f.value == "" {
			continue
		}
		if _, err := fmt.Fprintf(s.Out, "%s  %s\n", theme.Heading(fmt.Sprintf("%-*s", width, f.what)), ui.Printable(f.value)); err != nil {
			return err
		}
	}
	return nil
}

// printRecords prints one record a line.
func printRecords[T any](s *ui.Streams, list []T) error {
	lines := s.Lines()
	for _, r := range list {
		if err := lines.Print(r); err != nil {
			return err
		}
	}
	return lines.Flush()
}

// printMany prints a document, or for jsonl its records.
func printMany[T any](s *ui.Streams, doc any, list []T) error {
	if s.Format == ui.JSON {
		return s.Document(doc)
	}
	return printRecords(s, list)
}

// say prints a line of the result, and nothing when it is quiet.
func say(s *ui.Streams, format string, args ...any) error {
	if s.Quiet {
		return nil
	}
	_, err := fmt.Fprintf(s.Out, format+"\n", args...)
	return err
}

// lossless returns the bytes of a path that JSON cannot hold as text.
func lossless(path string) []byte {
	if utf8.ValidString(path) {
		return nil
	}
	return []byte(path)
}

// yes is how tables and descriptions write a boolean.
func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// listed joins words for people: "a, b and c".
func listed(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
	return strings.Join(words, "")
}
