package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// mostResults bounds the places that a report has something about.
const mostResults = 1 << 20

var (
	errTooLong = errors.New("it is too long")
	errNothing = errors.New("it wrote nothing")
)

// answer is what the worker wrote on its stdout: a report, or a failure. What may be
// large is read piece by piece, so that its text and its meaning are never both in
// memory as a whole.
type answer struct {
	results     []protocol.Result
	document    string
	rest        map[string]json.RawMessage
	withResults bool
}

// readAnswer reads one JSON object of at most a number of bytes, and nothing behind
// it. Errors tell the offset.
func readAnswer(r io.Reader, most int64) (answer, error) {
	a := answer{rest: map[string]json.RawMessage{}}
	counted := &counted{r: r, left: most}
	dec := json.NewDecoder(counted)
	err := a.read(dec)
	if err == nil {
		var end [1]byte
		for rest := io.MultiReader(dec.Buffered(), counted); ; {
			if _, err = io.ReadFull(rest, end[:]); err != nil {
				break
			}
			if !unicode.IsSpace(rune(end[0])) {
				return a, fmt.Errorf("offset %d: something follows the report", dec.InputOffset())
			}
		}
		if errors.Is(err, io.EOF) {
			return a, nil
		}
	}
	switch {
	case counted.exceeded:
		return a, errTooLong
	case errors.Is(err, io.EOF) && counted.left == most:
		return a, errNothing
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return a, fmt.Errorf("offset %d: %w", dec.InputOffset(), err)
}

func (a *answer) read(dec *json.Decoder) error {
	if err := expect(dec, json.Delim('{')); err != nil {
		return err
	}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return err
		}
		key, _ := token.(string)
		switch key {
		case "results":
			err = a.readResults(dec)
		case "document":
			err = dec.Decode(&a.document)
		default:
			if len(a.rest) >= 1000 {
				return errors.New("it has too many keys")
			}
			var value json.RawMessage
			err = dec.Decode(&value)
			a.rest[key] = value
		}
		if err != nil {
			return fmt.Errorf("%s: %w", visible(key), err)
		}
	}
	return expect(dec, json.Delim('}'))
}

func (a *answer) readResults(dec *json.Decoder) error {
	a.withResults = true
	token, err := dec.Token()
	if err != nil || token == nil { // null: there are none
		return err
	}
	if token != json.Delim('[') {
		return errors.New("it is no list")
	}
	for dec.More() {
		if len(a.results) >= mostResults {
			return fmt.Errorf("it has more than %d entries", mostResults)
		}
		var r protocol.Result
		if err := dec.Decode(&r); err != nil {
			return err
		}
		a.results = append(a.results, r)
	}
	return expect(dec, json.Delim(']'))
}

func expect(dec *json.Decoder, want json.Delim) error {
	token, err := dec.Token()
	if err == nil && token != want {
		err = fmt.Errorf("%q is missing", rune(want))
	}
	return err
}

// fill sets those fields of a report that are not read piece by piece.
func (a *answer) fill(report any) error {
	_, build := report.(*protocol.BuildReport)
	if _, sources := a.rest["sources"]; build && !sources || !build && !a.withResults {
		return errors.New("it is something else")
	}
	text, err := json.Marshal(a.rest)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, report)
}

// failure returns what the worker says went wrong, if it does.
func (a *answer) failure() *protocol.Failure {
	_, status := a.rest["status"]
	_, message := a.rest["message"]
	if !status || !message || a.withResults {
		return nil
	}
	text, err := json.Marshal(a.rest)
	f := new(protocol.Failure)
	if err != nil || json.Unmarshal(text, f) != nil {
		return nil
	}
	return f
}

// counted ends a reader that is too long with an error.
type counted struct {
	r        io.Reader
	left     int64
	exceeded bool
}

func (c *counted) Read(p []byte) (int, error) {
	if c.left <= 0 {
		var more [1]byte
		n, err := c.r.Read(more[:])
		if n == 0 {
			return 0, err
		}
		c.exceeded = true
		return 0, errTooLong
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}
