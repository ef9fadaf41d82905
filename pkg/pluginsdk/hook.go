package pluginsdk

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
)

// ErrLineTooLong says that a line of a hook's input exceeds MaxLine.
var ErrLineTooLong = fmt.Errorf("a line of more than %d bytes", MaxLine)

// HookEvents reads the input of a hook on findings, audit records or a
// schedule: one event a line, none at all for a schedule. An error, with the number of
// its line, ends it and is the last thing it yields. A hook that ends with
// status 0 has had its events; otherwise they are tried again.
func HookEvents(r io.Reader) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		scanner := bufio.NewScanner(r)
		scanner.Buffer(make([]byte, 0, 4<<10), MaxLine+2)
		for n := 1; scanner.Scan(); n++ {
			line := bytes.TrimSpace(scanner.Bytes())
			if len(line) > MaxLine {
				yield(Event{}, fmt.Errorf("hook input, line %d: %w", n, ErrLineTooLong))
				return
			}
			if len(line) == 0 {
				continue
			}
			var e Event
			if err := json.Unmarshal(line, &e); err != nil {
				yield(Event{}, fmt.Errorf("hook input, line %d: %w", n, err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
		if err := scanner.Err(); err != nil {
			if errors.Is(err, bufio.ErrTooLong) {
				err = ErrLineTooLong
			}
			yield(Event{}, fmt.Errorf("hook input: %w", err))
		}
	}
}

// HookCommand is the input of a hook before or after a command of mobileops.
type HookCommand struct {
	Command string   `json:"command"`          // "update apply"
	Args    []string `json:"args"`             // with secrets redacted
	Status  *int     `json:"status,omitempty"` // exit status; nil before the command
}

// ReadHookCommand reads the input of a hook before or after a command.
func ReadHookCommand(r io.Reader) (HookCommand, error) {
	var h HookCommand
	data, err := io.ReadAll(io.LimitReader(r, MaxLine+1))
	if err != nil {
		return h, fmt.Errorf("hook input: %w", err)
	}
	if len(data) > MaxLine {
		return h, fmt.Errorf("hook input: %w", ErrLineTooLong)
	}
	if err := json.Unmarshal(data, &h); err != nil {
		return h, fmt.Errorf("hook input: %w", err)
	}
	return h, nil
}
