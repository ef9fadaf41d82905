package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
)

// told is an entry and its content.
type told struct {
	Entry
	content string
}

// readArchive reads all of an archive, and sees that at its end all of the
// input was read.
func readArchive(t testing.TB, data []byte, l Limits) ([]told, error) {
	t.Helper()
	src := bytes.NewReader(data)
	r, err := NewReader(src, l, Rules{})
	if err != nil {
		return nil, err
	}
	all, err := readEntries(t, r)
	if err == nil && src.Len() > 0 {
		t.Errorf("%d bytes of the input were not read", src.Len())
	}
	return all, err
}

// readEntries reads the rest of an archive, and closes it.
func readEntries(t testing.TB, r *Reader) ([]told, error) {
	t.Helper()
	defer r.Close()
	var all []told
	for {
		e, err := r.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		x := told{Entry: *e}
		if e.Body != nil {
			content, err := io.ReadAll(e.Body)
			if err != nil {
				return all, err
			}
			if int64(len(content)) != e.Size {
				t.Errorf("%s: %d bytes of %d", e.Name, len(content), e.Size)
			}
			x.content = string(content)
		}
		x.Body = nil
		all = append(all, x)
	}
}

func codeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Code(fmt.Sprintf("no *Error: %v", err))
}
