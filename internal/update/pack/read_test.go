package pack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/archive/rawtar"
)

// told is an entry and its content.
type told struct {
	Entry
	content string
}

// readPackage reads all of a package, and sees that at its end all of the
// input was read.
func readPackage(t testing.TB, data []byte, l archive.Limits) (*Manifest, []told, error) {
	t.Helper()
	src := bytes.NewReader(data)
	r, err := NewReader(src, l)
	if err != nil {
		return nil, nil, err
	}
	m, all, err := readEntries(t, r)
	if err == nil && src.Len() > 0 {
		t.Errorf("%d bytes of the input were not read", src.Len())
	}
	return m, all, err
}

// readUnpacked reads an archive that is not packed.
func readUnpacked(t testing.TB, data []byte, l archive.Limits) (*Manifest, []told, error) {
	r, err := newReader(l, func(l archive.Limits, rules archive.Rules) (*archive.Reader, error) {
		return archive.NewUnpacked(data, l, rules), nil
	})
	if err != nil {
		return nil, nil, err
	}
	return readEntries(t, r)
}

// readEntries reads the rest of a package, and closes it.
func readEntries(t testing.TB, r *Reader) (*Manifest, []told, error) {
	t.Helper()
	defer r.Close()
	var all []told
	for {
		e, err := r.Next()
		if err == io.EOF {
			return r.Manifest(), all, nil
		}
		if err != nil {
			return nil, all, err
		}
		x := told{Entry: *e}
		if e.Body != nil {
			content, err := io.ReadAll(e.Body)
			if err != nil {
				return nil, all, err
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

func codeOf(err error) archive.Code {
	var e *archive.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return archive.Code(fmt.Sprintf("no *archive.Error: %v", err))
}

// manifestEntry is a manifest with more lines.
func manifestEntry(lines string) rawtar.Entry {
	return rawtar.Entry{Name: ManifestName, Body: "schema: mobileops.package/v1\n" + lines}
}
