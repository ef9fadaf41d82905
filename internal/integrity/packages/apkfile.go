package packages

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// apkFormat reads packages of apk-tools 2, apk-package(5): gzip members one
// after the other, first the signatures if there are any, then the control
// files with .PKGINFO, then the data; each is a part of a tar archive, only the
// last one with the end of it. The format of apk-tools 3 ("ADB") is not
// supported.
func apkFormat() *archiveFormat {
	identify := func(f *os.File) (Package, error) { return identifyAPK(f) }
	return &archiveFormat{".apk", identify, apkFiles}
}

// apkParts reads an .apk member by member.
type apkParts struct {
	in *bufio.Reader
	z  *gzip.Reader
}

func openAPK(r io.Reader) (*apkParts, error) {
	a := &apkParts{in: bufio.NewReaderSize(r, 64<<10)}
	if b, _ := a.in.Peek(3); string(b) == "ADB" {
		return nil, fmt.Errorf("%w: a package of apk-tools 3", ErrUnsupported)
	}
	z, err := gzip.NewReader(a.in)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	a.z = z
	return a, nil
}

// control goes to the control files, past the signatures, calls fn with each
// of them, and then to the beginning of the data.
func (a *apkParts) control(fn func(h *tar.Header, r io.Reader) error) error {
	for part := range 4 {
		t := tar.NewReader(&limitedReader{a.z, maxControl})
		signature := false
		for n := 0; ; n++ {
			h, err := t.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			signature = signature || n == 0 && strings.HasPrefix(h.Name, ".SIGN.")
			if signature {
				continue
			}
			if n == 0 && h.Name != ".PKGINFO" || n > 1000 {
				return errors.New("it has no .PKGINFO where that belongs")
			}
			if err := fn(h, t); err != nil {
				return err
			}
		}
		if _, err := io.Copy(io.Discard, &limitedReader{a.z, maxControl}); err != nil {
			return err
		}
		if err := a.z.Reset(a.in); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if !signature {
			return nil // the rest is the data, in as many members as it likes
		}
		a.z.Multistream(false)
		if part == 3 {
			break
		}
	}
	return errors.New("too many signatures")
}

// errFound ends a search.
var errFound = errors.New("found")

func apkDamaged(err error) error { return damagedPart("gzip and tar", -1, err) }

func identifyAPK(r io.Reader) (Package, error) {
	a, err := openAPK(r)
	if err != nil {
		return Package{}, apkDamaged(err)
	}
	p := Package{Manager: APK}
	err = a.control(func(h *tar.Header, r io.Reader) error {
		text, err := io.ReadAll(io.LimitReader(r, maxSmall))
		if err != nil {
			return err
		}
		for len(text) > 0 {
			var l []byte
			l, text = cutLine(text)
			key, value, _ := strings.Cut(string(l), " = ")
			switch key {
			case "pkgname":
				p.Name = value
			case "pkgver":
				p.Version = value
			case "arch":
				p.Arch = value
			}
		}
		return errFound
	})
	if err == errFound && p.Name != "" && p.Version != "" {
		return p, nil
	}
	if err == nil || err == errFound {
		err = errors.New("its .PKGINFO names no package")
	}
	return Package{}, apkDamaged(err)
}

func apkFiles(ctx context.Context, f *os.File, want archiveWant) error {
	return readAPK(ctx, f, want)
}

func readAPK(ctx context.Context, f io.ReadSeeker, want archiveWant) error {
	found := want.found
	want.found = func(name string, file File) {
		file.Conffile = *file.Mode&0o170000 != 0o040000 && protected([]byte(name))
		found(name, file)
	}
	return apkDamaged(tarFiles(ctx, want, func() (io.Reader, func(), error) {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, nil, err
		}
		a, err := openAPK(f)
		if err == nil {
			err = a.control(func(*tar.Header, io.Reader) error { return nil })
		}
		if err != nil {
			return nil, nil, err
		}
		return &limitedReader{a.z, maxData}, func() {}, nil
	}))
}
